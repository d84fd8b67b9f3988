"""What a game looks like from outside: B games in lock-step, actions in, frames out."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from worldmodels.errors import EnvironmentFault


class EnvStep(NamedTuple):
    """What one step of every lane gave.

    Attributes:
        frames: (B, 64, 64, 3) uint8, the frame after the action. Where a game has none after its end, its last one
            again.
        rewards: (B,) float32.
        terminal: (B,) bool, the game ended the episode (death, lap finished, off the field).
        truncated: (B,) bool, the step limit of the preset ended it.
    """

    frames: np.ndarray
    rewards: np.ndarray
    terminal: np.ndarray
    truncated: np.ndarray


class BatchEnv(Protocol):
    """Games in lock-step lanes. It has no lanes when made; ``start`` appends lanes, ``keep`` drops them.

    An episode depends on its seed and its actions alone: not on the lane, on what was played before, or on the other
    lanes. A lane whose episode ended must be dropped before the next ``step``. Implementations keep the books with a
    ``LaneClock``.

    Attributes:
        action_size: A, how many numbers in [-1, 1] one action has.
        limit: steps after which an episode is truncated.
        preset: name of the rules (game, skill, limit in game steps); a score is comparable only within a preset.
        backend: what simulates the game, for example ``gymnasium-1.4.0``.
    """

    action_size: int
    limit: int
    preset: str
    backend: str

    def start(self, seeds: Sequence[int]) -> np.ndarray:
        """Append a lane for every seed; return their first frames, (len(seeds), 64, 64, 3) uint8."""
        ...

    def step(self, actions: np.ndarray) -> EnvStep:
        """Advance all lanes by one step. ``actions``: (B, A) float32 in [-1, 1]."""
        ...

    def keep(self, lanes: np.ndarray) -> None:
        """Keep these lanes only, in this order. ``lanes``: int64 indices into the present lanes, increasing."""
        ...

    def close(self) -> None:
        """Free the games. Closing twice is harmless."""
        ...


class LaneClock:
    """Counts each lane's steps against the limit, for a ``BatchEnv``.

    Attributes:
        limit: steps after which a lane is truncated.
        seeds: the lanes' seeds, (B,) int64.
        elapsed: steps played, (B,) int64.
        ended: the lanes whose episode is over, (B,) bool.
    """

    def __init__(self, limit: int) -> None:
        """Make a clock without lanes."""
        self.limit = limit
        self.seeds = np.zeros(0, np.int64)
        self.elapsed = np.zeros(0, np.int64)
        self.ended = np.zeros(0, bool)

    def __len__(self) -> int:
        """Return B."""
        return len(self.seeds)

    def start(self, seeds: Sequence[int]) -> None:
        """Append a lane for every seed."""
        count = len(seeds)
        self.seeds = np.concatenate([self.seeds, np.asarray(seeds, np.int64)])
        self.elapsed = np.concatenate([self.elapsed, np.zeros(count, np.int64)])
        self.ended = np.concatenate([self.ended, np.zeros(count, bool)])

    def keep(self, lanes: np.ndarray) -> None:
        """Keep these lanes only."""
        self.seeds, self.elapsed, self.ended = self.seeds[lanes], self.elapsed[lanes], self.ended[lanes]

    def check(self, actions: np.ndarray, action_size: int) -> None:
        """Refuse a step that no game should see.

        Raises:
            ValueError: where ``actions`` is not (B, A), or a lane's episode is over.
            EnvironmentFault: where an action is not a finite number (a network that diverged).
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

    def advance(self, terminal: np.ndarray, cut: np.ndarray | None = None) -> np.ndarray:
        """Count one step of every lane.

        Args:
            terminal: (B,) bool, the lanes whose game ended.
            cut: (B,) bool, the lanes that a limit of the game's own stopped, if it has one.

        Returns:
            The lanes that are truncated, (B,) bool.
        """
        self.elapsed = self.elapsed + 1
        over: np.ndarray = self.elapsed >= self.limit
        truncated: np.ndarray = (over if cut is None else over | cut) & ~terminal
        self.ended = terminal | truncated
        return truncated


def check_frames(frames: np.ndarray, source: str) -> None:
    """Refuse frames that show nothing.

    Args:
        frames: (T, 64, 64, 3) uint8 of one episode.
        source: what to name in the message.

    Raises:
        EnvironmentFault: where every frame is one flat colour (black, headless without a renderer), or where an episode
            of at least 10 frames never changes.
    """
    flat = frames.reshape(len(frames), -1, 3)
    if (flat == flat[:, :1]).all():
        colour = flat[0, 0].tolist()
        raise EnvironmentFault(
            f"{source}: every frame is the single colour {colour}. Rendering does not work here: run `wm doctor`, and "
            "check that the crop in params.yaml leaves a part of the picture."
        )
    if len(frames) >= 10 and (frames == frames[:1]).all():
        raise EnvironmentFault(f"{source}: all {len(frames)} frames are the same picture. The game is not advancing.")
