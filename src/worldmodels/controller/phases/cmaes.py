"""CMA-ES on a fitness function (paper, section 2.3; Hansen 2016)."""

import math
from typing import Literal

import cma
import numpy as np
from pydantic import Field

from worldmodels.params import Config
from worldmodels.seeds import stream_seed


class EvolutionConfig(Config):
    """CMA-ES.

    Attributes:
        population: P, candidates a generation (paper: 64).
        sigma: first step size in the dream (paper: 0.1).
        warm_sigma: the same for a search that begins at the C of the iteration before.
        covariance: ``full`` (paper), or ``diagonal``, which is much cheaper for a thousand parameters.
        components: above 0, C's weights are searched along so many principal components of its features (``Basis``), from where
            the search begins; 0: along each feature (paper). A generation tells apart few of a thousand directions.
        warm_components: the same for a search that begins at the C of the iteration before, whose weights on all features stay.
        seed: of the search alone: the same V and M, another C.
    """

    population: int = Field(ge=4, le=4096)
    sigma: float = Field(gt=0, le=10)
    warm_sigma: float = Field(gt=0, le=10)
    covariance: Literal["full", "diagonal"]
    components: int = Field(ge=0, le=100_000)
    warm_components: int = Field(ge=0, le=100_000)
    seed: int = Field(ge=0)

    def warm(self) -> "EvolutionConfig":
        """Return this for a search that begins at the C of the iteration before."""
        return self.model_copy(update={"sigma": self.warm_sigma, "components": self.warm_components})


class Evolution:
    """Ask for candidates, tell their fitness; higher is better.

    Everything random comes from ``seed`` and the config's own: the same fitness values give the same candidates. pycma would
    draw from numpy's global generator; it is given its own.

    >>> config = EvolutionConfig(
    ...     population=8, sigma=0.5, warm_sigma=0.5, covariance="full", components=0, warm_components=0, seed=0
    ... )
    >>> search = Evolution(config, config.sigma, np.ones(3), seed=1)
    >>> for _ in range(60):
    ...     candidates = search.ask()
    ...     search.tell(-(candidates**2).sum(1))
    >>> bool((abs(search.mean) < 1e-3).all())
    True
    """

    def __init__(self, config: EvolutionConfig, sigma: float, start: np.ndarray, seed: int) -> None:
        self._random = np.random.Generator(np.random.PCG64(stream_seed(seed, config.seed, "evolution")))
        options = {
            "popsize": config.population,
            "CMA_diagonal": config.covariance == "diagonal",
            "seed": math.nan,
            "randn": lambda *shape: self._random.standard_normal(shape),
            "verbose": -9,
            "verb_log": 0,
        }
        self._search = cma.CMAEvolutionStrategy(start.astype(np.float64), sigma, options)
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
