"""A trial: search for C otherwise than the chain does, on V and M of one of its iterations, and test what was found."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from pipeline.search import search
from pipeline.stage import Stage, run_stage
from worldmodels.agent.agent import Agent, load_agent, save_agent
from worldmodels.agent.play import play_real
from worldmodels.controller.imitation import imitate
from worldmodels.controller.model import ControllerConfig, Controllers, parameter_count
from worldmodels.controller.phases.basis import played_features
from worldmodels.controller.training import ControllerTraining
from worldmodels.errors import ParamsError
from worldmodels.games.make import EnvironmentConfig, make_env
from worldmodels.memory.base import Memory
from worldmodels.memory.features import feature_size
from worldmodels.memory.make import new_memory
from worldmodels.params import validate
from worldmodels.rollout.evaluation import shards
from worldmodels.rollout.scores import episodes_table, join, summarise
from worldmodels.seeds import episode_seeds
from worldmodels.storage.files import write_curve, write_json, write_table
from worldmodels.storage.layout import artifacts_of, require
from worldmodels.storage.weights import load_tensors
from worldmodels.training.trial import TrialConfig, steps_played, trial_training
from worldmodels.worlds.dream import Starts

LANES = 32
"""Test episodes at a time."""


def main(stage: Stage) -> None:
    where = f"trials.{stage.key}"
    trial: TrialConfig = validate(stage.value(where), where, TrialConfig)
    config: ControllerTraining = trial_training(stage.params("controller", dict), trial, stage.key)
    game: EnvironmentConfig = stage.params("environment", EnvironmentConfig)
    files, of = stage.files, stage.before
    begins = artifacts_of(trial.agent).agent
    agent = load_agent(require(begins))
    vision, memory = agent.vision, agent.memory
    if trial.memory == "untrained":
        memory = new_memory(memory.config, vision.config.latent, memory.action, stage.seed + trial.seed)
    memory.config = memory.config.model_copy(update={"ending": trial.ending})
    rows, _ = load_tensors(of.latents)
    start = None
    if trial.begin == "agent":
        start = begin_at(agent, memory, rows, config.model, key=stage.key, seed=stage.seed + trial.seed)
    inputs = [of.latents, *sorted(begins.iterdir())]
    parameters, _, curve = search(
        stage, config, vision, memory, rows, start=start, played=True, inputs=inputs, told=[trial.memory]
    )
    card = agent.card.model_copy(update={"controller": config.model.model_dump()})
    save_agent(files.agent, Agent(card, vision.cpu(), memory.cpu(), parameters, Starts.of(rows)))
    write_curve(files.controller_curve, curve)

    scoring = trial.world == "scoring"
    shared = stage.engine.share(load_agent(files.agent))
    parts = shards(episode_seeds("test", trial.episodes), LANES, stage.engine.workers)
    played = dict(stage.engine.run(play_real, [(shared, game, part, LANES, scoring) for part in parts]))
    real = join([played[index] for index in range(len(parts))])
    write_table(files.returns, episodes_table(real, "real"))
    env = make_env(game, scoring=scoring)
    scores: dict[str, Any] = {
        "key": stage.key,
        "environment": stage.environment,
        "of": of.key,
        "study": trial.study,
        "variant": trial.variant,
        "seed": trial.seed,
        "parameters": parameter_count(config.model, *_sizes(config, agent)),
        "steps": steps_played(curve, config),
        "preset": stage.value("preset"),
        "rules": env.preset,
        "backend": env.backend,
        "real": summarise(real),
    }
    write_json(files.scores, scores)
    stage.run.metrics({f"real/{name}": scores["real"][name] for name in ("mean", "std", "stderr", "n")}, 0)
    stage.run.done(files.scores)


def begin_at(
    agent: Agent, memory: Memory, rows: Mapping[str, Tensor], model: ControllerConfig, *, key: str, seed: int
) -> np.ndarray:
    """Return the agent's C; where the trial's has another shape, one that acts all but as it does.

    Raises:
        ParamsError: that one has no biases.
    """
    if agent.config == model and memory is agent.memory:
        return agent.parameters.numpy()
    if not model.bias:
        raise ParamsError(f"trials.{key}.begin: agent asks for a C of the agent's shape, or for one with biases.")
    seen = [played_features(each.features, of, rows, seed) for each, of in ((agent.config, agent.memory), (model, memory))]
    teacher = Controllers(agent.config, agent.parameters.float()[None], seen[0].shape[1], memory.action)
    return imitate(teacher, seen[0], model, seen[1], seed=seed)


def _sizes(config: ControllerTraining, agent: Agent) -> tuple[int, int]:
    return feature_size(config.model.features, agent.vision.config.latent, agent.memory), agent.memory.action


if __name__ == "__main__":
    run_stage("trial", main)
