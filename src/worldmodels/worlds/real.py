"""Reality as the agent knows it: the game's frames through V, remembered by M."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from worldmodels.games.base import BatchEnv, visited_in
from worldmodels.memory.base import Memory
from worldmodels.memory.features import Features, feature_size, select_features
from worldmodels.rollout.noise import EpisodeNoise
from worldmodels.rollout.world import Step, pad_lanes
from worldmodels.vision.model import Vision, sample_latent, to_images


class RealWorld:
    """A ``ModelWorld`` of real games: frame -> V -> z (sampled, as in the paper) -> M's state -> features.

    Args:
        env: the games.
        vision: V.
        memory: M; may be None if ``features`` is ``z``. With ``z`` it is not read: there is no state and no hazard.
        features: what the controller sees.
    """

    def __init__(self, env: BatchEnv, vision: Vision, memory: Memory | None, features: Features) -> None:
        self.env, self.vision, self.kind = env, vision, features
        self.memory = None if features == "z" else memory
        self.feature_size = feature_size(features, vision.config.latent, self.memory)
        self.action_size = env.action_size
        self.usual_reward = 0.0 if self.memory is None else self.memory.usual_reward
        self._spared = False
        self._frames = np.zeros((0, 64, 64, 3), np.uint8)
        self._noise = EpisodeNoise("vision", vision.config.latent)
        self._z = torch.zeros(0, vision.config.latent, device=vision.device)
        self._restart = torch.zeros(0, dtype=torch.bool, device=vision.device)
        self._state = self._fresh(0)

    @torch.inference_mode()
    def start(self, seeds: Sequence[int]) -> None:
        before = len(self._z)
        frames = self.env.start(seeds)
        self._noise.start(seeds)
        self._frames = np.concatenate([self._frames, frames])
        self._z = torch.cat([self._z, self._look(frames, self._noise.draw(before))])
        self._restart = torch.cat([self._restart, self._restart.new_ones(len(seeds))])
        self._state = torch.cat([self._state, self._fresh(len(seeds))])

    def features(self) -> Tensor:
        return select_features(self.kind, self._z, self.memory, self._state)

    def latents(self) -> Tensor:
        return self._z

    def state(self) -> Tensor:
        return self._state

    @torch.inference_mode()
    def hazard(self) -> Tensor:
        assert self.memory is not None, "no M is read here"
        (padded,) = pad_lanes(self._state)
        done = self.memory.predict(self.memory.outputs(padded)[:, None].contiguous()).done  # the bits of ``forward``
        assert done is not None, "M foretells no ends"
        return torch.sigmoid(done[: len(self._state), 0])

    def spare(self) -> None:
        if self.memory is None or not self.memory.config.done:
            raise ValueError("the hazard of a game is told by M's done head: it needs `done: true`, and features with h")
        self._spared = True

    def frames(self) -> np.ndarray:
        return self._frames

    def visited(self) -> np.ndarray | None:
        return visited_in(self.env)

    @torch.inference_mode()
    def step(self, actions: Tensor) -> Step:
        result = self.env.step(actions.cpu().numpy())
        reward, terminal, truncated = map(torch.from_numpy, result[1:])
        if self.memory is not None:
            z, action, restart, state = pad_lanes(self._z, actions.to(self._z), self._restart, self._state)
            _, state = self.memory.observe(z[:, None], action[:, None], restart[:, None], state)
            self._state = state[: len(actions)]
        if self._spared:
            terminal, truncated = torch.zeros_like(terminal), terminal | truncated
        self._frames = result.frames
        self._z = self._look(result.frames, self._noise.draw())
        self._restart = torch.zeros_like(self._restart)
        return Step(reward, terminal, truncated)

    def keep(self, lanes: Tensor) -> None:
        self.env.keep(lanes.numpy())
        self._noise.keep(lanes)
        self._frames = self._frames[lanes.numpy()]
        self._z, self._restart, self._state = self._z[lanes], self._restart[lanes], self._state[lanes]

    def close(self) -> None:
        self.env.close()

    def _fresh(self, lanes: int) -> Tensor:
        return self._z.new_zeros(lanes, 0) if self.memory is None else self.memory.initial_state(lanes)

    def _look(self, frames: np.ndarray, noise: Tensor) -> Tensor:
        (padded,) = pad_lanes(torch.from_numpy(frames))
        mean, log_variance = self.vision.encode(to_images(padded.to(self.vision.device)))
        return sample_latent(mean[: len(frames)], log_variance[: len(frames)], noise.to(mean))
