"""Policies that do not look, in the real game: what every score is held against."""

from collections.abc import Sequence

from worldmodels.games.base import GameConfig
from worldmodels.games.blind import Blind
from worldmodels.rollout.bare import BareWorld
from worldmodels.rollout.loop import run_episodes
from worldmodels.rollout.policies import blind_policy
from worldmodels.shapes import Returns


def play_blind(game: GameConfig, policy: Blind, seeds: Sequence[int], lanes: int) -> Returns:
    """Play episodes with a blind policy on the back end that scores. A task for a worker process."""
    world = BareWorld(game.make(scoring=True))
    try:
        return run_episodes(world, blind_policy(policy), seeds, lanes=lanes)
    finally:
        world.close()
