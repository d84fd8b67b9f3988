"""Several small models of the next latent that learn the same play and disagree where there was none (Sekar et al. 2020).

Plan2Explore's form: each member foretells the mean of z' from what M remembers, z and the action; the variance of what they
say is what is not known yet. Noise of the game does not count: of noise, all of them learn to foretell the same mean.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodels.seeds import stream_seed

MEMBERS, UNITS = 5, 128
"""K, and the units of a member's hidden layer."""
UPDATES, BATCH, RATE = 1500, 256, 1e-3
"""Gradient steps of all members, rows that each of them draws for a step, Adam's learning rate."""
LEAST = 0.1
"""Least standard deviation by which a dimension is divided: one that never varies is no news."""


class Ensemble(nn.Module):
    """K perceptrons of one hidden layer, computed together. It begins untrained, with zeros for weights.

    Args:
        inputs: D.
        latent: Z.
    """

    centre: Tensor
    size: Tensor

    def __init__(self, inputs: int, latent: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(inputs))
        self.register_buffer("size", torch.ones(inputs))
        self.first = nn.Parameter(torch.zeros(MEMBERS, inputs, UNITS))
        self.first_bias = nn.Parameter(torch.zeros(MEMBERS, 1, UNITS))
        self.second = nn.Parameter(torch.zeros(MEMBERS, UNITS, latent))
        self.second_bias = nn.Parameter(torch.zeros(MEMBERS, 1, latent))

    def forward(self, x: Tensor) -> Tensor:
        """Return what each member foretells, (K, N, Z), in standard deviations of z'; x: (N, D), or each its own, (K, N, D)."""
        x = (x - self.centre) / self.size
        hidden = F.elu(torch.matmul(x, self.first) + self.first_bias)
        return torch.matmul(hidden, self.second) + self.second_bias

    def disagreement(self, x: Tensor) -> Tensor:
        """Return the variance of what the members foretell, mean over the dimensions of z', (N,), for x (N, D)."""
        return self(x).var(0, correction=0).mean(-1)


class Lessons(NamedTuple):
    """Steps of play: what is known before each, and what came."""

    x: Tensor  # (N, D)
    after: Tensor  # z', (N, Z)


def learn_ensemble(lessons: Lessons, seed: int) -> Ensemble:
    """Return an ensemble that has learned some play; its members begin and draw their batches apart."""
    x, after = lessons
    draw = torch.Generator().manual_seed(stream_seed(seed, "ensemble") % 2**63)
    model = Ensemble(x.shape[1], after.shape[1]).to(x.device)
    with torch.no_grad():
        model.centre.copy_(x.mean(0))
        model.size.copy_(x.std(0, correction=0).clamp(min=LEAST))
        for weight in (model.first, model.second):
            weight.copy_(torch.randn(weight.shape, generator=draw) / weight.shape[1] ** 0.5)
    wanted = (after - after.mean(0)) / after.std(0, correction=0).clamp(min=LEAST)
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, UPDATES)
    for _ in range(UPDATES):
        rows = torch.randint(len(x), (MEMBERS, BATCH), generator=draw).to(x.device)
        loss = (model(x[rows]) - wanted[rows]).square().mean((1, 2)).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval().requires_grad_(requires_grad=False)
