"""The table of scores: what every agent got in the game and in its dream, beside random play, blind play and the paper."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worldmodels.games.make import references
from worldmodels.storage.files import form, read_json

HEADINGS = (
    "agent", "world model", "controller", "seed", "study", "dream", "real ± std. error", "n", "random", "best blind", "paper",
)  # fmt: skip
NO_STUDY = "none"
"""``study`` of an agent that is part of the chain."""


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


def cells(scores: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return text cells under ``HEADINGS``, one row an agent: by environment in the order first seen, then as given."""
    order = list(dict.fromkeys(score["environment"] for score in scores))
    return [
        (
            score["key"],
            score["world_model"],
            score["controller"],
            str(score["controller_seed"]),
            "-" if score["study"] == NO_STUDY else score["study"],
            score_text(score["dream"]),
            score_text(score["real"]),
            str(score["real"]["n"]),
            score_text(score["random"]),
            score_text(score["blind"]),
            score_text(paper(score)),
        )
        for score in sorted(scores, key=lambda score: order.index(score["environment"]))
    ]


def render(scores: Sequence[Mapping[str, Any]]) -> str:
    """Return the table as text that stays aligned in a terminal, a log and a commit message."""
    return align([HEADINGS, *cells(scores)], right=range(HEADINGS.index("dream"), len(HEADINGS)))


def align(lines: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return rows of cells as text columns with a rule below the first row; ``right``: columns set flush right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = [">" if column in right else "<" for column in range(len(widths))]

    def text(line: Sequence[str]) -> str:
        return "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)).rstrip()

    return "\n".join([text(lines[0]), "  ".join("-" * width for width in widths), *map(text, lines[1:])])


def with_error(value: float, error: float) -> str:
    """Return a mean and its standard error, with a decimal only if the error is small enough to carry it.

    >>> with_error(1185.5, 46.6), with_error(-32.31, 1.94), with_error(820, math.nan)
    ('1,186 ± 47', '-32.3 ± 1.9', '820 ± ?')
    """
    known = not math.isnan(error)
    digits = 0 if abs(error if known else value) >= 10 else 1
    return f"{value:,.{digits}f} ± " + (f"{error:.{digits}f}" if known else "?")


def score_text(summary: Mapping[str, Any] | None) -> str:
    """Return the ``mean`` and ``stderr`` of a summary as text, ``-`` for none."""
    return "-" if summary is None else with_error(summary["mean"], summary["stderr"])


def paper(score: Mapping[str, Any]) -> dict[str, float] | None:
    """Return ``mean`` and ``stderr`` of the paper's agent under the rules of a score; None if it has none."""
    found = references(score["rules"])
    return {"mean": found[0].mean, "stderr": found[0].std / found[0].n ** 0.5} if found else None
