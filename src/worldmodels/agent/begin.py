"""Where the search of an agent begins: at the C of an earlier agent, brought to this V, this M and this shape."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from worldmodels.agent.agent import Agent
from worldmodels.controller.basis import LENGTH, played_features
from worldmodels.controller.carry import carry_over
from worldmodels.controller.imitation import imitate
from worldmodels.controller.model import ControllerConfig, Controllers
from worldmodels.memory.base import Memory
from worldmodels.memory.prediction import steps_so_far, stretches
from worldmodels.storage.episodes import CHUNK, FrameReader
from worldmodels.vision.encode import encode_chunk
from worldmodels.vision.model import Vision


def begin_at(
    earlier: Agent,
    memory: Memory,
    rows: Mapping[str, Tensor],
    model: ControllerConfig,
    reader: FrameReader | None,
    *,
    seed: int,
) -> np.ndarray:
    """Return parameters (N,) of a C that acts as an earlier agent does.

    A C of the same shape is taken as it is if V is the same, else carried over by regression on the same frames. A C of another
    shape learns to imitate the earlier one.

    Args:
        earlier: the agent.
        memory, rows, model: M of the search, the latents of its world model, a row a frame, and the shape of its C.
        reader: the frames behind ``rows``; None if V is the earlier agent's.
        seed: of the imitation.
    """
    if earlier.config == model and reader is None:
        return earlier.parameters.numpy()
    old = rows if reader is None else _seen_by(earlier.vision.to(memory.device), reader, rows)
    theirs = earlier.memory.to(memory.device)
    if earlier.config == model:
        seen, sees = (played_features(model.features, *of) for of in ((theirs, old), (memory, rows)))
        return carry_over(earlier.parameters.numpy(), model, memory.action, seen, sees)
    seen = played_features(earlier.config.features, theirs, old, seed)
    sees = played_features(model.features, memory, rows, seed)
    teacher = Controllers(earlier.config, earlier.parameters.float()[None], seen.shape[1], memory.action)
    return imitate(teacher, seen, model, sees, seed=seed)


@torch.inference_mode()
def _seen_by(vision: Vision, reader: FrameReader, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return rows with another V's latents, of those frames alone that ``played_features`` reads."""
    first = rows["first"]
    begins = torch.nonzero(steps_so_far(first) % CHUNK == 0).flatten()  # a chunk holds so many frames of one episode at most
    needed = torch.searchsorted(begins, stretches(len(first), LENGTH).flatten(), right=True) - 1
    latent = vision.config.latent
    found = {name: torch.zeros(len(first), latent, dtype=torch.float16) for name in ("mean", "log_variance")}
    for chunk in needed.unique().tolist():
        at = int(begins[chunk])
        for name, part in encode_chunk(vision, reader.frames([chunk])).items():
            found[name][at : at + len(part)] = part
    return {**rows, **found}
