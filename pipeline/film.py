"""What there is to see of an agent: an episode, real, through V and dreamt; pictures of V and of M's dreams."""

from pipeline.stage import Stage, run_stage
from worldmodels.agent.agent import load_agent
from worldmodels.games.base import GameConfig
from worldmodels.games.make import Game
from worldmodels.report.demonstration import demonstrate, draw
from worldmodels.rollout.evaluation import EvaluationConfig
from worldmodels.seeds import episode_seeds


def main(stage: Stage) -> None:
    game: GameConfig = stage.params("game", Game)
    config: EvaluationConfig = stage.params("evaluate", EvaluationConfig)
    agent, env = load_agent(stage.agent.agent), game.make(scoring=True)
    seed, parts = episode_seeds("demonstration", 1)[0], iter(stage.progress(("play and dream", "draw"), "part"))
    next(parts)
    seen = demonstrate(agent, env, seed=seed, temperature=config.temperature)
    next(parts)
    draw(seen, stage.agent, game.frames_a_second)
    next(parts, None)
    stage.run.done(stage.agent.film)


if __name__ == "__main__":
    run_stage("film", main)
