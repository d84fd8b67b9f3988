"""Giving up on an episode that is no longer paid: what follows a crash costs steps, and hides from M that there was one."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from worldmodels.engine.world import Step, World
from worldmodels.shapes import Episode

AFTERMATH = 5
"""Steps of an episode that are kept after its last reward above 0, where patience ended it: as the road is lost from sight."""


class PatientWorld:
    """Another world, but an episode ends, as if the game had ended it, after so many steps without a reward above 0.

    Args:
        world: the other; this one owns it from now on.
        patience: that many steps, at least 1.
    """

    def __init__(self, world: World, patience: int) -> None:
        self._world, self._patience = world, patience
        self.feature_size, self.action_size = world.feature_size, world.action_size
        self._unpaid = torch.zeros(0, dtype=torch.int64)  # steps since a reward above 0

    def start(self, seeds: Sequence[int]) -> None:
        self._world.start(seeds)
        self._unpaid = torch.cat([self._unpaid, torch.zeros(len(seeds), dtype=torch.int64)])

    def features(self) -> Tensor:
        return self._world.features()

    def frames(self) -> np.ndarray:
        return self._world.frames()

    def step(self, actions: Tensor) -> Step:
        step = self._world.step(actions)
        self._unpaid = torch.where(step.reward > 0, 0, self._unpaid + 1)
        stuck = self._unpaid >= self._patience
        return Step(step.reward, step.terminal | stuck, step.truncated & ~stuck)

    def keep(self, lanes: Tensor) -> None:
        self._world.keep(lanes)
        self._unpaid = self._unpaid[lanes]

    def close(self) -> None:
        self._world.close()


def cut_at_loss(episode: Episode, patience: int) -> Episode:
    """Return an episode of a ``PatientWorld`` without the steps in which patience ran out; others as they are.

    It then ends where it was lost, so that M learns of what leads there as of any other end.

    >>> lost = Episode(np.arange(31), np.zeros((30, 1)), np.array([1.0] * 4 + [-0.1] * 26), terminal=True, seed=0)
    >>> len(cut_at_loss(lost, 26).rewards), len(cut_at_loss(lost, 27).rewards)
    (9, 30)
    """
    paid = np.flatnonzero(episode.rewards > 0)
    steps = int(paid[-1]) + 1 if len(paid) else 0
    if not episode.terminal or len(episode.rewards) - steps < patience:
        return episode
    steps += min(AFTERMATH, patience)
    return replace(
        episode, frames=episode.frames[: steps + 1], actions=episode.actions[:steps], rewards=episode.rewards[:steps]
    )


def open_patient(open_world: Callable[[], World], patience: int) -> PatientWorld:
    """Return a patient world of the one that ``open_world`` opens."""
    return PatientWorld(open_world(), patience)
