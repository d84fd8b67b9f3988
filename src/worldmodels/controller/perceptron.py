"""Perceptrons with tanh between their layers, as C's are."""

from itertools import pairwise

from torch import nn


def perceptron(sizes: list[int]) -> nn.Sequential:
    """Return one of these layers, the inputs first; the last is linear.

    >>> [tuple(weight.shape) for weight in perceptron([3, 4, 1]).parameters()]
    [(4, 3), (4,), (1, 4), (1,)]
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1])
