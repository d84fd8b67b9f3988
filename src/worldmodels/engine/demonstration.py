"""One episode to look at: reality, what V makes of it, and the dream on the same actions."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worldmodels.engine.agent import Agent
from worldmodels.engine.dream import DreamWorld, Starts
from worldmodels.engine.policies import ReplayPolicy
from worldmodels.engine.recorders import EpisodeRecorder
from worldmodels.engine.rollout import run_episodes
from worldmodels.envs.base import BatchEnv
from worldmodels.models.vision import to_frames, to_images
from worldmodels.shapes import Episode


@dataclass(frozen=True)
class Demonstration:
    """Frames (T+1, 64, 64, 3) uint8 of one episode.

    Attributes:
        real: what the game showed.
        reconstruction: the same through V.
        replayed: the dream from the same first frame with the same actions (open loop); it may end earlier.
        dreamt: the agent acting in its dream from the same first frame.
    """

    real: Episode
    reconstruction: np.ndarray
    replayed: np.ndarray
    dreamt: np.ndarray


def demonstrate(agent: Agent, env: BatchEnv, *, seed: int, temperature: float, limit: int) -> Demonstration:
    """Play one real episode with the agent, then dream it; closes ``env``. ``limit``: most steps of the dreams."""
    world = agent.real_world(env)
    real: list[Episode] = []
    try:
        run_episodes(world, agent.policy(), [seed], recorder=EpisodeRecorder(real.append))
    finally:
        world.close()
    frames = torch.from_numpy(real[0].frames)
    with torch.inference_mode():
        mean, log_variance = agent.vision.encode(to_images(frames))
        reconstruction = to_frames(agent.vision.decode(mean)).numpy()
    starts = Starts(mean[:1].clone(), log_variance[:1].clone())

    def dream(policy, steps: int) -> np.ndarray:
        inside = DreamWorld(
            agent.memory, starts, agent.config.features, temperature=temperature, limit=steps, vision=agent.vision
        )
        episodes: list[Episode] = []
        run_episodes(inside, policy, [seed], recorder=EpisodeRecorder(episodes.append))
        return episodes[0].frames

    actions: Tensor = torch.from_numpy(real[0].actions)
    replayed = dream(ReplayPolicy(actions), min(len(actions), limit))
    return Demonstration(real[0], reconstruction, replayed, dream(agent.policy(), limit))
