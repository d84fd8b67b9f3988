"""What several seeds of one recipe say together: intervals, the middle half, who does better (Agarwal et al. 2021).

A score is an episode's return, a run is the scores of one chain seed. Seeds differ more than episodes do, so an interval
comes from drawing seeds first, and then episodes of each seed that was drawn (a two-level bootstrap).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

SAMPLES = 2000
"""Draws of a bootstrap."""
LEVEL = 0.95
"""Share of the draws that an interval holds."""
Runs = Sequence[np.ndarray]
"""The scores of each seed, (N,)."""


def mean(runs: Runs) -> float:
    """Return the mean over seeds of their mean scores."""
    return float(np.mean([scores.mean() for scores in runs]))


def interquartile_mean(runs: Runs) -> float:
    """Return the mean of the middle half of all scores: few very good or bad episodes do not move it.

    >>> interquartile_mean([np.array([0.0, 1.0, 2.0, 900.0])])
    1.5
    """
    scores = np.sort(np.concatenate(list(runs)))
    cut = len(scores) // 4
    return float(scores[cut : len(scores) - cut].mean())


def share_above(runs: Runs, points: np.ndarray) -> np.ndarray:
    """Return the share of scores that are at least as high as each of ``points``, (K,), each seed counting alike."""
    return np.mean([(scores[:, None] >= points).mean(0) for scores in runs], axis=0)


def improvement(runs: Runs, others: np.ndarray) -> float:
    """Return the probability that an episode of the recipe is better than one of ``others``, (M,); a tie counts half.

    >>> improvement([np.array([1.0, 3.0])], np.array([1.0, 2.0]))
    0.625
    """
    ranked = np.sort(others)
    wins = [(np.searchsorted(ranked, scores, "left") + np.searchsorted(ranked, scores, "right")).mean() for scores in runs]
    return float(np.mean(wins) / 2 / len(ranked))


def draws(runs: Runs) -> list[list[np.ndarray]]:
    """Return ``SAMPLES`` runs as they might have been: seeds drawn with replacement, and of each its episodes."""
    random = np.random.default_rng(0)

    def drawn() -> list[np.ndarray]:
        chosen = (runs[number] for number in random.integers(len(runs), size=len(runs)))
        return [scores[random.integers(len(scores), size=len(scores))] for scores in chosen]

    return [drawn() for _ in range(SAMPLES)]


def draws_of_means(means: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return ``SAMPLES`` means of seeds as they might have been, if of each seed's episodes only mean and error are known.

    Args:
        means: of the seeds, (S,).
        errors: their standard errors, (S,).
    """
    random = np.random.default_rng(0)
    chosen = random.integers(len(means), size=(SAMPLES, len(means)))
    drawn: np.ndarray = (means[chosen] + errors[chosen] * random.standard_normal(chosen.shape)).mean(axis=1)
    return drawn


def interval(values: Sequence[Any] | np.ndarray) -> Any:
    """Return the lower and the upper bound of what holds ``LEVEL`` of drawn values; of arrays, place by place."""
    return np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)


def chance_above(means: Sequence[float], other: float, stderr: float = 0.0) -> float:
    """Return how often drawn means are above another mean that is known with this standard error."""
    theirs = other + stderr * np.random.default_rng(0).standard_normal(len(means))
    return float(np.mean(np.asarray(means) > theirs))
