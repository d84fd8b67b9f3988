"""An agent put to the test, in reality and in its dream."""

from collections.abc import Sequence
from contextlib import closing

import torch

from worldmodels.agent.agent import Agent
from worldmodels.games.base import GameConfig
from worldmodels.rollout.loop import run_episodes
from worldmodels.rollout.world import told_of
from worldmodels.shapes import Returns, Told


def play_real(agent: Agent, game: GameConfig, seeds: Sequence[int], lanes: int, told: Told | None = None) -> Returns:
    """Play episodes of the real game with an agent, on the back end that scores. A task for a worker."""
    torch.set_num_threads(1)
    with closing(told_of(agent.real_world(game.make(scoring=True)), told)) as world:
        return run_episodes(world, agent.policy(), seeds, lanes=lanes)


def play_dream(agent: Agent, temperature: float, seeds: Sequence[int]) -> Returns:
    """Play episodes in the agent's own dream, by the limit and the goal of its game."""
    return run_episodes(agent.dream_world(temperature=temperature), agent.policy(), seeds)
