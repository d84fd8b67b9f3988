"""The table of scores: what every agent got in the game and in its dream, beside random play, blind play and the paper."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from worldmodels.games.make import references
from worldmodels.params import explain
from worldmodels.storage.files import read_json
from worldmodels.storage.layout import AgentFiles, damaged

if TYPE_CHECKING:
    import pandas as pd

HEADINGS = (
    "agent", "world model", "controller", "seed", "study", "dream", "real ± std. error", "n", "random", "best blind", "paper",
)  # fmt: skip
_RIGHT = tuple(range(HEADINGS.index("dream"), len(HEADINGS)))
NO_STUDY = "none"
"""``study`` of an agent that is part of the chain."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Mean(_Part):
    mean: float
    stderr: float
    n: int


class _Summary(_Mean):
    std: float
    min: float
    max: float


class _Dream(_Summary):
    temperature: float


class _Blind(_Mean):
    policy: str


class _Steps(_Part):
    dream: int
    game: int


class _AgentScores(_Part):
    """What must be in the ``metrics/<key>.json`` of an agent. More may be."""

    key: str
    environment: str
    world_model: str
    controller: str
    study: str
    preset: str
    seed: int
    controller_seed: int
    rules: str
    backend: str
    block: str
    parameters: int
    steps: _Steps
    real: _Summary
    dream: _Dream | None
    random: _Summary
    blind: _Blind | None
    gap: float | None


def read_scores(where: AgentFiles | Path) -> dict[str, Any]:
    """Return the scores of an agent, checked: they hold all that the tables and the report show.

    Args:
        where: the agent, or the path of its ``metrics/<key>.json``.

    Raises:
        ArtifactError: the file is missing, or something in it is missing or wrong; the message names the command that makes it.
    """
    path = where.scores if isinstance(where, AgentFiles) else where
    scores = read_json(path)
    try:
        _AgentScores.model_validate(scores)
    except ValidationError as error:
        raise damaged(path, " ".join(explain(error, scores))) from None
    return dict(scores)


def score_table(scores: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """Return one row an agent: by environment in the order first seen, then in the order given.

    Columns: key, environment, world_model, controller, controller_seed, study, real, real_std, real_stderr, n, dream,
    dream_stderr, temperature, gap, random, random_stderr, random_n, blind_policy, blind, blind_stderr, dream_steps, game_steps,
    parameters, rules, backend, block, preset, seed. The dream's columns are NaN if no dream was played, those of the best
    policy that does not look if there is none.
    """
    import pandas as pd

    return pd.DataFrame([_row(score) for score in _ranked(scores)], columns=list(_COLUMNS))


def cells(scores: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the table as text cells under ``HEADINGS``, one row an agent, in the order of ``score_table``."""
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
        for score in _ranked(scores)
    ]


def render(scores: Sequence[Mapping[str, Any]]) -> str:
    """Return the table as text that stays aligned in a terminal, a log and a commit message."""
    return align([HEADINGS, *cells(scores)], right=_RIGHT)


def align(lines: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return rows of cells as text columns with a rule below the first row; ``right``: columns set flush right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]

    def text(line: Sequence[str]) -> str:
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join([text(lines[0]), "  ".join("-" * width for width in widths), *map(text, lines[1:])])


def with_error(value: float, error: float) -> str:
    """Return a mean and its standard error, with a decimal only if the error is small enough to carry it.

    >>> with_error(838.62, 52.6), with_error(-32.31, 1.94)
    ('839 ± 53', '-32.3 ± 1.9')
    """
    known = not math.isnan(error)
    digits = 0 if abs(error if known else value) >= 10 else 1
    return f"{value:.{digits}f} ± " + (f"{error:.{digits}f}" if known else "?")


def score_text(summary: Mapping[str, Any] | None) -> str:
    """Return the ``mean`` and ``stderr`` of a summary as text, ``-`` for none."""
    return "-" if summary is None else with_error(summary["mean"], summary["stderr"])


def paper(score: Mapping[str, Any]) -> dict[str, float] | None:
    """Return ``mean`` and ``stderr`` of the paper's agent under the rules of a score; None if it has none."""
    found = references(score["rules"])
    return {"mean": found[0].mean, "stderr": found[0].std / found[0].n ** 0.5} if found else None


_COLUMNS = (
    "key", "environment", "world_model", "controller", "controller_seed", "study", "real", "real_std", "real_stderr", "n",
    "dream", "dream_stderr", "temperature", "gap", "random", "random_stderr", "random_n", "blind_policy", "blind",
    "blind_stderr", "dream_steps", "game_steps", "parameters", "rules", "backend", "block", "preset", "seed",
)  # fmt: skip


def _ranked(scores: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    order = list(dict.fromkeys(score["environment"] for score in scores))
    return sorted(scores, key=lambda score: order.index(score["environment"]))


def _row(score: Mapping[str, Any]) -> dict[str, Any]:
    real, random, dream = score["real"], score["random"], score["dream"] or {}
    return {
        **{name: score[name] for name in _COLUMNS if name in score},
        "real": real["mean"],
        "real_std": real["std"],
        "real_stderr": real["stderr"],
        "n": real["n"],
        "dream": dream.get("mean"),
        "dream_stderr": dream.get("stderr"),
        "temperature": dream.get("temperature"),
        "random": random["mean"],
        "random_stderr": random["stderr"],
        "random_n": random["n"],
        "blind_policy": (score["blind"] or {}).get("policy", ""),
        "blind": (score["blind"] or {}).get("mean"),
        "blind_stderr": (score["blind"] or {}).get("stderr"),
        "dream_steps": score["steps"]["dream"],
        "game_steps": score["steps"]["game"],
    }
