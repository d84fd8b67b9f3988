"""Where the candidates of a search play: in one world of this process, or in worlds of their own on an engine's workers."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from worldmodels.compute.engine import Engine
from worldmodels.controller.model import ControllerConfig, Controllers
from worldmodels.controller.policy import ControllerPolicy
from worldmodels.rollout.loop import run_episodes
from worldmodels.rollout.world import ToldWorld, World
from worldmodels.shapes import Returns, Told

GAMES = 64
"""Games that are played at a time."""


class Arena:
    """Plays episodes with many controllers. On this machine one world stays open from generation to generation.

    Args:
        engine: where they play; the returns are the same everywhere.
        open_world: opens a world.
        told: is told of play as it goes on.
    """

    def __init__(self, engine: Engine, open_world: Callable[[], World], told: Told | None = None) -> None:
        self._engine, self._told = engine, told
        self._world = open_world() if engine.parts == 1 else None
        if self._world is not None and told is not None:
            self._world = ToldWorld(self._world, told)
        self._open_world = engine.share(open_world)

    def play(self, config: ControllerConfig, candidates: np.ndarray, seeds: Sequence[int], lanes: int | None) -> Returns:
        """Play every seed with each of the ``candidates`` (P, N), ``lanes`` episodes at a time; None: all at once."""
        if self._world is not None:
            return _play(self._world, config, candidates, seeds, lanes)
        parts = np.array_split(candidates, min(self._engine.parts, len(candidates)))
        tasks = [(self._open_world, config, part, list(seeds), lanes) for part in parts]
        found = {}
        for index, returns in self._engine.run(play_part, tasks):
            found[index] = returns
            if self._told is not None:
                self._told(returns.steps, returns.total.size)
        total, length, terminal = (
            np.concatenate([getattr(found[index], name) for index in range(len(parts))])
            for name in ("total", "length", "terminal")
        )
        return Returns(total, length, terminal, np.array(seeds, np.int64))

    def close(self) -> None:
        """Close the world."""
        if self._world is not None:
            self._world.close()


def play_part(
    open_world: Callable[[], World], config: ControllerConfig, candidates: np.ndarray, seeds: list[int], lanes: int | None
) -> Returns:
    """Play with some of the candidates. A task for a worker."""
    torch.set_num_threads(1)
    world = open_world()
    try:
        return _play(world, config, candidates, seeds, lanes)
    finally:
        world.close()


def _play(world: World, config: ControllerConfig, candidates: np.ndarray, seeds: Sequence[int], lanes: int | None) -> Returns:
    parameters = torch.from_numpy(candidates.astype(np.float32)).to(world.features().device)
    policy = ControllerPolicy(Controllers(config, parameters, world.feature_size, world.action_size))
    return run_episodes(world, policy, seeds, candidates=len(candidates), lanes=lanes)
