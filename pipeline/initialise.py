"""Iteration 0: the random policy as an agent, an empty world model, and the scores of all blind policies in the test."""

import pandas as pd

from pipeline.playing import play
from pipeline.stage import Stage, run_stage
from worldmodels.games.base import GameConfig
from worldmodels.games.make import Game
from worldmodels.rollout.bare import play_blind
from worldmodels.rollout.coverage import coverage_of
from worldmodels.rollout.evaluation import NUM_ENVS, Block, shards
from worldmodels.rollout.scores import best_blind, episodes_table, join, summarise
from worldmodels.seeds import episode_seeds
from worldmodels.storage.agents import AgentCard, write_card
from worldmodels.storage.files import write_json, write_table
from worldmodels.storage.weights import save_tensors


def main(stage: Stage) -> None:
    game: GameConfig = stage.params("game", Game)
    policies = game.policies
    block: Block = stage.params("evaluate.block", Block)
    # Large parts: what is not seen is soon played, and to start the games of a part takes longer than to play some of them.
    parts = shards(episode_seeds(block, stage.params("evaluate.episodes", int)), 4 * NUM_ENVS, stage.engine.workers)
    tasks = [(game, policy, seeds, NUM_ENVS) for policy in policies.values() for seeds in parts]
    played = play(stage, play_blind, tasks, stage.checkpoint(), game.steps)
    returns = {name: join(played[i * len(parts) : (i + 1) * len(parts)]) for i, name in enumerate(policies)}
    files, empty = stage.agent, stage.model
    write_table(files.returns, pd.concat([episodes_table(each, name) for name, each in returns.items()], ignore_index=True))
    scores = {name: summarise(each) for name, each in returns.items()}
    write_card(files.agent, AgentCard(kind="random", environment=stage.env, game=game.model_dump()))
    save_tensors(files.rejected, {}, {})
    write_json(empty.data, {"shards": []})
    save_tensors(empty.latents, {}, {"frames": 0})
    save_tensors(empty.vision, {}, {})
    save_tensors(empty.memory, {}, {})
    env = game.make(scoring=True)
    about = {"key": stage.key, "environment": stage.env, "preset": stage.value("preset", str), "block": block}
    rules = {"rules": env.rules, "backend": env.backend}
    real = {"real": scores["random"], **coverage_of(returns["random"], game.map)}
    write_json(files.scores, {**about, **rules, **real, "blind": best_blind(scores)})
    stage.run.done(files.scores, metrics=files.scores)


if __name__ == "__main__":
    run_stage("initialise", main)
