"""A C of another shape that acts as a given one: regression of what that says on the same frames."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from worldmodels.controller.model import ControllerConfig, Controllers, act, first_layer, first_parameters, perceptron
from worldmodels.controller.whitening import Whitening

UPDATES, BATCH, RATE = 6000, 512, 2e-3
"""Gradient steps, frames of a step, Adam's learning rate, which falls to nothing along a cosine."""
REACH = 2.0
"""The teacher's action before its tanh is cut to this. If a tanh is all but flat, C would learn next to nothing later."""
STRAIGHT = 0.05
"""Weight of what is said before the tanh, beside the action."""


def imitate(
    teacher: Controllers, seen: np.ndarray, model: ControllerConfig, features: np.ndarray, *, seed: int, updates: int = UPDATES
) -> np.ndarray:
    """Return parameters (N,) float64 of a C that acts all but as another does.

    Args:
        teacher: the other.
        seen: its features of some frames, (n, F).
        model: the shape of C, with biases.
        features: C's features of the same frames, (n, F').
        seed: of C's first weights and of the order of the frames.
        updates: gradient steps.
    """
    says = torch.cat([act(part, teacher.alone) for part in torch.from_numpy(seen).float().split(BATCH)])
    return imitate_actions(says, model, features, seed=seed, updates=updates)


def imitate_actions(
    actions: Tensor, model: ControllerConfig, features: np.ndarray, *, seed: int, updates: int = UPDATES
) -> np.ndarray:
    """Return parameters (N,) float64 of a C that all but takes the ``actions`` (n, A) at ``features``; see ``imitate``."""
    draw, size = torch.Generator().manual_seed(seed % 2**63), actions.shape[1]
    actions = actions.clamp(-math.tanh(REACH), math.tanh(REACH))
    wanted = torch.atanh(actions)
    white, units = Whitening.of(features), first_layer(model, size)
    x = torch.from_numpy(white.see(features)).float()
    student = perceptron([x.shape[1], *([model.hidden] if model.hidden else []), size])
    first = first_parameters(model, x.shape[1], size, seed)
    nn.utils.vector_to_parameters(torch.from_numpy(first).float(), student.parameters())
    optimiser = torch.optim.Adam(student.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    for _ in range(updates):
        rows = torch.randint(len(x), (BATCH,), generator=draw)
        said: Tensor = student(x[rows])
        loss = (torch.tanh(said) - actions[rows]).square().mean() + STRAIGHT * (said - wanted[rows]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return white.leave(nn.utils.parameters_to_vector(student.parameters()).detach().double().numpy(), units)
