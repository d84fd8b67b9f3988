"""Where the candidates of a search play: in a world of this process, in several, or spread over the workers of an engine."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch

from worldmodels.engine.driver import ControllerPolicy
from worldmodels.engine.rollout import run_episodes
from worldmodels.engine.world import World
from worldmodels.models.controller import ControllerConfig, Controllers
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


class ThreadedArena:
    """Several worlds of this process, a thread and a core each, that share the candidates. Returns as of ``WorldArena``.

    Small products gain little from a second core, since everything between them waits for one; two halves of the batch side by
    side do (docs/experiments.md).
    """

    def __init__(self, open_world: Callable[[], World], threads: int) -> None:
        self._worlds = [open_world() for _ in range(threads)]
        self._before = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(threads, "arena", initializer=torch.set_num_threads, initargs=(1,))
        self.feature_size, self.action_size = self._worlds[0].feature_size, self._worlds[0].action_size

    def play(self, config: ControllerConfig, candidates: np.ndarray, seeds: Sequence[int], lanes: int | None) -> Returns:
        parts = np.array_split(candidates, min(len(self._worlds), len(candidates)))
        arenas = [WorldArena(world) for world in self._worlds]
        playing = [
            self._pool.submit(arena.play, config, part, seeds, lanes) for arena, part in zip(arenas, parts, strict=False)
        ]
        return join_candidates([each.result() for each in playing])

    def close(self) -> None:
        self._pool.shutdown()
        torch.set_num_threads(self._before)  # part of what a thread sets holds for the process
        for world in self._worlds:
            world.close()


def join_candidates(parts: Sequence[Returns]) -> Returns:
    """Return the returns of some candidates after those of others, on the same episodes."""
    total, length, terminal = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("total", "length", "terminal")
    )
    return Returns(total, length, terminal, parts[0].seeds)
