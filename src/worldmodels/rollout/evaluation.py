"""What a test is: how many episodes, in the game and in the dream."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from worldmodels.params import Config

Block = Literal["test", "development"]
NUM_ENVS = 16
"""Games at a time in a worker. Returns do not depend on it."""


class EvaluationConfig(Config):
    """The ``evaluate`` section of an environment. The game says the rest: its limit, its goal, its blind policies."""

    # of the game; 2 at least, as a standard error needs them. The policies that do not look play the same ones
    episodes: int = Field(ge=2, le=100_000)
    # ``test``; or ``development``, other episodes, on which recipes and settings are compared: what is chosen by test episodes
    # has no honest score on them
    block: Block
    dreams: int = Field(default=100, ge=0, le=100_000)  # episodes of the dream, whose return stands beside the game's; 0: none
    temperature: float = Field(default=1.0, gt=0, le=10)  # tau of these dreams


def shards(seeds: Sequence[int], lanes: int, workers: int) -> list[list[int]]:
    """Return seeds in tasks of equal size: one or more for each of the ``workers``, of up to four times the ``lanes``.

    So lanes stay full, as an episode begins if another one ends, and not too much is lost if a task is killed.

    >>> shards(range(9), lanes=1, workers=2)
    [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    >>> shards(range(9), lanes=3, workers=2)
    [[0, 1, 2, 3, 4], [5, 6, 7, 8]]
    """
    most = min(4 * lanes, max(lanes, -(-len(seeds) // workers)))
    count = -(-len(seeds) // most)
    size = -(-len(seeds) // count)
    return [list(seeds[i : i + size]) for i in range(0, len(seeds), size)]
