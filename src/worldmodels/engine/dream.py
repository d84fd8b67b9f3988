"""The dream: M alone plays the game (paper, section 4.2)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodels.engine.features import select_features
from worldmodels.engine.noise import EpisodeNoise
from worldmodels.engine.world import Step, pad_lanes
from worldmodels.models.controller import Features, feature_size
from worldmodels.models.memory import Memory, MemoryState
from worldmodels.models.vision import Vision, sample_latent, to_frames
from worldmodels.seeds import stream_seed


class Starts(NamedTuple):
    """First frames of real episodes as V sees them: mean and log variance, (N, Z) each."""

    mean: Tensor
    log_variance: Tensor

    @classmethod
    def of(cls, latents: Mapping[str, Tensor]) -> "Starts":
        """Return those of the ``encode`` stage's latents: rows ``mean``, ``log_variance`` (N, Z), ``first`` (N,)."""
        first = latents["first"]
        return cls(latents["mean"][first].float(), latents["log_variance"][first].float())


class DreamWorld:
    """A ``World`` without a game: M samples z', the reward and the end, at a temperature.

    An episode starts at the latent of a real first frame and ends as ``MemoryConfig.ending`` says, or at the limit. Without a
    reward head every step is worth 1 (survival).

    Args:
        memory: M.
        starts: where episodes can begin.
        features: what the controller sees.
        temperature: tau; higher is noisier.
        limit: steps after which an episode is truncated.
        vision: V, only for ``frames``.
    """

    def __init__(
        self,
        memory: Memory,
        starts: Starts,
        features: Features,
        *,
        temperature: float,
        limit: int,
        vision: Vision | None = None,
    ) -> None:
        self.memory, self.starts, self.kind = memory, starts, features
        self.temperature, self.limit, self.vision = temperature, limit, vision
        self.feature_size = feature_size(features, memory.latent, memory.config.hidden)
        self.action_size = memory.action
        self._noise = EpisodeNoise("dream", 2 * memory.latent + 1)
        self._z = torch.zeros(0, memory.latent)
        self._state = memory.initial_state(0)
        self._step = torch.zeros(0, dtype=torch.int64)

    @torch.inference_mode()
    def start(self, seeds: Sequence[int]) -> None:
        before = len(self._z)
        self._noise.start(seeds)
        chosen = torch.tensor([stream_seed("start", seed) % len(self.starts.mean) for seed in seeds])
        noise = self._noise.draw(before)[:, : self.memory.latent]
        z = sample_latent(self.starts.mean[chosen], self.starts.log_variance[chosen], noise)
        self._z = torch.cat([self._z, z])
        self._step = torch.cat([self._step, torch.zeros(len(seeds), dtype=torch.int64)])
        fresh = self.memory.initial_state(len(seeds))
        self._state = MemoryState(*(torch.cat(pair) for pair in zip(self._state, fresh, strict=True)))

    def features(self) -> Tensor:
        return select_features(self.kind, self._z, self._state)

    @torch.inference_mode()
    def frames(self) -> np.ndarray:
        if self.vision is None:
            raise ValueError("this dream was made without V: it has no frames")
        return to_frames(self.vision.decode(self._z)).numpy()

    @torch.inference_mode()
    def step(self, actions: Tensor) -> Step:
        lanes = len(actions)
        z, action, restart, h, c = pad_lanes(self._z, actions, self._step == 0, *self._state)
        prediction, _, state = self.memory(z[:, None], action[:, None], restart[:, None], MemoryState(h, c))
        self._state = MemoryState(*(s[:lanes] for s in state))
        noise = self._noise.draw()
        normal, uniform = noise[:, : self.memory.latent], torch.special.ndtr(noise[:, self.memory.latent :])
        latent = type(prediction.latent)(*(field[:lanes, 0] for field in prediction.latent))
        self._z = latent.sample(uniform[:, :-1], normal, self.temperature)
        self._step += 1
        reward = torch.ones(lanes) if prediction.reward is None else prediction.reward[:lanes, 0]
        terminal = torch.zeros(lanes, dtype=torch.bool)
        if prediction.done is not None:
            done = prediction.done[:lanes, 0]
            terminal = done > 0 if self.memory.config.ending == "threshold" else uniform[:, -1] < torch.sigmoid(done)
        return Step(reward, terminal, ~terminal & (self._step >= self.limit))

    def keep(self, lanes: Tensor) -> None:
        self._noise.keep(lanes)
        self._z, self._step = self._z[lanes], self._step[lanes]
        self._state = MemoryState(*(s[lanes] for s in self._state))

    def close(self) -> None:
        """Nothing to free."""
