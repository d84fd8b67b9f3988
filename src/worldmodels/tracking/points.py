"""The metrics of a stage. Live runs and rebuilt ones take their names from here, so that they are the same."""

import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodels.storage.files import read_curve, read_json

Point = tuple[Mapping[str, float], int, int]
"""Metrics, their step, and the time in ms."""

CONSTANTS = ("temperature", "seed", "controller_seed")
"""Numbers beside scores that are settings, no results."""


def point_of(row: Mapping[str, Any], milliseconds: int) -> Point:
    """Return the metrics of a row of a curve. Its first value is the step, its second names a split or a phase.

    >>> point_of({"update": 4, "split": "train", "loss": 2.5}, 0)
    ({'train/loss': 2.5}, 4, 0)
    >>> point_of({"generation": 0, "phase": "search", "world": "dream", "mean": "7.0", "sigma": ""}, 0)
    ({'search/mean': 7.0}, 0, 0)
    """
    step, part, *names = row
    numbers = {f"{tidy(row[part])}/{tidy(name)}": _number(row[name]) for name in names}
    return {name: value for name, value in numbers.items() if value is not None}, int(row[step]), milliseconds


def points(path: Path) -> list[Point]:
    """Return the metrics in a curve (.csv), in a calibration (.csv) or in a summary (.json).

    A calibration gives for every policy by how much its score in the dream is above the score in the game.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    now = int(time.time() * 1000)
    if path.suffix != ".csv":
        return [(figures(read_json(path)), 0, now)]
    rows: list[Any] = read_curve(path).to_dict("records")
    if rows and "policy" in rows[0]:
        found = {f"excess/{tidy(row['policy'])}": _number(row["excess"]) for row in rows}
        return [({name: value for name, value in found.items() if value is not None}, 0, now)]
    # Times in the order of the curve: MLflow takes the latest as the last.
    return [point_of(row, now + i) for i, row in enumerate(rows)]


def figures(summary: Any, prefix: str = "") -> dict[str, float]:
    """Return the numbers of a summary and of mappings in it, without ``CONSTANTS``.

    >>> figures({"key": "doom-1", "seed": 3, "real": {"mean": 7.5, "seeds": [0, 9]}, "dream": None, "gap": 1})
    {'real/mean': 7.5, 'gap': 1.0}
    """
    found: dict[str, float] = {}
    for name, value in summary.items() if isinstance(summary, dict) else ():
        if isinstance(value, dict):
            found |= figures(value, f"{prefix}{tidy(name)}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and name not in CONSTANTS:
            found[f"{prefix}{tidy(name)}"] = float(value)
    return found


def tidy(name: Any) -> str:
    """Return a part of a name without what MLflow does not take in names.

    >>> tidy("random, walk 0"), tidy("a/b"), tidy("..")
    ('random walk 0', 'a_b', '_')
    """
    plain = re.sub(r"[^\w.: -]", "", str(name).replace("/", "_"), flags=re.ASCII).strip()
    return plain if plain.strip(".") else "_"


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else number
