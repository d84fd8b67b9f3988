"""What C sees of V and M."""

from typing import Literal

import torch
from torch import Tensor

from worldmodels.memory.model import MemoryState

Features = Literal["z", "zh", "zch"]


def feature_size(features: Features, latent: int, hidden: int) -> int:
    """Return F for Z ``latent`` and H ``hidden``.

    >>> feature_size("zch", 64, 512)
    1088
    """
    return latent + hidden * {"z": 0, "zh": 1, "zch": 2}[features]


def select_features(kind: Features, z: Tensor, state: MemoryState | None) -> Tensor:
    """Return (B, F): z alone, [z, h], or [z, c, h]."""
    if kind == "z":
        return z
    if state is None:
        raise ValueError(f"features {kind!r} need the state of M")
    return torch.cat([z, state.h] if kind == "zh" else [z, state.c, state.h], 1)
