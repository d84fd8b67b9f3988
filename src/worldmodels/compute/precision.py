"""In which precision matrix products are computed: sums, states and losses are float32 in any case."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch

from worldmodels.errors import WorldModelsError

Precision = Literal["auto", "float32", "bfloat16"]
CPU_FLAGS = {"avx512_bf16", "amx_bf16"}


def device_of(wanted: str) -> torch.device:
    """Return the device that ``compute.device`` names.

    Raises:
        WorldModelsError: a GPU is wanted and torch finds none.
    """
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise WorldModelsError("compute.device is `cuda`, and torch finds no GPU here. `auto` takes one if there is one.")
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")


def products_in(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type of the products: ``auto`` is bfloat16 if the device multiplies it faster than float32."""
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else bool(cpu_flags() & CPU_FLAGS)
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def training_in(kind: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which a model with float32 weights is trained with products of this type.

    It has no cache of cast weights, which is emptied only when a context ends: this one spans many updates of the weights.
    """
    return nullcontext() if kind == torch.float32 else torch.autocast(device.type, dtype=kind, cache_enabled=False)


def cpu_flags(told: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return what the first processor can do, by Linux; nothing if that is not told."""
    lines = told.read_text().splitlines() if told.exists() else []
    return next((set(line.split(":")[1].split()) for line in lines if line.startswith(("flags", "Features"))), set())
