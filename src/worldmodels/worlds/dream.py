"""The dream: M alone plays the game (paper, section 4.2)."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodels.memory.features import select_features
from worldmodels.rollout.noise import EpisodeNoise
from worldmodels.rollout.world import Step, pad_lanes
from worldmodels.errors import ParamsError
from worldmodels.compute.compiled import compiled
from worldmodels.memory.features import Features, feature_size
from worldmodels.memory.model import Memory, MemoryState, steps_so_far
from worldmodels.vision.model import Vision, sample_latent, to_frames
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

    def draw(self, seeds: Sequence[int]) -> Tensor:
        """Return where the episodes of these seeds begin, (B,) int64: numbers that the other methods understand."""
        return torch.tensor([stream_seed("start", seed) % len(self.mean) for seed in seeds])

    def seen(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return V's mean and log variance there, (B, Z) each."""
        return self.mean[chosen], self.log_variance[chosen]

    def restart(self, chosen: Tensor) -> Tensor:
        """Return whether an episode begins there, (B,) bool."""
        return torch.ones_like(chosen, dtype=torch.bool)

    def state(self, memory: Memory, chosen: Tensor) -> MemoryState:
        """Return M's state there, (B, H) each."""
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
            ParamsError: where no episode is so long.
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
    def state(self, memory: Memory, chosen: Tensor) -> MemoryState:
        """Return M's state there, (B, H) each."""
        state = MemoryState(*(each.clone() for each in memory.initial_state(len(chosen))))
        inside = ~self.restart(chosen)
        if not bool(inside.any()):
            return state
        unique, places = (chosen[inside] - len(self.begins)).unique(return_inverse=True)
        past = self.rows[unique, None] + torch.arange(-self.context, 0)
        seen = self.latents["mean"][past].float(), self.latents["action"][past], torch.zeros(past.shape, dtype=torch.bool)
        z, action, restart = (each.to(memory.device) for each in pad_lanes(*seen))
        (elapsed,) = pad_lanes(self.elapsed[unique] - self.context)
        _, after = memory.observe(z, action, restart, memory.initial_state(len(z), elapsed.to(memory.device)))
        for mine, theirs in zip(state, after, strict=True):
            mine[inside.to(mine.device)] = theirs[places.to(mine.device)]
        return state


def imagine(
    memory: Memory, z: Tensor, action: Tensor, restart: Tensor, noise: Tensor, state: MemoryState, temperature: float
) -> tuple[Tensor, MemoryState, Tensor | None, Tensor | None]:
    """Return one step of a dream: z' (B, Z), M's state after it, the expected reward and the done logit, (B,) or None.

    Args:
        memory: M.
        z: (B, Z).
        action: (B, A).
        restart: (B,) bool.
        noise: (B, 2 Z + 1) standard normal: the first Z for the Gaussians, the next to choose among them.
        state: M's, (B, H) each.
        temperature: tau.
    """
    prediction, _, state = memory(z[:, None], action[:, None], restart[:, None], state)
    latent = type(prediction.latent)(*(field[:, 0] for field in prediction.latent))
    uniform = torch.special.ndtr(noise[:, z.shape[1] : 2 * z.shape[1]])
    z = latent.sample(uniform, noise[:, : z.shape[1]], temperature)
    reward = None if prediction.reward is None else prediction.reward[:, 0]
    return z, state, reward, None if prediction.done is None else prediction.done[:, 0]


@functools.cache
def compiled_imagine() -> Callable[..., tuple[Tensor, MemoryState, Tensor | None, Tensor | None]]:
    """Return ``imagine`` compiled, once for all dreams of this process."""
    return compiled(imagine)


class DreamWorld:
    """A ``World`` without a game: M samples z', the reward and the end, at a temperature.

    An episode starts at the latent of a real frame and ends as ``MemoryConfig.ending`` says, or at the limit.

    Args:
        memory: M.
        starts: where episodes can begin.
        features: what the controller sees.
        temperature: tau; higher is noisier.
        limit: steps after which a dream is truncated.
        survival: above 0, no episode ends by chance: each reward is weighted with the probability that the episode gets
            there, and it ends where that falls below ``survival``. The return is the expected one, given the latents: the
            same mean (but for what is cut off) with a fraction of the variance.
        goal: above 0, the sum of rewards, without what every step costs, at which an episode is over, as a lap is when its
            tiles are paid: M, which does not count tiles, would pay for driving on, and C would learn to drive faster than
            a lap ever needs. What a step costs still counts in the return, so that a lap in fewer steps is worth more, as
            in the game.
        risk: above 0, no episode ends by chance, and a step costs this much times M's probability of an end, instead of any
            reward: what was done wrong shows where it was done, and not in all that never comes.
        worth: what every step is worth where M has no reward head (survival): the game steps that it lasts.
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
        survival: float = 0.0,
        goal: float = 0.0,
        risk: float = 0.0,
        worth: float = 1.0,
        vision: Vision | None = None,
        fused: bool = False,
    ) -> None:
        self.memory, self.starts, self.kind = memory, starts, features
        self._imagine = compiled_imagine() if fused else imagine
        self.temperature, self.limit, self.survival, self.goal, self.vision = temperature, limit, survival, goal, vision
        self._risk, self._worth = risk, float(worth)
        self.feature_size = feature_size(features, memory.latent, memory.config.hidden)
        self.action_size = memory.action
        self._noise = EpisodeNoise("dream", 2 * memory.latent + 1)
        self._device = memory.device
        self._usual = memory.usual_reward
        self._z = torch.zeros(0, memory.latent, device=self._device)
        self._state = memory.initial_state(0)
        self._step = torch.zeros(0, dtype=torch.int64)
        self._restart = torch.zeros(0, dtype=torch.bool, device=self._device)
        self._alive = torch.zeros(0, device=self._device)  # probability that an episode has got to this step
        self._earned = torch.zeros(0, device=self._device)  # sum of rewards so far, without what every step costs

    @torch.inference_mode()
    def start(self, seeds: Sequence[int]) -> None:
        before = len(self._z)
        self._noise.start(seeds)
        chosen = self.starts.draw(seeds)
        z = sample_latent(*self.starts.seen(chosen), self._noise.draw(before)[:, : self.memory.latent])
        self._z = torch.cat([self._z, z.to(self._device)])
        self._step = torch.cat([self._step, torch.zeros_like(chosen)])
        self._alive = torch.cat([self._alive, self._alive.new_ones(len(seeds))])
        self._earned = torch.cat([self._earned, self._earned.new_zeros(len(seeds))])
        self._restart = torch.cat([self._restart, self.starts.restart(chosen).to(self._device)])
        fresh = self.starts.state(self.memory, chosen)
        self._state = MemoryState(*(torch.cat(pair) for pair in zip(self._state, fresh, strict=True)))

    def features(self) -> Tensor:
        return select_features(self.kind, self._z, self._state)

    @torch.inference_mode()
    def frames(self) -> np.ndarray:
        if self.vision is None:
            raise ValueError("this dream was made without V: it has no frames")
        return to_frames(self.vision.decode(self._z)).cpu().numpy()

    @torch.inference_mode()
    def step(self, actions: Tensor) -> Step:
        lanes = len(actions)
        noise = self._noise.draw().to(self._device)
        z, action, restart, padded, h, c = pad_lanes(self._z, actions.to(self._device), self._restart, noise, *self._state)
        z, state, predicted, done = self._imagine(self.memory, z, action, restart, padded, MemoryState(h, c), self.temperature)
        self._z, self._state = z[:lanes], MemoryState(*(each[:lanes] for each in state))
        uniform = torch.special.ndtr(noise[:, -1])
        self._step += 1
        self._restart = torch.zeros_like(self._restart)
        reward = torch.full((lanes,), self._worth, device=self._device) if predicted is None else predicted[:lanes]
        self._earned += reward - self._usual
        terminal = self._earned >= (self.goal or torch.inf)
        if done is not None:
            done = done[:lanes]
            hazard = (done > 0).float() if self.memory.config.ending == "threshold" else torch.sigmoid(done)
            if self._risk:
                reward = -self._risk * hazard
            elif self.survival:
                reward = reward * self._alive
                self._alive = self._alive * (1 - hazard)
                terminal |= self._alive < self.survival
            else:
                terminal |= uniform < hazard
        terminal = terminal.cpu()
        return Step(reward.cpu(), terminal, ~terminal & (self._step >= self.limit))

    def keep(self, lanes: Tensor) -> None:
        self._noise.keep(lanes)
        self._z, self._step, self._restart = self._z[lanes], self._step[lanes], self._restart[lanes]
        self._alive, self._earned = self._alive[lanes], self._earned[lanes]
        self._state = MemoryState(*(each[lanes] for each in self._state))

    def close(self) -> None:
        """Nothing to free."""
