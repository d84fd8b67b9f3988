"""Play with an agent; keep what was seen and done (paper, section 5, step 2)."""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from itertools import pairwise

from pipeline.stage import Stage, run_stage
from worldmodels.games.base import BatchEnv, GameConfig
from worldmodels.games.make import Game
from worldmodels.games.sight import Sight
from worldmodels.rollout.bare import BareWorld
from worldmodels.rollout.collection import CollectConfig, collect_episodes
from worldmodels.rollout.coverage import coverage_in
from worldmodels.rollout.patience import PatientWorld, cut_when_decided
from worldmodels.rollout.policies import ExploringPolicy, RandomPolicy
from worldmodels.rollout.world import ToldWorld, World
from worldmodels.seeds import episode_seeds
from worldmodels.shapes import Episode
from worldmodels.storage.agents import read_card
from worldmodels.storage.episodes import EpisodeWriter
from worldmodels.storage.layout import AgentFiles, require
from worldmodels.storage.weights import load_tensors


def main(stage: Stage) -> None:
    config: CollectConfig = stage.params("collect", CollectConfig)
    game: GameConfig = stage.params("game", Game)
    files, player, explorers = stage.model, AgentFiles(stage.player), AgentFiles(stage.explorer)
    first = read_card(require(player.agent)).kind == "random"
    game = game.at_most(config.first_limit) if first else game
    random = config.random or game.random
    seeds = episode_seeds("collection", config.first_episodes if first else config.episodes, stream=stage.stream)
    played_by = [*sorted(player.agent.iterdir()), require(player.rejected), *sorted(require(explorers.agent).iterdir())]
    checkpoint = stage.checkpoint(*played_by)
    state = checkpoint.load()[1]
    writer = EpisodeWriter(checkpoint.folder, game.action_size, state=state.get("writer"))
    sight = Sight(**state.get("sight", {}))
    done = len(writer.rows)
    told = stage.play(len(seeds) - done, game.steps)

    def play(world: World, policy: RandomPolicy | ExploringPolicy, seeds: Sequence[int], name: str) -> None:
        def keep(episode: Episode) -> None:
            if game.patience:
                episode = cut_when_decided(episode, game.patience, game.aftermath, game.won)
            writer.write(episode, f"{name}{policy.label(episode.seed)}")
            if checkpoint.due():
                checkpoint.save({}, {"writer": writer.state(), "sight": asdict(sight)})

        with closing(ToldWorld(PatientWorld(world, game.patience) if game.patience else world, told)) as played:
            collect_episodes(played, policy, seeds, sight=sight, keep=keep)

    def stretches(begin: int, end: int) -> Iterator[tuple[BatchEnv, Sequence[int]]]:
        """Yield the games of the back end that trains, then of the one that scores, and what is still to be played there."""
        border = end - round(config.scoring_share * (end - begin))
        for scoring, first, last in ((False, begin, border), (True, border, end)):
            if left := seeds[max(done, first) : last]:
                yield game.make(threads=stage.threads, scoring=scoring), left

    rejected = () if first else load_tensors(player.rejected)[0]["rejected"]
    borders = [0, len(seeds)] if first else config.borders(len(rejected), explores=stage.explorer != stage.player)
    for env, left in stretches(*borders[:2]):
        play(BareWorld(env), RandomPolicy(random), left, "")
    if max(done, borders[1]) < len(seeds):
        # By name: the code of V, M and C is a dependency only if there is such an agent, through its card.
        load_agent = importlib.import_module("worldmodels.agent.agent").load_agent
        agent = load_agent(player.agent)
        explorer = agent if stage.explorer == stage.player else load_agent(explorers.agent)
        drivers = [(f"{stage.player} rejected", agent, each) for each in rejected]
        drivers += [(f"{stage.explorer} explorer", explorer, explorer.parameters), (stage.player, agent, agent.parameters)]
        for (name, driver, parameters), (begin, end) in zip(drivers, pairwise(borders[1:]), strict=True):
            for env, left in stretches(begin, end):
                policy = ExploringPolicy(driver.policy(parameters[None]), RandomPolicy(random), config.strengths)
                play(driver.real_world(env), policy, left, f"{name}, ")
    sight.check(f"the {len(seeds)} episodes of {stage.key}")
    judge = partial(coverage_in, map_=game.map)
    writer.finish(files.data, stage.before.data, files.episodes, choices=game.choices, judge=judge)
    stage.run.done(files.data, metrics=files.data)


if __name__ == "__main__":
    run_stage("collect", main)
