"""Search for C in the dream or in the game; put V, M and C together as an agent."""

from functools import partial

from pipeline.stage import Stage, run_stage
from worldmodels.agent.agent import Agent, load_agent, save_agent
from worldmodels.agent.begin import begin_at
from worldmodels.controller.config import ControllerSection
from worldmodels.controller.training import train_controller
from worldmodels.controller.worlds import Worlds
from worldmodels.games.base import GameConfig
from worldmodels.games.make import Game
from worldmodels.memory.make import memory_from_description, new_memory
from worldmodels.seeds import stream_seed
from worldmodels.storage.agents import AgentCard, read_card
from worldmodels.storage.episodes import FrameReader
from worldmodels.storage.files import sha256, write_curve
from worldmodels.storage.layout import AgentFiles
from worldmodels.storage.weights import load_model, load_tensors, save_tensors
from worldmodels.vision.model import Vision
from worldmodels.worlds.dream import Starts


def main(stage: Stage) -> None:
    config: ControllerSection = stage.params(f"controllers.{stage.controller}", ControllerSection)
    game: GameConfig = stage.params("game", Game)
    model, files, begins, seed = stage.model, stage.agent, AgentFiles(stage.begin).agent, int(stage.seed)
    vision = load_model(model.vision, Vision.from_description)
    memory = load_model(model.memory, memory_from_description)
    rows, _ = load_tensors(model.latents)
    if config.memory == "untrained":
        memory = new_memory(memory.config, vision.config.latent, memory.action, stage.project_seed + seed, memory.choices)
    if config.ending:
        memory.config = memory.config.model_copy(update={"ending": config.ending})
    compares = any(getattr(phase, "pay", "") == "progress" for phase in config.phases.values())
    before = load_model(model.memory_before, memory_from_description) if compares else None
    start = None
    if read_card(begins).kind != "random":
        reader = None if sha256(begins / "vision.safetensors") == sha256(model.vision) else FrameReader(model.data)
        told = stream_seed(stage.project_seed, stage.stream, "begin", seed)
        start = begin_at(load_agent(begins), memory, rows, config.model, reader, seed=told)
    worlds = Worlds(
        vision,
        memory,
        rows,
        game,
        config.model.features,
        engine=stage.engine,
        threads=stage.threads,
        device=stage.device,
        products=stage.products,
        compiled=stage.compute.compile,
        before=before,
        seed=stream_seed(stage.project_seed, stage.stream, "curiosity", seed),
    )
    inputs = [model.vision, model.memory, model.memory_before, model.latents, *sorted(begins.iterdir())]
    found = train_controller(
        config,
        worlds,
        start,
        seed=stage.project_seed,
        stream=stage.stream,
        controller_seed=seed,
        generations=stage.progress(range(config.generations), "generation"),
        observe=stage.run.observe,
        choosing=partial(stage.play, limit=game.steps, what="the choice in the game"),
        checkpoint=stage.checkpoint(*inputs),
    )
    told_of = {"environment": stage.env, "game": game.model_dump(), "controller": config.model.model_dump()}
    save_agent(files.agent, Agent(AgentCard(kind="world-model", **told_of), vision, memory, found.parameters, Starts.of(rows)))
    save_tensors(files.rejected, {"rejected": found.rejected}, {})
    write_curve(files.curve, found.curve)
    stage.run.done(files.rejected)


if __name__ == "__main__":
    run_stage("controller", main)
