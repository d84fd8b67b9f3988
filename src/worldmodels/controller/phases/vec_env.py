"""A world as stable-baselines3 wants it: a ``VecEnv``."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from stable_baselines3.common.vec_env import VecEnv

from worldmodels.rollout.world import World

REWARD_SCALE = 0.1
"""Rewards as the critic sees them: returns are then of the order of ten."""
REACH = 10.0
"""Bound of an action before its tanh; stable-baselines3 asks for one."""


class WorldVecEnv(VecEnv):
    """A ``World`` as stable-baselines3 wants it: a fixed number of lanes, where the next episode follows at once.

    Args:
        world: without lanes; it is neither opened nor closed here.
        lanes: B.
        seeds: of the episodes, in the order in which they begin.
    """

    def __init__(self, world: World, lanes: int, seeds: Iterator[int]) -> None:
        shape, actions = (world.feature_size,), (world.action_size,)
        super().__init__(lanes, Box(-np.inf, np.inf, shape, np.float32), Box(-REACH, REACH, actions, np.float32))
        self.world, self.seeds = world, seeds
        self.finished: list[float] = []
        self.paid = 0.0
        self._total = np.zeros(lanes)
        self._lanes = np.zeros(0, np.int64)  # where the world's lanes are among ours
        self._actions = np.zeros((lanes, world.action_size), np.float32)

    def begin(self, seeds: Iterator[int]) -> None:
        """Take the episodes of a new collection."""
        self.seeds, self.finished, self.paid = seeds, [], 0.0

    def reset(self) -> np.ndarray:
        """Begin an episode in every lane; return features (B, F)."""
        self.world.keep(torch.zeros(0, dtype=torch.int64))
        self._lanes = np.arange(self.num_envs)
        self._total[:] = 0
        self.world.start([next(self.seeds) for _ in self._lanes])
        return self._features()

    def step_async(self, actions: np.ndarray) -> None:
        """Note actions (B, A), before their tanh."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Return features (B, F), rewards (B,), which lanes ended (B,), and how."""
        step = self.world.step(torch.tanh(torch.from_numpy(self._actions[self._lanes])))
        rewards, over = np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs, bool)
        infos: list[dict[str, Any]] = [{} for _ in over]
        rewards[self._lanes] = step.reward.numpy()
        self._total += rewards
        self.paid += float(rewards.sum())
        ended = step.terminal | step.truncated
        if bool(ended.any()):
            last = self._features()
            lanes = self._lanes[ended.numpy()]
            over[lanes] = True
            for lane, cut in zip(lanes, step.truncated[ended].tolist(), strict=True):
                infos[lane] = {"terminal_observation": last[lane], "TimeLimit.truncated": cut}
            self.finished += self._total[lanes].tolist()
            self._total[lanes] = 0
            self.world.keep(torch.nonzero(~ended).flatten())
            self.world.start([next(self.seeds) for _ in lanes])
            self._lanes = np.concatenate([self._lanes[~ended.numpy()], lanes])
        return self._features(), rewards * REWARD_SCALE, over, infos

    def _features(self) -> np.ndarray:
        features = np.empty((self.num_envs, self.world.feature_size), np.float32)
        features[self._lanes] = self.world.features().cpu().numpy()
        return features

    def close(self) -> None:
        """Nothing to free: the world is its owner's."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the lanes: they have none but what every environment has."""
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse."""
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Refuse."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Return that no lane is wrapped."""
        return [False] * self.num_envs
