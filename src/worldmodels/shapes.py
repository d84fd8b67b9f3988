"""The legend of axes, and the few values that travel through the whole project.

One letter an axis, the same letter everywhere::

    B lanes (episodes advancing in lock-step)    T steps of an episode     H hidden size of M
    P candidates (controllers of a population)   F features seen by C      A size of an action
    E episodes a candidate is judged on          Z latent size of V        K mixture components

Frames are ``(B, 64, 64, 3) uint8``, channels last, as games give them; models take ``(B, 3, 64, 64)`` floats in [0, 1].
Actions are what a controller gives: ``(B, A) float32`` in [-1, 1]. Each game maps them to its own controls.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

FRAME_SIZE = 64
FRAME_SHAPE = (FRAME_SIZE, FRAME_SIZE, 3)

Told = Callable[[int, int], object]
"""Is told of play as it goes on: how many steps were played, and how many episodes ended with them."""
TaskTold = Callable[[int, int, int], object]
"""The same of several tasks: which of them, and what ``Told`` is told."""


class Job(NamedTuple):
    """One episode to be played: candidate ``candidate`` of a stack, on the episode that ``seed`` names."""

    candidate: int
    seed: int


@dataclass(frozen=True)
class Returns:
    """What ``run_episodes`` measured."""

    total: np.ndarray  # sum of rewards, (P, E) float64
    length: np.ndarray  # steps played, (P, E) int64
    terminal: np.ndarray  # True if the game ended the episode, False if the step limit did, (P, E) bool
    seeds: np.ndarray  # the episodes' seeds, (E,) int64, the same for every candidate
    visited: np.ndarray | None = None  # cells of the game's map that it came to, (P, E, N) bool; None if there is no map

    @property
    def steps(self) -> int:
        """Steps played in all."""
        return int(self.length.sum())


@dataclass(frozen=True)
class Episode:
    """One episode as it was lived."""

    # (T+1, 64, 64, 3) uint8; frame t is what action t was chosen on, the last is what the last action led to
    frames: np.ndarray
    actions: np.ndarray  # (T, A) float32 in [-1, 1]
    rewards: np.ndarray  # (T,) float32
    terminal: bool  # True if the game ended it, False if the step limit did
    seed: int  # its seed
    visited: np.ndarray | None = None  # cells of the game's map that it came to, (N,) bool; None if there is no map
