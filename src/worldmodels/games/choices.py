"""Actions that are choices: an action has a number for each option, and the largest wins."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

Choices = tuple[int, ...]
"""How many options each choice of an action has; () if actions are no choices, and each number counts as it is."""


def chosen(action: np.ndarray, choices: Sequence[int]) -> list[int]:
    """Return which option wins each choice of an action (A,); of equal ones the first.

    >>> chosen(np.array([0.1, 0.9, -1.0, 0.5, 0.5]), (3, 2))
    [1, 0]
    """
    ends = np.cumsum([0, *choices])
    return [int(action[begin:end].argmax()) for begin, end in pairwise(ends)]


def option(number: int, count: int) -> list[float]:
    """Return the action that takes one option of a choice among ``count``.

    >>> option(1, 3)
    [-1.0, 1.0, -1.0]
    """
    return [1.0 if each == number else -1.0 for each in range(count)]
