"""A generation cut into parts, played by the workers of an engine."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from worldmodels.compute.engine import Engine
from worldmodels.rollout.world import World
from worldmodels.controller.model import ControllerConfig
from worldmodels.shapes import Returns
from worldmodels.controller.arena import Arena, WorldArena


def open_arena(engine: Engine, open_world: Callable[[], World], feature_size: int, action_size: int) -> Arena:
    """Return the place to play in worlds that ``open_world`` makes: here, or on the engine's workers."""
    if engine.parts == 1:
        return WorldArena(open_world())
    return SpreadArena(engine, open_world, feature_size, action_size)


class SpreadArena:
    """An ``Arena`` on an engine: some of the candidates each, in a world of their own. Returns as of ``WorldArena``."""

    def __init__(self, engine: Engine, open_world: Callable[[], World], feature_size: int, action_size: int) -> None:
        self._engine, self._open_world = engine, engine.share(open_world)
        self.feature_size, self.action_size = feature_size, action_size

    def play(self, config: ControllerConfig, candidates: np.ndarray, seeds: Sequence[int], lanes: int | None) -> Returns:
        parts = np.array_split(candidates, min(self._engine.parts, len(candidates)))
        tasks = [(self._open_world, config, part, list(seeds), lanes) for part in parts]
        found = dict(self._engine.run(play_part, tasks))
        each = [found[index] for index in range(len(parts))]
        total, length, terminal = (
            np.concatenate([getattr(part, name) for part in each]) for name in ("total", "length", "terminal")
        )
        return Returns(total, length, terminal, np.array(seeds, np.int64))

    def close(self) -> None:
        """Nothing is kept open."""


def play_part(
    open_world: Callable[[], World], config: ControllerConfig, candidates: np.ndarray, seeds: list[int], lanes: int | None
) -> Returns:
    """Play with some of the candidates. A task for a worker."""
    torch.set_num_threads(1)
    arena = WorldArena(open_world())
    try:
        return arena.play(config, candidates, seeds, lanes)
    finally:
        arena.close()
