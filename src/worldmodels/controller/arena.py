"""Where the candidates of a search play: in a world of this process, or spread over the workers of an engine."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from worldmodels.controller.policy import ControllerPolicy
from worldmodels.rollout.loop import run_episodes
from worldmodels.rollout.world import World
from worldmodels.controller.model import ControllerConfig, Controllers
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
