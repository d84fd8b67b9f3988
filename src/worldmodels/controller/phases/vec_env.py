"""A world as stable-baselines3 wants it: a ``VecEnv``."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, MultiDiscrete
from stable_baselines3.common.vec_env import VecEnv
from torch.nn.functional import one_hot

from worldmodels.games.choices import Choices
from worldmodels.rollout.lanes import Lanes
from worldmodels.rollout.world import World

REACH = 10.0
"""Bound of an action before its tanh; stable-baselines3 asks for one."""


class PlainVecEnv(VecEnv):
    """A ``VecEnv`` whose lanes have nothing of their own."""

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


class WorldVecEnv(PlainVecEnv):
    """A ``World`` as stable-baselines3 wants it: a fixed number of lanes, where the next episode follows at once.

    Args:
        world: without lanes; it is neither opened nor closed here.
        lanes: B.
        seeds: of the episodes, in the order in which they begin.
        scale: of the rewards that the critic sees.
        choices: of the game (``GameConfig.choices``): then an action is the number of an option for each of them.
        squashed: the library takes the tanh of actions itself.
    """

    def __init__(
        self,
        world: World,
        lanes: int,
        seeds: Iterator[int],
        scale: float,
        choices: Choices = (),
        *,
        squashed: bool = False,
    ) -> None:
        seen, reach = Box(-np.inf, np.inf, (world.feature_size,), np.float32), 1.0 if squashed else REACH
        acts = MultiDiscrete(choices) if choices else Box(-reach, reach, (world.action_size,), np.float32)
        super().__init__(lanes, seen, acts)
        self._scale, self._choices, self._squashed = scale, choices, squashed
        self.world, self.seeds, self._lanes = world, seeds, Lanes(world, lanes)
        self.finished: list[float] = []
        self.paid = 0.0
        self._total = np.zeros(lanes)
        self._actions = torch.zeros(lanes, world.action_size)

    def begin(self, seeds: Iterator[int]) -> None:
        """Take the episodes of a new collection."""
        self.seeds, self.finished, self.paid = seeds, [], 0.0

    def reset(self) -> np.ndarray:
        """Begin an episode in every lane; return features (B, F)."""
        self._total[:] = 0
        return self._lanes.reset([next(self.seeds) for _ in range(self.num_envs)])

    def step_async(self, actions: np.ndarray) -> None:
        """Note actions, (B, A), before their tanh if they are not squashed, or (B, K) options of K choices."""
        taken = torch.from_numpy(actions)
        options = zip(taken.T, self._choices, strict=True) if self._choices else ()
        parts = [2 * one_hot(each, count).float() - 1 for each, count in options]
        self._actions = torch.cat(parts, 1) if parts else taken if self._squashed else torch.tanh(taken)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Return features (B, F), rewards (B,), which lanes ended (B,), and how."""
        step = self._lanes.step(self._actions, self.seeds)
        self._total += step.rewards
        self.paid += float(step.rewards.sum())
        over = step.terminal | step.truncated
        infos: list[dict[str, Any]] = [{} for _ in over]
        for lane in step.ended.tolist():
            assert step.last is not None
            infos[lane] = {"terminal_observation": step.last[lane], "TimeLimit.truncated": bool(step.truncated[lane])}
            self.finished.append(float(self._total[lane]))
        self._total[over] = 0
        return step.seen, step.rewards * self._scale, over, infos
