"""Data sets of Minari, Farama's standard for offline data, as the arrays of recorded episodes.

A data set is a folder (``metadata.json`` and HDF5), or ``minari:ID``, which the library finds or fetches.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space

from worldmodels.errors import ArtifactError, ParamsError
from worldmodels.games.gym_open import is_image

MARK = "minari:"


class MinariData:
    """A data set whose observations are pictures, or hold one.

    Args:
        source: ``minari:ID``, or a folder.
        picture: the key of the picture in observations that are a dictionary; empty: the only picture in it.

    Raises:
        ParamsError: Minari is not installed, or the data set has no pictures, or actions that no game here takes.
        ArtifactError: the data set cannot be read.
    """

    def __init__(self, source: str, picture: str = "") -> None:
        self.source = source
        try:
            import minari
            from minari.dataset.minari_storage import MinariStorage
        except ImportError as error:
            raise ParamsError(f"{error}. `pip install 'worldmodels[minari]'` installs what reads Minari data sets.") from None
        try:
            if source.startswith(MARK):
                self._data: Any = minari.load_dataset(source.removeprefix(MARK), download=True)
            else:
                folder = next(
                    (each for each in (Path(source), Path(source) / "data") if (each / "metadata.json").is_file()), None
                )
                if folder is None:
                    raise ArtifactError(f"{source} is no Minari data set: there is no metadata.json in it.")
                if not {"observation_space", "action_space"} <= MinariStorage.read_raw_metadata(folder).keys():
                    raise ArtifactError(f"{source} does not name its spaces: it is of a Minari that is too old.")
                self._data = minari.MinariDataset(folder)
        except ArtifactError:
            raise
        except Exception as error:  # whatever a library, a server or a damaged file throws: the message names it
            raise ArtifactError(f"{source} cannot be read by Minari: {type(error).__name__}: {error}") from None
        self._actions: Space[Any] = self._data.action_space
        self._picture = self._find(self._data.observation_space, picture)
        if not isinstance(self._actions, Box | Discrete | MultiDiscrete | MultiBinary):
            raise ParamsError(f"{source} has actions of {self._actions}, which no game here takes.")
        if isinstance(self._actions, Box) and not self._actions.is_bounded():
            raise ParamsError(f"{source} has actions without bounds to map to [-1, 1]: {self._actions}.")

    def __len__(self) -> int:
        return int(self._data.total_episodes)

    def episodes(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield the arrays of each episode, named as in a recording.

        Seeds are left out: they are not of this project. ArtifactError if an episode cannot be read.
        """
        episodes = iter(self._data)
        for number in range(len(self)):
            try:
                episode = next(episodes)
                yield self._arrays(episode)
            except (OSError, KeyError, ValueError, IndexError, StopIteration) as error:
                raise ArtifactError(f"{self.source}: episode {number} of {len(self)} cannot be read ({error}).") from None

    def _arrays(self, episode: Any) -> dict[str, np.ndarray]:
        pictures = np.asarray(episode.observations[self._picture] if self._picture else episode.observations)
        found = {
            "frames": pictures if pictures.ndim == 4 else pictures[..., None],
            "actions": np.asarray(episode.actions),
            "rewards": np.asarray(episode.rewards),
            "terminal": np.array(bool(episode.terminations[-1])),
        }
        if isinstance(self._actions, Box):
            size, low, high = int(np.prod(self._actions.shape)), self._actions.low.ravel(), self._actions.high.ravel()
            return found | {"actions": found["actions"].reshape(-1, size).astype(np.float64), "low": low, "high": high}
        if isinstance(self._actions, Discrete | MultiDiscrete):
            found["actions"] = found["actions"].astype(np.int64) - self._actions.start
        return found | {"actions": found["actions"].reshape(len(found["rewards"]), -1)}

    def _find(self, space: Any, key: str) -> str:
        """Return the key of the picture in observations; empty if they are pictures."""
        if not isinstance(space, Dict):
            if key or not is_image(space):
                raise ParamsError(f"{self.source} has observations of {space}: there is no picture {key} to learn from.")
            return ""
        found = [name for name, each in space.items() if is_image(each)]
        if key not in found and (key or len(found) != 1):
            named = f"these are pictures: {', '.join(found)}. Name one with --picture" if found else "none of them is a picture"
            raise ParamsError(f"{self.source} has the observations {', '.join(space)}; {named}.")
        return key or found[0]
