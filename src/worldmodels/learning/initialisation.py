"""How the weights of V and M are drawn before training."""

import torch
from torch import nn


def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights of V or M afresh: Glorot-uniform matrices and kernels, zero biases (defaults of the paper's code)."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                parameter.zero_()
            else:
                fan_out, fan_in = (n * parameter[0, 0].numel() for n in parameter.shape[:2])
                bound = (6 / (fan_in + fan_out)) ** 0.5
                parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound)
