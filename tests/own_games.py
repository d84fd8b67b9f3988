"""A game of somebody else's, as Gymnasium knows it: importing this registers it."""

import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Text, Tuple

ACTIONS: dict[str, Space[Any]] = {
    "several": MultiDiscrete([3, 3]),
    "switches": MultiBinary(2),
    "whole": Box(-1, 1, (2,), np.int64),
    "unbounded": Box(-np.inf, np.inf, (2,), np.float32),
    "words": Text(3),
    "pair": Tuple((Discrete(2), Discrete(2))),
}


class Dot(gymnasium.Env[Any, Any]):
    """A dot on a plane that is pushed about, and drifts.

    Args:
        render_mode: see ``modes``.
        actions: its action space.
        modes: how it can draw itself.
        wrong: what it does at the third step: raises an ``error``, or ends its ``process``.
    """

    def __init__(
        self, render_mode: str | None = None, actions: str = "several", modes: tuple[str, ...] = ("rgb_array",), wrong: str = ""
    ) -> None:
        self.render_mode, self.metadata, self._wrong = render_mode, {"render_modes": list(modes), "render_fps": 12}, wrong
        parts = {"view": Box(0, 255, (48, 40, 3), np.uint8), "place": Box(0, 48, (2,), np.float32)}
        parts["near"] = Box(0, 255, (9, 9), np.uint8)
        self.observation_space, self.action_space = Dict(parts), ACTIONS[actions]
        self._place, self._steps = np.zeros(2), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._place, self._steps = self.np_random.uniform(10, 30, 2), 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        if self._steps == 3 and self._wrong:
            if self._wrong == "process":
                os._exit(3)
            raise RuntimeError("the dot is lost")
        push = np.asarray(action, np.float64) - (self.action_space.contains(np.array([2, 2])))
        self._place = np.clip(self._place + push + self.np_random.normal(0, 0.3, 2), 0, [43, 35])
        return self._seen(), float(push[0]), False, False, {}

    def render(self) -> Any:
        return np.rot90(self._picture()) if self.render_mode == "rgb_array" else None

    def _picture(self) -> np.ndarray:
        row, column = self._place.astype(int)
        picture = np.zeros((48, 40, 3), np.uint8)
        picture[:] = np.linspace(0, 60, 40, dtype=np.uint8)[None, :, None]
        picture[row : row + 5, column : column + 5] = (250, 200, 40)
        return picture

    def _seen(self) -> dict[str, np.ndarray]:
        picture = self._picture()
        return {"view": picture, "place": self._place.astype(np.float32), "near": picture[:9, :9, 0]}


class Halved(gymnasium.RewardWrapper[Any, Any]):
    """Half of every reward."""

    def reward(self, reward: Any) -> float:
        return float(reward) / 2


gymnasium.register("Dot-v0", Dot)
