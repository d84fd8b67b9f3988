"""Gymnasium games in lock-step lanes, in this process."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, NoReturn

import numpy as np

from worldmodels.errors import EnvironmentFault
from worldmodels.games.base import EnvStep, GameConfig
from worldmodels.games.clock import LaneClock
from worldmodels.games.frames import Crop, cropped, resize
from worldmodels.games.gym_actions import Controls
from worldmodels.games.gym_open import Look, observed
from worldmodels.shapes import FRAME_SHAPE


class GymEnv:
    """B Gymnasium games in lock-step; a ``BatchEnv``. The objects of dropped lanes serve the next ``start``.

    Args:
        game: the rules.
        make: returns one ``gymnasium.Env``.
        controls: maps an action, (A,) in [-1, 1], to what that takes.
        action_size: A.
        crop: what of the picture is cut off.
        look: what the picture is.
        backend: what simulates the game; Gymnasium if it is not given.
        reward_scale: factor of the game's rewards.
    """

    def __init__(
        self,
        game: GameConfig,
        make: Callable[[], Any],
        controls: Controls,
        action_size: int,
        *,
        crop: Crop,
        look: Look = observed,
        backend: str = "",
        reward_scale: float = 1.0,
    ) -> None:
        self.action_size, self.rules = action_size, game.rules
        self.backend = backend or f"gymnasium-{version('gymnasium')}"
        self._make, self._controls, self._crop, self._look_at = make, controls, crop, look
        self._pay, self._scale = game.pay, reward_scale
        self._clock = LaneClock(game.limit, game.frame_skip)
        self._games: list[Any] = []
        self._free: list[Any] = []

    def start(self, seeds: Sequence[int]) -> np.ndarray:
        pictures = []
        for seed in seeds:
            game = self._free.pop() if self._free else self._make()
            self._games.append(game)
            try:
                observation, _ = game.reset(seed=int(seed))
                pictures.append(self._look(game, observation))
            except Exception as error:
                self._fail(seed, error)
        self._clock.start(seeds)
        return _frames(pictures)

    def step(self, actions: np.ndarray) -> EnvStep:
        self._clock.check(actions, self.action_size)
        lanes = len(self._games)
        rewards, terminal, cut = np.zeros(lanes, np.float32), np.zeros(lanes, bool), np.zeros(lanes, bool)
        pictures, left = [], self._clock.left()
        for lane, game in enumerate(self._games):
            controls = self._controls(actions[lane])
            try:
                for _ in range(left[lane]):
                    observation, reward, terminal[lane], cut[lane], _ = game.step(controls)
                    rewards[lane] += self._scale * reward if self._pay == "events" else self._pay == "survival"
                    if terminal[lane] or cut[lane]:
                        break
                pictures.append(self._look(game, observation))
            except Exception as error:
                self._fail(self._clock.seeds[lane], error)
        return EnvStep(_frames(pictures), rewards, terminal, self._clock.advance(terminal, cut))

    def keep(self, lanes: np.ndarray) -> None:
        kept = set(lanes.tolist())
        self._free += [game for lane, game in enumerate(self._games) if lane not in kept]
        self._games = [self._games[lane] for lane in lanes]
        self._clock.keep(lanes)

    def close(self) -> None:
        for game in self._games + self._free:
            game.close()
        self._games, self._free = [], []

    def _fail(self, seed: int, error: Exception) -> NoReturn:
        raise EnvironmentFault(f"{self.rules}, seed {seed}: {type(error).__name__}: {error}") from error

    def _look(self, game: Any, observation: Any) -> np.ndarray:
        picture = self._look_at(game, observation)
        height, width = picture.shape[:2]
        return cropped(np.broadcast_to(picture.reshape(height, width, -1), (height, width, 3)), self._crop)  # from grey too


def _frames(pictures: list[np.ndarray]) -> np.ndarray:
    return resize(np.stack(pictures)) if pictures else np.zeros((0, *FRAME_SHAPE), np.uint8)
