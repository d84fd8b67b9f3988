"""Frames -> V's mean and log variance, beside what was done and what came of it."""

import torch

from pipeline.stage import Stage, run_stage
from worldmodels.vision.model import Vision
from worldmodels.storage.episodes import FrameReader
from worldmodels.storage.weights import load_model, load_tensors, save_tensors
from worldmodels.vision.encode import encode_rows


def main(stage: Stage) -> None:
    model = load_model(stage.files.vision, Vision.from_description).to(stage.device)
    reader = FrameReader(stage.files.data)
    known, old = None, 0
    if stage.vision_stayed:  # so do its latents
        (known, _), old = load_tensors(stage.before.latents), len(FrameReader(stage.before.data, verify=False))
    with stage.training():
        rows = encode_rows(model, reader, stage.progress(range(old, len(reader)), "chunk"), known)
    save_tensors(stage.files.latents, rows, {"frames": len(rows["first"])})
    stage.run.metrics({"frames": len(rows["first"]), "active_dimensions": active_dimensions(rows["mean"])}, 0)
    stage.run.done(stage.files.latents)


def active_dimensions(mean: torch.Tensor) -> int:
    """Count latent dimensions whose mean varies by more than 0.01 over the data (Burda et al. 2016)."""
    return int((mean.float().var(0) > 0.01).sum())


if __name__ == "__main__":
    run_stage("encode", main)
