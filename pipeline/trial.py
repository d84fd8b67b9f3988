"""A trial: search for C otherwise than the chain does, on V and M of one of its iterations, and test what was found."""

from typing import Any

import numpy as np

from pipeline.search import search
from pipeline.stage import Stage, run_stage
from worldmodels.engine.agent import Agent, load_agent, save_agent
from worldmodels.engine.dream import Starts
from worldmodels.engine.evaluation import shards
from worldmodels.engine.play import play_real
from worldmodels.engine.scores import episodes_table, join, summarise
from worldmodels.envs.make import EnvironmentConfig, make_env
from worldmodels.models.controller import feature_size, parameter_count
from worldmodels.params import validate
from worldmodels.seeds import episode_seeds
from worldmodels.storage.files import write_curve, write_json, write_table
from worldmodels.storage.layout import artifacts_of, require
from worldmodels.storage.weights import load_tensors
from worldmodels.training.carry import can_widen, widen
from worldmodels.training.controller import ControllerTraining
from worldmodels.training.memory import new_memory
from worldmodels.training.trial import TrialConfig, steps_played, trial_training

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
    start = begin_at(agent, config, stage.seed + trial.seed) if trial.begin == "agent" else None
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


def begin_at(agent: Agent, config: ControllerTraining, seed: int) -> np.ndarray | None:
    """Return the agent's C as the trial's shape has it; None where it cannot be had in it."""
    if agent.config == config.model:
        return agent.parameters.numpy()
    if can_widen(agent.config, config.model, agent.memory.action):
        return widen(agent.parameters.double().numpy(), config.model, agent.memory.action, seed)
    return None


def _sizes(config: ControllerTraining, agent: Agent) -> tuple[int, int]:
    return feature_size(config.model.features, agent.vision.config.latent, agent.memory.config.hidden), agent.memory.action


if __name__ == "__main__":
    run_stage("trial", main)
