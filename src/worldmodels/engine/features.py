"""What C sees of V and M."""

import torch
from torch import Tensor

from worldmodels.models.controller import Features
from worldmodels.models.memory import MemoryState


def select_features(kind: Features, z: Tensor, state: MemoryState | None) -> Tensor:
    """Return (B, F): z alone, [z, h], or [z, c, h]."""
    if kind == "z":
        return z
    if state is None:
        raise ValueError(f"features {kind!r} need the state of M")
    return torch.cat([z, state.h] if kind == "zh" else [z, state.c, state.h], 1)
