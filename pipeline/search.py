"""The search for C on some V and M: what the stages ``controller`` and ``trial`` share."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from pipeline.arenas import open_arena
from pipeline.stage import Stage
from worldmodels.controller.arena import Arena
from worldmodels.controller.model import first_parameters
from worldmodels.controller.phases.basis import played_features, principal_directions
from worldmodels.controller.phases.config import DreamPhase, RealPhase
from worldmodels.controller.phases.value_gradient import ValueGradients
from worldmodels.controller.selection import SelectionConfig
from worldmodels.controller.training import ControllerTraining, Found, Learner, train_controller
from worldmodels.errors import ParamsError, WorldModelsError
from worldmodels.games.make import EnvironmentConfig
from worldmodels.memory.base import Memory
from worldmodels.memory.features import Features, feature_size
from worldmodels.rollout.patience import open_patient
from worldmodels.rollout.world import ModelWorld
from worldmodels.seeds import Purpose, episode_seeds, stream_seed
from worldmodels.vision.model import Vision
from worldmodels.worlds.dream import DreamWorld, Replay, Starts
from worldmodels.worlds.pay import Pay, open_paid
from worldmodels.worlds.real import open_games


def search(
    stage: Stage,
    config: ControllerTraining,
    vision: Vision,
    memory: Memory,
    rows: dict[str, Tensor],
    *,
    start: np.ndarray | None,
    played: bool,
    inputs: Sequence[Path],
    told: Sequence[Any] = (),
) -> Found:
    """Evolve C in the dream, in reality, or in one after the other.

    Args:
        stage: that runs.
        config: the phases.
        vision: V; it stays as it is.
        memory: M; it stays as it is.
        rows: latents of all frames, where dreams begin.
        start: parameters (N,) to begin at; None for zeros.
        played: whether an agent has played in the data, so that dreams may begin in the middle of its play.
        inputs: files that the search depends on.
        told: what else it depends on, beside params and code.
    """
    if start is not None:
        config = config.model_copy(update={"evolution": config.evolution.warm()})
    if config.ppo.generations and config.ppo.risk and not memory.config.done:
        raise ParamsError("controller.ppo.risk is told by M's done head: set memory.model.done: true, or risk: 0.")
    game: EnvironmentConfig = stage.params("environment", EnvironmentConfig)
    compiled = bool(stage.value("compute.compile"))
    device = stage.device if stage.engine.parts == 1 else "cpu"  # workers of a cluster may have no GPU
    # Where C plays to learn; the agent that is kept is of the weights as they are.
    seer, dreamer = deepcopy(vision).to(device, stage.products), deepcopy(memory).to(device, stage.products)
    memory.to(device)
    starts, features = Starts.of(rows), config.model.features
    sizes = feature_size(features, vision.config.latent, memory), memory.action

    def dream_world(of: DreamPhase, risk: float = 0.0) -> Callable[[], ModelWorld]:
        inside, moments = played or of.moments.random_play, of.moments.model_dump(exclude={"random_play"})
        places = Replay.of(rows, **moments) if of.moments.share and inside else starts
        how: dict[str, Any] = of.model_dump(include={"temperature", "limit"}) | {"fused": compiled, "worth": game.frame_skip}
        dream = partial(DreamWorld, dreamer, places, features, **how)
        pay: Pay = "hazard" if risk else "survival" if of.survival else "return"
        return partial(open_paid, dream, pay, hazard_cost=risk, goal=of.goal)

    def real_world(limit: int, patience: int, risk: float = 0.0, seen: Features = features) -> Callable[[], ModelWorld]:
        rules = game.model_copy(update={"limit": min(limit, game.limit)})
        opened = partial(open_games, rules, stage.threads, seer, dreamer, seen, scoring=config.games == "scoring")
        games = partial(open_paid, opened, "hazard" if risk else "return", hazard_cost=risk)
        return partial(open_patient, games, patience) if patience else games

    def arena_of(of: DreamPhase | RealPhase | SelectionConfig) -> Arena:
        patience = of.patience if isinstance(of, RealPhase) else 0
        open_world = dream_world(of) if isinstance(of, DreamPhase) else real_world(of.limit, patience)
        return open_arena(stage.engine, open_world, *sizes)

    def open_learner(begin: np.ndarray | None, run: int) -> Learner:
        phase, ppo = config.learning, config.ppo
        kind: Literal["ppo", "gradient"] = "gradient" if config.gradient.generations else "ppo"
        stream = f"{stage.stream}/{kind}/{config.evolution.seed}" + (f"/{run}" if run else "")
        dreams = kind == "ppo" and ppo.world == "dream"
        purpose: Purpose = "dream" if dreams else "evolution"

        def episodes(generation: int) -> Iterator[int]:
            first = generation * phase.lanes * phase.limit
            return (episode_seeds(purpose, 1, stream=stream, start=first + i)[0] for i in count())

        if begin is None:
            begin = first_parameters(config.model, *sizes, stream_seed(stage.seed, stream, "first"))
        how: dict[str, Any] = {"seed": lambda generation: stream_seed(stage.seed, stream, generation), "episodes": episodes}
        if kind == "gradient":
            if str(device) != "cpu":
                raise WorldModelsError("controller.gradient learns on the processor: set compute.device: cpu for this stage.")
            games = real_world(config.gradient.limit, config.gradient.patience, seen="zch")
            seen = played_features(features, memory, rows, stream_seed(stage.seed, stream, "seen"))
            return ValueGradients(config.gradient, config.model, games(), dreamer, begin, seen, **how)
        try:
            from worldmodels.controller.phases.ppo import Refinement
        except ImportError as error:
            raise WorldModelsError(
                f"controller.ppo needs stable-baselines3 ({error}): pip install 'worldmodels[ppo]' "
                "(in a clone: pip install -c requirements.lock -e '.[ppo]'), or set its generations to 0."
            ) from None
        world = real_world(ppo.limit, ppo.patience, ppo.risk)
        if dreams:  # one step more than is played: what a dream that is cut off is worth is the critic's to say
            world = dream_world(config.dream.model_copy(update={"limit": ppo.limit + 1, "survival": 0.0}), ppo.risk)
        return Refinement(ppo, config.model, world(), begin, **how)

    components = config.evolution.components
    return train_controller(
        config,
        arena_of,
        start,
        principal_directions(played_features(features, memory, rows), components) if components else None,
        seed=stage.seed,
        stream=stage.stream,
        generations=stage.progress(range(config.generations + len(config.selection.rounds)), "generation"),
        observe=stage.run.metrics,
        checkpoint=stage.checkpoint(*inputs, told=[compiled, config.model_dump(), start is None, *told]),
        open_learner=open_learner,
    )
