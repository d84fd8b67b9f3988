"""Recorded episodes as the game would have played them: its frames, its actions, its rewards, its ends."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np

from worldmodels.errors import ArtifactError
from worldmodels.games.base import GameConfig
from worldmodels.games.choices import Choices, option
from worldmodels.games.frames import brightened, cropped, resize
from worldmodels.params import MOST_PROBLEMS
from worldmodels.recordings.files import EpisodeFile, episode_paths, read_about
from worldmodels.rollout.patience import cut_when_decided, out_of_patience
from worldmodels.seeds import INDEX_BITS, Purpose, purpose_of
from worldmodels.shapes import FRAME_SHAPE, Episode

NO_SEED = -1
"""Seed of an episode that nobody knows the seed of."""
JUDGING: tuple[Purpose, ...] = ("test", "selection", "development")
"""Purposes of episodes that nothing may be trained on."""
PURPOSES = len(get_args(Purpose))


@dataclass(frozen=True)
class Contents:
    """What a recording holds, as its headers say."""

    episodes: int
    frames: int  # that world models learn on at most
    longest: int  # steps of its longest episode
    rewards: bool  # whether the rewards of an episode are known
    ends: bool  # whether it is known of an episode how it ended


class Recording:
    """A folder of recorded episodes of a game.

    Nothing but headers and small arrays is read before ``episodes`` is.

    Args:
        folder: where it is.
        game: its rules.

    Raises:
        ArtifactError: it cannot be learned from; the message has a line for every episode with a problem, up to 20.
    """

    def __init__(self, folder: Path, game: GameConfig) -> None:
        self.folder, self.game = folder, game
        paths, problems = episode_paths(folder), list[str]()
        about = read_about(folder)
        if about and (about.rules, about.frame_skip) != (game.rules, game.frame_skip):
            raise ArtifactError(
                f"{folder} was recorded under the rules {about.rules} with frame_skip {about.frame_skip}; the game's are "
                f"{game.rules} with frame_skip {game.frame_skip}: record it again, or set `game` in params.yaml as it was."
            )
        self._choices, self._size = game.choices, game.action_size  # a game may have to be made to say it
        self.player = f"recorded, {about.player}" if about else "recorded"
        self.files: list[EpisodeFile] = []
        for number, path in enumerate(paths, 1):
            try:
                file = EpisodeFile(path)
                self._told(file)
                self.files.append(file)
            except ArtifactError as error:
                problems.append(f"episode {number} of {len(paths)}, {error}")
        if problems:
            more = [f"and {len(problems) - MOST_PROBLEMS} more episodes"] if len(problems) > MOST_PROBLEMS else []
            raise ArtifactError("\n".join([*problems[:MOST_PROBLEMS], *more]))

    @property
    def contents(self) -> Contents:
        """What it holds."""
        steps = [min(file.steps, self.game.steps) for file in self.files]
        paid = self.game.pay != "events" or any(file.has("rewards") for file in self.files)
        told = any(file.has("terminal") for file in self.files)
        return Contents(len(steps), sum(steps) + len(steps), max(steps), paid, told)

    def episodes(self) -> Iterator[Episode]:
        """Yield the episodes, as the game would have played them.

        Raises:
            ArtifactError: pictures of an episode are damaged, or nothing is left of it.
        """
        for file in self.files:
            yield as_played(file, self.game, *self._told(file))

    def _told(self, file: EpisodeFile) -> "Told":
        actions = actions_of(file, self._size, self._choices)
        return Told(actions, _rewards(file, self.game), _end(file), _seed(file))


class Told(NamedTuple):
    """What is known of an episode, but for its pictures."""

    actions: np.ndarray  # (T, A) float32, as C gives them
    rewards: np.ndarray  # (T,) float32; NaN: not known
    terminal: bool | None  # whether the game ended it; None: not known
    seed: int


def as_played(
    file: EpisodeFile, game: GameConfig, actions: np.ndarray, rewards: np.ndarray, terminal: bool | None, seed: int
) -> Episode:
    """Return a recorded episode as the game would have given it.

    Pictures that are not frames already are cropped and resized as the game's. An episode ends at the game's limit.
    If nobody knows how it ended, its last step is left out: that step may have ended it, and those before it did not.

    Raises:
        ArtifactError: the pictures are damaged, or no step is left.
    """
    frames = np.concatenate([frames_of(pictures, game) for pictures in file.pictures()])
    steps = len(actions)
    if len(frames) == steps:  # nothing was seen after the last action
        frames = np.concatenate([frames, frames[-1:]])
        steps -= not terminal  # an end needs no picture
    elif terminal is None:
        steps -= 1
    if steps < 1:
        raise file.wrong(f"it is too short: of {len(actions)} actions, none is left whose outcome is known")
    if steps > game.steps:
        steps, terminal = game.steps, False
    kept = frames[: steps + 1], actions[:steps], rewards[:steps]
    episode = Episode(*kept, terminal=bool(terminal), seed=seed)
    if not game.patience or np.isnan(rewards).any():
        return episode
    return cut_when_decided(out_of_patience(episode, game.patience), game.patience, game.aftermath, game.won)


def actions_of(file: EpisodeFile, size: int, choices: Choices) -> np.ndarray:
    """Return the actions of an episode as C gives them to a game of A = ``size``, (T, A) float32 in [-1, 1].

    Raises:
        ArtifactError: they are not of the game.
    """
    found = file.read("actions")
    found = found.reshape(len(found), -1)
    if found.dtype.kind in "biu":
        found = found.astype(np.int64)
        if not choices:
            raise file.wrong(f"`actions` are integers, and the game takes {size} numbers: save them as floats")
        if found.shape[1] != len(choices):
            raise file.wrong(f"`actions` has {found.shape[1]} choices a step, and the game has {len(choices)}")
        outside = (found < 0) | (found >= np.array(choices))
        if outside.any():
            step, place = np.argwhere(outside)[0]
            most = choices[place] - 1
            raise file.wrong(f"the action of step {step} takes option {found[step, place]}, and there are 0 to {most}")
        tables = [np.array([option(each, count) for each in range(count)], np.float32) for count in choices]
        return np.concatenate([table[found[:, place]] for place, table in enumerate(tables)], axis=1)
    if found.shape[1] != size:
        kinds = f", or {len(choices)} integers" if choices else ""
        raise file.wrong(f"`actions` has {found.shape[1]} numbers a step, and the game takes {size}{kinds}")
    numbers = found.astype(np.float64)
    _finite(file, "actions", numbers)
    if file.has("low"):
        low, high = (file.read(name).astype(np.float64).ravel() for name in ("low", "high"))
        if not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
            raise file.wrong("`low` must be below `high`, and both finite")
        numbers = (numbers - low) / (high - low) * 2 - 1
    outside = np.abs(numbers) > 1 + 1e-6
    if outside.any():
        step, place = np.argwhere(outside)[0]
        allowed = "low..high" if file.has("low") else "[-1, 1]: scale it, or tell its range by `low` and `high`"
        raise file.wrong(f"the action of step {step} has {found[step, place]:g}, which is not in {allowed}")
    return np.clip(numbers, -1, 1).astype(np.float32)


def _rewards(file: EpisodeFile, game: GameConfig) -> np.ndarray:
    """Return what each step was paid: only a game that pays for events needs to be told."""
    if game.pay != "events":
        return np.full(file.steps, game.worth, np.float32)
    if not file.has("rewards"):
        return np.full(file.steps, np.nan, np.float32)
    with np.errstate(over="ignore"):
        rewards = file.read("rewards").astype(np.float32)
    _finite(file, "rewards", rewards)
    return rewards


def _end(file: EpisodeFile) -> bool | None:
    """Return whether the game ended an episode; None if nobody knows."""
    if not file.has("terminal"):
        return None
    terminal = np.atleast_1d(file.read("terminal"))
    if terminal[:-1].any():
        raise file.wrong(f"the game ended at step {terminal.argmax()}, and goes on after it: save it as two episodes")
    return bool(terminal[-1])


def _seed(file: EpisodeFile) -> int:
    if not file.has("seed"):
        return NO_SEED
    seed = int(file.read("seed"))
    purpose = purpose_of(seed) if 0 <= seed >> INDEX_BITS < PURPOSES else None
    if purpose in JUDGING:
        raise file.wrong(f"it is of the seed {seed}, a {purpose} episode of this project: nothing may be trained on those")
    return seed


def _finite(file: EpisodeFile, name: str, values: np.ndarray) -> None:
    broken = ~np.isfinite(values).reshape(len(values), -1).all(1)
    if broken.any():
        raise file.wrong(f"`{name}` holds NaN or infinity at step {broken.argmax()}")


def frames_of(pictures: np.ndarray, game: GameConfig) -> np.ndarray:
    """Return pictures (N, H, W, 3 or 1) uint8 as frames of a game, (N, 64, 64, 3); those that are frames stay as they are."""
    if pictures.shape[1:] == FRAME_SHAPE:
        return pictures
    shown = np.stack([cropped(picture, game.cut) for picture in pictures])
    return brightened(resize(np.repeat(shown, 3 // shown.shape[-1], axis=-1)), game.brightness)  # grey thrice
