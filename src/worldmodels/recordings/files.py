"""A recording on disk: a folder of episodes, one ``.npz`` file each, in the order of their names.

    frames    (T+1, H, W, 3) uint8, or (T, H, W, 3) if nothing was seen after the last action; one channel is grey
    actions   (T,) or (T, K) integers, which option each of K choices takes; or (T, A) numbers in [-1, 1] or ``low``..``high``
    rewards   (T,), what each step was paid; left out if nobody knows
    terminal  () or (T,) bool, whether the game ended the episode; left out if nobody knows
    low, high (A,), what of ``actions`` is -1 and 1 for the project; left out if they are in [-1, 1]
    seed      (), of the game; left out if nobody knows

``recording.json`` beside them is left by ``wm record``: under which rules it was played. Nothing is ever unpickled.
"""

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from pydantic import ConfigDict, TypeAdapter, ValidationError

from worldmodels.errors import ArtifactError
from worldmodels.params import Config, explain
from worldmodels.storage.files import write_bytes, write_json

ABOUT = "recording.json"
NEEDED, OPTIONAL = ("frames", "actions"), ("rewards", "terminal", "low", "high", "seed")
LARGEST = 4096
"""Pixels of a picture's side, at most."""
BATCH_BYTES = 2**26
"""Pictures that are in memory at a time."""
_BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, SyntaxError,
    NotImplementedError, OverflowError, MemoryError, RecursionError, RuntimeError,
)  # fmt: skip
"""What reading a damaged or hostile file may raise."""


class About(Config):
    """recording.json."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    rules: str  # ``GameConfig.rules``
    frame_skip: int  # game steps of a step
    player: str  # who played


class Array(NamedTuple):
    """What the header of an array says."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_columns: bool  # in the order of Fortran


class EpisodeFile:
    """An episode of a recording: what its headers say, and its arrays when they are asked for.

    Attributes:
        arrays: name -> what its header says.
        steps: T, how many actions it has.

    Raises:
        ArtifactError: the file cannot be read, or its arrays do not fit together; the message names the file and the array.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.arrays = path, dict[str, Array]()
        with self._named("it is not a whole .npz file"), zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name not in NEEDED + OPTIONAL:
                    known = ", ".join(NEEDED + OPTIONAL)
                    raise self.wrong(f"`{name[:40]}` is no array of a recording: there are {known}")
                if member.comment:  # nobody writes one: a damaged length has swallowed the arrays behind it
                    raise zipfile.BadZipFile(f"`{name}` has a comment")
                with archive.open(member) as file:
                    self.arrays[name] = self._header(name, file, member.file_size)
        for name in NEEDED:
            if name not in self.arrays:
                raise self.wrong(f"it has no `{name}`")
        self.steps = (*self.arrays["actions"].shape, 0)[0]
        self._check_shapes()

    def wrong(self, reason: object) -> ArtifactError:
        """Return the error that says what is wrong with this file."""
        return ArtifactError(f"{self.path}: {reason}.")

    def has(self, name: str) -> bool:
        """Return whether an array is there."""
        return name in self.arrays

    def read(self, name: str) -> np.ndarray:
        """Return an array; ArtifactError if it is damaged."""
        with self._named(f"`{name}` is damaged"), self._opened(name) as file:
            return self._next(name, file, math.prod(self.arrays[name].shape), self.arrays[name].shape)

    def pictures(self) -> Iterator[np.ndarray]:
        """Yield the pictures of ``frames`` in order, some at a time, (N, H, W, 3 or 1) uint8; ArtifactError if damaged."""
        count, *shape = self.arrays["frames"].shape
        each = max(1, BATCH_BYTES // math.prod(shape))
        with self._opened("frames") as file:
            for start in range(0, count, each):
                size = min(each, count - start)
                with self._named("`frames` is damaged"):
                    batch = self._next("frames", file, size * math.prod(shape), (size, *shape))
                yield batch

    def _header(self, name: str, file: IO[bytes], size: int) -> Array:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"`{name}` is of an unknown version")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_columns, dtype = read(file)
        if dtype.hasobject:
            raise self.wrong(f"`{name}` holds pickled objects, which could run code: save it as an array of numbers")
        if size - file.tell() != dtype.itemsize * math.prod(shape):
            raise ValueError(f"`{name}` is not as long as its header says")
        return Array(shape, dtype, by_columns)

    def _check_shapes(self) -> None:
        steps, kinds = self.steps, {name: array.dtype.kind for name, array in self.arrays.items()}
        shapes = {name: array.shape for name, array in self.arrays.items()}
        frames = shapes["frames"]
        told = {name: f"`{name}` is {array.dtype} of shape {array.shape}" for name, array in self.arrays.items()}
        if self.arrays["frames"].dtype != np.uint8 or len(frames) != 4 or frames[3] not in (1, 3):
            raise self.wrong(f"{told['frames']}; uint8 of shape (T+1, height, width, 3) is needed")
        if not all(1 <= side <= LARGEST for side in frames[1:3]):
            raise self.wrong(f"{told['frames']}; a picture has 1 to {LARGEST} pixels on a side")
        if self.arrays["frames"].by_columns:
            raise self.wrong("`frames` is stored by columns: save np.ascontiguousarray(frames)")
        if kinds["actions"] not in "biuf" or len(shapes["actions"]) not in (1, 2):
            raise self.wrong(
                f"{told['actions']}; integers of shape (T,) or (T, choices), or numbers of shape (T, A) are needed"
            )
        if not steps or frames[0] not in (steps, steps + 1):
            raise self.wrong(f"it has {frames[0]} frames and {steps} actions; {steps + 1} frames are needed, or {steps}")
        if "rewards" in kinds and (kinds["rewards"] not in "iuf" or shapes["rewards"] != (steps,)):
            raise self.wrong(f"{told['rewards']}; {steps} numbers are needed, one for each action")
        if "terminal" in kinds and (kinds["terminal"] != "b" or shapes["terminal"] not in ((), (steps,))):
            raise self.wrong(f"{told['terminal']}; one bool is needed, or {steps}, one for each action")
        if "seed" in kinds and (kinds["seed"] not in "iu" or shapes["seed"] != ()):
            raise self.wrong(f"{told['seed']}; one integer is needed")
        if ("low" in kinds) != ("high" in kinds):
            raise self.wrong("`low` and `high` come together")
        for name in {"low", "high"} & kinds.keys():
            if kinds["actions"] != "f" or kinds[name] not in "iuf" or shapes[name] != shapes["actions"][1:]:
                raise self.wrong(f"{told[name]}, and {told['actions']}; one number for each of an action's is needed")

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        """Open an array behind its header."""
        with self._named(f"`{name}` is damaged"):
            archive = zipfile.ZipFile(self.path)
        with archive:
            with self._named(f"`{name}` is damaged"):
                file = archive.open(f"{name}.npy")
                size = archive.getinfo(f"{name}.npy").file_size
                if self._header(name, file, size) != self.arrays[name]:
                    raise ValueError("the file was changed meanwhile")
            with file:
                yield file

    def _next(self, name: str, file: IO[bytes], count: int, shape: tuple[int, ...]) -> np.ndarray:
        array = self.arrays[name]
        found = np.frombuffer(file.read(count * array.dtype.itemsize), array.dtype, count)
        return found.reshape(shape[::-1]).T if array.by_columns else found.reshape(shape)

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        try:
            yield
        except ArtifactError:
            raise
        except FileNotFoundError:
            raise self.wrong("it does not exist") from None
        except _BROKEN as error:
            raise self.wrong(f"{what} ({str(error)[:200] or type(error).__name__})") from None


def episode_paths(folder: Path) -> list[Path]:
    """Return the files of the episodes of a recording, in their order.

    Raises:
        ArtifactError: there is no such folder, or no episode in it.
    """
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        there = "holds no episode (*.npz)" if folder.is_dir() else "does not exist"
        raise ArtifactError(f"the recording {folder} {there}. `wm record` makes one; `dvc pull` fetches one from a remote.")
    return paths


def read_about(folder: Path) -> About | None:
    """Return what ``recording.json`` says; None if there is none.

    Raises:
        ArtifactError: it does not say it as ``About``.
    """
    path = folder / ABOUT
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: {error}.") from None
    try:
        about: About = TypeAdapter(About).validate_json(text)
        return about
    except ValidationError as error:
        raise ArtifactError(f"{path}: {' '.join(explain(error, {}))}") from None


def write_about(folder: Path, about: About) -> None:
    """Write recording.json."""
    write_json(folder / ABOUT, about.model_dump())


def write_episode(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an episode, whole or not at all. The same arrays give the same bytes: numpy puts no time in."""
    content, by_rows = io.BytesIO(), dict[str, Any]((name, np.asarray(array, order="C")) for name, array in arrays.items())
    np.savez_compressed(content, **by_rows)
    write_bytes(path, content.getvalue())
