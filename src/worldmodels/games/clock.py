"""The books of games in lock-step: each lane's seed, its steps against the limit, and whether it is over."""

from collections.abc import Sequence

import numpy as np

from worldmodels.errors import EnvironmentFault


class LaneClock:
    """Counts each lane's steps against the limit, for a ``BatchEnv``. It has no lanes when made.

    Attributes:
        limit: game steps after which a lane is truncated.
        frame_skip: game steps of a step.
        seeds: the lanes' seeds, (B,) int64.
        elapsed: steps played, (B,) int64.
        ended: the lanes whose episode is over, (B,) bool.
    """

    def __init__(self, limit: int, frame_skip: int) -> None:
        self.limit, self.frame_skip = limit, frame_skip
        self.seeds, self.elapsed, self.ended = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool)

    def __len__(self) -> int:
        return len(self.seeds)

    def start(self, seeds: Sequence[int]) -> None:
        """Append a lane for every seed."""
        self.seeds = np.concatenate([self.seeds, np.asarray(seeds, np.int64)])
        self.elapsed = np.concatenate([self.elapsed, np.zeros(len(seeds), np.int64)])
        self.ended = np.concatenate([self.ended, np.zeros(len(seeds), bool)])

    def keep(self, lanes: np.ndarray) -> None:
        """Keep these lanes only."""
        self.seeds, self.elapsed, self.ended = self.seeds[lanes], self.elapsed[lanes], self.ended[lanes]

    def left(self) -> np.ndarray:
        """Return how many game steps each lane's next step lasts, (B,) int64: ``frame_skip``, or fewer at the limit."""
        rest: np.ndarray = np.minimum(self.frame_skip, self.limit - self.elapsed * self.frame_skip)
        return rest

    def check(self, actions: np.ndarray, action_size: int) -> None:
        """Refuse a step that no game should see.

        Raises:
            ValueError: ``actions`` is not (B, A), or a lane's episode is over.
            EnvironmentFault: an action is not a finite number (a network that diverged).
        """
        if actions.shape != (len(self), action_size):
            raise ValueError(f"actions have the shape {actions.shape}; {(len(self), action_size)} is needed")
        if self.ended.any():
            raise ValueError(f"lanes {np.flatnonzero(self.ended).tolist()} are over: keep() the others before step()")
        broken = ~np.isfinite(actions).all(axis=1)
        if broken.any():
            raise EnvironmentFault(
                f"the actions of seeds {self.seeds[broken].tolist()} hold NaN or infinity. The controller or M has "
                "diverged: look at the loss curves, and lower the learning rate in params.yaml."
            )

    def advance(self, terminal: np.ndarray, cut: np.ndarray | bool = False) -> np.ndarray:
        """Count one step of every lane; return the lanes that are truncated, (B,) bool.

        Args:
            terminal: (B,) bool, the lanes whose game ended.
            cut: (B,) bool, the lanes that a limit of the game's own stopped, if it has one.
        """
        self.elapsed = self.elapsed + 1
        truncated: np.ndarray = ((self.elapsed * self.frame_skip >= self.limit) | cut) & ~terminal
        self.ended = terminal | truncated
        return truncated
