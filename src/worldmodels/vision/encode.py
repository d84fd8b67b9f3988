"""A whole data set through V."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from worldmodels.errors import WorldModelsError
from worldmodels.storage.episodes import FrameReader
from worldmodels.vision.model import Vision, to_images


@torch.inference_mode()
def encode_rows(
    model: Vision, reader: FrameReader, chunks: Iterable[int], known: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return one row a frame: mean, log_variance (N, Z) float16, action (N, A), reward, terminal, first (N,).

    Args:
        model: V.
        reader: the frames.
        chunks: which to encode, possibly wrapped to show progress: those after ``known``.
        known: rows of the first frames, of the same V.
    """

    def parts() -> Iterator[Mapping[str, Tensor]]:
        if known:
            yield known
        for chunk in chunks:
            rows = reader.rows(chunk)
            frames = encode_chunk(model, rows.pop("frame"))
            yield frames | {name: torch.from_numpy(column.copy()) for name, column in rows.items()}

    latents: dict[str, Tensor] = {}
    done = 0
    for part in parts():
        for name, tensor in part.items():
            # Room for all at once: pieces that stay, between large ones that go, would keep the memory of those.
            if name not in latents:
                latents[name] = tensor.new_empty(reader.total, *tensor.shape[1:])
            latents[name][done : done + len(tensor)] = tensor
        done += len(part["mean"])
    if done != reader.total:
        raise WorldModelsError(f"the shards hold {done} frames, and the manifest says {reader.total}: collect them again.")
    if not bool(latents["mean"].isfinite().all() & latents["log_variance"].isfinite().all()):
        raise WorldModelsError("V gives latents that are not numbers. Lower vision.optimiser.learning_rate and train it again.")
    return latents


def encode_chunk(model: Vision, frames: np.ndarray) -> dict[str, Tensor]:
    """Return V's ``mean`` and ``log_variance`` of frames (N, 64, 64, 3) uint8, (N, Z) float16 each, on the processor."""
    mean, log_variance = model.encode(to_images(torch.from_numpy(frames.copy()).to(model.device)))
    return {"mean": mean.half().cpu(), "log_variance": log_variance.half().cpu()}
