"""Policies that do not look, in the real game: what every score is held against."""

from collections.abc import Sequence

from worldmodels.rollout.bare import BareWorld
from worldmodels.rollout.policies import RandomPolicyConfig, ScriptedConfig, blind_policy
from worldmodels.rollout.loop import run_episodes
from worldmodels.games.make import EnvironmentConfig, make_env
from worldmodels.shapes import Returns


def play_blind(
    game: EnvironmentConfig, policy: RandomPolicyConfig | ScriptedConfig, seeds: Sequence[int], lanes: int
) -> Returns:
    """Play episodes with a blind policy on the scoring back end. A task for a worker process."""
    world = BareWorld(make_env(game, scoring=True))
    try:
        return run_episodes(world, blind_policy(policy), seeds, lanes=lanes)
    finally:
        world.close()
