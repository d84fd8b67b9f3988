"""Agents in real games, end to end: steps a second, and where the time goes.

    python benchmarks/agents.py [--seconds 4] [--lanes 32] [--threads 1]

``games`` is our environment alone, with random actions; ``models`` is V, M and C alone, on a frame that stays the same;
``agent`` is ``RealWorld`` in the rollout loop, which needs both. If nothing else took time, an agent would play
1 / (1 / games + 1 / models) steps a second; ``share`` is what it reaches of that. The order is games, models, agent, games, and
``games`` is the mean of its two rates.
"""

import argparse
import warnings
from functools import partial
from itertools import count

import numpy as np
import torch
from envs import ours, rate

from worldmodels.controller.model import ControllerConfig, Controllers
from worldmodels.controller.policy import ControllerPolicy
from worldmodels.games.base import EnvStep, GameConfig
from worldmodels.games.carracing import CarRacingConfig
from worldmodels.games.doom import DoomConfig
from worldmodels.learning.initialisation import initialise
from worldmodels.memory.features import Features, feature_size
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.shapes import Job
from worldmodels.vision.model import Vision, VisionConfig
from worldmodels.worlds.real import RealWorld


class StillEnv:
    """Games that take no time and never end."""

    rules = backend = "still"

    def __init__(self, action_size: int) -> None:
        self.action_size = action_size
        self._frames = np.zeros((0, 64, 64, 3), np.uint8)

    def start(self, seeds: list[int]) -> np.ndarray:
        self._frames = np.random.default_rng(0).integers(0, 255, (len(seeds), 64, 64, 3), np.uint8)
        return self._frames

    def step(self, actions: np.ndarray) -> EnvStep:
        no = np.zeros(len(actions), bool)
        return EnvStep(self._frames, np.ones(len(actions), np.float32), no, no)

    def keep(self, lanes: np.ndarray) -> None:
        self._frames = self._frames[lanes]

    def close(self) -> None: ...


def agent_in(env: object, latent: int, hidden: int, features: Features, lanes: int):
    """Play for ever, and yield the steps played."""
    generator = torch.Generator().manual_seed(0)
    vision = Vision(VisionConfig(latent=latent))
    memory = LSTMConfig(hidden=hidden).build(latent, env.action_size)
    initialise(vision, generator)
    initialise(memory, generator)
    config = ControllerConfig(features=features, hidden=0, bias=False)
    inputs = feature_size(features, latent, memory)
    stack = Controllers(config, 0.1 * torch.randn(1, inputs * env.action_size, generator=generator), inputs, env.action_size)
    world, policy = RealWorld(env, vision, memory, features), ControllerPolicy(stack)
    seeds = count()
    try:
        playing = 0
        while True:
            fresh = [next(seeds) for _ in range(lanes - playing)]
            if fresh:
                world.start(fresh)
                policy.start([Job(0, seed) for seed in fresh])
            step = world.step(policy.act(world.features()))
            yield lanes
            left = torch.nonzero(~(step.terminal | step.truncated)).flatten()
            playing = len(left)
            if playing < lanes:
                world.keep(left)
                policy.keep(left)
    finally:
        world.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--lanes", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    cases: list[tuple[GameConfig, int, int, Features]] = [
        (DoomConfig(), 64, 512, "zch"),
        (CarRacingConfig(backend="envpool"), 32, 256, "zh"),
    ]
    print(f"{args.lanes} lanes, {args.threads} threads, {args.seconds:g} s each; steps/s")
    print(f"{'rules':30}{'games':>8}{'models':>8}{'agent':>8}{'share':>8}")
    for config, latent, hidden, features in cases:
        games = partial(ours, config, args.lanes, args.threads)
        before = rate(games(), args.seconds)
        probe = config.make()
        still = StillEnv(probe.action_size)
        probe.close()
        models = rate(agent_in(still, latent, hidden, features, args.lanes), args.seconds)
        agent = rate(agent_in(config.make(threads=args.threads), latent, hidden, features, args.lanes), args.seconds)
        alone = (before + rate(games(), args.seconds)) / 2
        share = agent * (1 / alone + 1 / models)
        print(f"{probe.rules:30}{alone:8.0f}{models:8.0f}{agent:8.0f}{share:8.0%}", flush=True)


if __name__ == "__main__":
    main()
