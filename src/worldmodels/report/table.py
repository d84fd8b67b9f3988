"""The tables of scores: what every agent of a game got, in the game and in its dream, below what others got."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from worldmodels.games.make import reference
from worldmodels.storage.files import form, read_json
from worldmodels.storage.layout import NO_STUDY

GAMES = {"take_cover": "Take Cover", "carracing": "CarRacing", "my_way_home": "My Way Home"}
"""Games as people call them, by the names of their scenarios. A game that is not here stands under its own name."""


_MEAN = {"mean": float, "stderr": float, "n": int}
_SUMMARY = {**_MEAN, "std": float, "min": float, "max": float}
_RANDOM = {
    **dict.fromkeys(("key", "environment", "preset", "rules", "backend"), str),
    "real": form(_SUMMARY),
    "blind": form({**_MEAN, "policy": str}) | None,
}
"""What must be in the ``metrics/<key>.json`` of a random policy."""
_AGENT = {
    **_RANDOM,
    **dict.fromkeys(("world_model", "controller", "study", "block"), str),
    **dict.fromkeys(("seed", "controller_seed", "parameters"), int),
    "steps": form({"dream": int, "game": int}),
    "selection": form({**_MEAN, "contestants": int}) | None,
    "dream": form({**_SUMMARY, "temperature": float}) | None,
    "random": form(_SUMMARY),
    "gap": float | None,
}


def read_scores(path: Path) -> dict[str, Any]:
    """Return the scores of an agent or of a random policy; ArtifactError if what a table or the report shows is not there."""
    return dict(read_json(path, form(_RANDOM if path.stem.endswith("-0") else _AGENT)))


class Rival(NamedTuple):
    """A score on a game, beside others on the same game."""

    name: str  # who has it
    kind: str  # ``random``, ``blind``, ``paper`` or ``agent``
    mean: float  # mean return
    stderr: float  # its standard error
    n: int  # episodes


def rivals(score: Mapping[str, Any]) -> list[Rival]:
    """Return what an agent stands beside: random play, the best policy that does not look, the paper's agent, itself.

    What there is not is left out.
    """
    found = [("random play", "random", score["random"])]
    if score["blind"]:
        found.append((f"best blind policy ({score['blind']['policy']})", "blind", score["blind"]))
    if theirs := paper(score):
        found.append(("the paper's agent", "paper", theirs))
    found.append((score["key"], "agent", score["real"]))
    return [Rival(name, kind, each["mean"], each["stderr"], each["n"]) for name, kind, each in found]


def paper(score: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return mean, standard error and n of the paper's agent under the same rules; None if it has none."""
    published = reference(score["rules"])
    return {**published._asdict(), "stderr": published.std / published.n**0.5} if published else None


def others(scores: Sequence[Mapping[str, Any]]) -> list[Rival]:
    """Return what all agents of one game stand beside."""
    return rivals(max(scores, key=lambda score: (score["blind"] or score["random"])["mean"]))[:-1]


def game_name(rules: str) -> str:
    """Return what the ledger calls the game with these rules.

    >>> game_name("takecover-skill4-limit2100"), game_name("carracing-v3-limit1000"), game_name("pendulum-limit200")
    ('take_cover', 'carracing', 'pendulum')
    """
    name = rules.partition("-")[0]
    return next((game for game in GAMES if game.replace("_", "") == name), name)


def title(rules: str) -> str:
    """Return what people call the game with these rules.

    >>> title("takecover-skill4-limit2100"), title("mywayhome-limit2100-f3f517f6")
    ('Take Cover', 'My Way Home')
    """
    return GAMES.get(game_name(rules), game_name(rules))


def by_game(scores: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return scores game by game, in the order first seen. Scores under the same rules are of one game."""
    games: dict[str, list[Mapping[str, Any]]] = {}
    for score in scores:
        games.setdefault(score["rules"], []).append(score)
    return list(games.values())


def table(scores: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the scores of one game as cells: a line of heads, what agents stand beside, and an agent a line, as given."""
    studied = any(score["study"] != NO_STUDY for score in scores)

    def line(name: str, model: str, controller: str, study: str, *numbers: str) -> tuple[str, ...]:
        return (name, model, controller, *([study] if studied else []), *numbers)

    lines = [line(title(scores[0]["rules"]), "world model", "controller", "study", "in its dream", "in the game", "n")]
    lines += [line(each.name, "", "", "", "", with_error(each.mean, each.stderr), str(each.n)) for each in others(scores)]
    for score in scores:
        controller = score["controller"] + (f", seed {score['controller_seed']}" if score["controller_seed"] else "")
        study = "" if score["study"] == NO_STUDY else score["study"]
        numbers = score_text(score["dream"]), score_text(score["real"]), str(score["real"]["n"])
        lines.append(line(score["key"], score["world_model"], controller, study, *numbers))
    return lines


def render(scores: Sequence[Mapping[str, Any]]) -> str:
    """Return a table for each game, as text that stays aligned in a terminal, a log and a commit message."""
    tables = [table(own) for own in by_game(scores)]
    return "\n\n".join(align(lines, right=range(len(lines[0]) - 3, len(lines[0]))) for lines in tables)


def align(lines: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return rows of cells as text columns with a rule below the first row; ``right``: columns set flush right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = [">" if column in right else "<" for column in range(len(widths))]

    def text(line: Sequence[str]) -> str:
        return "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)).rstrip()

    return "\n".join([text(lines[0]), "  ".join("-" * width for width in widths), *map(text, lines[1:])])


def markdown(lines: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return rows of cells as a table in Markdown, the first row as its heads; ``right``: columns set flush right."""
    rule = ["---:" if column in right else "---" for column in range(len(lines[0]))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (lines[0], rule, *lines[1:]))


def with_error(value: float, error: float) -> str:
    """Return a mean and its standard error, with as many decimals as the error can carry, four at most.

    >>> with_error(1185.5, 46.6), with_error(-32.31, 1.94), with_error(5.0, math.nan), with_error(0.314, 0.046)
    ('1,186 ± 47', '-32.3 ± 1.9', '5.0 ± ?', '0.31 ± 0.05')
    """
    known = not math.isnan(error)
    size = abs(error if known else value) or min(1.0, abs(value))  # without an error, of a small value
    digits = 0 if size >= 10 else min(4, max(1, math.ceil(-math.log10(size)))) if size else 1
    return f"{value:,.{digits}f} ± " + (f"{error:.{digits}f}" if known else "?")


def score_text(summary: Mapping[str, Any] | None) -> str:
    """Return the ``mean`` and ``stderr`` of a summary as text, ``-`` for none."""
    return "-" if summary is None else with_error(summary["mean"], summary["stderr"])
