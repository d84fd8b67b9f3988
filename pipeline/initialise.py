"""Iteration 0: the random policy and other blind ones, and their scores on the test episodes."""

import pandas as pd

from pipeline.playing import play
from pipeline.stage import Stage, run_stage
from worldmodels.rollout.baseline import play_blind
from worldmodels.rollout.evaluation import NUM_ENVS, EvaluationConfig, shards
from worldmodels.rollout.scores import episodes_table, join, summarise
from worldmodels.games.base import GameConfig
from worldmodels.games.make import Game
from worldmodels.seeds import episode_seeds
from worldmodels.storage.agents import AgentCard, write_card
from worldmodels.storage.files import write_curve, write_json, write_table
from worldmodels.storage.weights import save_tensors


def main(stage: Stage) -> None:
    game: GameConfig = stage.params("game", Game)
    test: EvaluationConfig = stage.params("evaluate", EvaluationConfig)
    policies = game.policies
    parts = shards(episode_seeds("test", test.episodes), NUM_ENVS, stage.engine.workers)
    tasks = [(game, policy, seeds, NUM_ENVS) for policy in policies.values() for seeds in parts]
    checkpoint = stage.checkpoint()
    played = play(stage, play_blind, tasks, checkpoint)
    returns = {name: join(played[i * len(parts) : (i + 1) * len(parts)]) for i, name in enumerate(policies)}
    table = pd.concat([episodes_table(each, name) for name, each in returns.items()], ignore_index=True)
    write_table(stage.files.baseline_returns, table)
    write_json(stage.files.baseline, summarise(returns["random"]))
    write_curve(stage.files.blind, [policy_row(name, summarise(each)) for name, each in returns.items()])
    write_json(stage.files.data, {"shards": []})
    save_tensors(stage.files.latents, {}, {"frames": 0})
    save_tensors(stage.files.controller, {}, {})
    write_card(stage.files.agent, AgentCard(kind="random", environment=stage.environment, game=game.model_dump()))
    stage.run.done(stage.files.baseline)


def policy_row(name: str, summary: dict) -> dict:
    """Return a blind policy's score as a row."""
    return {"policy": name, **{field: summary[field] for field in ("mean", "std", "stderr", "n")}}


if __name__ == "__main__":
    run_stage("initialise", main)
