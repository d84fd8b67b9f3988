"""A real game without models: for policies that do not look, which collect first, and which every score is held against."""

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from worldmodels.games.base import BatchEnv, GameConfig, visited_in
from worldmodels.games.blind import Blind
from worldmodels.rollout.loop import run_episodes
from worldmodels.rollout.policies import blind_policy
from worldmodels.rollout.world import Step, told_of
from worldmodels.shapes import Returns, Told


class BareWorld:
    """A ``World`` of real games whose features are empty, (B, 0)."""

    feature_size = 0

    def __init__(self, env: BatchEnv) -> None:
        self.env = env
        self.action_size = env.action_size
        self._frames = np.zeros((0, 64, 64, 3), np.uint8)

    def start(self, seeds: Sequence[int]) -> None:
        self._frames = np.concatenate([self._frames, self.env.start(seeds)])

    def features(self) -> Tensor:
        return torch.zeros(len(self._frames), 0)

    def frames(self) -> np.ndarray:
        return self._frames

    def visited(self) -> np.ndarray | None:
        return visited_in(self.env)

    def step(self, actions: Tensor) -> Step:
        result = self.env.step(actions.numpy())
        self._frames = result.frames
        return Step(*map(torch.from_numpy, result[1:]))

    def keep(self, lanes: Tensor) -> None:
        self.env.keep(lanes.numpy())
        self._frames = self._frames[lanes.numpy()]

    def close(self) -> None:
        self.env.close()


def play_blind(game: GameConfig, policy: Blind, seeds: Sequence[int], lanes: int, told: Told | None = None) -> Returns:
    """Play episodes with a blind policy on the back end that scores. A task for a worker process."""
    with closing(told_of(BareWorld(game.make_unseen()), told)) as world:
        return run_episodes(world, blind_policy(policy), seeds, lanes=lanes)
