"""What a test is: how many episodes, where, against which baseline."""

from collections.abc import Sequence

from pydantic import Field, model_validator

from worldmodels.rollout.policies import RandomPolicyConfig, ScriptedConfig
from worldmodels.params import Config


class DreamTestConfig(Config):
    """Dream episodes that stand beside the real score.

    Attributes:
        episodes: how many; 0 for none.
        temperature: tau.
        limit: most steps of one.
        goal: above 0, sum of rewards, without what every step costs, at which one is over (``DreamWorld``).
    """

    episodes: int = Field(ge=0, le=100_000)
    temperature: float = Field(gt=0, le=10)
    limit: int = Field(ge=1, le=1_000_000)
    goal: float = Field(ge=0, le=1e9)


class RealTestConfig(Config):
    """Real test episodes, and the random policy on the same ones.

    Attributes:
        episodes: how many, at least 2 (a standard error needs them).
        lanes: games at a time in a worker.
        baseline: the random policy that scores are compared with.
        blind: other policies that do not look; a controller that is no better than the best of them has learned timing only.
    """

    episodes: int = Field(ge=2, le=100_000)
    lanes: int = Field(ge=1, le=4096)
    baseline: RandomPolicyConfig
    blind: list[ScriptedConfig]

    @model_validator(mode="after")
    def _names_differ(self) -> "RealTestConfig":
        if len(self.policies()) != 1 + len(self.blind):
            raise ValueError("each of `blind` needs a name of its own, and none may be called `random`")
        return self

    def policies(self) -> dict[str, RandomPolicyConfig | ScriptedConfig]:
        """Return all blind policies by name, ``random`` first."""
        return {"random": self.baseline, **{policy.name: policy for policy in self.blind}}


class CalibrationConfig(Config):
    """The ``calibrate`` section of an environment: blind policies, dreamt, against the same in reality.

    Attributes:
        dreams: episodes a policy.
        temperature: tau.
        limit: most steps of one.
        margin: a policy that dreams more than this many times its real return, beyond the standard errors, is warned about.
    """

    dreams: int = Field(ge=2, le=100_000)
    temperature: float = Field(gt=0, le=10)
    limit: int = Field(ge=1, le=1_000_000)
    margin: float = Field(ge=1)


class EvaluationConfig(Config):
    """The ``evaluate`` section of an environment."""

    real: RealTestConfig
    dream: DreamTestConfig


def shards(seeds: Sequence[int], lanes: int, workers: int) -> list[list[int]]:
    """Return seeds in tasks of equal size: one or more for each of the ``workers``, of up to four times the ``lanes``.

    A task with more episodes than lanes starts the next one where one has ended, so that the lanes stay full; what is done of a
    task is lost where it is killed.

    >>> shards(range(9), lanes=1, workers=2)
    [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    >>> shards(range(9), lanes=3, workers=2)
    [[0, 1, 2, 3, 4], [5, 6, 7, 8]]
    """
    most = min(4 * lanes, max(lanes, -(-len(seeds) // workers)))
    count = -(-len(seeds) // most)
    size = -(-len(seeds) // count)
    return [list(seeds[i : i + size]) for i in range(0, len(seeds), size)]
