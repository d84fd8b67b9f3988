"""The kinds of M: the one place that knows them all."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Discriminator, Tag, TypeAdapter

from worldmodels.memory.base import Memory, MemoryShape
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.memory.transformer import TransformerConfig
from worldmodels.seeds import stream_seed


def _kind(value: Any) -> Any:
    return value.get("kind", "lstm") if isinstance(value, Mapping) else getattr(value, "kind", None)


_UNKNOWN = {"custom_error_type": "kind_of_memory", "custom_error_message": "there is no such `kind` of M"}
MemoryConfig = Annotated[
    Annotated[LSTMConfig, Tag("lstm")] | Annotated[TransformerConfig, Tag("transformer")], Discriminator(_kind, **_UNKNOWN)
]
"""The shape of M, by its ``kind``: a union of one member for each kind."""


def new_memory(config: MemoryShape, latent: int, action: int, seed: int, choices: Sequence[int] = ()) -> Memory:
    """Return an untrained M for Z ``latent`` and A ``action``, in which ``choices`` are made (``Memory.choices``)."""
    model = config.build(latent, action)
    model.choices = tuple(choices)
    model.draw_weights(torch.Generator().manual_seed(stream_seed(seed, "memory")))
    return model


def memory_from_description(description: Mapping[str, Any]) -> Memory:
    """Return an M of the shape that ``Memory.describe`` told, for stored weights.

    Raises:
        KeyError, ValueError: it describes no M.
    """
    config: MemoryShape = TypeAdapter(MemoryConfig).validate_python(description["config"])
    model = config.build(description["latent"], description["action"])
    model.choices = tuple(description.get("choices", ()))
    if model.choices and sum(model.choices) != model.action:
        raise ValueError(f"choices of {sum(model.choices)} options in all, and actions of {model.action} numbers")
    return model
