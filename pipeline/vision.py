"""Train V on the frames of this iteration and all before it."""

from pipeline.stage import Stage, run_stage
from worldmodels.vision.model import Vision
from worldmodels.storage.episodes import FrameReader
from worldmodels.storage.files import write_curve
from worldmodels.storage.weights import load_model, save_model
from worldmodels.vision.training import VisionTraining, new_vision, novelty, train_vision


def main(stage: Stage) -> None:
    config: VisionTraining = stage.params("vision", VisionTraining)
    reader = FrameReader(stage.files.data)
    earlier = stage.before.agent / "vision.safetensors"
    if config.warm_start and earlier.exists():
        model = load_model(earlier, Vision.from_description)
        old = len(FrameReader(stage.before.data, verify=False))
        new = novelty(model.to(stage.device), reader, old)
        stage.run.metrics({"novelty": new}, 0)
        kept = {"updates": 0} if new <= config.refresh else {}
        config = config.model_copy(update={"optimiser": config.optimiser.warm().model_copy(update=kept)})
    else:
        model = new_vision(config.model, stage.seed)
    model.to(stage.device)
    updates = stage.progress(range(config.optimiser.updates), "update")
    checkpoint = stage.checkpoint(stage.files.data, *([earlier] if earlier.exists() else []))
    with stage.training():
        curve = train_vision(
            model, reader, config, seed=stage.seed, updates=updates, observe=stage.run.metrics, checkpoint=checkpoint
        )
    save_model(stage.files.vision, model)
    write_curve(stage.files.vision_curve, curve)
    stage.run.done(stage.files.vision)


if __name__ == "__main__":
    run_stage("vision", main)
