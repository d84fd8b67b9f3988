"""Returns as figures: mean, spread, standard error, and the table of episodes."""

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
