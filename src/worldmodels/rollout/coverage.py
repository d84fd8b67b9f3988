"""How far play gets about a game's map, and how often it finds what is to be found. Agents are told nothing of it."""

from typing import Any

import numpy as np
import pandas as pd

from worldmodels.games.maps import Map
from worldmodels.shapes import Returns
from worldmodels.storage.episodes import cells_of


def coverage(map_: Map, visited: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Return shares, from 0 to 1.

    Args:
        map_: the game's.
        visited: the cells that each episode came to, (E, N) bool.
        found: whether the episode found what is to be found, (E,) bool.

    Returns:
        ``success``: of the episodes. ``rooms``, ``cells``: of the map, in the mean episode. ``all_rooms``, ``all_cells``: of
        the map, in all episodes together.
    """
    rooms = map_.rooms_of(visited)
    return {
        "success": float(found.mean()),
        "rooms": float(rooms.mean()),
        "cells": float(visited.mean()),
        "all_rooms": float(rooms.any(0).mean()),
        "all_cells": float(visited.any(0).mean()),
    }


def coverage_of(returns: Returns, map_: Map | None) -> dict[str, Any]:
    """Return ``{"coverage": ...}`` of the episodes of a single candidate; {} if the game has no map."""
    if map_ is None or returns.visited is None:
        return {}
    return {"coverage": coverage(map_, returns.visited[0], returns.terminal[0] & (returns.total[0] > 0))}


def coverage_in(table: pd.DataFrame, map_: Map | None) -> dict[str, Any]:
    """Return the same of some rows of the table of collected episodes; {} of none."""
    if map_ is None or table.empty:
        return {}
    found = (table["terminal"] & (table["total"] > 0)).to_numpy()
    return {"coverage": coverage(map_, cells_of(table, len(map_)), found)}
