"""Where the candidates of a search play: in a world of this process, or spread over the workers of an engine."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from worldmodels.compute.engine import Engine
from worldmodels.controller.model import ControllerConfig, Controllers
from worldmodels.controller.policy import ControllerPolicy
from worldmodels.rollout.loop import run_episodes
from worldmodels.rollout.world import World
from worldmodels.shapes import Returns


class Arena(Protocol):
    """Plays episodes with many controllers.

    Attributes:
        feature_size: F.
        action_size: A.
    """

    feature_size: int
    action_size: int

    def play(self, config: ControllerConfig, candidates: np.ndarray, seeds: Sequence[int], lanes: int | None) -> Returns:
        """Play every seed with each of the ``candidates`` (P, N), ``lanes`` episodes at a time; None: all at once."""
        ...

    def close(self) -> None:
        """Free what the arena holds."""
        ...


class WorldArena:
    """One world of this process; it stays open from generation to generation."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.feature_size, self.action_size = world.feature_size, world.action_size

    def play(self, config: ControllerConfig, candidates: np.ndarray, seeds: Sequence[int], lanes: int | None) -> Returns:
        parameters = torch.from_numpy(candidates.astype(np.float32)).to(self._world.features().device)
        policy = ControllerPolicy(Controllers(config, parameters, self.feature_size, self.action_size))
        return run_episodes(self._world, policy, seeds, candidates=len(candidates), lanes=lanes)

    def close(self) -> None:
        self._world.close()


class SpreadArena:
    """An ``Arena`` on an engine: some of the candidates each, in a world of their own. Returns are those of ``WorldArena``."""

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
