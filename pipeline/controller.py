"""Evolve C on V and M of an iteration; put the three together as an agent."""

import numpy as np
from torch import Tensor

from pipeline.search import search
from pipeline.stage import Stage, run_stage
from worldmodels.agent.agent import Agent, load_agent, save_agent
from worldmodels.controller.carry import carry_over
from worldmodels.controller.model import ControllerConfig
from worldmodels.controller.phases.basis import played_features
from worldmodels.controller.training import ControllerTraining
from worldmodels.games.make import EnvironmentConfig
from worldmodels.memory.base import Memory
from worldmodels.memory.make import memory_from_description
from worldmodels.storage.agents import AgentCard, read_card
from worldmodels.storage.files import write_curve
from worldmodels.storage.layout import require
from worldmodels.storage.weights import load_model, load_tensors, save_tensors
from worldmodels.vision.model import Vision
from worldmodels.worlds.dream import Starts


def main(stage: Stage) -> None:
    config: ControllerTraining = stage.params("controller", ControllerTraining)
    game: EnvironmentConfig = stage.params("environment", EnvironmentConfig)
    files, before = stage.files, stage.before
    vision = load_model(files.vision, Vision.from_description)
    memory = load_model(files.memory, memory_from_description)
    rows, _ = load_tensors(files.latents)
    played = read_card(require(before.agent)).kind == "world-model"
    earlier = load_agent(before.agent) if config.warm_start and played else None
    start = begin_at(earlier, stage, config.model, memory, rows) if earlier and earlier.config == config.model else None
    inputs = [files.vision, files.memory, files.latents]
    if start is not None:
        inputs += [before.agent / "controller.safetensors", before.agent / "memory.safetensors", before.latents]
    found = search(stage, config, vision, memory, rows, start=start, played=played, inputs=inputs)
    card = AgentCard(
        kind="world-model",
        environment=stage.environment,
        game=game.model_dump(),
        controller=config.model.model_dump(),
    )
    save_agent(files.agent, Agent(card, vision, memory, found.parameters, Starts.of(rows)))
    save_tensors(files.controller, {"parameters": found.parameters, "rejected": found.rejected}, config.model.model_dump())
    write_curve(files.controller_curve, found.curve)
    stage.run.done(files.controller)


def begin_at(earlier: Agent, stage: Stage, model: ControllerConfig, memory: Memory, rows: dict[str, Tensor]) -> np.ndarray:
    """Return the C of the iteration before, carried over to this one's V and M where V is another."""
    parameters = earlier.parameters.numpy()
    if stage.vision_stayed:
        return parameters
    old, _ = load_tensors(stage.before.latents)
    same = {name: row[: len(old["first"])] for name, row in rows.items()}  # the frames that both know
    seen, sees = (played_features(model.features, *of) for of in ((earlier.memory, old), (memory, same)))
    return carry_over(parameters, model, memory.action, seen, sees)


if __name__ == "__main__":
    run_stage("controller", main)
