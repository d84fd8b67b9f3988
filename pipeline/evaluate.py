"""The transfer score: an agent in the real game on test episodes that nothing was trained or selected on, and in its dream."""

import pandas as pd

from pipeline.playing import play
from pipeline.stage import Stage, run_stage
from worldmodels.agent.agent import load_agent
from worldmodels.agent.play import play_dream, play_real
from worldmodels.games.base import GameConfig
from worldmodels.games.make import Game
from worldmodels.rollout.coverage import coverage_of
from worldmodels.rollout.evaluation import NUM_ENVS, EvaluationConfig, shards
from worldmodels.rollout.scores import best_blind, choice, episodes_table, join, read_blind, steps_learned, summarise
from worldmodels.seeds import episode_seeds
from worldmodels.storage.files import read_curve, write_json, write_table


def main(stage: Stage) -> None:
    config: EvaluationConfig = stage.params("evaluate", EvaluationConfig)
    game: GameConfig = stage.params("game", Game)
    files, (blind, known) = stage.agent, read_blind(stage.random.returns, game.policies)
    curve = read_curve(files.curve, ("phase", "world", "steps"))
    agent = load_agent(files.agent)
    shared = stage.engine.share(agent)
    parts = shards(episode_seeds(config.block, config.episodes), NUM_ENVS, stage.engine.workers)
    checkpoint = stage.checkpoint(*sorted(files.agent.iterdir()))
    real = join(play(stage, play_real, [(shared, game, seeds, NUM_ENVS) for seeds in parts], checkpoint, game.steps))
    tables, dream = [episodes_table(real, "real"), blind[blind["world"] == "random"]], None
    if config.dreams:
        returns = play_dream(agent, config.temperature, episode_seeds("dream", config.dreams, stream="test"))
        tables.append(episodes_table(returns, "dream"))
        dream = {"temperature": config.temperature, **summarise(returns)}
    env = game.make(scoring=True)
    scores = {
        "key": stage.key,
        "environment": stage.env,
        **{name: stage.value(f"agents.{stage.key}")[name] for name in ("world_model", "controller", "study")},
        "preset": stage.value("preset", str),
        "seed": stage.value("seed", int),
        "controller_seed": int(stage.seed),
        "rules": env.rules,
        "backend": env.backend,
        "block": config.block,
        "parameters": agent.parameters.numel(),
        "steps": steps_learned(curve),
        "real": summarise(real),
        **coverage_of(real, game.map),
        "selection": choice(curve),
        "dream": dream,
        "random": known["random"],
        "blind": best_blind(known),
        "gap": dream["mean"] - float(real.total.mean()) if dream else None,
    }
    write_table(files.returns, pd.concat(tables, ignore_index=True))
    write_json(files.scores, scores)
    stage.run.done(files.scores, metrics=files.scores)


if __name__ == "__main__":
    run_stage("evaluate", main)
