"""A mixture of K Gaussians for every latent dimension, each with its own weights (paper, appendix A.2; Bishop 1994)."""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

MIXTURES = 5
"""K, Gaussians for each dimension of z in every M (paper, appendix A.2)."""
LOG_SQRT_TWO_PI = 0.5 * math.log(2 * math.pi)


class Mixture(NamedTuple):
    """p(z' | history), independent over dimensions; every field is (..., K, Z): K before Z, so that sums over the
    components run along contiguous memory.
    """

    logits: Tensor  # unnormalised log weights
    mean: Tensor  # component means
    log_std: Tensor  # component log standard deviations

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log p(z) of every dimension in nats, (..., Z), for ``z`` (..., Z)."""
        deviation = (z.unsqueeze(-2) - self.mean) * (-self.log_std).exp()
        component = -0.5 * deviation.square() - self.log_std - LOG_SQRT_TWO_PI
        return torch.logsumexp(self.logits.log_softmax(-2) + component, -2)

    def cdf(self, z: Tensor) -> Tensor:
        """Return the probability that a dimension is below ``z``, (..., Z), for ``z`` (..., Z)."""
        deviation = (z.unsqueeze(-2) - self.mean) * (-self.log_std).exp()
        return (self.logits.softmax(-2) * torch.special.ndtr(deviation)).sum(-2)

    def sample(self, uniform: Tensor, normal: Tensor, temperature: float | Tensor) -> Tensor:
        """Return z' (..., Z): a component by logits / tau, then its Gaussian with the noise scaled by sqrt(tau).

        Args:
            uniform: (..., Z) in [0, 1), chooses the component by its cumulative weight.
            normal: (..., Z) standard normal.
            temperature: tau > 0; 1 is the model's own distribution, tau -> 0 its most probable component's mean.
        """
        # Component by component, without gather: a compiler makes one loop of it.
        logits, means, log_stds = ((self.logits / temperature).unbind(-2), self.mean.unbind(-2), self.log_std.unbind(-2))
        top = functools.reduce(torch.maximum, logits)
        weights = [(each - top).exp() for each in logits]
        reached = uniform * sum(weights[1:], weights[0])
        mean, log_std, passed = means[0], log_stds[0], weights[0]
        for k in range(1, len(weights)):
            beyond = passed <= reached
            mean, log_std = torch.where(beyond, means[k], mean), torch.where(beyond, log_stds[k], log_std)
            passed = passed + weights[k]
        scale = temperature.sqrt() if isinstance(temperature, Tensor) else math.sqrt(temperature)
        return mean + log_std.exp() * normal * scale

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the whole mixture, (..., Z) each."""
        weights = self.logits.softmax(-2)
        mean = (weights * self.mean).sum(-2)
        second = (weights * (self.mean.square() + (2 * self.log_std).exp())).sum(-2)
        return mean, (second - mean.square()).clamp(min=0).sqrt()
