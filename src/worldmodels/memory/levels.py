"""Rewards of any size, as probabilities of levels: the two-hot targets of DreamerV3 (Hafner et al. 2023, section "Robust
predictions").

A mean that squared errors teach is pulled about by one reward in a thousand that is a hundred times as large as the others.
Probabilities of levels are not: what is rare is a level of its own. The levels lie close to each other near 0 and far apart
farther out. A reward between two levels counts for both, so that the expected reward is exact.
"""

from typing import NamedTuple

import torch
from torch import Tensor

LEVELS = 57
"""K, how many levels: an odd number, so that one of them is 0."""
FARTHEST = 7.0
"""Of the largest level: log(1 + reward), so 1,096. Larger rewards count as that."""
_SPACED = torch.linspace(-FARTHEST, FARTHEST, LEVELS)
VALUES = _SPACED.sign() * _SPACED.abs().expm1()
"""The rewards of the levels, (K,), ascending."""


class RewardLevels(NamedTuple):
    """What M says of rewards: log weights of the levels, (..., K)."""

    logits: Tensor

    def mean(self) -> Tensor:
        """Return the expected rewards, (...)."""
        return self.logits.softmax(-1) @ VALUES.to(self.logits)

    def error(self, reward: Tensor) -> Tensor:
        """Return the cross-entropy, (...), in nats, of rewards (...) that came. NaN counts as 0."""
        return -(two_hot(reward.nan_to_num()) * self.logits.log_softmax(-1)).sum(-1)


def two_hot(reward: Tensor) -> Tensor:
    """Return the weights of the levels, (..., K), at most two of them not 0, whose mean is the reward (...).

    >>> weights = two_hot(torch.tensor([0.0, -1.0, 98.0]))
    >>> (weights > 0).sum(-1).tolist(), (weights @ VALUES).round(decimals=3).tolist()
    ([1, 2, 2], [0.0, -1.0, 98.0])
    """
    values = VALUES.to(reward.device)
    reward = reward.float().clamp(values[0], values[-1])
    above = torch.searchsorted(values, reward.contiguous()).clamp(1, LEVELS - 1)
    low, high = values[above - 1], values[above]
    share = ((reward - low) / (high - low)).unsqueeze(-1)
    weights = torch.zeros(*reward.shape, LEVELS, device=reward.device)
    return weights.scatter_(-1, above.unsqueeze(-1), share).scatter_(-1, above.unsqueeze(-1) - 1, 1 - share)
