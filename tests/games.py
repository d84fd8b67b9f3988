"""Plays the games of the tests."""

from contextlib import suppress

import numpy as np
import psutil

from worldmodels.games.base import BatchEnv


class Player:
    """Plays seeded random actions, each episode's own, and records what every episode showed."""

    def __init__(self, env: BatchEnv) -> None:
        self.env = env
        self.lanes: list[int] = []
        self.frames: dict[int, list[np.ndarray]] = {}
        self.rewards: dict[int, list[float]] = {}
        self.ends: dict[int, str] = {}
        self._noise: dict[int, np.random.Generator] = {}

    def start(self, *seeds: int) -> None:
        for seed, frame in zip(seeds, self.env.start(seeds), strict=True):
            self.frames[seed], self.rewards[seed] = [frame], []
            self._noise[seed] = np.random.default_rng(seed)
        self.lanes += seeds

    def keep(self, *seeds: int) -> None:
        self.env.keep(np.array([self.lanes.index(seed) for seed in seeds], np.int64))
        self.lanes = list(seeds)

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            if not self.lanes:
                return
            actions = [self._noise[seed].uniform(-1, 1, self.env.action_size) for seed in self.lanes]
            step = self.env.step(np.array(actions, np.float32))
            for lane, seed in enumerate(self.lanes):
                self.frames[seed].append(step.frames[lane])
                self.rewards[seed].append(float(step.rewards[lane]))
                if step.terminal[lane] or step.truncated[lane]:
                    self.ends[seed] = "terminal" if step.terminal[lane] else "truncated"
            self.keep(*[seed for seed in self.lanes if seed not in self.ends])

    def film(self, seed: int, count: int) -> np.ndarray:
        return np.stack(self.frames[seed][:count])


def engines() -> list[int]:
    """Return the process ids of the ViZDoom engines that this process started."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.name() == "vizdoom" and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child.pid)
    return found


def constant(env: BatchEnv, action: list[float], steps: int, seed: int = 5) -> tuple[np.ndarray, float]:
    """Play one action over and over: frames (steps + 1, 64, 64, 3), sum of rewards."""
    film, total = [env.start([seed])[0]], 0.0
    for _ in range(steps):
        step = env.step(np.array([action], np.float32))
        film.append(step.frames[0])
        total += float(step.rewards[0])
    env.keep(np.zeros(0, np.int64))
    return np.stack(film), total
