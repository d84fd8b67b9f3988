"""Play written as a recording: a folder to which episodes are added, each whole as soon as it has ended."""

from collections.abc import Callable, Iterator, Mapping
from itertools import count, islice
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
    """Adds episodes to a folder; those that are there stay.

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
        self.folder, self._about = folder, about

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of episodes that are not there, from 0 on, without an end."""
        return (number for number in count() if not self._path(number).exists())

    def seed(self, number: int) -> int:
        """Return the seed with which an episode is played here: by the folder's name and its number.

        So a recording that was cut off goes on as if nothing had been.
        """
        return episode_seeds("collection", 1, stream=f"recording/{self.folder.resolve().name}", start=number)[0]

    def write(self, number: int, arrays: Mapping[str, np.ndarray]) -> Path:
        """Write an episode, with the arrays that ``files`` names; return its path."""
        write_about(self.folder, self._about)
        write_episode(self._path(number), arrays)
        return self._path(number)

    def _path(self, number: int) -> Path:
        return self.folder / f"episode-{number:05d}.npz"


def arrays_of(episode: Episode, choices: Choices) -> dict[str, np.ndarray]:
    """Return an episode of the project as the arrays of a recording."""
    return {
        "frames": episode.frames,
        "actions": options_of(episode.actions, choices) if choices else episode.actions,
        "rewards": episode.rewards,
        "terminal": np.array(episode.terminal),
        "seed": np.array(episode.seed),
    }


def options_of(actions: np.ndarray, choices: Choices) -> np.ndarray:
    """Return which options actions (T, A) take: (T,) int64 of one choice, (T, K) of several.

    >>> options_of(np.array([[0.5, -1.0, 0.1, 0.2], [-1.0, 1.0, 1.0, -1.0]]), (2, 2)).tolist()
    [[0, 1], [1, 0]]
    """
    taken = np.array([chosen(action, choices) for action in actions], np.int64)
    return taken[:, 0] if len(choices) == 1 else taken


def record(
    world: World, policy: Policy, episodes: int, writer: RecordingWriter, choices: Choices, told: Callable[[], object]
) -> None:
    """Play episodes and write each when it has ended; ``told`` is told of it then."""
    numbers = {writer.seed(number): number for number in islice(writer.numbers(), episodes)}

    def keep(episode: Episode) -> None:
        writer.write(numbers[episode.seed], arrays_of(episode, choices))
        told()

    run_episodes(world, policy, list(numbers), lanes=LANES, recorder=EpisodeRecorder(keep))
