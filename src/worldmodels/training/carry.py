"""C carried over to another V and M: the one whose outputs on the same frames are nearest to what C says there."""

import numpy as np

from worldmodels.models.controller import ControllerConfig, first_layer, first_parameters

RIDGE = 1e-3
"""Weight of the penalty, in units of the mean variance of a feature."""
GENTLE = 0.3
"""What a linear C says is made so much smaller before the tanh of a hidden layer, and larger behind it."""


def can_widen(narrow: ControllerConfig, wide: ControllerConfig, actions: int) -> bool:
    """Return whether ``widen`` can turn a C of one shape into one of the other."""
    return not narrow.hidden and wide.hidden >= actions and (narrow.features, narrow.bias) == (wide.features, wide.bias)


def widen(parameters: np.ndarray, wide: ControllerConfig, actions: int, seed: int) -> np.ndarray:
    """Return a C with a hidden layer, (N',) float64, that acts as a linear one, (N,), all but exactly.

    A hidden unit for every action says what the linear C says there; the others are those of ``first_parameters`` and say
    nothing yet.

    >>> linear = np.array([0.5, -1.0, 0.2])  # two features, a bias
    >>> wide = widen(linear, ControllerConfig(features="z", hidden=2, bias=True), 1, seed=0)
    >>> weight, bias, out = wide[:4].reshape(2, 2), wide[4:6], wide[6:8]
    >>> features = np.array([0.3, 0.4])
    >>> bool(np.isclose(out @ np.tanh(weight @ features + bias), linear[:2] @ features + linear[2], atol=0.001))
    True
    """
    inputs = len(parameters) // actions - wide.bias
    fresh = first_parameters(wide, inputs, actions, seed)
    first = wide.hidden * inputs
    fresh[: actions * inputs] = GENTLE * parameters[: actions * inputs]
    behind = first + wide.hidden * wide.bias
    fresh[first : first + actions * wide.bias] = GENTLE * parameters[actions * inputs :]
    fresh[behind : behind + actions * wide.hidden] = (np.eye(actions, wide.hidden) / GENTLE).ravel()
    return fresh


def carry_over(
    parameters: np.ndarray, config: ControllerConfig, actions: int, before: np.ndarray, now: np.ndarray
) -> np.ndarray:
    """Return C's parameters (N,) float64 for new features: ridge regression of what its first layer says before its tanh.

    Args:
        parameters: of the C that reads the old features, (N,).
        config: its shape.
        actions: A.
        before: old features of some frames, (n, F).
        now: new features of the same frames, (n, F'); then N counts F' of them.

    >>> old = np.random.default_rng(0).normal(size=(200, 2))
    >>> linear = ControllerConfig(features="z", hidden=0, bias=True)
    >>> carry_over(np.array([1.0, 2.0, 0.5]), linear, 1, old, 2 * old[:, ::-1]).round(2)
    array([1. , 0.5, 0.5])
    """
    units, width = first_layer(config, actions), now.shape[1]
    end = units * before.shape[1]
    weight, rest = parameters[:end].reshape(units, -1), parameters[end:].astype(np.float64)
    said = before @ weight.T
    middle, level = (now.mean(0), said.mean(0)) if config.bias else (np.zeros(width), np.zeros(units))
    inputs, wanted = now - middle, said - level
    squares = inputs.T @ inputs
    found = np.linalg.solve(squares + RIDGE * np.trace(squares) / width * np.eye(width), inputs.T @ wanted).T
    if config.bias:
        rest[:units] += level - found @ middle
    return np.concatenate([found.ravel(), rest])
