"""CMA-ES: a population of Cs, each judged by its returns (paper, section 2.3; Hansen 2016)."""

import math
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from worldmodels.controller.arena import GAMES
from worldmodels.controller.basis import Basis, principal_directions
from worldmodels.controller.model import parameter_count
from worldmodels.controller.phases.base import Context, Generation, Given, PaidConfig
from worldmodels.errors import WorldModelsError
from worldmodels.seeds import episode_seeds

MOST_FULL = 5_000
"""Coordinates with a full covariance: it takes 200 MB then, and seconds a generation."""


class CMAESConfig(PaidConfig):
    """A search by CMA-ES."""

    kind: Literal["cmaes"] = "cmaes"
    generations: int = Field(ge=1, le=100_000)  # how many (paper: 1,800)
    population: int = Field(default=64, ge=4, le=4096)  # P, candidates of a generation (paper: 64)
    rollouts: int = Field(default=16, ge=1, le=10_000)  # E, episodes that each candidate is judged on (paper: 16)
    num_steps: int = Field(default=0, ge=0, le=1_000_000)  # most steps of an episode; 0: the game's own limit
    sigma: float = Field(default=0.1, gt=0, le=10)  # first step size (paper: 0.1)
    # ``full`` (paper), or ``diagonal``, which is much cheaper for a thousand parameters
    covariance: Literal["full", "diagonal"] = "full"
    # above 0, C's weights are searched along so many principal components of its features, from where the search begins; 0:
    # along each feature (paper). A generation tells apart few of a thousand directions
    components: int = Field(default=0, ge=0, le=100_000)

    def check(self, given: Given) -> list[str]:
        size = parameter_count(given.model, min(self.components or given.inputs, given.inputs), given.game.action_size)
        if self.covariance == "full" and size > MOST_FULL:
            more = f"covariance: full of {size:,} coordinates is too large (at most {MOST_FULL:,}): set components, or diagonal"
            return [*super().check(given), more]
        return super().check(given)

    @property
    def per_run(self) -> int:
        return self.generations

    def open(self, context: Context, begin: np.ndarray | None) -> "CMAES":
        return CMAES(self, context, begin)


class CMAES:
    """A search under way; a ``Learner``.

    The search depends on its seed and on the fitness values alone, so a checkpoint keeps these and nothing else.
    """

    def __init__(self, config: CMAESConfig, context: Context, begin: np.ndarray | None) -> None:
        worlds = context.worlds
        size = parameter_count(context.model, worlds.feature_size, worlds.action_size)
        directions = np.eye(worlds.feature_size)
        if config.components:
            directions = principal_directions(worlds.seen(), config.components)
        self._arena = worlds.arena(config.opener(worlds, config.num_steps))
        self._config, self._context = config, context
        self._basis = Basis(directions, context.model, worlds.action_size)
        self._origin = np.zeros(size) if begin is None else begin.astype(np.float64)
        self._search = Evolution(config, np.zeros(self._basis.size), context.draw("evolution"))
        self._fitness: list[np.ndarray] = []

    def generation(self, number: int) -> Generation:
        """Play a generation of candidates, and move the search on."""
        config = self._config
        candidates = self._origin + self._basis.expand(self._search.ask())
        seeds = episode_seeds(config.purpose, config.rollouts, stream=self._context.stream, start=number * config.rollouts)
        played = self._arena.play(self._context.model, candidates, seeds, None if config.world == "dream" else GAMES)
        fitness = played.total.mean(1)
        if not np.isfinite(fitness).all():
            raise WorldModelsError(
                f"a return of generation {number} is not a number: M or C grew beyond bounds. Lower `sigma` of this phase "
                f"(now {config.sigma:g}), or memory.optimiser.learning_rate."
            )
        self._search.tell(fitness)
        self._fitness.append(fitness)
        mean = self._origin + self._basis.expand(self._search.mean[None])[0]
        return Generation(mean, fitness, played.steps, {"sigma": self._search.sigma})

    def close(self) -> None:
        """Close the worlds."""
        self._arena.close()

    @property
    def state(self) -> dict[str, Tensor]:
        """The fitness values of all generations so far, (G, P)."""
        return {"fitness": torch.from_numpy(np.stack(self._fitness))}

    @state.setter
    def state(self, kept: dict[str, Tensor]) -> None:
        for fitness in kept["fitness"].numpy():
            self._search.ask()
            self._search.tell(fitness)
            self._fitness.append(fitness)


class Evolution:
    """Ask for candidates, tell their fitness; higher is better.

    Everything random comes from ``seed``: the same fitness values give the same candidates. pycma would draw from numpy's
    global generator; it is given its own.

    >>> config = CMAESConfig(generations=60, population=8, sigma=0.5)
    >>> search = Evolution(config, np.ones(3), seed=1)
    >>> for _ in range(60):
    ...     candidates = search.ask()
    ...     search.tell(-(candidates**2).sum(1))
    >>> bool((abs(search.mean) < 1e-3).all())
    True
    """

    def __init__(self, config: CMAESConfig, start: np.ndarray, seed: int) -> None:
        import cma  # here: it loads matplotlib and all of scipy.stats, and what a search is told is read without it

        self._random = np.random.Generator(np.random.PCG64(seed))
        options = {
            "popsize": config.population,
            "CMA_diagonal": config.covariance == "diagonal",
            "seed": math.nan,
            "randn": lambda *shape: self._random.standard_normal(shape),
            "verbose": -9,
            "verb_log": 0,
        }
        self._search = cma.CMAEvolutionStrategy(start.astype(np.float64), config.sigma, options)
        self._asked: list[np.ndarray] = []

    def ask(self) -> np.ndarray:
        """Return the next candidates, (P, N) float64."""
        self._asked = self._search.ask()
        return np.stack(self._asked)

    def tell(self, fitness: np.ndarray) -> None:
        """Take the fitness (P,) of the candidates just asked for."""
        self._search.tell(self._asked, (-fitness).tolist())

    @property
    def mean(self) -> np.ndarray:
        """Mean of the search distribution, (N,)."""
        return np.array(self._search.mean)

    @property
    def sigma(self) -> float:
        """Step size."""
        return float(self._search.sigma)
