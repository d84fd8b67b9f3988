"""The dream: M alone plays the game (paper, section 4.2)."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodels.compute.compiled import compiled
from worldmodels.errors import ParamsError
from worldmodels.memory.base import Memory
from worldmodels.memory.features import Features, feature_size, select_features
from worldmodels.memory.prediction import steps_so_far
from worldmodels.rollout.noise import EpisodeNoise
from worldmodels.rollout.world import Step, pad_lanes
from worldmodels.seeds import stream_seed
from worldmodels.vision.model import Vision, sample_latent, to_frames


class Starts(NamedTuple):
    """First frames of real episodes as V sees them: mean and log variance, (N, Z) each."""

    mean: Tensor
    log_variance: Tensor

    @classmethod
    def of(cls, latents: Mapping[str, Tensor]) -> "Starts":
        """Return the starts in the ``encode`` stage's latents: rows ``mean``, ``log_variance`` (N, Z), ``first`` (N,)."""
        first = latents["first"]
        return cls(latents["mean"][first].float(), latents["log_variance"][first].float())

    def begin(self, memory: Memory, seeds: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return where the dreams of these seeds begin.

        Returns:
            V's mean and log variance (B, Z), whether an episode begins there, (B,) bool, and M's state before it, (B, S).
        """
        chosen = torch.tensor([stream_seed("start", seed) % len(self.mean) for seed in seeds])
        restart = torch.ones_like(chosen, dtype=torch.bool)
        return self.mean[chosen], self.log_variance[chosen], restart, memory.initial_state(len(chosen))


class Replay(NamedTuple):
    """First frames, and moments of real play with what M remembers there: dreams from them see more of the game."""

    begins: Tensor  # rows of the recording where episodes begin, (F,) int64
    share: float  # of the dreams, those that begin at a moment
    rows: Tensor  # where in the recording the moments are, (N,) int64
    elapsed: Tensor  # steps of its episode before each row of the recording, (R,) int64
    # the recording, as the ``encode`` stage's: ``mean``, ``log_variance`` (R, Z), ``action`` (R, A)
    latents: Mapping[str, Tensor]
    context: int  # T, steps that M reads before a moment

    @classmethod
    def of(cls, latents: Mapping[str, Tensor], *, share: float, context: int, newest: int) -> "Replay":
        """Return all moments among the ``newest`` rows of the latents that ``context`` steps of the same episode precede.

        Raises:
            ParamsError: no episode is so long.
        """
        elapsed = steps_so_far(latents["first"])
        old = max(0, len(elapsed) - newest)
        rows = old + torch.nonzero(elapsed[old:] >= context).flatten()
        if not len(rows):
            raise ParamsError(f"no episode has {context} steps before a dream could begin: lower `context` of the moments.")
        return cls(torch.nonzero(latents["first"]).flatten(), share, rows, elapsed, latents, context)

    @torch.inference_mode()
    def begin(self, memory: Memory, seeds: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return where the dreams of these seeds begin; see ``Starts.begin``."""
        inside = torch.tensor([stream_seed("moment", seed) < self.share * 2**63 for seed in seeds])
        places = [self.rows if moment else self.begins for moment in inside.tolist()]
        rows = torch.stack([place[stream_seed("start", seed) % len(place)] for place, seed in zip(places, seeds, strict=True)])
        state = memory.initial_state(len(rows))
        if bool(inside.any()):
            unique, which = rows[inside].unique(return_inverse=True)
            past = unique[:, None] + torch.arange(-self.context, 0)
            seen = self.latents["mean"][past].float(), self.latents["action"][past], torch.zeros(past.shape, dtype=torch.bool)
            z, action, restart = (each.to(memory.device) for each in pad_lanes(*seen))
            (elapsed,) = pad_lanes(self.elapsed[unique] - self.context)
            _, after = memory.observe(z, action, restart, memory.initial_state(len(z), elapsed.to(memory.device)))
            state[inside.to(state.device)] = after[which.to(state.device)]
        return self.latents["mean"][rows].float(), self.latents["log_variance"][rows].float(), ~inside, state


def imagine(
    memory: Memory, z: Tensor, action: Tensor, restart: Tensor, noise: Tensor, state: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Return ``Memory.dream`` as z' (B, Z), the state after it (B, S), the expected reward and the done logit, (B,) or None.

    ``noise``, (B, 2 Z + 1) standard normal: the first Z for the Gaussians, the next to choose among them.
    """
    uniform = torch.special.ndtr(noise[:, z.shape[1] : 2 * z.shape[1]])
    z, state, told = memory.dream(z, action, restart, state, uniform, noise[:, : z.shape[1]], temperature)
    return z, state, told.reward, told.done


_fused = functools.cache(compiled)  # once for all dreams of this process


class DreamWorld:
    """A ``ModelWorld`` without a game: M samples z', the reward and the end, at a temperature.

    An episode starts at the latent of a real frame and ends by its hazard (``Memory.hazard``), or at the limit. What else can
    be paid, or end it, is a wrapper (``worlds/pay.py``).

    Args:
        memory: M.
        starts: where episodes can begin.
        features: what the controller sees.
        temperature: tau; higher is noisier.
        limit: steps after which a dream is truncated.
        worth: what every step is worth if M has no reward head (survival): the game steps that it lasts.
        vision: V, only for ``frames``.
        fused: compile the step (``compiled``): worth it for a long search, as it begins with 10 to 20 s of compiling.
    """

    def __init__(
        self,
        memory: Memory,
        starts: Starts | Replay,
        features: Features,
        *,
        temperature: float,
        limit: int,
        worth: float = 1.0,
        vision: Vision | None = None,
        fused: bool = False,
    ) -> None:
        self.memory, self.starts, self.kind = memory, starts, features
        self._imagine = _fused(imagine) if fused else imagine
        self.temperature, self.limit, self.vision = temperature, limit, vision
        self._worth, self._spared = float(worth), False
        self.feature_size = feature_size(features, memory.latent, memory)
        self.action_size = memory.action
        self.usual_reward = memory.usual_reward
        self._noise = EpisodeNoise("dream", 2 * memory.latent + 1)
        self._device = memory.device
        self._z = torch.zeros(0, memory.latent, device=self._device)
        self._state = memory.initial_state(0)
        self._step = torch.zeros(0, dtype=torch.int64)
        self._restart = torch.zeros(0, dtype=torch.bool, device=self._device)
        self._hazard = torch.zeros(0, device=self._device)

    @torch.inference_mode()
    def start(self, seeds: Sequence[int]) -> None:
        before = len(self._z)
        self._noise.start(seeds)
        mean, log_variance, restart, state = self.starts.begin(self.memory, seeds)
        z = sample_latent(mean, log_variance, self._noise.draw(before)[:, : self.memory.latent])
        self._z = torch.cat([self._z, z.to(self._device)])
        self._step = torch.cat([self._step, self._step.new_zeros(len(seeds))])
        self._hazard = torch.cat([self._hazard, self._hazard.new_zeros(len(seeds))])
        self._restart = torch.cat([self._restart, restart.to(self._device)])
        self._state = torch.cat([self._state, state])

    def features(self) -> Tensor:
        return select_features(self.kind, self._z, self.memory, self._state)

    def latents(self) -> Tensor:
        return self._z

    def state(self) -> Tensor:
        return self._state

    def hazard(self) -> Tensor:
        return self._hazard

    def spare(self) -> None:
        if not self.memory.config.done:
            raise ValueError("the hazard of a dream is told by M's done head: it needs `done: true`")
        self._spared = True

    @torch.inference_mode()
    def frames(self) -> np.ndarray:
        if self.vision is None:
            raise ValueError("this dream was made without V: it has no frames")
        return to_frames(self.vision.decode(self._z)).cpu().numpy()

    def visited(self) -> None:
        """Return that a dream has no map."""

    @torch.inference_mode()
    def step(self, actions: Tensor) -> Step:
        lanes = len(actions)
        noise = self._noise.draw().to(self._device)
        z, action, restart, padded, state = pad_lanes(self._z, actions.to(self._device), self._restart, noise, self._state)
        z, state, predicted, done = self._imagine(self.memory, z, action, restart, padded, state, self.temperature)
        self._z, self._state = z[:lanes], state[:lanes]
        self._step += 1
        self._restart = torch.zeros_like(self._restart)
        reward = torch.full((lanes,), self._worth) if predicted is None else predicted[:lanes].cpu()
        if done is not None:
            self._hazard = self.memory.hazard(done[:lanes])
        spared = self._spared or done is None
        terminal = torch.zeros(lanes, dtype=torch.bool) if spared else (torch.special.ndtr(noise[:, -1]) < self._hazard).cpu()
        return Step(reward, terminal, ~terminal & (self._step >= self.limit))

    def keep(self, lanes: Tensor) -> None:
        self._noise.keep(lanes)
        self._z, self._step, self._restart = self._z[lanes], self._step[lanes], self._restart[lanes]
        self._hazard, self._state = self._hazard[lanes], self._state[lanes]

    def close(self) -> None:
        """Nothing to free."""
