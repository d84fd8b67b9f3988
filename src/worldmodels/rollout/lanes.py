"""A fixed number of lanes in a world, where the next episode follows at once: what learners of other libraries expect."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodels.rollout.world import World


class LaneStep(NamedTuple):
    """What one step gave to every lane."""

    seen: np.ndarray  # (B, ...), where an episode ended at the start of the next
    rewards: np.ndarray  # (B,) float32
    terminal: np.ndarray  # (B,) bool
    truncated: np.ndarray  # (B,) bool
    ended: np.ndarray  # the lanes whose episode ended, in the order in which the next ones begin, int64
    last: np.ndarray | None  # (B, ...) what was seen at the end of those that ended; None if none did


class Lanes:
    """B lanes of a world.

    Args:
        world: without lanes; it is neither opened nor closed here.
        lanes: B.
        look: returns what the world's lanes see, (lanes, ...); None: the features.
    """

    def __init__(self, world: World, lanes: int, look: Callable[[], np.ndarray] | None = None) -> None:
        self.world, self._count = world, lanes
        self._look = look or (lambda: world.features().cpu().numpy())
        self._places = np.zeros(0, np.int64)  # where the world's lanes are among ours

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """Begin an episode in every lane; return what is seen, (B, ...)."""
        self.world.keep(torch.zeros(0, dtype=torch.int64))
        self._places = np.arange(self._count)
        self.world.start(seeds)
        return self._seen()

    def step(self, actions: Tensor, seeds: Iterator[int]) -> LaneStep:
        """Take actions (B, A); where an episode ends, the one of the next seed begins."""
        step = self.world.step(actions[self._places])
        rewards = np.zeros(self._count, np.float32)
        terminal, truncated = np.zeros(self._count, bool), np.zeros(self._count, bool)
        for all_lanes, found in ((rewards, step.reward), (terminal, step.terminal), (truncated, step.truncated)):
            all_lanes[self._places] = found.numpy()
        over, last = step.terminal | step.truncated, None
        ended = self._places[over.numpy()]
        if len(ended):
            last = self._seen()
            self.world.keep(torch.nonzero(~over).flatten())
            self.world.start([next(seeds) for _ in ended])
            self._places = np.concatenate([self._places[~over.numpy()], ended])
        return LaneStep(self._seen(), rewards, terminal, truncated, ended, last)

    def _seen(self) -> np.ndarray:
        seen = self._look()
        ordered = np.empty((self._count, *seen.shape[1:]), seen.dtype)
        ordered[self._places] = seen
        return ordered
