"""A whole data set through V."""

from collections.abc import Iterable

import torch
from torch import Tensor

from worldmodels.errors import WorldModelsError
from worldmodels.models.vision import Vision, to_images
from worldmodels.storage.episodes import FrameReader


@torch.inference_mode()
def encode_rows(model: Vision, reader: FrameReader, chunks: Iterable[int]) -> dict[str, Tensor]:
    """Return one row a frame: mean, log_variance (N, Z) float16, action (N, A), reward, terminal, first (N,)."""
    parts: dict[str, list[Tensor]] = {}
    for chunk in chunks:
        rows = reader.rows(chunk)
        mean, log_variance = model.encode(to_images(torch.from_numpy(rows.pop("frame").copy()).to(model.device)))
        parts.setdefault("mean", []).append(mean.half().cpu())
        parts.setdefault("log_variance", []).append(log_variance.half().cpu())
        for name, column in rows.items():
            parts.setdefault(name, []).append(torch.from_numpy(column.copy()))
    latents = {name: torch.cat(tensors) for name, tensors in parts.items()}
    if not bool(latents["mean"].isfinite().all() & latents["log_variance"].isfinite().all()):
        raise WorldModelsError("V gives latents that are not numbers. Lower vision.optimiser.learning_rate and train it again.")
    return latents
