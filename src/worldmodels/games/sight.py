"""Do frames show a game? Rendering that is black or frozen is found before anything is learned from it."""

from dataclasses import dataclass

import numpy as np

from worldmodels.errors import EnvironmentFault

FEWEST_FRAMES = 10
"""Frames that are needed to say that a game does not advance."""


@dataclass
class Sight:
    """Whether a game shows anything: judged by all its episodes, since in a single one nothing may happen for a while.

    Attributes:
        frames, episodes: how many were seen.
    """

    pictured: bool = False  # whether a frame had more than one colour
    moved: bool = False  # whether a frame was another one than the first of its episode
    frames: int = 0
    episodes: int = 0

    def see(self, frames: np.ndarray) -> None:
        """Look at an episode, (T, 64, 64, 3) uint8."""
        self.frames += len(frames)
        self.episodes += 1
        if not self.pictured:
            flat = frames.reshape(len(frames), -1, 3)
            self.pictured = bool((flat != flat[:, :1]).any())
        if not self.moved:
            self.moved = bool((frames != frames[:1]).any())

    def check(self, source: str) -> None:
        """Refuse a game that showed nothing; ``source`` is named in the message.

        Raises:
            EnvironmentFault: every frame was of a single colour (black: headless without a renderer), or, of 10 frames or
                more, none ever changed within its episode.
        """
        if self.frames and not self.pictured:
            raise EnvironmentFault(
                f"{source}: every frame is a single colour. Rendering does not work here: run `wm doctor`, and check that the "
                "crop in params.yaml leaves a part of the picture."
            )
        if self.frames >= FEWEST_FRAMES and not self.moved:
            raise EnvironmentFault(
                f"{source}: in all {self.frames} frames, no picture ever changes within an episode. The game is not advancing."
            )
