"""Weights as safetensors: nothing that is loaded can run code."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

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


def save_tensors(path: Path, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> None:
    """Write tensors with a description. One metadata key only: the format does not keep the order of several."""
    named = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(named, {"description": json.dumps(description)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and their description.

    Raises:
        ArtifactError: where the file is missing, truncated, or not ours.
    """
    try:
        with safe_open(require(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads((file.metadata() or {})["description"])
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise damaged(path, error) from None


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
