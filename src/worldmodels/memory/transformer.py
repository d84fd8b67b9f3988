"""M as a transformer that looks back on a window of steps (Vaswani et al. 2017), with rotary positions (Su et al. 2021).

It answers what the paper's discussion asks for: a memory with more capacity than an LSTM. A sequence is read at once, a dream
step by step; both give the same, because each layer's keys and values of the window are the state.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from worldmodels.memory.base import Memory, MemoryShape
from worldmodels.memory.features import Features

BASE = 1000.0
"""Longest wavelength of the rotary positions, in steps, over 2 pi: a window is shorter."""


class TransformerConfig(MemoryShape):
    """The shape of a transformer."""

    kind: Literal["transformer"] = "transformer"
    hidden: int = Field(default=256, ge=8, le=8192)  # H, width of a layer and size of an output
    layers: int = Field(default=2, ge=1, le=64)  # L
    heads: int = Field(default=4, ge=1, le=256)
    window: int = Field(default=32, ge=1, le=4096)  # N, steps that a layer looks back on
    # above 0, it reads how many steps of the episode are over, in units of this: a game that gets harder with time does so in
    # the dream too
    clock: int = Field(default=0, ge=0, le=1_000_000)

    @model_validator(mode="after")
    def _heads_fit(self) -> "TransformerConfig":
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden must be a multiple of 2 * heads = {2 * self.heads}, and is {self.hidden}")
        return self

    def build(self, latent: int, action: int) -> "TransformerMemory":
        return TransformerMemory(self, latent, action)


class _Past(NamedTuple):
    """What the state holds."""

    output: Tensor  # of the last step, (B, H)
    elapsed: Tensor  # steps of the episode so far, (B, 1)
    held: Tensor  # 1 if a place of the window holds a step of the episode, else 0, (B, N)
    cache: Tensor  # keys and values of each layer, (B, L, N, 2 H)


class TransformerMemory(Memory):
    """Layers of attention and of a perceptron of 4 H units, each behind a norm without weights, added to what they read.

    The state is [output, elapsed, held, cache], S = H + 1 + N + 2 L N H; see ``_Past``.
    """

    config: TransformerConfig

    def __init__(self, config: TransformerConfig, latent: int, action: int) -> None:
        super().__init__(config, latent, action, config.hidden)
        width = config.hidden
        self.read = nn.Linear(latent + action + (config.clock > 0), width)
        self.attend = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(config.layers))
        self.join = nn.ModuleList(nn.Linear(width, width) for _ in range(config.layers))
        self.widen = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(config.layers))
        self.narrow = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(config.layers))

    @property
    def parts(self) -> tuple[int, ...]:
        shape = self.config
        return shape.hidden, 1, shape.window, 2 * shape.layers * shape.window * shape.hidden

    def outputs(self, state: Tensor) -> Tensor:
        return state[:, : self.config.hidden]

    def features(self, kind: Features, state: Tensor) -> Tensor:
        """Return the output: it has no cells, so ``zch`` is ``zh``."""
        return self.outputs(state)

    def feature_size(self, kind: Features) -> int:
        return self.config.hidden

    def initial_state(self, lanes: int, elapsed: Tensor | None = None) -> Tensor:
        state = super().initial_state(lanes)
        if elapsed is not None:
            state[:, self.config.hidden] = elapsed.to(state)
        return state

    def observe(self, z: Tensor, action: Tensor, restart: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        past, shape, steps = self._past(state), self.config, restart.shape[1]
        place = torch.arange(steps, device=z.device)
        earlier = restart[:, None] & (place <= place[:, None])
        begun = torch.where(earlier, place, -1).amax(-1)  # (B, T): where the episode of each step began, -1 if before them
        elapsed = torch.where(begun >= 0, place - begun, past.elapsed + place)  # (B, T)
        clock = [(elapsed / shape.clock).tanh().unsqueeze(-1)] if shape.clock else []
        x = self._linear(self.read, torch.cat([z, self.taken(action), *clock], -1))
        seen, kept = self._seen(past.held, begun), []
        for layer in range(shape.layers):
            asked, keys, values = self._linear(self.attend[layer], norm(x)).chunk(3, -1)
            known = torch.cat([past.cache[:, layer], torch.cat([keys, values], -1)], 1)  # (B, N + T, 2 H)
            kept.append(known[:, steps:])
            x = x + self._linear(self.join[layer], self._attention(asked, known, seen))
            x = x + self._linear(self.narrow[layer], F.gelu(self._linear(self.widen[layer], norm(x))))
        outputs = norm(x)
        of_now = begun == begun[:, -1:]
        held = torch.cat([past.held * (begun[:, -1:] < 0), of_now.to(past.held)], 1)[:, steps:]
        cache = torch.stack(kept, 1).flatten(1)
        return outputs, torch.cat([outputs[:, -1], elapsed[:, -1:] + 1, held, cache], 1)

    def _past(self, state: Tensor) -> _Past:
        shape = self.config
        output, elapsed, held, cache = state.split(self.parts, 1)
        return _Past(output, elapsed, held, cache.unflatten(1, (shape.layers, shape.window, 2 * shape.hidden)))

    def _seen(self, held: Tensor, begun: Tensor) -> Tensor:
        """Return which of N remembered and T new steps each new step looks at, (B, 1, T, N + T) bool.

        It looks at steps of its own episode: at itself, and at N before it at most.
        """
        steps, window = begun.shape[1], self.config.window
        back = window + torch.arange(steps, device=begun.device)[:, None] - torch.arange(window + steps, device=begun.device)
        old = (held > 0)[:, None] & (begun < 0)[..., None]
        new = begun[:, :, None] == begun[:, None]
        return (torch.cat([old, new], -1) & (back >= 0) & (back <= window))[:, None]

    def _attention(self, asked: Tensor, known: Tensor, seen: Tensor) -> Tensor:
        """Return what T steps (B, T, H) read of keys and values (B, N + T, 2 H), (B, T, H)."""
        place = torch.arange(known.shape[1], device=known.device)
        parts = (asked, *known.chunk(2, -1))
        query, key, value = (each.unflatten(-1, (self.config.heads, -1)).transpose(1, 2) for each in parts)
        query, key = rotate(query, place[self.config.window :]), rotate(key, place)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2).flatten(2)

    def _linear(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return a product in the type of the weights (``compute.precision``), as float32."""
        result: Tensor = layer(x.to(self.head.bias.dtype))
        return result.float()


def norm(x: Tensor) -> Tensor:
    """Return vectors (..., H) scaled to a mean square of 1."""
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)


def rotate(x: Tensor, place: Tensor) -> Tensor:
    """Return x (B, heads, T, D), each pair of numbers turned by an angle that grows with its place (T,).

    So the product of two depends on how far apart they are, not on where.
    """
    half = x.shape[-1] // 2
    angle = place[:, None] * BASE ** (-torch.arange(half, device=x.device) / half)
    cosine, sine = angle.cos(), angle.sin()
    one, other = x.split(half, -1)
    return torch.cat([one * cosine - other * sine, one * sine + other * cosine], -1)
