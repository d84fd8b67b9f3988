"""C carried over to another V and M: the one whose outputs on the same frames are nearest to what C says there."""

import numpy as np

from worldmodels.controller.model import ControllerConfig, first_layer

RIDGE = 1e-3
"""Weight of the penalty, in units of the mean variance of a feature."""


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
