"""Mixtures of Gaussians (Bishop 1994): of every latent dimension by itself (paper, appendix A.2), or of all of them at once."""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

MIXTURES = 5
"""K, Gaussians for each dimension of z, if dimensions are independent (paper, appendix A.2)."""
LOG_SQRT_TWO_PI = 0.5 * math.log(2 * math.pi)


class Mixture(NamedTuple):
    """p(z' | history); every field is (..., K, Z): K before Z, so that sums over the components run along contiguous memory.

    With ``logits`` (..., K, Z) every dimension has its own components, and is independent of the others. With ``logits``
    (..., K, 1) a component is one scene: it says what all dimensions are, and they are drawn together.
    """

    logits: Tensor  # unnormalised log weights
    mean: Tensor  # component means
    log_std: Tensor  # component log standard deviations

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log p(z) in nats a dimension, (...), for ``z`` (..., Z)."""
        deviation = (z.unsqueeze(-2) - self.mean) * (-self.log_std).exp()
        component = -0.5 * deviation.square() - self.log_std - LOG_SQRT_TWO_PI
        weights = self.logits.log_softmax(-2)
        if weights.shape[-1] == 1:
            return torch.logsumexp(weights.squeeze(-1) + component.sum(-1), -1) / z.shape[-1]
        return torch.logsumexp(weights + component, -2).mean(-1)

    def cdf(self, z: Tensor) -> Tensor:
        """Return the probability that a dimension is below ``z``, (..., Z), for ``z`` (..., Z)."""
        deviation = (z.unsqueeze(-2) - self.mean) * (-self.log_std).exp()
        return (self.logits.softmax(-2) * torch.special.ndtr(deviation)).sum(-2)

    def sample(self, uniform: Tensor, normal: Tensor, temperature: float | Tensor) -> Tensor:
        """Return z' (..., Z): a component by logits / tau, then its Gaussian with the noise scaled by sqrt(tau).

        Args:
            uniform: (..., Z) in [0, 1), chooses the component by its cumulative weight; the first number chooses a scene.
            normal: (..., Z) standard normal.
            temperature: tau > 0; 1 is the model's own distribution, tau -> 0 its most probable component's mean.
        """
        # Component by component, without gather: a compiler makes one loop of it.
        logits, means, log_stds = ((self.logits / temperature).unbind(-2), self.mean.unbind(-2), self.log_std.unbind(-2))
        top = functools.reduce(torch.maximum, logits)
        weights = [(each - top).exp() for each in logits]
        reached = uniform[..., : weights[0].shape[-1]] * sum(weights[1:], weights[0])
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
