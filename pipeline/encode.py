"""Encode all frames by V: mean and log variance, beside actions, rewards and ends."""

from pipeline.stage import Stage, run_stage
from worldmodels.storage.episodes import COLLECTED, FrameReader
from worldmodels.storage.files import read_json, sha256
from worldmodels.storage.weights import load_model, load_tensors, save_tensors
from worldmodels.vision.encode import encode_rows
from worldmodels.vision.model import Vision


def main(stage: Stage) -> None:
    files, before = stage.model, stage.before
    model = load_model(files.vision, Vision.from_description).to(stage.device)
    reader = FrameReader(files.data)
    known, old = None, 0
    if sha256(before.vision) == sha256(files.vision):  # V stayed as it was, and so do its latents
        (known, _), old = load_tensors(before.latents), len(FrameReader(before.data, verify=False))
    with stage.training():
        rows = encode_rows(model, reader, stage.progress(range(old, len(reader)), "chunk"), known)
    choices = read_json(files.data, COLLECTED)["choices"]  # M learns from latents alone
    save_tensors(files.latents, rows, {"frames": len(rows["first"]), "choices": choices})
    stage.run.done(files.latents)


if __name__ == "__main__":
    run_stage("encode", main)
