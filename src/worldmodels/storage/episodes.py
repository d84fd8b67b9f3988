"""Episodes on disk: a few shards of compressed frames, a table of episodes, a manifest with checksums.

A shard is an Arrow file whose record batches are runs of 64 consecutive frames of one episode or less, compressed with zstd:
a reader takes any of them without touching the rest, so that a data set need not fit into memory. One row is one frame:
``frame`` (12,288 bytes), ``action``, ``reward``, ``terminal``, ``first``. The last frame of an episode has no action: zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from worldmodels.shapes import FRAME_SHAPE, Episode
from worldmodels.storage.files import read_json, sha256, write_json, write_table
from worldmodels.storage.layout import damaged, require

CHUNK = 64
FRAME_BYTES = int(np.prod(FRAME_SHAPE))


class EpisodeWriter:
    """Writes episodes into a folder as they end.

    Args:
        folder: where; made if missing, must be empty.
        actions: A.
        shard_frames: frames after which the next episode opens a new shard.
    """

    def __init__(self, folder: Path, actions: int, shard_frames: int = 20_000) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.shard_frames = folder, shard_frames
        self.rows: list[dict[str, Any]] = []
        self.shards: list[dict[str, Any]] = []
        self._schema = pa.schema(
            [
                ("frame", pa.binary(FRAME_BYTES)),
                ("action", pa.list_(pa.float32(), actions)),
                ("reward", pa.float32()),
                ("terminal", pa.bool_()),
                ("first", pa.bool_()),
            ]
        )
        self._writer: pa.ipc.RecordBatchFileWriter | None = None

    def write(self, episode: Episode, policy: str) -> None:
        """Append an episode; ``policy`` names what played it."""
        if self._writer is None:
            path = self.folder / f"shard-{len(self.shards):03d}.arrow"
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            self._writer = pa.ipc.new_file(str(path), self._schema, options=options)
            self.shards.append({"path": path, "frames": 0})
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
            self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self.shards[-1]["frames"] += count
        self.rows.append(
            {
                "episode": len(self.rows),
                "seed": episode.seed,
                "policy": policy,
                "steps": count - 1,
                "total": float(episode.rewards.sum(dtype=np.float64)),
                "terminal": episode.terminal,
                "shard": len(self.shards) - 1,
            }
        )
        if self.shards[-1]["frames"] >= self.shard_frames:
            self._close_shard()

    def finish(self, manifest: Path, earlier: Path) -> dict[str, Any]:
        """Close the files and write the manifest: this iteration's shards after those of the ``earlier`` manifest."""
        self._close_shard()
        table = pd.DataFrame(self.rows)
        write_table(self.folder / "episodes.parquet", table)
        before = read_json(earlier)["shards"]
        mine = [
            {"path": shard["path"].as_posix(), "sha256": sha256(shard["path"]), "frames": shard["frames"]}
            for shard in self.shards
        ]
        summary = {
            "episodes": len(table),
            "frames": sum(shard["frames"] for shard in mine),
            "all_frames": sum(shard["frames"] for shard in [*before, *mine]),
            "mean_return": float(table["total"].mean()),
            "mean_length": float(table["steps"].mean()),
            "policies": {name: len(group) for name, group in table.groupby("policy")},
            "shards": [*before, *mine],
        }
        write_json(manifest, summary)
        return summary

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


@dataclass(frozen=True)
class _Chunk:
    shard: int
    batch: int


class FrameReader:
    """Random access to the chunks of all shards of a manifest; only the chunks asked for are in memory.

    Args:
        manifest: data.json.
        verify: check every shard against its SHA-256 first.

    Raises:
        ArtifactError: where a shard is missing, or its checksum is another.
    """

    def __init__(self, manifest: Path, *, verify: bool = True) -> None:
        self._files: list[pa.ipc.RecordBatchFileReader] = []
        self._frames_only: list[pa.ipc.RecordBatchFileReader] = []
        self.chunks: list[_Chunk] = []
        for index, shard in enumerate(read_json(manifest)["shards"]):
            path = require(Path(shard["path"]))
            if verify and sha256(path) != shard["sha256"]:
                raise damaged(path, "its checksum is not the one in the manifest")
            try:
                source = pa.memory_map(str(path))
                self._files.append(pa.ipc.open_file(source))
                options = pa.ipc.IpcReadOptions(included_fields=[0])
                self._frames_only.append(pa.ipc.open_file(source, options=options))
            except pa.ArrowInvalid as error:
                raise damaged(path, error) from None
            self.chunks += [_Chunk(index, batch) for batch in range(self._files[-1].num_record_batches)]

    def __len__(self) -> int:
        """Chunks."""
        return len(self.chunks)

    def frames(self, chunks: Sequence[int]) -> np.ndarray:
        """Return the frames of these chunks, one after the other, (N, 64, 64, 3) uint8."""
        batches = [self._frames_only[c.shard].get_batch(c.batch) for c in (self.chunks[i] for i in chunks)]
        return np.concatenate([_frames(batch) for batch in batches])

    def rows(self, chunk: int) -> dict[str, np.ndarray]:
        """Return everything in a chunk: frame (N, 64, 64, 3), action (N, A), reward, terminal, first (N,)."""
        batch = self._files[self.chunks[chunk].shard].get_batch(self.chunks[chunk].batch)
        action = batch.column("action")
        return {
            "frame": _frames(batch),
            "action": action.flatten().to_numpy().reshape(len(batch), -1),
            **{name: batch.column(name).to_numpy(zero_copy_only=False) for name in ("reward", "terminal", "first")},
        }


def _frames(batch: pa.RecordBatch) -> np.ndarray:
    column = batch.column(0)
    return np.frombuffer(column.buffers()[1], np.uint8, len(batch) * FRAME_BYTES).reshape(-1, *FRAME_SHAPE)
