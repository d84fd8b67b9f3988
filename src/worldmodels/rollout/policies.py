"""What chooses actions without looking, and the base of what looks."""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from worldmodels.games.blind import Blind, RandomPolicyConfig, ScriptedConfig
from worldmodels.seeds import stream_seed
from worldmodels.shapes import Job


class Policy(Protocol):
    """Chooses actions for lanes; lanes come and go as in a ``World``."""

    def start(self, jobs: Sequence[Job]) -> None:
        """Append a lane for every job."""

    def act(self, features: Tensor) -> Tensor:
        """Return actions (B, A) in [-1, 1] for features (B, F)."""

    def keep(self, lanes: Tensor) -> None:
        """Keep these lanes only. ``lanes``: (B',) int64, increasing."""


class ScriptedPolicy:
    """Plays ``ScriptedConfig``."""

    def __init__(self, config: ScriptedConfig) -> None:
        self.period = config.period
        self._actions = torch.tensor([config.first, config.second], dtype=torch.float32)
        self._step = torch.zeros(0, dtype=torch.int64)

    def start(self, jobs: Sequence[Job]) -> None:
        self._step = torch.cat([self._step, torch.zeros(len(jobs), dtype=torch.int64)])

    def act(self, features: Tensor) -> Tensor:
        actions = self._actions[self._step // self.period % 2]
        self._step += 1
        return actions

    def keep(self, lanes: Tensor) -> None:
        self._step = self._step[lanes]


def blind_policy(config: Blind) -> Policy:
    """Return the policy of either kind, neither of which looks at what it does."""
    return RandomPolicy(config) if isinstance(config, RandomPolicyConfig) else ScriptedPolicy(config)


class RandomPolicy:
    """Plays ``RandomPolicyConfig``; an episode's actions depend on its seed alone."""

    def __init__(self, config: RandomPolicyConfig) -> None:
        self.config = config
        self._lanes: list[_RandomLane] = []

    def start(self, jobs: Sequence[Job]) -> None:
        self._lanes += [_RandomLane(self.config, job.seed) for job in jobs]

    def act(self, features: Tensor) -> Tensor:
        return torch.from_numpy(np.stack([lane.act() for lane in self._lanes]))

    def keep(self, lanes: Tensor) -> None:
        self._lanes = [self._lanes[lane] for lane in lanes.tolist()]

    def label(self, seed: int) -> str:
        """Say which of its ways the episode of this seed is played."""
        return f"random, walk {_drawn('walk', self.config.walks, seed):g}"


class ExploringPolicy:
    """A policy whose actions are disturbed: ``base + strength * random``, clipped; an episode keeps one strength."""

    def __init__(self, base: Policy, random: RandomPolicy, strengths: Sequence[float]) -> None:
        self.base, self.random, self.strengths = base, random, strengths
        self._strength = torch.zeros(0, 1)

    def start(self, jobs: Sequence[Job]) -> None:
        self.base.start(jobs)
        self.random.start(jobs)
        chosen = [_drawn("strength", self.strengths, job.seed) for job in jobs]
        self._strength = torch.cat([self._strength, torch.tensor(chosen).view(-1, 1)])

    def act(self, features: Tensor) -> Tensor:
        return (self.base.act(features) + self._strength * self.random.act(features)).clamp(-1, 1)

    def keep(self, lanes: Tensor) -> None:
        self.base.keep(lanes)
        self.random.keep(lanes)
        self._strength = self._strength[lanes]

    def label(self, seed: int) -> str:
        """Say how much the episode of this seed is disturbed."""
        return f"strength {_drawn('strength', self.strengths, seed):g}"


class ReplayPolicy:
    """Repeats the actions of an episode, (T, A), in a single lane."""

    def __init__(self, actions: Tensor) -> None:
        self._actions = iter(actions.split(1))

    def start(self, jobs: Sequence[Job]) -> None:
        if len(jobs) != 1:
            raise ValueError("a replay has a single lane")

    def act(self, features: Tensor) -> Tensor:
        return next(self._actions)

    def keep(self, lanes: Tensor) -> None:
        """A single lane: nothing to drop."""


class _RandomLane:
    def __init__(self, config: RandomPolicyConfig, seed: int) -> None:
        self._random = np.random.Generator(np.random.PCG64(stream_seed("random policy", seed)))
        self._scale = np.array(config.scale)
        self._mean = np.array(config.mean) + np.array(config.bias) * self._random.uniform(-1, 1, len(config.bias))
        self._hold = config.holds[self._random.integers(len(config.holds))]
        self._walk = _drawn("walk", config.walks, seed)
        self._noise: np.ndarray | None = None
        self._left = 0

    def act(self) -> np.ndarray:
        if self._left == 0:
            self._left = int(self._random.integers(1, self._hold + 1))
            fresh = self._random.uniform(-1, 1, len(self._scale))
            walked = fresh if self._noise is None else self._walk * self._noise + math.sqrt(1 - self._walk**2) * fresh
            self._noise = walked
            self._action = np.clip(self._mean + self._scale * walked, -1, 1).astype(np.float32)
        self._left -= 1
        return self._action


def _drawn(what: str, options: Sequence[float], seed: int) -> float:
    return options[stream_seed(what, seed) % len(options)]
