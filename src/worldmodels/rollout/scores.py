"""Returns as figures: mean, spread, standard error, and the table of episodes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from worldmodels.shapes import Returns


def summarise(returns: Returns) -> dict[str, Any]:
    """Return mean, std (ddof 1), standard error, n, min, max, mean length and the seeds' range, over all episodes."""
    total = returns.total.ravel()
    std = float(total.std(ddof=1)) if len(total) > 1 else 0.0
    return {
        "mean": float(total.mean()),
        "std": std,
        "stderr": std / len(total) ** 0.5,
        "n": len(total),
        "min": float(total.min()),
        "max": float(total.max()),
        "mean_length": float(returns.length.mean()),
        "seeds": [int(returns.seeds[0]), int(returns.seeds[-1])],
    }


def episodes_table(returns: Returns, world: str) -> pd.DataFrame:
    """Return one row an episode: world, seed, total, length, terminal. For a single candidate."""
    columns = {"total": returns.total[0], "length": returns.length[0], "terminal": returns.terminal[0]}
    return pd.DataFrame({"world": world, "seed": returns.seeds, **columns})


def join(parts: list[Returns]) -> Returns:
    """Return the episodes of several rollouts of one candidate as one, in the given order."""
    total, length, terminal = (
        np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ("total", "length", "terminal")
    )
    return Returns(total, length, terminal, np.concatenate([part.seeds for part in parts]))


def best_blind(table: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the best policy that does not look, other than the random one; None if there is none."""
    others = [row for row in table if row["policy"] != "random"]
    return dict(max(others, key=lambda row: row["mean"])) if others else None


def steps_learned(curve: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many steps a search learned from in the ``dream`` and in the ``game``; ``curve``: the rows of controller.csv.

    >>> steps_learned([{"phase": "search", "world": "dream", "steps": 7}, {"phase": "selection", "world": "", "steps": ""}])
    {'dream': 7, 'game': 0}
    """
    return {world: sum(int(row["steps"]) for row in curve if row["world"] == world) for world in ("dream", "game")}
