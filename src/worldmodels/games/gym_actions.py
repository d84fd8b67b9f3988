"""From an action in [-1, 1] to what a Gymnasium game takes.

Box             A numbers, each mapped linearly from [-1, 1] to low..high of the space; whole numbers get equal shares
Discrete        n numbers; the largest wins
MultiDiscrete   n numbers for each of its choices; the largest of them wins
MultiBinary     two numbers for each switch, off and on; the larger one wins
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from worldmodels.errors import ParamsError
from worldmodels.games.choices import Choices, chosen

Controls = Callable[[np.ndarray], Any]


class ActionMap(NamedTuple):
    """How an action in [-1, 1] becomes what a game takes."""

    controls: Controls  # maps an action (A,)
    size: int  # A
    choices: Choices  # `GameConfig.choices`


def action_map(space: Any, name: str) -> ActionMap:
    """Return the mapping from an action in [-1, 1] to the space of the game ``name``.

    Raises:
        ParamsError: the space is of a kind that cannot be mapped, or has no bounds.
    """
    from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

    if isinstance(space, Box):
        if not space.is_bounded():
            raise ParamsError(
                f"the action space of `{name}` has no bounds to map [-1, 1] to: {space}. Put a wrapper around the game "
                "that gives it some."
            )
        return ActionMap(_scale(space), int(np.prod(space.shape)), ())
    if isinstance(space, Discrete):
        return ActionMap(lambda action: int(space.start) + chosen(action, (int(space.n),))[0], int(space.n), (int(space.n),))
    if isinstance(space, MultiBinary | MultiDiscrete):
        binary = isinstance(space, MultiBinary)
        shape, first = space.shape, 0 if binary else space.start
        choices = (2,) * int(np.prod(shape)) if binary else tuple(int(count) for count in space.nvec.ravel())

        def choose(action: np.ndarray) -> np.ndarray:
            options: np.ndarray = (first + np.reshape(chosen(action, choices), shape)).astype(space.dtype)
            return options

        return ActionMap(choose, sum(choices), choices)
    raise ParamsError(
        f"the action space of `{name}` is {space}; only Box, Discrete, MultiDiscrete and MultiBinary can be mapped. Put a "
        "wrapper around the game that makes it one of them."
    )


def _scale(space: Any) -> Controls:
    """Return the mapping to a Box with bounds."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    whole = np.issubdtype(space.dtype, np.integer)

    def scale(action: np.ndarray) -> np.ndarray:
        share = (np.clip(action, -1, 1).reshape(space.shape) + 1) / 2
        value = np.minimum(np.floor(low + share * (high - low + 1)), high) if whole else low + share * (high - low)
        controls: np.ndarray = value.astype(space.dtype)
        return controls

    return scale
