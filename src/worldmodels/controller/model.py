"""C: the tiny policy on V's and M's features, and a stack of many of them (paper, section 2.3 and appendix A.3)."""

import math
from itertools import pairwise

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from worldmodels.memory.features import Features
from worldmodels.params import Config


class ControllerConfig(Config):
    """The shape of C."""

    features: Features  # what C sees: ``z`` (V only), ``zh`` (paper: CarRacing), ``zch`` (paper: Take Cover)
    hidden: int = Field(default=0, ge=0, le=1024)  # units of a tanh hidden layer; 0 is linear (paper's ablation: 40)
    bias: bool = True  # add biases (paper: CarRacing yes, Take Cover no)


def parameter_count(config: ControllerConfig, inputs: int, actions: int) -> int:
    """Return how many numbers one controller has.

    >>> parameter_count(ControllerConfig(features="zh", hidden=0, bias=True), 288, 3)
    867
    """
    return sum(rows * columns + rows * config.bias for rows, columns in _layers(config, inputs, actions))


def first_parameters(config: ControllerConfig, inputs: int, actions: int, seed: int) -> np.ndarray:
    """Return the parameters (N,) float64 of a C that has learned nothing, for learning by gradients.

    A linear C is zeros. Behind a hidden layer of zeros no gradient would pass: its weights are drawn, of variance 1/F on the
    features and, so that first actions are small, of standard deviation 0.1 behind it; biases are zeros.
    """
    if not config.hidden:
        return np.zeros(parameter_count(config, inputs, actions))
    draw = np.random.default_rng(seed).normal
    parts = []
    for (rows, columns), scale in zip(_layers(config, inputs, actions), (1 / math.sqrt(inputs), 0.1), strict=True):
        parts += [scale * draw(size=rows * columns), np.zeros(rows * config.bias)]
    return np.concatenate(parts)


def first_layer(config: ControllerConfig, actions: int) -> int:
    """Return how many units read the features. Their weights are the first parameters, unit by unit."""
    return config.hidden or actions


class Controllers:
    """P controllers that act together: lane b is driven by candidate ``candidates[b]``.

    Args:
        config: their common shape.
        parameters: (P, N), one controller a row.
        inputs: F, size of the features.
        actions: A, size of an action.
    """

    def __init__(self, config: ControllerConfig, parameters: Tensor, inputs: int, actions: int) -> None:
        expected = parameter_count(config, inputs, actions)
        if parameters.ndim != 2 or parameters.shape[1] != expected:
            raise ValueError(f"a controller of {config} on {inputs} features has {expected} parameters, not {parameters.shape}")
        self.config, self.parameters, self.inputs, self.actions = config, parameters, inputs, actions

    def __len__(self) -> int:
        return len(self.parameters)

    def weights(self, candidates: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """Return each layer's weight (B, out, in) and bias (B, out) for lanes of these candidates, (B,)."""
        rows = self.parameters[candidates]
        layers: list[tuple[Tensor, Tensor | None]] = []
        start = 0
        for out, width in _layers(self.config, self.inputs, self.actions):
            weight = rows[:, start : start + out * width].view(-1, out, width)
            start += out * width
            bias = rows[:, start : start + out] if self.config.bias else None
            start += out * self.config.bias
            layers.append((weight, bias))
        return layers

    @property
    def alone(self) -> list[tuple[Tensor, Tensor | None]]:
        """The first one's layers, with B = 1: ``act`` takes them for any number of lanes."""
        return self.weights(torch.zeros(1, dtype=torch.int64))


def act(features: Tensor, layers: list[tuple[Tensor, Tensor | None]]) -> Tensor:
    """Return actions (B, A) in [-1, 1] for features (B, F): tanh after every layer."""
    for weight, bias in layers:
        features = (weight * features.unsqueeze(1)).sum(-1)
        features = torch.tanh(features if bias is None else features + bias)
    return features


def _layers(config: ControllerConfig, inputs: int, actions: int) -> list[tuple[int, int]]:
    if config.hidden:
        return [(config.hidden, inputs), (actions, config.hidden)]
    return [(actions, inputs)]


def perceptron(sizes: list[int]) -> nn.Sequential:
    """Return layers of these sizes, the inputs first, with tanh between them as C has; the last is linear.

    >>> [tuple(weight.shape) for weight in perceptron([3, 4, 1]).parameters()]
    [(4, 3), (4,), (1, 4), (1,)]
    """
    layers = [layer for inputs, outputs in pairwise(sizes) for layer in (nn.Linear(inputs, outputs), nn.Tanh())]
    return nn.Sequential(*layers[:-1])
