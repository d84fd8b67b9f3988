"""CarRacing: drive round a track seen from above (section 3 of the paper).

Action: three numbers in [-1, 1] (a controller's tanh): steering as it is, gas = (a + 1) / 2, brake = clip(a, 0, 1).
Observation: the top 84 of 96 rows (the dashboard is cut), resized to 64x64 RGB.
Reward: +1000/N for each of the track's N tiles when first touched, -0.1 per game step, -100 for leaving the field.
End: all tiles touched, or the field left (terminal); the limit, 1000 game steps (truncated). A step is ``frame_skip`` game
steps, 1 in the paper.

Gymnasium documents that a lap ends at 95% of the tiles. In its code (to 1.4) that share is looked at only when the *first* tile
is first touched, and the car starts on it: so a lap ends at 100%, in EnvPool too. A test fails if that changes.

Two back ends play by these rules. ``gymnasium`` is the reference, and the one that scores. ``envpool`` is its C++ twin,
several times as fast, for training; its frames are not anti-aliased, and the same seed is another track.
"""

import os
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from worldmodels.games.base import BatchEnv, EnvStep, GameConfig, GameSteps, Pay, Reference
from worldmodels.games.blind import RandomPolicyConfig, ScriptedConfig
from worldmodels.games.clock import LaneClock
from worldmodels.games.frames import Crop, resize
from worldmodels.games.gym_lanes import GymEnv
from worldmodels.games.gym_open import make_quietly

GAME = "CarRacing-v3"
ROWS, ROWS_KEPT = 96, 84


class CarRacingConfig(GameConfig):
    """CarRacing."""

    kind: Literal["carracing"] = "carracing"
    backend: Literal["envpool", "gymnasium"] = "envpool"  # what simulates the game in training; scoring always takes gymnasium
    limit: GameSteps = 1000
    # a car that is paid no more has left the road; what follows is long, and forgives it in M's eyes. Paper: 0
    patience: int = Field(default=60, ge=0, le=1_000_000)
    # M does not count tiles: without a goal it would pay for driving on after a lap is done
    goal: float = Field(default=980.0, ge=0, le=1e9)

    published: ClassVar = {"carracing-v3-limit1000": Reference(906, 21, 100)}
    """Ha & Schmidhuber 2018, table 1; theirs was CarRacing-v0, whose rules v3 keeps."""
    won: ClassVar[float] = 850.0
    aftermath: ClassVar[int] = 25
    action_size: ClassVar[int] = 3
    rest: ClassVar[list[float]] = [0.0, -1.0, -1.0]
    """No gas and no brake."""
    pay: ClassVar[Pay] = "events"
    game_steps_a_second: ClassVar[float] = 50.0
    cut: ClassVar[Crop] = (0, 1 - ROWS_KEPT / ROWS, 0, 0)

    @property
    def rules(self) -> str:
        return f"carracing-v3-limit{self.limit}"

    @property
    def random(self) -> RandomPolicyConfig:
        holds = [self.steps_of(game_steps) for game_steps in (4, 8, 16)]
        # Steering, gas, brake.
        return RandomPolicyConfig(
            holds=holds, walks=[0.0, 0.9], mean=[0.0, 0.2, -0.5], scale=[0.8, 0.8, 0.6], bias=[0.4, 0.6, 0.6]
        )

    @property
    def blind(self) -> list[ScriptedConfig]:
        """Straight on with half the gas; and slowly a little to the left, as tracks go: that touches some tiles."""
        actions = {"gas": [0.0, 0.0, -1.0], "slowly left": [-0.03, -0.9, -1.0]}
        return [ScriptedConfig(name=name, first=action, second=action) for name, action in actions.items()]

    def make(self, *, scoring: bool = False, threads: int = 1) -> BatchEnv:
        if not scoring and self.backend == "envpool":
            return EnvPoolCarRacing(self, threads)
        return self._gymnasium(ROWS_KEPT)

    def make_unseen(self) -> BatchEnv:
        return self._gymnasium(0)

    def _gymnasium(self, rows: int) -> BatchEnv:
        """Make games whose first ``rows`` rows are drawn."""
        from worldmodels.games.carracing_drawing import quick_spec  # here and not above: it imports Gymnasium and Box2D

        def make() -> Any:
            return make_quietly(quick_spec(GAME, rows), self.limit, {})

        return GymEnv(self, make, car_controls, self.action_size, crop=self.cut)


def car_controls(actions: np.ndarray) -> np.ndarray:
    """Map actions in [-1, 1], (..., 3), to steering in [-1, 1], gas in [0, 1] and brake in [0, 1], float32."""
    steer, gas, brake = np.moveaxis(np.clip(actions, -1, 1), -1, 0)
    return np.stack([steer, (gas + 1) / 2, np.maximum(brake, 0)], axis=-1).astype(np.float32)


class EnvPoolCarRacing:
    """B games of CarRacing in C++, in lock-step; a ``BatchEnv``.

    EnvPool fixes the seeds when a pool is made, and they fix the first episode of each of its games. So every ``start``
    makes a pool (5 ms and 2.5 MB a game), a game plays one episode, and a pool goes with its last lane.
    """

    action_size = CarRacingConfig.action_size

    def __init__(self, config: CarRacingConfig, threads: int) -> None:
        self.rules = config.rules
        self.backend = f"envpool-{version('envpool')}"
        self._limit, self._threads = config.limit, threads
        self._clock = LaneClock(config.limit, config.frame_skip)
        self._pools: dict[int, Any] = {}
        self._made = 0
        self._pool = np.zeros(0, np.int64)  # (B,) the pool that a lane's game is in
        self._index = np.zeros(0, np.int32)  # (B,) its index there

    def start(self, seeds: Sequence[int]) -> np.ndarray:
        if not seeds:
            return resize(np.zeros((0, ROWS_KEPT, ROWS, 3), np.uint8))
        pool = make_pool([int(seed) for seed in seeds], self._limit, min(self._threads, len(seeds)))
        pictures, info = pool.reset()
        self._pools[self._made] = pool
        self._pool = np.concatenate([self._pool, np.full(len(seeds), self._made, np.int64)])
        self._index = np.concatenate([self._index, np.arange(len(seeds), dtype=np.int32)])
        self._made += 1
        self._clock.start(seeds)
        return resize(pictures[np.argsort(info["env_id"])][:, :ROWS_KEPT])

    def step(self, actions: np.ndarray) -> EnvStep:
        self._clock.check(actions, self.action_size)
        controls = car_controls(actions)
        pictures = np.empty((len(actions), ROWS_KEPT, ROWS, 3), np.uint8)
        rewards, terminal = np.zeros(len(actions), np.float32), np.zeros(len(actions), bool)
        left = self._clock.left()
        for game_step in range(self._clock.frame_skip):
            playing = ~terminal & (game_step < left)
            groups = {number: np.flatnonzero((self._pool == number) & playing) for number in self._pools}
            groups = {number: lanes for number, lanes in groups.items() if len(lanes)}
            for number, lanes in groups.items():  # all pools work at once
                self._pools[number].send(controls[lanes], self._index[lanes])
            for number, lanes in groups.items():
                seen, reward, ended, cut, info = self._pools[number].recv()
                back = lanes[np.searchsorted(self._index[lanes], info["env_id"])]  # threads may answer in another order
                pictures[back] = seen[:, :ROWS_KEPT]
                rewards[back] += reward
                terminal[back] = ended | (cut & (info["elapsed_step"] < self._limit))  # whatever ends it early is the game
        return EnvStep(resize(pictures), rewards, terminal, self._clock.advance(terminal))

    def keep(self, lanes: np.ndarray) -> None:
        self._pool, self._index = self._pool[lanes], self._index[lanes]
        self._clock.keep(lanes)
        for number in set(self._pools) - set(self._pool.tolist()):
            self._pools.pop(number).close()

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()


def make_pool(seeds: list[int], limit: int, threads: int) -> Any:
    """Make an EnvPool of one game a seed."""
    saved = os.environ.get("MPLCONFIGDIR")
    import envpool

    if saved is None:  # importing EnvPool points matplotlib to a folder under /tmp, for this process and its children
        os.environ.pop("MPLCONFIGDIR", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        how = {"num_envs": len(seeds), "num_threads": threads, "env_seed": seeds, "max_episode_steps": limit}
        return envpool.make(GAME, env_type="gymnasium", **how)
