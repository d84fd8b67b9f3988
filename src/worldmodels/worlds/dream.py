"""The dream: M alone plays the game (paper, section 4.2)."""

import functools
from collections.abc import Callable, Mapping, Sequence
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
        """Return those of the ``encode`` stage's latents: rows ``mean``, ``log_variance`` (N, Z), ``first`` (N,)."""
        first = latents["first"]
        return cls(latents["mean"][first].float(), latents["log_variance"][first].float())

    def draw(self, seeds: Sequence[int]) -> Tensor:
        """Return where the episodes of these seeds begin, (B,) int64: numbers that the other methods understand."""
        return torch.tensor([stream_seed("start", seed) % len(self.mean) for seed in seeds])

    def seen(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return V's mean and log variance there, (B, Z) each."""
        return self.mean[chosen], self.log_variance[chosen]

    def restart(self, chosen: Tensor) -> Tensor:
        """Return whether an episode begins there, (B,) bool."""
        return torch.ones_like(chosen, dtype=torch.bool)

    def state(self, memory: Memory, chosen: Tensor) -> Tensor:
        """Return M's state there, (B, S)."""
        return memory.initial_state(len(chosen))


class Replay(NamedTuple):
    """First frames, and moments of real play with what M remembers there: dreams from them see more of the game.

    Its numbers of places are those of ``begins``, then those of ``rows``.

    Attributes:
        begins: rows of the recording where episodes begin, (F,) int64.
        share: of the dreams, those that begin at a moment.
        rows: where in the recording the moments are, (N,) int64.
        elapsed: steps of their episodes before the moments, (N,) int64.
        latents: the recording, as the ``encode`` stage's: ``mean``, ``log_variance`` (R, Z), ``action`` (R, A).
        context: T, steps that M reads before a moment.
    """

    begins: Tensor
    share: float
    rows: Tensor
    elapsed: Tensor
    latents: Mapping[str, Tensor]
    context: int

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
        return cls(torch.nonzero(latents["first"]).flatten(), share, rows, elapsed[rows], latents, context)

    def draw(self, seeds: Sequence[int]) -> Tensor:
        """Return where the episodes of these seeds begin, (B,) int64."""
        begins, moments = len(self.begins), len(self.rows)
        chosen = []
        for seed in seeds:
            number, inside = stream_seed("start", seed), stream_seed("moment", seed) < self.share * 2**63
            chosen.append(begins + number % moments if inside else number % begins)
        return torch.tensor(chosen)

    def seen(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return V's mean and log variance there, (B, Z) each."""
        rows = torch.cat([self.begins, self.rows])[chosen]
        return self.latents["mean"][rows].float(), self.latents["log_variance"][rows].float()

    def restart(self, chosen: Tensor) -> Tensor:
        """Return whether an episode begins there, (B,) bool."""
        return chosen < len(self.begins)

    @torch.inference_mode()
    def state(self, memory: Memory, chosen: Tensor) -> Tensor:
        """Return M's state there, (B, S)."""
        state = memory.initial_state(len(chosen))
        inside = ~self.restart(chosen)
        if not bool(inside.any()):
            return state
        unique, places = (chosen[inside] - len(self.begins)).unique(return_inverse=True)
        past = self.rows[unique, None] + torch.arange(-self.context, 0)
        seen = self.latents["mean"][past].float(), self.latents["action"][past], torch.zeros(past.shape, dtype=torch.bool)
        z, action, restart = (each.to(memory.device) for each in pad_lanes(*seen))
        (elapsed,) = pad_lanes(self.elapsed[unique] - self.context)
        _, after = memory.observe(z, action, restart, memory.initial_state(len(z), elapsed.to(memory.device)))
        state[inside.to(state.device)] = after[places.to(state.device)]
        return state


Imagined = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


def imagine(
    memory: Memory, z: Tensor, action: Tensor, restart: Tensor, noise: Tensor, state: Tensor, temperature: float
) -> Imagined:
    """Return one step of a dream: z' (B, Z), M's state after it (B, S), the expected reward and the done logit, (B,) or None.

    Args:
        memory: M.
        z: (B, Z).
        action: (B, A).
        restart: (B,) bool.
        noise: (B, 2 Z + 1) standard normal: the first Z for the Gaussians, the next to choose among them.
        state: M's, (B, S).
        temperature: tau.
    """
    uniform = torch.special.ndtr(noise[:, z.shape[1] : 2 * z.shape[1]])
    z, state, told = memory.dream(z, action, restart, state, uniform, noise[:, : z.shape[1]], temperature)
    return z, state, told.reward, told.done


@functools.cache
def compiled_imagine() -> Callable[..., Imagined]:
    """Return ``imagine`` compiled, once for all dreams of this process."""
    return compiled(imagine)


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
        self._imagine = compiled_imagine() if fused else imagine
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
        chosen = self.starts.draw(seeds)
        z = sample_latent(*self.starts.seen(chosen), self._noise.draw(before)[:, : self.memory.latent])
        self._z = torch.cat([self._z, z.to(self._device)])
        self._step = torch.cat([self._step, torch.zeros_like(chosen)])
        self._hazard = torch.cat([self._hazard, self._hazard.new_zeros(len(seeds))])
        self._restart = torch.cat([self._restart, self.starts.restart(chosen).to(self._device)])
        self._state = torch.cat([self._state, self.starts.state(self.memory, chosen)])

    def features(self) -> Tensor:
        return select_features(self.kind, self._z, self.memory, self._state)

    def latents(self) -> Tensor:
        return self._z

    def state(self) -> Tensor:
        return self._state

    def hazard(self) -> Tensor:
        """Return the probability with which the dream was to end in the last step, (B,); 0 if M foretells no ends."""
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
