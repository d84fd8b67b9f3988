"""Train V on the frames of this iteration and of all before it."""

import sys

from pipeline.stage import Stage, run_stage
from worldmodels.storage.episodes import FrameReader
from worldmodels.storage.files import write_curve
from worldmodels.storage.weights import load_model, load_tensors, save_model
from worldmodels.vision.model import Vision, VisionConfig
from worldmodels.vision.training import VisionTraining, new_vision, novelty, train_vision


def main(stage: Stage) -> None:
    config: VisionTraining = stage.params("vision", VisionTraining)
    files, earlier = stage.model, stage.before.vision
    reader = FrameReader(files.data)
    shape = load_tensors(earlier)[1].get("config")
    if shape is not None and VisionConfig(**shape) == config.model:
        model = load_model(earlier, Vision.from_description)
        new = novelty(model.to(stage.device), reader, len(FrameReader(stage.before.data, verify=False)))
        stays = new <= config.refresh or not config.optimiser.warm_updates
        print(f"error on new frames / on earlier ones: {new:.3f}: V {'stays' if stays else 'is trained on'}", file=sys.stderr)
        optimiser = config.optimiser.warm().model_copy(update={"updates": 0} if stays else {})
        config = config.model_copy(update={"optimiser": optimiser})
    else:
        model = new_vision(config.model, stage.project_seed)
        config = config.model_copy(update={"optimiser": config.optimiser.counted(reader.total)})
    model.to(stage.device)
    with stage.training():
        curve = train_vision(
            model,
            reader,
            config,
            seed=stage.project_seed,
            updates=stage.progress(range(config.optimiser.updates), "update"),
            observe=stage.run.observe,
            checkpoint=stage.checkpoint(files.data, earlier),
        )
    save_model(files.vision, model)
    write_curve(files.vision_curve, curve)
    stage.run.done(files.vision)


if __name__ == "__main__":
    run_stage("vision", main)
