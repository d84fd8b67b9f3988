"""Train M on the latents of all episodes."""

from pipeline.stage import Stage, run_stage
from worldmodels.memory.make import memory_from_description, new_memory
from worldmodels.memory.training import MemoryTraining, train_memory
from worldmodels.storage.files import write_curve
from worldmodels.storage.weights import load_model, load_tensors, save_model


def main(stage: Stage) -> None:
    config: MemoryTraining = stage.params("memory", MemoryTraining)
    rows, _ = load_tensors(stage.files.latents)
    earlier = stage.before.agent / "memory.safetensors"
    if earlier.exists():
        model = load_model(earlier, memory_from_description)
        config = config.model_copy(update={"optimiser": config.optimiser.warm()})
    else:
        model = new_memory(config.model, rows["mean"].shape[1], rows["action"].shape[1], stage.seed)
    model.to(stage.device)
    updates = stage.progress(range(config.optimiser.updates), "update")
    checkpoint = stage.checkpoint(stage.files.latents, *([earlier] if earlier.exists() else []))
    with stage.training():
        curve = train_memory(
            model, rows, config, seed=stage.seed, updates=updates, observe=stage.run.metrics, checkpoint=checkpoint
        )
    save_model(stage.files.memory, model)
    write_curve(stage.files.memory_curve, curve)
    stage.run.done(stage.files.memory)


if __name__ == "__main__":
    run_stage("memory", main)
