"""What a checkpoint keeps of a model and its optimiser, as named tensors."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def state_of(model: nn.Module, optimiser: torch.optim.Optimizer, prefix: str = "") -> dict[str, Tensor]:
    """Return the state of both, under names that begin with ``prefix``: the tensors that training goes on to change."""
    weights = {f"{prefix}model/{name}": tensor for name, tensor in model.state_dict().items()}
    moments = optimiser.state_dict()["state"].items()
    return weights | {f"{prefix}optimiser/{index}/{name}": tensor for index, each in moments for name, tensor in each.items()}


def restore(model: nn.Module, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
    """Put both into a state that ``state_of`` returned, with the same prefix; other tensors are left aside.

    >>> model, other = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> restore(other, torch.optim.SGD(other.parameters()), state_of(model, torch.optim.SGD(model.parameters()), "a/"), "a/")
    >>> torch.equal(other.weight, model.weight)
    True
    """
    weights, kept = f"{prefix}model/", f"{prefix}optimiser/"
    model.load_state_dict({name.removeprefix(weights): value for name, value in tensors.items() if name.startswith(weights)})
    moments: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for name, value in tensors.items():
        if name.startswith(kept):
            index, moment = name.removeprefix(kept).split("/")
            # As the parameter lies in memory (channels last, say): a fused update goes along both, element by element.
            like = parameters[int(index)]
            laid = torch.empty_like(like).copy_(value) if value.shape == like.shape else value.clone()
            moments.setdefault(int(index), {})[moment] = laid
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
