"""What every kind of phase has: a config that opens a learner, and a learner that improves C by generations."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor

from worldmodels.controller.model import ControllerConfig, first_parameters
from worldmodels.controller.worlds import MomentsConfig, Worlds
from worldmodels.games.base import GameConfig
from worldmodels.memory.make import MemoryConfig
from worldmodels.params import Config
from worldmodels.rollout.world import World
from worldmodels.seeds import Purpose, episode_seeds, stream_seed
from worldmodels.worlds.curiosity import is_curious
from worldmodels.worlds.pay import Pay

Place = Literal["dream", "game"]


class Generation(NamedTuple):
    """What one generation of a learner gave."""

    parameters: np.ndarray  # C after it, (N,) float64
    # of the candidates (CMA-ES), or of the episodes that ended in it; empty if C is paid with something that is no return of
    # the game
    returns: np.ndarray
    steps: int  # environment steps that were played
    told: dict[str, float]  # other figures of the curve, by name


class Learner(Protocol):
    """Improves one C by generations, in the order of their numbers.

    A generation depends on ``state`` and its number alone.
    """

    state: dict[str, Tensor]  # all that the next generation depends on; set it to go on from a checkpoint

    def generation(self, number: int) -> Generation:
        """Play, and learn."""
        ...

    def close(self) -> None:
        """Free the worlds that it plays in."""
        ...


@dataclass(frozen=True)
class Context:
    """What a phase learns with."""

    model: ControllerConfig  # shape of C
    worlds: Worlds  # opens dreams and games
    seed: int  # of the project
    stream: str  # names the random numbers of this phase and run; another phase, run or search has another

    def draw(self, name: object) -> int:
        """Return the seed of one of the phase's random streams."""
        return stream_seed(self.seed, self.stream, name)

    def episodes(self, purpose: Purpose, first: int) -> Iterator[int]:
        """Yield the seeds of the phase's episodes from number ``first`` on, without an end."""
        return (episode_seeds(purpose, 1, stream=self.stream, start=first + i)[0] for i in count())

    def first_parameters(self) -> np.ndarray:
        """Return a C that has learned nothing, (N,) float64, for learning by gradients."""
        return first_parameters(self.model, self.worlds.feature_size, self.worlds.action_size, self.draw("first"))


class Given(NamedTuple):
    """What is known of a search before anything is trained."""

    game: GameConfig  # its rules
    memory: MemoryConfig  # shape of M
    model: ControllerConfig  # shape of C
    inputs: int  # F, size of the features


class PhaseConfig(Config):
    """Base of all kinds."""

    kind: str  # names the kind
    world: Place  # where it learns
    needs_bias: ClassVar[bool] = False  # this kind needs a C with biases

    @property
    @abstractmethod
    def per_run(self) -> int:
        """Generations of one run."""

    @property
    def repeats(self) -> int:
        """How many runs there are; every run after the first begins with new weights."""
        return 1

    def check(self, given: "Given") -> list[str]:
        """Return what of the game, M and C does not serve the phase; nothing if it can run."""
        return []

    @abstractmethod
    def open(self, context: Context, begin: np.ndarray | None) -> Learner:
        """Return a learner that begins at parameters (N,), or at a C that has learned nothing."""


class PaidConfig(PhaseConfig):
    """What the kinds that learn in the dream or in the game have in common."""

    world: Place = "dream"  # ``dream`` or ``game``
    temperature: float = Field(default=1.0, gt=0, le=10)  # tau of the dreams
    pay: Pay = "return"  # what C is paid with, ``worlds.pay``
    # what a step costs per unit of M's probability of an end, if the pay is ``hazard``
    hazard_cost: float = Field(default=100.0, gt=0, le=1e6)
    moments: MomentsConfig = MomentsConfig()  # where dreams begin, beside first frames

    @model_validator(mode="after")
    def _is_told(self) -> Self:
        if self.world == "game" and self.pay == "survival":
            raise ValueError("pay: survival is for dreams: in the game nobody knows the probability of being alive")
        if self.world == "dream" and self.pay in ("surprise", "progress"):
            raise ValueError(f"pay: {self.pay} is for the game: in a dream nothing comes but what M foretells")
        return self

    def check(self, given: Given) -> list[str]:
        wrong = []
        if self.pay != "return" and not is_curious(self.pay) and not given.memory.done:
            wrong.append(f"pay: {self.pay} is told by M's done head: set memory.model.done: true")
        if self.moments.share and self.moments.context >= given.game.steps:
            wrong.append(f"moments.context is {self.moments.context}, and an episode has {given.game.steps} steps at most")
        return wrong

    def opener(self, worlds: Worlds, num_steps: int) -> Callable[[], World]:
        """Return what opens the world in which C learns, with episodes of at most ``num_steps``; 0: the game's own limit."""
        pay: dict[str, Any] = {"num_steps": num_steps, "pay": self.pay, "hazard_cost": self.hazard_cost}
        return worlds.play(**pay) if self.world == "game" else worlds.dream(self.moments, temperature=self.temperature, **pay)

    @property
    def purpose(self) -> Purpose:
        """What the episodes are for, in ``seeds``."""
        return "dream" if self.world == "dream" else "evolution"


class LearnerConfig(PhaseConfig):
    """What the kinds that learn by gradients have in common."""

    updates: int = Field(ge=1, le=100_000)  # collections of steps, each followed by gradient steps
    # the first so many train the critic alone: an untrained one would spoil C
    critic_updates: int = Field(default=2, ge=0, le=100_000)
    num_envs: int = Field(default=16, ge=1, le=4096)  # games or dreams at a time
    # steps of a collection in each of them. A collection begins with new episodes, and another follows one that ends
    num_steps: int = Field(default=1000, ge=2, le=1_000_000)
    learning_rate: float = Field(default=0.001, gt=0, le=1)  # of Adam, at the start
    # at the end of a run, with a straight line between; 0: the same as at the start
    final_learning_rate: float = Field(default=0.0, ge=0, le=1)
    discount: float = Field(default=0.99, gt=0, lt=1)  # gamma
    # standard deviation of an action before its tanh, at the start; of no account if actions are choices
    noise: float = Field(default=0.5, gt=0, le=10)

    @property
    def per_run(self) -> int:
        return self.updates

    def learning_rate_at(self, update: int) -> float:
        """Return the learning rate of an update of a run."""
        last = self.final_learning_rate or self.learning_rate
        return self.learning_rate + (last - self.learning_rate) * update / max(1, self.updates - 1)
