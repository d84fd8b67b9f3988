"""Play written as a recording: episodes of a game by any policy, each a file as soon as it has ended."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from worldmodels.errors import ParamsError
from worldmodels.games.base import GameConfig
from worldmodels.games.choices import Choices, chosen
from worldmodels.recordings.files import About, read_about, write_about, write_episode
from worldmodels.rollout.loop import EpisodeRecorder, run_episodes
from worldmodels.rollout.policies import Policy
from worldmodels.rollout.world import World
from worldmodels.seeds import episode_seeds
from worldmodels.shapes import Episode

LANES = 16
"""Games at a time. What is recorded does not depend on it."""


class RecordingWriter:
    """Adds episodes to a folder; those that are there stay. An episode's seed depends on the folder's name and its number.

    Args:
        folder: made if missing.
        game: its rules.
        player: who plays, for people.

    Raises:
        ParamsError: the folder holds play under other rules, or of somebody else.
    """

    def __init__(self, folder: Path, game: GameConfig, player: str) -> None:
        about, there = About(rules=game.rules, frame_skip=game.frame_skip, player=player), read_about(folder)
        if there is not None and there != about:
            was, now = (f"{each.rules}, frame_skip {each.frame_skip}, by {each.player}" for each in (there, about))
            raise ParamsError(f"{folder} holds play of {was}; this would be {now}: name another folder.")
        if there is None and any(folder.glob("*.npz")):
            raise ParamsError(f"{folder} holds episodes from elsewhere: name another folder.")
        self.folder, self._about, self._choices = folder, about, game.choices

    def next_seeds(self, count: int) -> list[int]:
        """Return the seeds of the next ``count`` episodes: of the lowest numbers that are not there."""
        self._numbers, number = dict[int, int](), 0
        while len(self._numbers) < count:
            if not self._path(number).exists():
                (seed,) = episode_seeds("collection", 1, stream=f"recording/{self.folder.resolve().name}", start=number)
                self._numbers[seed] = number
            number += 1
        return list(self._numbers)

    def write(self, episode: Episode) -> None:
        """Write an episode of one of ``next_seeds``."""
        write_about(self.folder, self._about)
        arrays = {
            "frames": episode.frames,
            "actions": options_of(episode.actions, self._choices) if self._choices else episode.actions,
            "rewards": episode.rewards,
            "terminal": np.array(episode.terminal),
            "seed": np.array(episode.seed),
        }
        write_episode(self._path(self._numbers[episode.seed]), arrays)

    def _path(self, number: int) -> Path:
        return self.folder / f"episode-{number:05d}.npz"


def options_of(actions: np.ndarray, choices: Choices) -> np.ndarray:
    """Return which options actions (T, A) take: (T,) int64 of one choice, (T, K) of several."""
    taken = np.array([chosen(action, choices) for action in actions], np.int64)
    return taken[:, 0] if len(choices) == 1 else taken


def record(
    world: World, policy: Policy, seeds: Sequence[int], writer: RecordingWriter, told: Callable[[Episode], object]
) -> None:
    """Play episodes and write each when it has ended; ``told`` is told of it then."""

    def keep(episode: Episode) -> None:
        writer.write(episode)
        told(episode)

    run_episodes(world, policy, seeds, lanes=LANES, recorder=EpisodeRecorder(keep))
