"""The choice of the C that is kept: contestants of a search play the game, on episodes that are never test episodes."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import Field, model_validator

from worldmodels.controller.arena import GAMES, Arena
from worldmodels.controller.model import ControllerConfig
from worldmodels.learning.fit import Row
from worldmodels.params import Config


class SelectionConfig(Config):
    """Which C of the search is kept: judged on real selection episodes, never on test episodes."""

    # real episodes of the contestants that come to the end; 0 keeps the last C without playing
    episodes: int = Field(default=0, ge=0, le=100_000)
    # the C after so many generations is a contestant; 0: none is. The end of each run always is one, and so is the C that the
    # search began with: a dream that misleads costs no more than the iteration
    every: int = Field(default=0, ge=0, le=100_000)
    # times that the worse half of the contestants goes home while the others play on to twice the episodes, the last of them
    # to ``episodes`` (sequential halving, Karnin et al. 2013). 0: all play all episodes
    halvings: int = Field(default=0, ge=0, le=16)

    @model_validator(mode="after")
    def _halves(self) -> "SelectionConfig":
        if self.episodes and self.episodes < 2**self.halvings:
            raise ValueError(f"{self.halvings} halvings need at least {2**self.halvings} episodes, not {self.episodes}")
        return self

    @property
    def rounds(self) -> list[int]:
        """Episodes that a contestant has played after each round, if it still plays.

        >>> SelectionConfig(episodes=100, halvings=2).rounds
        [25, 50, 100]
        """
        return [self.episodes >> left for left in range(self.halvings, -1, -1)] if self.episodes else []

    def games(self, contestants: int, *, done: int = 0) -> int:
        """Return how many episodes so many contestants play, in the rounds that are not ``done``.

        >>> SelectionConfig(episodes=100, halvings=2).games(6)  # 6 x 25, 3 x 25, 2 x 50
        325
        """
        games = before = 0
        for number, until in enumerate(self.rounds):
            if number and contestants == 1:
                break
            games += contestants * (until - before) * (number >= done)
            contestants, before = math.ceil(contestants / 2), until
        return games


class Choice(NamedTuple):
    """What the contestants came to."""

    kept: int  # generation of the best of those that nobody sent home
    rejected: list[int]  # generations of the others that came through the first round, in their order
    rows: list[Row]  # of the curve, one a contestant, over all that it played


def choose(
    contestants: Mapping[int, np.ndarray],
    config: SelectionConfig,
    model: ControllerConfig,
    arena: Arena,
    seeds: Sequence[int],
    *,
    played: list[list[list[float]]],
    observe: Callable[[], object],
) -> Choice:
    """Let contestants play round by round.

    Args:
        contestants: generation -> parameters (N,), at least two.
        config: the section.
        model: the shape of C.
        arena: the game.
        seeds: ``config.episodes`` of them, the same for all contestants.
        played: returns of the rounds that were played before, a list of returns for each contestant in a round; those that are
            played now are appended.
        observe: called after every round.
    """
    playing = list(contestants)
    returns: dict[int, list[float]] = {generation: [] for generation in contestants}

    def score(generation: int) -> float:
        return float(np.mean(returns[generation]))

    through = playing
    for number, until in enumerate(config.rounds):
        if number:
            best = sorted(playing, key=score, reverse=True)[: math.ceil(len(playing) / 2)]
            playing = [generation for generation in playing if generation in best]
            through = playing if number == 1 else through
            if len(playing) == 1:
                break
        if number == len(played):
            stack = np.stack([contestants[generation] for generation in playing])
            since = len(returns[playing[0]])
            played.append(arena.play(model, stack, seeds[since:until], GAMES).total.tolist())
        for generation, new in zip(playing, played[number], strict=True):
            returns[generation] += new
        observe()
    kept = max(playing, key=score)
    rows: list[Row] = []
    for generation, each in returns.items():
        std = float(np.std(each))
        shown = {"mean": score(generation), "std": std, "stderr": std / math.sqrt(len(each)), "episodes": len(each)}
        rows.append({"generation": generation, "phase": "selection", **shown})
    return Choice(kept, [generation for generation in through if generation != kept], rows)
