"""The metrics of a stage. Live runs and rebuilt ones take their names from here, so that they are the same."""

import csv
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from worldmodels.storage.files import read_json

Point = tuple[dict[str, float], int, int]
"""Metrics, their step, and the time in ms."""

CONSTANTS = ("temperature", "seed", "controller_seed")
"""Numbers beside scores that are settings, no results."""


def metrics_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a row of a curve. Its first value is the step, its second names a split or a phase.

    >>> metrics_of({"update": 4, "split": "train", "loss": 2.5})
    {'train/loss': 2.5}
    >>> metrics_of({"generation": 0, "phase": "search", "world": "dream", "mean": 7.0, "sigma": ""})
    {'search/mean': 7.0}
    """
    _, part, *names = row
    return {f"{tidy(row[part])}/{tidy(name)}": float(row[name]) for name in names if _is_number(row[name])}


def step_of(row: Mapping[str, Any]) -> int:
    """Return the step of a row of a curve."""
    return int(next(iter(row.values())))


def points(path: Path) -> list[Point]:
    """Return the metrics in a curve (.csv), in a calibration (.csv) or in a summary (.json).

    A calibration gives for every policy by how much its score in the dream is above the score in the game. A summary gives its
    numbers, those of nested mappings as ``real/mean``; lists, texts, truth values and ``CONSTANTS`` are left out.

    Raises:
        ArtifactError: the summary is no JSON.
    """
    now = int(time.time() * 1000)
    if path.suffix != ".csv":
        return [(figures(read_json(path)), 0, now)]
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{name: _parsed(text) for name, text in row.items()} for row in csv.DictReader(file)]
    if rows and "policy" in rows[0]:
        found = {f"excess/{tidy(row['policy'])}": float(row["excess"]) for row in rows if _is_number(row["excess"])}
        return [(found, 0, now)]
    # Times in the order of the curve: MLflow takes the latest as the last.
    return [(metrics_of(row), step_of(row), now + i) for i, row in enumerate(rows)]


def figures(summary: Any) -> dict[str, float]:
    """Return the numbers of a summary.

    >>> figures({"key": "doom-1", "seed": 3, "real": {"mean": 7.5, "seeds": [0, 9]}, "dream": None, "gap": 1})
    {'real/mean': 7.5, 'gap': 1.0}
    """
    return dict(_numbers(summary, ""))


def _numbers(node: Any, prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in node.items() if isinstance(node, dict) else ():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{tidy(name)}/")
        elif _is_number(value) and name not in CONSTANTS:
            yield f"{prefix}{tidy(name)}", float(value)


def tidy(name: Any) -> str:
    """Return a part of a name without what MLflow does not take in names.

    >>> tidy("random, walk 0"), tidy("a/b"), tidy("..")
    ('random walk 0', 'a_b', '_')
    """
    plain = re.sub(r"[^\w.: -]", "", str(name).replace("/", "_"), flags=re.ASCII).strip()
    return plain if plain.strip(".") else "_"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _parsed(text: str) -> float | str:
    try:
        return float(text)
    except (TypeError, ValueError):
        return text
