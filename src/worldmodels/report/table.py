"""The table of scores: what an iteration dreamt, what it lived, and what a random policy gets."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from worldmodels.games.make import references
from worldmodels.storage.files import read_json
from worldmodels.storage.layout import Iteration, damaged

if TYPE_CHECKING:
    import pandas as pd

HEADINGS = (
    "environment", "iteration", "dream", "real ± std. error", "n", "random ± std. error", "best blind", "paper", "rules",
)  # fmt: skip


def score_table(scores: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """Return one row for every ``scores.json``, in the order of environments first seen, then iterations.

    Columns: key, environment, iteration, real, real_std, real_stderr, n, dream, dream_stderr, gap, random,
    random_stderr, random_n, blind_policy, blind, blind_stderr, temperature, rules, backend, preset. The dream's columns are NaN
    where M cannot dream, those of the best blind policy where none was played.
    """
    import pandas as pd

    order = list(dict.fromkeys(score["environment"] for score in scores))
    ranked = sorted(scores, key=lambda score: (order.index(score["environment"]), score["iteration"]))
    return pd.DataFrame([_row(score) for score in ranked], columns=list(_COLUMNS))


def cells(scores: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the table as text cells under ``HEADINGS``, one row an iteration."""
    import pandas as pd

    return [
        (
            row["environment"],
            str(row["iteration"]),
            "-" if pd.isna(row["dream"]) else with_error(row["dream"], row["dream_stderr"]),
            with_error(row["real"], row["real_stderr"]),
            str(row["n"]),
            with_error(row["random"], row["random_stderr"]),
            with_error(row["blind"], row["blind_stderr"]) if row["blind_policy"] else "-",
            _paper(row["rules"]),
            row["rules"],
        )
        for row in score_table(scores).to_dict("records")
    ]


def render(scores: Sequence[Mapping[str, Any]]) -> str:
    """Return the table as text that stays aligned in a terminal, a log and a commit message."""
    return align([HEADINGS, *cells(scores)], right=(1, 2, 3, 4, 5, 6, 7))


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
    """Return a mean and its standard error, with a decimal only where the error is small enough to carry it.

    >>> with_error(838.62, 52.6), with_error(-32.31, 1.94)
    ('839 ± 53', '-32.3 ± 1.9')
    """
    known = not math.isnan(error)
    digits = 0 if abs(error if known else value) >= 10 else 1
    return f"{value:.{digits}f} ± " + (f"{error:.{digits}f}" if known else "?")


_NEEDED = (
    "key", "environment", "iteration", "preset", "rules", "backend", "temperature", "real", "dream", "baseline", "blind", "gap",
)  # fmt: skip


def read_scores(files: Iteration, needed: Sequence[str] = _NEEDED) -> dict[str, Any]:
    """Return the ``scores.json`` of an iteration, or the ``trial.json`` of a trial; ``needed``: what must be in it.

    Raises:
        ArtifactError: where it is missing or damaged, with the command that makes it.
    """
    score = read_json(files.scores)
    missing = [name for name in needed if not isinstance(score, dict) or name not in score]
    if missing:
        raise damaged(files.scores, f"it lacks {', '.join(missing)}")
    return dict(score)


_COLUMNS = (
    "key", "environment", "iteration", "real", "real_std", "real_stderr", "n", "dream", "dream_stderr", "gap", "random",
    "random_stderr", "random_n", "blind_policy", "blind", "blind_stderr", "temperature", "rules", "backend", "preset",
)  # fmt: skip


def _row(score: Mapping[str, Any]) -> dict[str, Any]:
    nan = float("nan")
    real, dream, baseline = score["real"], score["dream"] or {}, score["baseline"]
    blind = score["blind"] or {}
    return {
        "key": score["key"],
        "environment": score["environment"],
        "iteration": score["iteration"],
        "real": real["mean"],
        "real_std": _number(real["std"]),
        "real_stderr": _number(real["stderr"]),
        "n": real["n"],
        "dream": dream.get("mean", nan),
        "dream_stderr": _number(dream.get("stderr")),
        "gap": _number(score["gap"]),
        "random": baseline["mean"],
        "random_stderr": _number(baseline["stderr"]),
        "random_n": baseline["n"],
        "blind_policy": blind.get("policy", ""),
        "blind": blind.get("mean", nan),
        "blind_stderr": _number(blind.get("stderr")),
        "temperature": score["temperature"],
        "rules": score["rules"],
        "backend": score["backend"],
        "preset": score["preset"],
    }


def _paper(rules: str) -> str:
    """Return the paper's score by these rules."""
    found = references(rules)
    return with_error(found[0].mean, found[0].std / found[0].n ** 0.5) if found else "-"


def _number(value: float | None) -> float:
    """One episode has no spread: its null becomes NaN."""
    return float("nan") if value is None else float(value)
