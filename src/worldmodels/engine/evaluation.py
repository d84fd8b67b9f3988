"""What a test is: how many episodes, where, against which baseline."""

from collections.abc import Sequence

from pydantic import Field

from worldmodels.engine.policies import RandomPolicyConfig
from worldmodels.params import Config


class DreamTestConfig(Config):
    """Dream episodes that stand beside the real score.

    Attributes:
        episodes: how many; 0 for none.
        temperature: tau.
        limit: most steps of one.
    """

    episodes: int = Field(ge=0, le=100_000)
    temperature: float = Field(gt=0, le=10)
    limit: int = Field(ge=1, le=1_000_000)


class RealTestConfig(Config):
    """Real test episodes, and the random policy on the same ones.

    Attributes:
        episodes: how many, at least 2 (a standard error needs them).
        lanes: games at a time in a worker, and episodes of one task.
        baseline: the random policy that scores are compared with.
    """

    episodes: int = Field(ge=2, le=100_000)
    lanes: int = Field(ge=1, le=4096)
    baseline: RandomPolicyConfig


class EvaluationConfig(Config):
    """The ``evaluate`` section of an environment."""

    real: RealTestConfig
    dream: DreamTestConfig


def shards(seeds: Sequence[int], size: int) -> list[list[int]]:
    """Return seeds in tasks of ``size`` episodes.

    >>> shards([1, 2, 3], 2)
    [[1, 2], [3]]
    """
    return [list(seeds[i : i + size]) for i in range(0, len(seeds), size)]
