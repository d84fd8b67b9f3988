"""Weights as safetensors: nothing that is loaded can run code."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from worldmodels.storage.files import write_bytes
from worldmodels.storage.layout import damaged, require


class Described(Protocol):
    """A model that can say what it takes to build its shape again."""

    def describe(self) -> dict[str, Any]: ...
    def state_dict(self) -> dict[str, Any]: ...


M = TypeVar("M", bound=nn.Module)
CHECKSUM = "sha256"
"""Key of the description under which the checksum of the rest is kept."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write tensors with a description and a SHA-256 of both."""
    named = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    told = {**description, CHECKSUM: _checksum(named, description)}
    write_bytes(path, save(named, {"description": json.dumps(told)}))  # one key: the order of several would not be kept


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and their description.

    Raises:
        ArtifactError: the file is missing, truncated, not ours, or its checksum is another.
    """
    try:
        with safe_open(require(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            description = json.loads((file.metadata() or {})["description"])
        expected = description.pop(CHECKSUM)
    except (SafetensorError, KeyError, ValueError, OSError, AttributeError, TypeError) as error:
        raise damaged(path, error) from None
    if _checksum(tensors, description) != expected:
        raise damaged(path, "its checksum is another")
    return tensors, description


def _checksum(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(description).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_model(path: Path, model: Described) -> None:
    """Write a model's weights and the description of its shape."""
    save_tensors(path, model.state_dict(), model.describe())


def load_model(path: Path, build: Callable[[dict[str, Any]], M]) -> M:
    """Read a model: ``load_model(path, Vision.from_description)``. Weights in half precision become single."""
    tensors, description = load_tensors(path)
    try:
        model = build(description)
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise damaged(path, error) from None
    return model.eval()
