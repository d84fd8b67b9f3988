"""The metrics of a stage. Live runs and rebuilt ones take their names from here, so that they are the same.

MLflow shows them by what stands before the slash, in the order of letters: Agent, C, M, V, data. What is set, not found, is a
parameter or a tag.
"""

import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodels.storage.files import read_curve, read_json

Point = tuple[Mapping[str, float], int, int]
"""Metrics, their step, and the time in ms."""

LETTERS = {"vision": "V", "memory": "M", "controller": "C"}
"""Stage with a curve, the name of its file -> what learns."""
CONSTANTS = ("steps", "episodes", "ended")
"""Columns of C's curve that count what was played: no results."""
TEST = "test"
"""``block`` of scores that agents may be compared by and released for."""


def point_of(stage: str, row: Mapping[str, Any], milliseconds: int) -> Point:
    """Return the metrics of a row of a curve. Its first value is the step, its second names a split or a phase.

    What is the same has the same name in all runs of the game, whatever the phases of C are called.

    >>> point_of("vision", {"update": 4, "split": "train", "loss": 2.5}, 0)
    ({'V/loss': 2.5}, 4, 0)
    >>> point_of("memory", {"update": 4, "split": "validation", "loss": 2.5}, 0)
    ({'M/validation_loss': 2.5}, 4, 0)
    >>> point_of("controller", {"generation": 0, "phase": "search", "world": "dream", "mean": "7.0", "sigma": ""}, 0)
    ({'C/dream_return': 7.0}, 0, 0)
    >>> point_of("controller", {"generation": 0, "phase": "selection", "mean": 6.0, "episodes": 48}, 0)
    ({'C/selection_return': 6.0}, 0, 0)
    """
    step, part, *names = row
    where = str(row[part] if row[part] in ("train", "validation", "selection") else row["world"])
    prefix = f"{LETTERS[stage]}/" + ("" if where == "train" else f"{tidy(where)}_")
    numbers = {f"{prefix}{'return' if name == 'mean' else tidy(name)}": _number(row[name]) for name in names}
    kept = {f"{prefix}{name}" for name in CONSTANTS}
    return (
        {name: value for name, value in numbers.items() if value is not None and name not in kept},
        int(row[step]),
        milliseconds,
    )


def points(path: Path) -> list[Point]:
    """Return the metrics in a curve (.csv), in a calibration (.csv), or in what was collected or scored (.json).

    A calibration says by how much scores in the dream are above scores in the game.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    now = int(time.time() * 1000)
    if path.suffix != ".csv":
        found = read_json(path)
        told = ("mean_return", "mean_length", "episodes", "frames")
        data = {f"data/{name.removeprefix('mean_')}": float(found[name]) for name in told if found.get(name) is not None}
        data |= {f"data/{name}": float(share) for name, share in found.get("coverage", {}).items()}
        return [(scores_of(found) if "real" in found else data, 0, now)]
    rows: list[Any] = read_curve(path).to_dict("records")
    if path.stem not in LETTERS:
        excess = [number for row in rows if (number := _number(row.get("excess"))) is not None]
        return [({"M/dream_excess": sum(excess) / len(excess), "M/dream_excess_max": max(excess)} if excess else {}, 0, now)]
    # Times in the order of the curve: MLflow takes the latest as the last.
    return [point_of(path.stem, row, now + i) for i, row in enumerate(rows)]


def scores_of(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of an agent or of a random policy. Scores on other episodes than the test's have other names.

    >>> scores_of({"real": {"mean": 7.5, "stderr": 1, "n": 4}, "dream": {"mean": 9}, "gap": 1.5})
    {'Agent/score': 7.5, 'Agent/error': 1.0, 'Agent/dream': 9.0, 'Agent/gap': 1.5}
    >>> scores_of({"real": {"mean": 7.5, "stderr": 1}, "block": "development"})
    {'Agent on development/score': 7.5, 'Agent on development/error': 1.0}
    """
    block, real, dream = found.get("block", TEST), found["real"], found.get("dream") or {}
    named = {
        "score": real["mean"],
        "error": real["stderr"],
        "dream": dream.get("mean"),
        "gap": found.get("gap"),
        **found.get("coverage", {}),
    }
    prefix = "Agent/" if block == TEST else f"Agent on {tidy(block)}/"
    return {f"{prefix}{name}": float(value) for name, value in named.items() if value is not None}


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
