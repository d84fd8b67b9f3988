"""Episodes on disk: a few shards of compressed frames, a table of episodes, a manifest with checksums.

A shard is an Arrow file whose record batches are runs of 64 consecutive frames of one episode or less, compressed with zstd:
a reader takes any of them without touching the rest, so that a data set need not fit into memory. One row is one frame:
``frame`` (12,288 bytes), ``action``, ``reward``, ``terminal``, ``first``. The last frame of an episode has no action: zeros.
A reward that nobody knows, of a recording, is NaN.
"""

import hashlib
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from worldmodels.shapes import FRAME_SHAPE, Episode
from worldmodels.storage.files import form, link, read_json, sha256, write_json, write_table
from worldmodels.storage.layout import damaged, require

CHUNK = 64
FRAME_BYTES = int(np.prod(FRAME_SHAPE))
MAGIC_BYTES = 8
"""Bytes of an Arrow file before the Arrow stream in it."""

_SHARDS = {"shards": list[form({"path": str, "sha256": str, "frames": int})]}  # type: ignore[misc]
_PLAYED = {"policies": dict[str, form({"episodes": int, "mean_return": float, "reward_per_step": float})]}  # type: ignore[misc]
MANIFEST = form(_SHARDS)
"""What must be in data.json."""
COLLECTED = form(
    {
        **_SHARDS,
        **_PLAYED,
        **dict.fromkeys(("episodes", "frames", "all_frames"), int),
        "mean_return": float | None,
        "choices": list[int],
    }
)
"""What must be in the data.json of a world model that is not empty."""


COLUMNS = ("episode", "seed", "policy", "steps", "total", "terminal", "shard")
"""Of the table of episodes."""


class EpisodeWriter:
    """Writes episodes into a folder, one after the other. Another writer can go on where one was cut off (``state``).

    Args:
        folder: where; made if missing.
        actions: A.
        shard_frames: frames after which the next episode opens a new shard.
        state: of the writer that was cut off. Its episodes are kept, and the same episodes after them give the same bytes as
            without the cut; shards that are no longer what they were are left out, with all after them. Empty: begin anew.
    """

    def __init__(self, folder: Path, actions: int, shard_frames: int = 20_000, state: Mapping[str, Any] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.shard_frames = folder, shard_frames
        self.rows: list[dict[str, Any]] = []
        self.shards: list[dict[str, Any]] = []
        self._open: _OpenShard | None = None
        self._schema = pa.schema(
            [
                ("frame", pa.binary(FRAME_BYTES)),
                ("action", pa.list_(pa.float32(), actions)),
                ("reward", pa.float32()),
                ("terminal", pa.bool_()),
                ("first", pa.bool_()),
            ]
        )
        if state:
            self._go_on(state)

    def write(self, episode: Episode, policy: str) -> None:
        """Append an episode; ``policy`` names what played it."""
        if self._open is None:
            self._open = _OpenShard(self._path(), self._schema)
        count = len(episode.frames)
        actions = np.concatenate([episode.actions, np.zeros_like(episode.actions[:1])])
        rewards = np.append(episode.rewards, np.float32(0))
        terminal = np.zeros(count, bool)
        terminal[-2] = episode.terminal
        first = np.arange(count) == 0
        for start in range(0, count, CHUNK):
            part = slice(start, start + CHUNK)
            frames = np.ascontiguousarray(episode.frames[part])
            columns = [
                pa.FixedSizeBinaryArray.from_buffers(pa.binary(FRAME_BYTES), len(frames), [None, pa.py_buffer(frames)]),
                pa.FixedSizeListArray.from_arrays(pa.array(actions[part].ravel()), actions.shape[1]),
                pa.array(rewards[part]),
                pa.array(terminal[part]),
                pa.array(first[part]),
            ]
            self._open.append(pa.record_batch(columns, schema=self._schema))
        self.rows.append(
            {
                "episode": len(self.rows),
                "seed": episode.seed,
                "policy": policy,
                "steps": count - 1,
                "total": float(episode.rewards.sum(dtype=np.float64)),
                "terminal": episode.terminal,
                "shard": len(self.shards),
                **({} if episode.visited is None else {"visited": np.packbits(episode.visited).tobytes().hex()}),
            }
        )
        if self._open.frames >= self.shard_frames:
            self._close_shard()

    def state(self) -> dict[str, Any]:
        """Return what another writer needs to go on from here, beside the folder."""
        return {"rows": self.rows, "shards": self.shards, "open": self._open.state() if self._open else None}

    def finish(
        self,
        manifest: Path,
        earlier: Path | None = None,
        target: Path | None = None,
        *,
        choices: Sequence[int] = (),
        judge: Callable[[pd.DataFrame], Mapping[str, Any]] = lambda _: {},
    ) -> None:
        """Close the files and write the manifest: this iteration's shards after the shards of the ``earlier`` manifest.

        With ``target``, the files are put there, and the folder keeps its own. ``choices``: of the game. ``judge``: returns
        what else the manifest is to say of some rows of the table of episodes: of all, and of each policy's. What is not known
        because there are no episodes, or no rewards of one, is null.
        """
        self._close_shard()
        place = target or self.folder
        table = pd.DataFrame(self.rows, columns=None if self.rows else list(COLUMNS))
        mine = []
        for shard in self.shards:
            if target is not None:
                link(self.folder / shard["name"], target / shard["name"])
            mine.append({"path": (place / shard["name"]).as_posix(), "sha256": shard["sha256"], "frames": shard["frames"]})
        write_table(place / "episodes.parquet", table)
        before = read_json(earlier, MANIFEST)["shards"] if earlier else []
        summary = {
            "episodes": len(table),
            "frames": sum(shard["frames"] for shard in mine),
            "all_frames": sum(shard["frames"] for shard in [*before, *mine]),
            "mean_return": _known(table["total"].mean(skipna=False)),
            "mean_length": _known(table["steps"].mean()),
            "policies": {
                name: {
                    "episodes": len(group),
                    "mean_return": _known(group["total"].mean(skipna=False)),
                    "reward_per_step": _known(group["total"].sum(skipna=False) / group["steps"].sum()),
                    **judge(group),
                }
                for name, group in table.groupby("policy")
            },
            **judge(table),
            "choices": list(choices),
            "shards": [*before, *mine],
        }
        write_json(manifest, summary)

    def _path(self) -> Path:
        return self.folder / f"shard-{len(self.shards):03d}.arrow"

    def _close_shard(self) -> None:
        if self._open is not None:
            self._open.close()
            self.shards.append({"name": self._path().name, **self._open.state()})
            self._open = None

    def _go_on(self, state: Mapping[str, Any]) -> None:
        try:
            for shard in state["shards"]:
                if sha256(self._path()) != shard["sha256"]:
                    raise OSError("its checksum is another")
                self.shards.append(shard)
            if state["open"]:
                self._open = _OpenShard.again(self._path(), self._schema, state["open"])
        except (OSError, pa.ArrowInvalid) as error:
            print(f"warning: {self._path()} is damaged ({error}): its episodes are played again.", file=sys.stderr)
        there = len(self.shards) + (self._open is not None)
        self.rows = [row for row in state["rows"] if row["shard"] < there]


def cells_of(table: pd.DataFrame, cells: int) -> np.ndarray:
    """Return the cells of the map that the episodes of a table came to, (E, N) bool, for N ``cells``."""
    packed = np.array([list(bytes.fromhex(text)) for text in table["visited"]], np.uint8)
    return np.unpackbits(packed, axis=1, count=cells).astype(bool)


class _HashedFile(io.FileIO):
    """A file that is being written, unbuffered, and knows its length and SHA-256 without being read again."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "wb")
        self.length, self.digest = 0, hashlib.sha256()

    def write(self, content: Any) -> int:
        left = memoryview(content)
        self.digest.update(left)
        self.length += len(left)
        while left:
            left = left[super().write(left) :]
        return len(content)

    def close(self) -> None:
        if not self.closed:
            os.fsync(self.fileno())
        super().close()


class _OpenShard:
    """An Arrow file to which frames are appended."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.frames = 0
        self._file = _HashedFile(path)
        self._writer = pa.ipc.new_file(self._file, schema, options=pa.ipc.IpcWriteOptions(compression="zstd"))

    @classmethod
    def again(cls, path: Path, schema: pa.Schema, state: Mapping[str, Any]) -> "_OpenShard":
        """Return the shard as it was at ``state``, though what wrote it is gone.

        Raises:
            OSError: the file is missing, or not what it was.
        """
        with path.open("rb") as file:
            content = file.read(state["bytes"])
        if hashlib.sha256(content).hexdigest() != state["sha256"]:
            raise OSError("its checksum is another")
        copy = path.with_suffix(".again")  # until it is whole, the old one stays
        shard = cls(copy, schema)
        with pa.ipc.open_stream(pa.py_buffer(content)[MAGIC_BYTES:]) as batches:
            while shard.frames < state["frames"]:
                shard.append(batches.read_next_batch())
        copy.replace(path)
        return shard

    def append(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)
        self.frames += len(batch)

    def state(self) -> dict[str, Any]:
        return {"frames": self.frames, "bytes": self._file.length, "sha256": self._file.digest.hexdigest()}

    def close(self) -> None:
        self._writer.close()
        self._file.close()


class FrameReader:
    """Random access to the chunks of all shards of a manifest (its length); only the chunks asked for are in memory.

    Args:
        manifest: data.json.
        verify: check every shard against its SHA-256 first.

    Raises:
        ArtifactError: a shard is missing, or its checksum is another.
    """

    def __init__(self, manifest: Path, *, verify: bool = True) -> None:
        # Of every chunk: how to read its frames, how to read all of it, and which batch of its shard it is.
        self.chunks: list[tuple[pa.ipc.RecordBatchFileReader, pa.ipc.RecordBatchFileReader, int]] = []
        self.total = 0  # frames
        self._paths: list[Path] = []
        frames_only = pa.ipc.IpcReadOptions(included_fields=[0])
        for shard in read_json(manifest, MANIFEST)["shards"]:
            self.total += shard["frames"]
            path = require(Path(shard["path"]))
            self._paths.append(path)
            if verify and sha256(path) != shard["sha256"]:
                raise damaged(path, "its checksum is not the one in the manifest")
            try:
                source = pa.memory_map(str(path))
                frames, whole = pa.ipc.open_file(source, options=frames_only), pa.ipc.open_file(source)
            except pa.ArrowInvalid as error:
                raise damaged(path, error) from None
            self.chunks += [(frames, whole, batch) for batch in range(whole.num_record_batches)]

    def __len__(self) -> int:
        return len(self.chunks)

    def frames(self, chunks: Sequence[int]) -> np.ndarray:
        """Return the frames of these chunks, one after the other, (N, 64, 64, 3) uint8."""
        return np.concatenate([_frames(frames.get_batch(batch)) for frames, _, batch in (self.chunks[i] for i in chunks)])

    def rows(self, chunk: int) -> dict[str, np.ndarray]:
        """Return everything in a chunk: frame (N, 64, 64, 3), action (N, A), reward, terminal, first (N,)."""
        _, whole, number = self.chunks[chunk]
        batch = whole.get_batch(number)
        return {"frame": _frames(batch), **_facts(batch)}

    def facts(self) -> dict[str, np.ndarray]:
        """Return all rows without their frames: action (N, A), reward, terminal, first (N,); and chunk (N,), their number."""
        told = pa.ipc.IpcReadOptions(included_fields=[1, 2, 3, 4])
        parts = []
        for path in self._paths:
            shard = pa.ipc.open_file(pa.memory_map(str(path)), options=told)
            parts += [_facts(shard.get_batch(number)) for number in range(shard.num_record_batches)]
        sizes = [len(part["first"]) for part in parts]
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return rows | {"chunk": np.repeat(np.arange(len(sizes)), sizes)}


def _known(number: Any) -> float | None:
    return float(number) if np.isfinite(number) else None


def _facts(batch: pa.RecordBatch) -> dict[str, np.ndarray]:
    action = batch.column("action").flatten().to_numpy().reshape(len(batch), -1)
    others = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in ("reward", "terminal", "first")}
    return {"action": action, **others}


def _frames(batch: pa.RecordBatch) -> np.ndarray:
    column = batch.column(0)
    return np.frombuffer(column.buffers()[1], np.uint8, len(batch) * FRAME_BYTES).reshape(-1, *FRAME_SHAPE)
