"""Coordinates of C's features in which gradients go straight."""

from typing import NamedTuple

import numpy as np

COLOURED = 48
"""Principal components of the features that are as good as white to C; those behind are the smaller the less they vary."""


class Whitening(NamedTuple):
    """x = (f - mean) @ matrix, (F,) and (F, F) float64."""

    mean: np.ndarray
    matrix: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Whitening":
        """Return the coordinates of some features (N, F)."""
        mean = features.mean(0)
        centred = features - mean
        variances, directions = np.linalg.eigh(centred.T @ centred / len(features))
        variances, directions = variances[::-1].clip(min=0), directions[:, ::-1]
        floor = variances[min(COLOURED, len(variances) - 1)] + 1e-6 * variances[0]
        strongest = np.abs(directions).argmax(0)
        directions = directions * np.sign(directions[strongest, np.arange(len(mean))])
        return cls(mean, directions / np.sqrt(variances + floor))

    def see(self, features: np.ndarray) -> np.ndarray:
        """Return features (N, F) in these coordinates."""
        return np.asarray((features - self.mean) @ self.matrix)

    def enter(self, parameters: np.ndarray, units: int) -> np.ndarray:
        """Return a C with biases, (N,) float64, whose first layer has so many units, in these coordinates."""
        end = units * len(self.mean)
        weight, rest = parameters[:end].reshape(units, -1), parameters[end:].copy()
        rest[:units] += weight @ self.mean
        return np.concatenate([np.linalg.solve(self.matrix, weight.T).T.ravel(), rest])

    def leave(self, parameters: np.ndarray, units: int) -> np.ndarray:
        """Return such a C as it reads the features themselves.

        >>> white = Whitening.of(np.random.default_rng(0).normal(size=(50, 3)))
        >>> c = np.arange(8.0)
        >>> np.allclose(white.leave(white.enter(c, 2), 2), c)
        True
        """
        end = units * len(self.mean)
        weight, rest = parameters[:end].reshape(units, -1) @ self.matrix.T, parameters[end:].copy()
        rest[:units] -= weight @ self.mean
        return np.concatenate([weight.ravel(), rest])
