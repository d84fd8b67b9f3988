"""What states of the game are worth: a critic of lambda-returns that learns from several collections.

The episodes that are lost are few in each of them. What they have in common shows only in many (where a hairpin begins, and the
car is too fast for it), and C changes little from one collection to the next.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodels.controller.model import perceptron

UNITS, BATCH, RATE, SWEEPS = 128, 1024, 1e-3, 2
"""Units of its two layers, steps of an update, Adam's learning rate, and how often targets are made anew."""
TRACE = 0.95
"""lambda (Sutton & Barto 2018, section 12.1)."""
SCALE = 10.0
"""Unit of its output."""
NEWEST = 0.3
"""Share of the updates from the newest collection; the others take any."""


class Lesson(NamedTuple):
    """A collection: T steps of B lanes."""

    x: Tensor  # C's features, (T, B, F) float16
    # C's features, (K, F) float16, in the states behind which no step of the same episode is noted, at ``(over | last step)``,
    # in that order
    ends: Tensor
    worth: Tensor  # what the steps were worth, (T, B)
    lost: Tensor  # whether the episode ended there, (T, B) bool
    over: Tensor  # whether it ended there or was cut off, (T, B) bool


class Critic:
    """V(x).

    Args:
        inputs: F.
        discount: gamma.
        draw: of its first weights.
    """

    def __init__(self, inputs: int, discount: float, draw: torch.Generator) -> None:
        self.network, self._discount = perceptron([inputs, UNITS, UNITS, 1]), discount
        for parameter in self.network.parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter, generator=draw)
            else:
                nn.init.zeros_(parameter)
        self.optimiser = torch.optim.Adam(self.network.parameters(), RATE)

    def value(self, x: Tensor) -> Tensor:
        """Return V (...) of x (..., F)."""
        value: Tensor = self.network(x)
        return value[..., 0] * SCALE

    @torch.no_grad()
    def returns(self, lesson: Lesson) -> Tensor:
        """Return the lambda-returns (T, B) of a collection."""
        values = self.value(lesson.x.float())
        after = values.roll(-1, 0)
        edge = lesson.over.clone()
        edge[-1] = True
        after[edge] = self.value(lesson.ends.float())
        wanted, following = torch.empty_like(after), after[-1]
        for t in range(len(after) - 1, -1, -1):
            onward = torch.where(lesson.over[t], after[t], (1 - TRACE) * after[t] + TRACE * following)
            following = wanted[t] = lesson.worth[t] + self._discount * torch.where(lesson.lost[t], 0.0, onward)
        return wanted

    def learn(self, lessons: Sequence[Lesson], epochs: int, draw: torch.Generator) -> float:
        """Fit V to the returns of collections, the newest last; return the share of the newest's variance that V foresaw.

        Every sweep takes as many steps as ``epochs`` passes over the newest collection would.
        """
        foreseen = 0.0
        for sweep in range(SWEEPS):
            known = [(lesson.x.flatten(0, 1), self.returns(lesson).flatten()) for lesson in lessons]
            x, wanted = known[-1]
            if not sweep:
                with torch.no_grad():
                    foreseen = float(1 - (self.value(x.float()) - wanted).var() / wanted.var().clamp(min=1e-12))
            for _ in range(epochs * -(-len(x) // BATCH)):
                which, newest = int(torch.randint(len(known), (1,), generator=draw)), float(torch.rand(1, generator=draw))
                x, wanted = known[-1 if newest < NEWEST else which]
                rows = torch.randint(len(x), (BATCH,), generator=draw)
                loss = F.smooth_l1_loss(self.value(x[rows].float()) / SCALE, wanted[rows] / SCALE)
                self.optimiser.zero_grad()
                loss.backward()
                self.optimiser.step()
        return foreseen
