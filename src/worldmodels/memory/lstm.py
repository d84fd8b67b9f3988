"""M as an LSTM: with the heads of ``Memory``, the MDN-RNN of the paper (section 2.2 and appendix A.2)."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.hooks import unserializable_hook

from worldmodels.memory.base import Memory, MemoryShape
from worldmodels.memory.features import Features
from worldmodels.memory.recurrence import Recurrence, recur

OPEN = 30.0
"""Logit of a gate that is open to the last bit."""


class LSTMConfig(MemoryShape):
    """The shape of an LSTM."""

    kind: Literal["lstm"] = "lstm"  # names it
    hidden: int = Field(ge=1, le=8192)  # H, units (paper: 256 for CarRacing, 512 for Take Cover)
    # above 0, the last unit is not learned: its cell grows by one in so many steps of an episode. So a game that gets harder
    # with time does so in the dream too. 0: all units are learned (paper)
    clock: int = Field(default=0, ge=0, le=1_000_000)

    def build(self, latent: int, action: int) -> "LSTMMemory":
        return LSTMMemory(self, latent, action)


class LSTMMemory(Memory):
    """MDN-RNN; 422,368 parameters for CarRacing (32 latents, 3 actions), 1,678,785 for Take Cover (64 latents, 1 action).

    The state is [h, c], what the units say and their cells, S = 2 H.

    >>> shape = LSTMConfig(hidden=256, done=False)
    >>> sum(p.numel() for p in LSTMMemory(shape, latent=32, action=3).parameters())
    422368
    """

    config: LSTMConfig

    def __init__(self, config: LSTMConfig, latent: int, action: int) -> None:
        super().__init__(config, latent, action, config.hidden)
        hidden, inputs = config.hidden, latent + action + config.done
        # One bias vector, as in the paper's TensorFlow; torch's own LSTM keeps two.
        self.input_weight = nn.Parameter(torch.zeros(4 * hidden, inputs))
        self.bias = nn.Parameter(torch.zeros(4 * hidden))
        self.hidden_weight = nn.Parameter(torch.zeros(4 * hidden, hidden))
        if config.clock:
            for parameter in (self.input_weight, self.bias, self.hidden_weight):
                parameter.register_hook(self._without_clock)

    @property
    def parts(self) -> tuple[int, ...]:
        return self.config.hidden, self.config.hidden

    def outputs(self, state: Tensor) -> Tensor:
        return state[:, : self.config.hidden]

    def features(self, kind: Features, state: Tensor) -> Tensor:
        """Return h (``zh``), or [c, h] (``zch``)."""
        h, c = state.chunk(2, 1)
        return h if kind == "zh" else torch.cat([c, h], 1)

    def feature_size(self, kind: Features) -> int:
        return self.config.hidden * (1 if kind == "zh" else 2)

    def draw_weights(self, generator: torch.Generator) -> None:
        super().draw_weights(generator)
        if self.config.clock:  # the last unit counts: open gates, and a constant that each step adds to the cell
            unit = self._clock_rows()
            with torch.no_grad():
                self.input_weight[unit] = 0
                self.hidden_weight[unit] = 0
                step = math.atanh(1 / self.config.clock)
                self.bias[unit] = self.bias.new_tensor([OPEN, step, OPEN, OPEN])

    def initial_state(self, lanes: int, elapsed: Tensor | None = None) -> Tensor:
        state = super().initial_state(lanes)
        if elapsed is not None and self.config.clock:
            cell = elapsed.to(state) / self.config.clock
            state[:, self.config.hidden - 1], state[:, -1] = torch.tanh(cell), cell
        return state

    def observe(self, z: Tensor, action: Tensor, restart: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        flag = [restart.unsqueeze(-1).to(z.dtype)] if self.config.done else []
        kind = self.bias.dtype  # of the products; the state is float32 (``compute.precision``)
        drive = F.linear(torch.cat([z, self.taken(action), *flag], -1).to(kind), self.input_weight, self.bias)  # (B, T, 4H)
        keep = (~restart).to(z.dtype).unsqueeze(-1)
        h, c = state.chunk(2, 1)
        # If autocast is on, the drive is of its type.
        if torch.is_grad_enabled():
            hidden, h, c = Recurrence.apply(drive, keep, self.hidden_weight, h, c, drive.dtype)
        else:
            hidden, h, c, _ = recur(drive, keep, self.hidden_weight, h, c, drive.dtype)
        return hidden, torch.cat([h, c], 1)

    def _clock_rows(self) -> Tensor:
        return torch.arange(1, 5, device=self.device) * self.config.hidden - 1

    @unserializable_hook
    def _without_clock(self, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient[self._clock_rows()] = 0
        return gradient
