"""Returns as figures: mean, spread, standard error, and the table of episodes."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from worldmodels.shapes import Returns
from worldmodels.storage.files import read_table
from worldmodels.storage.layout import damaged


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


def read_blind(path: Path, policies: Iterable[str] = ("random",)) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """Return the table of blind policies' episodes, and policy -> summary; ArtifactError if it lacks one or is damaged."""
    table = read_table(path, ("world", "seed", "total", "length", "terminal"))
    if missing := set(policies) - set(table["world"]):
        raise damaged(path, f"it lacks the policy {min(missing)}")
    found = {}
    for name, rows in table.groupby("world", sort=False):
        total, length, terminal = (rows[field].to_numpy()[None] for field in ("total", "length", "terminal"))
        found[str(name)] = summarise(Returns(total, length, terminal, rows["seed"].to_numpy()))
    return table, found


def join(parts: list[Returns]) -> Returns:
    """Return the episodes of several rollouts of one candidate as one, in the given order."""
    total, length, terminal = (
        np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ("total", "length", "terminal")
    )
    cells = [part.visited for part in parts if part.visited is not None]
    visited = np.concatenate(cells, axis=1) if len(cells) == len(parts) else None
    return Returns(total, length, terminal, np.concatenate([part.seeds for part in parts]), visited)


def best_blind(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the best policy that does not look, other than the random one; None if there is none."""
    others = {name: each["mean"] for name, each in scores.items() if name != "random"}
    best = max(others, key=lambda name: others[name], default="")
    return {"policy": best, **{field: scores[best][field] for field in ("mean", "std", "stderr", "n")}} if best else None


def choice(curve: pd.DataFrame) -> dict[str, Any] | None:
    """Return the score by which the C that is kept was chosen; None if there was no choice. ``curve``: controller.csv.

    It is of the best of several on episodes that chose it: higher than what the same C has in the test, on the average.

    >>> rows = {"phase": ["search", *["selection"] * 3], "mean": [9.0, 3.0, 4.0, 5.0], "stderr": 1.0, "episodes": [0, 8, 8, 4]}
    >>> choice(pd.DataFrame(rows))
    {'mean': 4.0, 'stderr': 1.0, 'n': 8, 'contestants': 3}
    """
    played = curve[curve["phase"] == "selection"]
    if played.empty:
        return None
    last = played[played["episodes"] == played["episodes"].max()]
    kept = last.loc[last["mean"].idxmax()]
    told = {"mean": float(kept["mean"]), "stderr": float(kept["stderr"]), "n": int(kept["episodes"])}
    return {**told, "contestants": len(played)}


def steps_learned(curve: pd.DataFrame) -> dict[str, int]:
    """Return how many steps a search learned from in the ``dream`` and in the ``game``; ``curve``: controller.csv.

    >>> steps_learned(pd.DataFrame({"phase": ["search", "selection"], "world": ["dream", ""], "steps": [7, np.nan]}))
    {'dream': 7, 'game': 0}
    """
    return {world: int(curve.loc[curve["world"] == world, "steps"].sum()) for world in ("dream", "game")}
