"""Steps per second of each backend: the bare game loop against our batched environment, in one run.

    python benchmarks/envs.py [--seconds 3] [--lanes 16] [--threads 1]

``bare`` is the loop that a person writes with the game's own API on one thread: act, read the picture, start again at
the end. ``ours`` is ``BatchEnv``: mapped actions, the crop and resize to 64x64, exact seeds, finished lanes refilled.
Actions are random. The order is bare, ours, bare, and ``bare`` is the mean of its two rates, so that a machine that
speeds up or slows down does not favour either.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch

from worldmodels.games.any_gym import GymConfig
from worldmodels.games.base import GameConfig
from worldmodels.games.carracing import CarRacingConfig, car_controls, make_pool
from worldmodels.games.doom import DoomConfig, buttons
from worldmodels.games.doom_engine import Setup, start_engine
from worldmodels.games.gym_open import make_quietly


def bare_doom(_: int) -> Iterator[int]:
    """Play one engine."""
    game = start_engine(Setup())
    rng = np.random.default_rng(0)
    try:
        while True:
            game.make_action(buttons(rng.uniform(-1, 1)), 1)
            yield 1
            if game.is_episode_finished():
                game.new_episode()
            np.array(game.get_state().screen_buffer)
    finally:
        game.close()


def bare_envpool(lanes: int) -> Iterator[int]:
    """Play one pool, which starts its games again by itself."""
    pool = make_pool(list(range(lanes)), 1000, 1)
    pool.reset()
    rng = np.random.default_rng(0)
    while True:
        pool.step(car_controls(rng.uniform(-1, 1, (lanes, 3))))
        yield lanes


def bare_gymnasium(name: str) -> Callable[[int], Iterator[int]]:
    """Play one Gymnasium environment whose observation is the picture, or which draws it."""

    def loop(_: int) -> Iterator[int]:
        game = make_quietly(name, 1000, {} if name == "CarRacing-v3" else {"render_mode": "rgb_array"})
        game.reset(seed=0)
        game.action_space.seed(0)
        while True:
            _, _, terminal, truncated, _ = game.step(game.action_space.sample())
            if game.render_mode:
                game.render()
            yield 1
            if terminal or truncated:
                game.reset()

    return loop


def ours(config: GameConfig, lanes: int, threads: int) -> Iterator[int]:
    """Play the batched environment; a lane that ends starts again on the next seed."""
    env = config.make(threads=threads)
    rng = np.random.default_rng(0)
    env.start(list(range(lanes)))
    seed = lanes
    try:
        while True:
            step = env.step(rng.uniform(-1, 1, (lanes, env.action_size)).astype(np.float32))
            yield lanes
            ended = step.terminal | step.truncated
            if ended.any():
                env.keep(np.flatnonzero(~ended))
                env.start(list(range(seed, seed := seed + int(ended.sum()))))
    finally:
        env.close()


def rate(loop: Iterator[int], seconds: float) -> float:
    """Return steps per second after a warm-up of a fifth of the time."""
    for share in (0.2, 1.0):
        start, steps = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds * share:
            steps += next(loop)
    loop.close()  # type: ignore[attr-defined]
    return steps / elapsed


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="Steps per second of the environments.")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--lanes", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    pendulum = GymConfig(id="Pendulum-v1", limit=200)
    cases: list[tuple[GameConfig, Callable[[int], Iterator[int]]]] = [
        (DoomConfig(), bare_doom),
        (CarRacingConfig(backend="envpool"), bare_envpool),
        (CarRacingConfig(backend="gymnasium"), bare_gymnasium("CarRacing-v3")),
        (pendulum, bare_gymnasium("Pendulum-v1")),
    ]
    print(f"{args.lanes} lanes, {args.threads} threads, {args.seconds:g} s each; steps/s")
    print(f"{'rules':30}{'backend':20}{'bare':>8}{'ours':>8}{'ratio':>8}")
    for config, bare in cases:
        before = rate(bare(args.lanes), args.seconds / 2)
        batched = rate(ours(config, args.lanes, args.threads), args.seconds)
        plain = (before + rate(bare(args.lanes), args.seconds / 2)) / 2
        env = config.make()
        print(f"{env.rules:30}{env.backend:20}{plain:8.0f}{batched:8.0f}{batched / plain:8.2f}", flush=True)
        env.close()


if __name__ == "__main__":
    main()
