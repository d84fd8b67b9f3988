"""What C sees of V and M."""

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from worldmodels.memory.base import Memory

Features = Literal["z", "zh", "zch"]
"""z alone, z with the output of M, or z with all that C can see of M's state."""


def feature_size(kind: Features, latent: int, memory: "Memory | None") -> int:
    """Return F for Z ``latent``; M may be None for ``z``."""
    return latent + _of(kind, memory).feature_size(kind) if kind != "z" else latent


def select_features(kind: Features, z: Tensor, memory: "Memory | None", state: Tensor) -> Tensor:
    """Return (B, F): z (B, Z), and behind it what C sees of M's state (B, S); M may be None for ``z``."""
    return torch.cat([z, _of(kind, memory).features(kind, state)], 1) if kind != "z" else z


def _of(kind: Features, memory: "Memory | None") -> "Memory":
    if memory is None:
        raise ValueError(f"features {kind!r} need M")
    return memory
