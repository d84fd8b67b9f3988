"""Agents of a study side by side. Agents that differ in their seed alone are one variant."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Variant(NamedTuple):
    """The agents of a study that differ in their seed alone.

    Attributes:
        name: of their controller, with their world model if the study has several.
        mean: mean of the seeds' mean returns in the game.
        stderr: of that mean, from the spread of the seeds; if there is one seed, over its episodes.
        seeds: their mean returns.
    """

    name: str
    mean: float
    stderr: float
    seeds: list[float]


def variants(scores: Sequence[Mapping[str, Any]]) -> list[Variant]:
    """Return the variants of one study, in the order in which they first appear. ``scores``: of its agents."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for score in scores:
        groups.setdefault((score["controller"], score["world_model"]), []).append(score)
    several = len({world_model for _, world_model in groups}) > 1
    found = []
    for (controller, world_model), own in groups.items():
        means = [float(score["real"]["mean"]) for score in own]
        stderr = float(np.std(means, ddof=1)) / len(own) ** 0.5 if len(own) > 1 else float(own[0]["real"]["stderr"])
        name = f"{controller}, {world_model}" if several else controller
        found.append(Variant(name, float(np.mean(means)), stderr, means))
    return found
