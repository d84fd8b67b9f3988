"""Play with the policy of the iteration before; keep what was seen and done (paper, section 5, step 2)."""

import importlib

from pipeline.stage import Stage, run_stage
from worldmodels.engine.bare import BareWorld
from worldmodels.engine.collection import CollectConfig, collect_episodes
from worldmodels.engine.policies import ExploringPolicy, RandomPolicy
from worldmodels.envs.make import EnvironmentConfig, make_env
from worldmodels.seeds import episode_seeds
from worldmodels.storage.agents import read_card
from worldmodels.storage.episodes import EpisodeWriter
from worldmodels.storage.layout import require


def main(stage: Stage) -> None:
    config: CollectConfig = stage.params("collect", CollectConfig)
    game: EnvironmentConfig = stage.params("environment", EnvironmentConfig)
    game = game.model_copy(update={"limit": min(config.limit, game.limit)})
    card = read_card(require(stage.before.agent))
    seeds = episode_seeds("collection", config.episodes, stream=stage.stream)
    by_random = len(seeds) if card.kind == "random" else round(config.random_share * len(seeds))
    writer = EpisodeWriter(stage.files.episodes, len(config.random.mean))
    bar = iter(stage.progress(range(len(seeds)), "episode", len(seeds)))

    def play(world, policy, seeds, name) -> None:
        try:
            collect_episodes(
                world, policy, seeds, lanes=config.lanes, writer=writer, name=name, on_episode=lambda _: next(bar, None)
            )
        finally:
            world.close()

    if by_random:
        play(BareWorld(make_env(game, threads=stage.threads)), RandomPolicy(config.random), seeds[:by_random], "random")
    if by_random < len(seeds):
        # By name: the code of V, M and C is a dependency only where there is such an agent, through its card.
        agent = importlib.import_module("worldmodels.engine.agent").load_agent(stage.before.agent)
        policy = ExploringPolicy(agent.policy(), RandomPolicy(config.random), config.strengths)
        play(agent.real_world(make_env(game, threads=stage.threads)), policy, seeds[by_random:], stage.after)
    next(bar, None)
    summary = writer.finish(stage.files.data, stage.before.data)
    stage.run.metrics({name: summary[name] for name in ("episodes", "frames", "mean_return", "mean_length")}, 0)
    stage.run.done(stage.files.data)


if __name__ == "__main__":
    run_stage("collect", main)
