"""Iteration 0: the random policy, and its score on the test episodes."""

from pipeline.stage import Stage, run_stage
from worldmodels.compute.local import run_tasks
from worldmodels.engine.baseline import play_random
from worldmodels.engine.evaluation import RealTestConfig, shards
from worldmodels.engine.scores import episodes_table, join, summarise
from worldmodels.envs.make import EnvironmentConfig
from worldmodels.seeds import episode_seeds
from worldmodels.storage.agents import AgentCard, write_card
from worldmodels.storage.files import write_json, write_table


def main(stage: Stage) -> None:
    game: EnvironmentConfig = stage.params("environment", EnvironmentConfig)
    test: RealTestConfig = stage.params("evaluate.real", RealTestConfig)
    tasks = [(game, test.baseline, seeds, test.lanes) for seeds in shards(episode_seeds("test", test.episodes), test.lanes)]
    done = dict(stage.progress(run_tasks(play_random, tasks, stage.threads), "task", len(tasks)))
    returns = join([done[i] for i in range(len(tasks))])
    write_table(stage.files.baseline_returns, episodes_table(returns, "random"))
    write_json(stage.files.baseline, summarise(returns))
    write_json(stage.files.data, {"shards": []})
    write_card(stage.files.agent, AgentCard(kind="random", environment=stage.environment, game=game.model_dump()))
    stage.run.done(stage.files.baseline)


if __name__ == "__main__":
    run_stage("initialise", main)
