"""Reality as the agent knows it: the game's frames through V, remembered by M."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from worldmodels.memory.features import select_features
from worldmodels.rollout.noise import EpisodeNoise
from worldmodels.rollout.world import Step, pad_lanes
from worldmodels.games.base import BatchEnv, GameConfig
from worldmodels.memory.features import Features, feature_size
from worldmodels.memory.model import Memory, MemoryState
from worldmodels.vision.model import Vision, sample_latent, to_images


class RealWorld:
    """A ``World`` of real games: frame -> V -> z (sampled, as in the paper) -> M's state -> features.

    Args:
        env: the games.
        vision: V.
        memory: M; may be None where ``features`` is ``z``.
        features: what the controller sees.
        risk: above 0, a step costs this much times M's probability, as it reads, that the game ends with it, instead of any
            reward; a game that does end is cut off, with nothing more to pay. Where M is calibrated, the mean is that of what
            deaths would cost, with a fraction of the variance.

    Raises:
        ValueError: a risk needs an M that foretells ends, and features that need M.
    """

    def __init__(self, env: BatchEnv, vision: Vision, memory: Memory | None, features: Features, *, risk: float = 0.0) -> None:
        self.env, self.vision, self.kind, self._risk = env, vision, features, risk
        self.memory = None if features == "z" else memory
        if risk and (self.memory is None or not self.memory.config.done):
            raise ValueError("a risk is told by M's done head: it needs `done: true` and features with h")
        hidden = 0 if self.memory is None else self.memory.config.hidden
        self.feature_size = feature_size(features, vision.config.latent, hidden)
        self.action_size = env.action_size
        self._frames = np.zeros((0, 64, 64, 3), np.uint8)
        self._noise = EpisodeNoise("vision", vision.config.latent)
        self._z = torch.zeros(0, vision.config.latent, device=vision.device)
        self._restart = torch.zeros(0, dtype=torch.bool, device=vision.device)
        self._state = None if self.memory is None else self.memory.initial_state(0)

    @torch.inference_mode()
    def start(self, seeds: Sequence[int]) -> None:
        before = len(self._z)
        frames = self.env.start(seeds)
        self._noise.start(seeds)
        self._frames = np.concatenate([self._frames, frames])
        self._z = torch.cat([self._z, self._look(frames, self._noise.draw(before))])
        self._restart = torch.cat([self._restart, self._restart.new_ones(len(seeds))])
        if self.memory is not None and self._state is not None:
            fresh = self.memory.initial_state(len(seeds))
            self._state = MemoryState(*(torch.cat(pair) for pair in zip(self._state, fresh, strict=True)))

    def features(self) -> Tensor:
        return select_features(self.kind, self._z, self._state)

    def frames(self) -> np.ndarray:
        return self._frames

    @torch.inference_mode()
    def step(self, actions: Tensor) -> Step:
        result = self.env.step(actions.cpu().numpy())
        reward, terminal = torch.from_numpy(result.rewards), torch.from_numpy(result.terminal)
        truncated = torch.from_numpy(result.truncated)
        if self.memory is not None and self._state is not None:
            z, action, restart, h, c = pad_lanes(self._z, actions.to(self._z), self._restart, *self._state)
            hidden, state = self.memory.observe(z[:, None], action[:, None], restart[:, None], MemoryState(h, c))
            self._state = MemoryState(*(s[: len(actions)] for s in state))
            done = self.memory.predict(hidden).done if self._risk else None
            if done is not None:
                reward = -self._risk * torch.sigmoid(done[: len(actions), 0]).cpu()
                terminal, truncated = torch.zeros_like(terminal), terminal | truncated
        self._frames = result.frames
        self._z = self._look(result.frames, self._noise.draw())
        self._restart = torch.zeros_like(self._restart)
        return Step(reward, terminal, truncated)

    def keep(self, lanes: Tensor) -> None:
        self.env.keep(lanes.numpy())
        self._noise.keep(lanes)
        self._frames = self._frames[lanes.numpy()]
        self._z, self._restart = self._z[lanes], self._restart[lanes]
        if self._state is not None:
            self._state = MemoryState(*(s[lanes] for s in self._state))

    def close(self) -> None:
        self.env.close()

    def _look(self, frames: np.ndarray, noise: Tensor) -> Tensor:
        (padded,) = pad_lanes(torch.from_numpy(frames))
        mean, log_variance = self.vision.encode(to_images(padded.to(self.vision.device)))
        return sample_latent(mean[: len(frames)], log_variance[: len(frames)], noise.to(mean))


def open_games(
    game: GameConfig,
    threads: int,
    vision: Vision,
    memory: Memory,
    features: Features,
    risk: float = 0.0,
    *,
    scoring: bool = False,
) -> RealWorld:
    """Return a world of new games on the back end that trains, or scores; see ``RealWorld``."""
    return RealWorld(game.make(threads=threads, scoring=scoring), vision, memory, features, risk=risk)
