"""The one idea: a world turns actions into features, and the agent cannot tell whether it is real (paper, sections 3, 4)."""

from collections.abc import Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from worldmodels.shapes import Told


class Step(NamedTuple):
    """What one step gave to every lane: reward (B,) float32, terminal (B,) bool, truncated (B,) bool."""

    reward: Tensor
    terminal: Tensor
    truncated: Tensor


class World(Protocol):
    """B episodes advancing in lock-step. It has no lanes when made; ``start`` appends lanes, ``keep`` drops them.

    It computes where its models are: features are there, steps and indices of lanes on the CPU.

    An episode depends on its seed and its actions alone. A lane whose episode ended must be dropped before the next ``step``.
    """

    feature_size: int  # F
    action_size: int  # A

    def start(self, seeds: Sequence[int]) -> None:
        """Append a lane at the first step of the episode of every seed."""

    def features(self) -> Tensor:
        """Return what a controller sees now, (B, F)."""

    def frames(self) -> np.ndarray:
        """Return what a person would see now, (B, 64, 64, 3) uint8."""

    def visited(self) -> np.ndarray | None:
        """Return the cells of the game's map that each lane has come to, (B, N) bool; None if there is no map."""

    def step(self, actions: Tensor) -> Step:
        """Advance all lanes by one step. ``actions``: (B, A) in [-1, 1]."""

    def keep(self, lanes: Tensor) -> None:
        """Keep these lanes only, in this order. ``lanes``: (B',) int64 indices into the present lanes, increasing."""

    def close(self) -> None:
        """Free what the world holds. Closing twice is harmless."""


class ModelWorld(World, Protocol):
    """A world whose features come from V and M, and whose ends M foretells."""

    @property
    def usual_reward(self) -> float:
        """What M expects of a step in which nothing happens; 0 if it expects no rewards."""

    def latents(self) -> Tensor:
        """Return z now, (B, Z)."""

    def state(self) -> Tensor:
        """Return M's state now, before it reads z, (B, S)."""

    def hazard(self) -> Tensor:
        """Return the probability that M gave to an end of the episode in the last step, (B,); 0 in a dream if it gives none."""

    def spare(self) -> None:
        """End no episode by the hazard any more, as C is paid with the hazard itself: a dream goes on, a game is cut off.

        Raises:
            ValueError: no M foretells ends here.
        """


W = TypeVar("W", bound=World)


class WorldWrapper(Generic[W]):
    """Another world, which this one owns from now on, with something changed: what a subclass does not say is as there."""

    begin = 0.0
    """The ``tally`` of a lane at its start."""

    def __init__(self, world: W) -> None:
        self.world = world
        self.feature_size, self.action_size = world.feature_size, world.action_size
        self.tally = torch.zeros(0)  # (B,) what the subclass counts of each episode

    def start(self, seeds: Sequence[int]) -> None:
        self.world.start(seeds)
        self.tally = torch.cat([self.tally, torch.full((len(seeds),), self.begin)])

    def features(self) -> Tensor:
        return self.world.features()

    def frames(self) -> np.ndarray:
        return self.world.frames()

    def visited(self) -> np.ndarray | None:
        return self.world.visited()

    def step(self, actions: Tensor) -> Step:
        return self.world.step(actions)

    def keep(self, lanes: Tensor) -> None:
        self.world.keep(lanes)
        self.tally = self.tally[lanes]

    def close(self) -> None:
        self.world.close()

    @property
    def usual_reward(self: "WorldWrapper[ModelWorld]") -> float:
        return self.world.usual_reward

    def latents(self: "WorldWrapper[ModelWorld]") -> Tensor:
        return self.world.latents()

    def state(self: "WorldWrapper[ModelWorld]") -> Tensor:
        return self.world.state()

    def hazard(self: "WorldWrapper[ModelWorld]") -> Tensor:
        return self.world.hazard()

    def spare(self: "WorldWrapper[ModelWorld]") -> None:
        self.world.spare()


class ToldWorld(WorldWrapper[W]):
    """Another world, which says how far it is played."""

    def __init__(self, world: W, told: Told) -> None:
        super().__init__(world)
        self._told = told

    def step(self, actions: Tensor) -> Step:
        step = super().step(actions)
        self._told(len(actions), int((step.terminal | step.truncated).sum()))
        return step


def told_of(world: World, told: Told | None) -> World:
    """Return the world, such that ``told`` hears how far it is played, if there is one."""
    return world if told is None else ToldWorld(world, told)


def pad_lanes(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Pad (B, ...) tensors with zeros to a multiple of 16 lanes.

    BLAS takes other kernels for very small or odd batches, whose sums differ in the last bit. With whole blocks of lanes a
    lane's numbers do not depend on how many others there are.
    """
    missing = -len(tensors[0]) % 16
    return tuple(torch.cat([t, t.new_zeros(missing, *t.shape[1:])]) if missing else t for t in tensors)
