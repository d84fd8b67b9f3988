"""Train M on the latents of all episodes."""

from copy import deepcopy

from pipeline.stage import Stage, run_stage
from worldmodels.memory.make import memory_from_description, new_memory
from worldmodels.memory.training import MemoryTraining, train_memory
from worldmodels.storage.files import write_curve
from worldmodels.storage.weights import load_model, load_tensors, save_model


def main(stage: Stage) -> None:
    config: MemoryTraining = stage.params("memory", MemoryTraining)
    files, earlier = stage.model, stage.before.memory
    rows, told = load_tensors(files.latents)
    fresh = new_memory(
        config.model, rows["mean"].shape[1], rows["action"].shape[1], stage.project_seed, told.get("choices", ())
    )
    model, optimiser = fresh, config.optimiser.counted(len(rows["first"]) / config.sequence)
    if load_tensors(earlier)[1] == fresh.describe():  # an M of another shape begins anew
        model = load_model(earlier, memory_from_description)
        optimiser = optimiser.warm()
    config = config.model_copy(update={"optimiser": optimiser})
    begun = deepcopy(model)
    model.to(stage.device)
    with stage.training():
        curve = train_memory(
            model,
            rows,
            config,
            seed=stage.project_seed,
            updates=stage.progress(range(config.optimiser.updates), "update"),
            observe=stage.run.observe,
            checkpoint=stage.checkpoint(files.latents, earlier),
        )
    save_model(files.memory, model)
    save_model(files.memory_before, begun)
    write_curve(files.memory_curve, curve)
    stage.run.done(files.memory)


if __name__ == "__main__":
    run_stage("memory", main)
