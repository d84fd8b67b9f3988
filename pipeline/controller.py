"""Evolve C in the dream, in reality, or in one after the other; put V, M and C together as an agent."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import numpy as np
from torch import Tensor

from pipeline.arenas import open_arena
from pipeline.stage import Stage, run_stage
from worldmodels.engine.agent import Agent, load_agent, save_agent
from worldmodels.engine.dream import DreamWorld, Replay, Starts
from worldmodels.engine.real import open_games
from worldmodels.engine.world import World
from worldmodels.envs.make import EnvironmentConfig
from worldmodels.errors import WorldModelsError
from worldmodels.models.controller import ControllerConfig, feature_size, parameter_count
from worldmodels.models.memory import Memory
from worldmodels.models.vision import Vision
from worldmodels.seeds import Purpose, episode_seeds, stream_seed
from worldmodels.storage.agents import AgentCard, read_card
from worldmodels.storage.files import write_curve
from worldmodels.storage.layout import require
from worldmodels.storage.weights import load_model, load_tensors, save_tensors
from worldmodels.training.arena import Arena
from worldmodels.training.basis import played_features, principal_directions
from worldmodels.training.carry import carry_over
from worldmodels.training.controller import (
    ControllerTraining,
    DreamPhase,
    Learner,
    RealPhase,
    SelectionConfig,
    train_controller,
)


def main(stage: Stage) -> None:
    config: ControllerTraining = stage.params("controller", ControllerTraining)
    game: EnvironmentConfig = stage.params("environment", EnvironmentConfig)
    device = stage.device if stage.engine.parts == 1 else "cpu"  # workers of a cluster may have no GPU
    vision = load_model(stage.files.vision, Vision.from_description).to(device)
    memory = load_model(stage.files.memory, Memory.from_description).to(device)
    # Where C plays to learn; the agent that is kept is of the weights as they are.
    seer = load_model(stage.files.vision, Vision.from_description).to(device, stage.products)
    dreamer = load_model(stage.files.memory, Memory.from_description).to(device, stage.products)
    rows, _ = load_tensors(stage.files.latents)
    starts = Starts.of(rows)
    features = config.model.features

    played = read_card(require(stage.before.agent)).kind == "world-model"
    sizes = feature_size(features, vision.config.latent, memory.config.hidden), memory.action

    def dream_world(of: DreamPhase) -> Callable[[], World]:
        places = Replay.of(rows, **of.moments.model_dump()) if of.moments.share and played else starts
        how = {
            "temperature": of.temperature,
            "limit": of.limit,
            "survival": of.survival,
            "fused": stage.value("compute.compile"),
        }
        return partial(DreamWorld, dreamer, places, features, **how)

    def real_world(limit: int) -> Callable[[], World]:
        rules = game.model_copy(update={"limit": min(limit, game.limit)})
        return partial(open_games, rules, stage.threads, seer, dreamer, features)

    def arena_of(of: DreamPhase | RealPhase | SelectionConfig) -> Arena:
        open_world = dream_world(of) if isinstance(of, DreamPhase) else real_world(of.limit)
        return open_arena(stage.engine, open_world, *sizes)

    def open_learner(begin: np.ndarray | None) -> Learner:
        try:
            from worldmodels.training.ppo import Refinement
        except ImportError as error:
            raise WorldModelsError(
                f"controller.ppo needs stable-baselines3 ({error}): pip install 'worldmodels[ppo]' "
                "(in a clone: pip install -c requirements.lock -e '.[ppo]'), or set its generations to 0."
            ) from None
        phase, world = config.ppo, real_world(config.ppo.limit)
        if phase.world == "dream":  # one step more than is played: what a dream that is cut off is worth is the critic's to say
            world = dream_world(config.dream.model_copy(update={"limit": phase.limit + 1, "survival": 0.0}))
        stream = f"{stage.stream}/ppo/{config.evolution.seed}"

        purpose: Purpose = "dream" if phase.world == "dream" else "evolution"

        def episodes(generation: int) -> Iterator[int]:
            first = generation * phase.lanes * phase.limit
            return (episode_seeds(purpose, 1, stream=stream, start=first + i)[0] for i in count())

        return Refinement(
            phase,
            config.model,
            world(),
            np.zeros(parameter_count(config.model, *sizes)) if begin is None else begin,
            seed=lambda generation: stream_seed(stage.seed, stream, generation),
            episodes=episodes,
        )

    earlier = load_agent(stage.before.agent) if config.warm_start and played else None
    start = begin_at(earlier, stage, config.model, memory, rows) if earlier and earlier.config == config.model else None
    components = config.evolution.components
    directions = principal_directions(played_features(features, memory, rows), components) if components else None
    before = [stage.before.agent / "controller.safetensors", stage.before.agent / "memory.safetensors", stage.before.latents]
    inputs = [stage.files.vision, stage.files.memory, stage.files.latents, *(before if start is not None else [])]
    checkpoint = stage.checkpoint(*inputs, told=[stage.value("compute.compile")])
    parameters, curve = train_controller(
        config,
        arena_of,
        start,
        directions,
        seed=stage.seed,
        stream=stage.stream,
        generations=stage.progress(range(config.generations), "generation"),
        observe=stage.run.metrics,
        checkpoint=checkpoint,
        open_learner=open_learner,
    )
    card = AgentCard(
        kind="world-model",
        environment=stage.environment,
        game=game.model_dump(),
        controller=config.model.model_dump(),
    )
    save_agent(stage.files.agent, Agent(card, vision, memory, parameters, starts))
    save_tensors(stage.files.controller, {"parameters": parameters}, config.model.model_dump())
    write_curve(stage.files.controller_curve, curve)
    stage.run.done(stage.files.controller)


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
