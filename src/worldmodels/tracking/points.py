"""What a stage left on disk, as the metrics that it logs live."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodels.storage.files import read_json

Point = tuple[dict[str, float], int, int]
"""Metrics, their step, and the time in ms."""

SUMMARY = ("mean", "std", "stderr", "n")
DATA = ("episodes", "frames", "mean_return", "mean_length")


def points(stage: str, path: Path) -> list[Point]:
    """Return the metrics in a stage's curve (.csv) or summary (.json)."""
    now = int(time.time() * 1000)
    if path.suffix == ".csv":
        import pandas as pd

        rows = pd.read_csv(path)
        if stage == "calibrate":
            return [({f"excess/{row['policy']}": row["excess"] for row in rows.to_dict("records")}, 0, now)]
        step, split, *names = rows.columns
        # Times in the order of the curve: MLflow takes the latest as the last.
        return [
            ({f"{row[split]}/{name}": row[name] for name in names}, int(row[step]), now + i)
            for i, row in enumerate(rows.to_dict("records"))
        ]
    content = read_json(path)
    if stage == "evaluate":
        return [(score_metrics(content), 0, now)]
    if stage == "trial":
        return [({f"real/{name}": content["real"][name] for name in SUMMARY}, 0, now)]
    if stage == "initialise":
        return [({f"baseline/{name}": content[name] for name in SUMMARY}, 0, now)]
    return [({name: content[name] for name in DATA}, 0, now)]


def score_metrics(scores: Mapping[str, Any]) -> dict[str, float]:
    """Return what scores.json says as metrics: ``real/mean``, ..., and the gap between dream and reality."""
    worlds = [world for world in ("real", "dream", "baseline") if scores[world]]
    values = {f"{world}/{name}": scores[world][name] for world in worlds for name in SUMMARY}
    return values | ({} if scores["gap"] is None else {"gap": scores["gap"]})
