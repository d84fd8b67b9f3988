"""Worlds for phases, without a project behind them."""

from functools import partial
from types import SimpleNamespace

import numpy as np

from worldmodels.compute.engine import LocalEngine
from worldmodels.controller.arena import Arena
from worldmodels.controller.phases.base import Context


class FakeWorlds:
    """Opens the same world wherever a phase asks for one.

    Args:
        open_world: called with the most steps of an episode, 0 for the world's own.
        memory: M of value gradients.
        seen: features of the data, (n, F).
        won: sum of rewards of an episode that is won.
        choices: of the game.
        spread: of the returns of the data.
    """

    def __init__(self, open_world, *, memory=None, seen=None, won=0.0, choices=(), spread=10.0):
        self.open_world, self.memory, self._seen = open_world, memory, seen
        world = open_world(0)
        self.feature_size, self.action_size = world.feature_size, world.action_size
        self.opened, self._spread = [], spread
        self.game = SimpleNamespace(patience=0, won=won, choices=choices)

    def dream(self, moments, *, num_steps, temperature, **pay):
        return partial(self._open, num_steps)

    def play(self, *, num_steps=0, **pay):
        return partial(self._open, num_steps)

    def patient_game(self, num_steps):
        return self._open(num_steps)

    def arena(self, open_world, told=None):
        return Arena(LocalEngine(1), open_world, told)

    def spread(self, discount):
        return self._spread

    def seen(self, seed=None):
        return np.eye(self.feature_size) if self._seen is None else self._seen

    def _open(self, num_steps):
        self.opened.append(self.open_world(num_steps))
        return self.opened[-1]


def context(worlds, model, stream="s", seed=0):
    """Return what a phase of this C learns with."""
    return Context(model, worlds, seed, stream)
