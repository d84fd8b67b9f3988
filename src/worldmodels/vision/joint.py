"""V that learns what matters for the task: its latents foretell rewards and ends too (paper, Discussion).

V alone spends its latents on what covers many pixels. Here a small net reads the reward and the end of the coming steps from a
frame's latent and the action, as M's heads do, and its gradient goes on into the encoder. The net is thrown away afterwards.
"""

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from worldmodels.learning.initialisation import initialise
from worldmodels.params import Config
from worldmodels.vision.model import Vision

HIDDEN = 64
"""Units of the net."""


class JointConfig(Config):
    """What V learns beside its pictures."""

    weight: float = Field(gt=0, le=1e6)  # of the two cross-entropies in nats, beside the squared error summed over pixels
    steps: int = Field(default=8, ge=1, le=1000)  # the end of the episode is foretold so many steps ahead


class Joint(nn.Module):
    """V with the net that learns beside it."""

    def __init__(self, config: JointConfig, vision: Vision, actions: int, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.net = nn.Sequential(nn.Linear(vision.config.latent + actions, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2))
        initialise(self.net, generator)
        self.net.to(vision.device)
        self.vision = vision

    def errors(self, z: Tensor, action: Tensor, paid: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two cross-entropies in nats a frame: of the reward, and of the end.

        Args:
            z: latents, (B, Z).
            action: what was done then, (B, A).
            paid: whether the reward was above 0, (B,); NaN if nobody knows.
            ends: whether the game ended soon, (B,).
        """
        event, end = self.net(torch.cat([z, action], 1)).unbind(1)
        known = paid.isfinite()
        each = F.binary_cross_entropy_with_logits(event, paid.nan_to_num(), reduction="none")
        return (each * known).sum() / known.sum().clamp(min=1), F.binary_cross_entropy_with_logits(end, ends)


def paid_and_ends(reward: np.ndarray, terminal: np.ndarray, first: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each frame (N,) whether its reward is above 0 (NaN: not known), and whether the game ends within ``steps``.

    >>> terminal, first = np.array([False, True, False, False]), np.array([True, False, False, True])
    >>> paid, ends = paid_and_ends(np.array([1.0, 0.0, np.nan, 0.0]), terminal, first, 2)
    >>> paid.tolist(), ends.tolist()
    ([1.0, 0.0, nan, 0.0], [1.0, 1.0, 0.0, 0.0])
    """
    row, episode = np.arange(len(reward)), np.cumsum(first)
    # The next row at which a game ends, of this episode or a later one.
    ending = np.minimum.accumulate(np.where(terminal, row, len(row))[::-1])[::-1]
    soon = (ending < len(row)) & (ending - row < steps) & (episode[np.minimum(ending, len(row) - 1)] == episode)
    paid = np.where(np.isfinite(reward), reward > 0, np.nan)
    return paid.astype(np.float32), soon.astype(np.float32)
