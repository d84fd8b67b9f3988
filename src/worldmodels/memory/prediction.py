"""What any M says of the next step, and how that is compared with what happened (paper, appendix A.2)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from worldmodels.memory.levels import RewardLevels
from worldmodels.memory.mixture import Mixture
from worldmodels.params import Config

STRETCHES = 600
"""Pieces of the data that are read where not all of it is."""


class Prediction(NamedTuple):
    """What M says of the next step, for B sequences of T steps, or (without T) for one step of each."""

    latent: Mixture  # distribution of z', fields (B, T, K, Z)
    reward: Tensor | None  # expected reward, (B, T), or None
    done: Tensor | None  # logit that the episode ends with this step, (B, T), or None
    event: Tensor | None = None  # logit that the step's reward is above 0, (B, T), or None
    action: Tensor | None = None  # of the next action, (B, T, A), or None; see ``Memory.action_log_prob`` and ``Memory.skill``
    levels: RewardLevels | None = None  # of the step's reward, (B, T, K), or None

    def step(self, number: int) -> "Prediction":
        """Return one of the T steps: the same without the axis T."""

        def at(part: Tensor | None) -> Tensor | None:
            return None if part is None else part[:, number]

        latent = Mixture(*(field[:, number] for field in self.latent))
        levels = None if self.levels is None else RewardLevels(self.levels.logits[:, number])
        return Prediction(latent, at(self.reward), at(self.done), at(self.event), at(self.action), levels)


class MemoryLossConfig(Config):
    """The loss of M."""

    # weight of the done head's term. A death in a thousand steps is worth little beside all latents of a frame
    done_weight: float = Field(default=1.0, gt=0, le=1e6)
    # within that term, weight of the steps that end an episode (paper: 10)
    end_weight: float = Field(default=1.0, gt=0, le=1e6)
    reward_weight: float = Field(default=1.0, ge=0, le=1e6)  # weight of the reward's term


class MemoryLoss(NamedTuple):
    """The total, and its terms: -log p(z') in nats per dimension, the cross-entropy of the reward's event or of its level, and
    the weighted cross-entropy of done."""

    total: Tensor
    latent: Tensor
    reward: Tensor
    done: Tensor


def memory_loss(
    prediction: Prediction, z: Tensor, reward: Tensor, terminal: Tensor, valid: Tensor, config: MemoryLossConfig
) -> MemoryLoss:
    """Return the loss of predictions against what happened in B sequences of T steps.

    Args:
        prediction: what M said.
        z: (B, T, Z), the next latents. Steps that end an episode have none: they do not count in the latent term.
        reward, terminal: (B, T), the rewards of the steps, and whether the game ended with them. Rewards that are NaN are not
            known: they do not count.
        valid: (B, T) bool, False if no step was taken (between two episodes): nothing counts there.
        config: weights of the terms.
    """
    counted = valid.to(z.dtype)
    steps = counted.sum().clamp(min=1)
    alive = counted * (~terminal).to(z.dtype)
    latent = -(prediction.latent.log_prob(z).mean(-1) * alive).sum() / alive.sum().clamp(min=1)
    reward_error = done = latent.new_zeros(())
    each = None
    if prediction.event is not None:
        each = F.binary_cross_entropy_with_logits(prediction.event, (reward > 0).to(z.dtype), reduction="none")
    if prediction.levels is not None:
        each = prediction.levels.error(reward)
    if each is not None:
        known = counted * reward.isfinite().to(z.dtype)
        reward_error = (each * known).sum() / known.sum().clamp(min=1)
    if prediction.done is not None:
        target = terminal.to(z.dtype)
        weight = counted * (1 + (config.end_weight - 1) * target)
        done = F.binary_cross_entropy_with_logits(prediction.done, target, weight=weight, reduction="sum") / steps
    total = latent * z.shape[-1] + config.reward_weight * reward_error + config.done_weight * done
    return MemoryLoss(total, latent.detach(), reward_error.detach(), done.detach())


def steps_so_far(first: Tensor) -> Tensor:
    """Return how many steps of its episode come before each row, (N,) int64, for ``first`` (N,) bool.

    >>> steps_so_far(torch.tensor([True, False, False, True, False]))
    tensor([0, 1, 2, 0, 1])
    """
    row = torch.arange(len(first), device=first.device)
    return row - torch.where(first, row, 0).cummax(0).values


def stretches(rows: int, length: int) -> Tensor:
    """Return which of so many rows stretches of ``length`` have, spread evenly over them, (STRETCHES, length) int64.

    If there are fewer rows than ``length``, each stretch has all of them.
    """
    length = min(length, rows)
    return torch.linspace(0, rows - length, STRETCHES).long()[:, None] + torch.arange(length)
