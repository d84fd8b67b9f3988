"""V, M and the dream against the arithmetic of the same core: rates, and the share of a matrix product's rate. Then the dreams
of the stored agents as Gymnasium environments, against the engine's own loop."""

import argparse
import os
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import gymnasium
import torch

from worldmodels import load
from worldmodels.agent.agent import Agent
from worldmodels.compute.allocator import keep_freed_memory
from worldmodels.compute.precision import products_in, training_in
from worldmodels.controller.model import ControllerConfig, Controllers
from worldmodels.controller.policy import ControllerPolicy
from worldmodels.learning.initialisation import initialise
from worldmodels.memory.base import Memory
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.memory.mixture import MIXTURES
from worldmodels.memory.prediction import MemoryLossConfig, memory_loss
from worldmodels.rollout.loop import run_episodes
from worldmodels.vision.model import Vision, VisionConfig, VisionLossConfig
from worldmodels.worlds.dream import DreamWorld, Starts

LATENT, HIDDEN = 64, 512


def rate(work: Callable[[], float], seconds: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return units of work a second of this clock; the first call is a warm-up."""
    work()
    done, start = 0.0, clock()
    while clock() - start < seconds:
        done += work()
    return done / (clock() - start)


def matrix_product(kind: torch.dtype, size: int = 1536) -> Callable[[], float]:
    a, b = torch.randn(size, size, dtype=kind), torch.randn(size, size, dtype=kind)

    def work() -> float:
        torch.mm(a, b)
        return 2 * size**3

    return work


ENCODER = [(31, 3, 32, 4), (14, 32, 64, 4), (6, 64, 128, 4), (2, 128, 256, 4)]
DECODER = [(1, 1024, 128, 5), (5, 128, 64, 5), (13, 64, 32, 6), (30, 32, 3, 6)]
"""Layers of V: side of the smaller image, channels in, channels out, kernel."""


def convolution_flops(layers: list[tuple[int, int, int, int]]) -> float:
    """Multiply-adds of a stack of convolutions for one frame, times 2."""
    return 2 * sum(side**2 * cin * cout * kernel**2 for side, cin, cout, kernel in layers)


def memory_flops() -> float:
    """Multiply-adds of one step of M with its mixture, times 2."""
    return 2 * (4 * HIDDEN * (LATENT + 2 + HIDDEN) + HIDDEN * (3 * MIXTURES * LATENT + 1))


def models() -> tuple[Vision, Memory]:
    generator = torch.Generator().manual_seed(0)
    vision = Vision(VisionConfig(latent=LATENT))
    memory = LSTMConfig(hidden=HIDDEN).build(LATENT, 1)
    initialise(vision, generator)
    initialise(memory, generator)
    memory.head.bias.data[-1] = -100.0  # nobody dies: the lanes stay full
    return vision, memory


def learn_to_see(vision: Vision, batch: int) -> Callable[[], float]:
    optimiser = torch.optim.Adam(vision.parameters(), 1e-4, fused=True)
    images, noise, loss = (
        torch.rand(batch, 3, 64, 64),
        torch.randn(batch, LATENT),
        VisionLossConfig(kl_tolerance=0.5, pixel_weight=20.0),
    )

    def work() -> float:
        optimiser.zero_grad()
        vision.loss(images, noise, loss, images[0]).total.backward()
        optimiser.step()
        return batch

    return work


def encode(vision: Vision, batch: int = 64) -> Callable[[], float]:
    images = torch.rand(batch, 3, 64, 64)

    def work() -> float:
        with torch.inference_mode():
            vision.encode(images)
        return batch

    return work


def learn_to_predict(memory: Memory, batch: int = 64, steps: int = 64) -> Callable[[], float]:
    optimiser = torch.optim.Adam(memory.parameters(), 1e-4, fused=True)
    z, action = torch.randn(batch, steps + 1, LATENT), torch.rand(batch, steps, 1)
    no, yes = torch.zeros(batch, steps, dtype=torch.bool), torch.ones(batch, steps, dtype=torch.bool)
    config = MemoryLossConfig(done_weight=1.0, end_weight=10.0, reward_weight=1.0)

    def work() -> float:
        optimiser.zero_grad()
        prediction, _, _ = memory(z[:, :-1], action, no, memory.initial_state(batch))
        memory_loss(prediction, z[:, 1:], action[..., 0], no, yes, config).total.backward()
        optimiser.step()
        return batch * steps

    return work


def dream(
    memory: Memory, candidates: int = 64, rollouts: int = 16, limit: int = 20, fused: bool = False
) -> Callable[[], float]:
    nothing = torch.zeros(1, memory.latent)
    world = DreamWorld(memory, Starts(nothing, nothing), "zch", temperature=1.0, limit=limit, fused=fused)
    config = ControllerConfig(features="zch", hidden=0, bias=False)
    stack = Controllers(config, torch.randn(candidates, world.feature_size) * 0.1, world.feature_size, memory.action)

    def work() -> float:
        return run_episodes(world, ControllerPolicy(stack), range(rollouts), candidates=candidates).steps

    return work


def as_gymnasium(agent: Agent, lanes: int) -> Callable[[], float]:
    env = gymnasium.make_vec("worldmodels.gym:WorldModels/Dream-v0", num_envs=lanes, agent=agent)
    env.reset(seed=0)
    actions = env.action_space.sample()

    def work() -> float:
        env.step(actions)
        return lanes

    return work


def in_the_loop(agent: Agent, lanes: int) -> Callable[[], float]:
    memory = deepcopy(agent.memory).to(products_in("auto", torch.device("cpu")))
    world = replace(agent, memory=memory).dream_world(temperature=1.0, limit=40)
    return lambda: run_episodes(world, agent.policy(), range(lanes)).steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as stages do
    cpu = torch.device("cpu")
    kinds = dict.fromkeys([torch.float32, products_in("auto", cpu)])
    for kind in kinds:
        vision, memory = models()
        peak = rate(matrix_product(kind), options.seconds)
        print(f"{str(kind).removeprefix('torch.')}: matrix product on {options.threads} thread(s) {peak / 1e9:.0f} GFLOP/s")
        print(f"{'':30}{'rate':>10}      GFLOP/s   of the product")
        with training_in(kind, cpu):
            rows = [
                ("V training, 32 frames", learn_to_see(vision, 32), 3 * convolution_flops(ENCODER + DECODER)),
                ("V training, 64 frames", learn_to_see(vision, 64), 3 * convolution_flops(ENCODER + DECODER)),
                ("V encoding, frames", encode(vision), convolution_flops(ENCODER)),
                ("M training, 16 x 64 steps", learn_to_predict(memory, 16, 64), 3 * memory_flops()),
                ("M training, 100 x 128 steps", learn_to_predict(memory, 100, 128), 3 * memory_flops()),
            ]
            found = [(name, rate(work, options.seconds), flops) for name, work, flops in rows]
        memory.to(kind)
        for fused in (False, True):
            name = f"dream 64 x 16{', compiled' if fused else ''}, steps"
            found.append((name, rate(dream(memory, fused=fused), options.seconds), memory_flops()))
        for name, units, flops in found:
            print(f"{name:30}{units:10,.0f} /s {units * flops / 1e9:9.1f} {units * flops / peak:12.0%}")
    for name in ("doom", "carracing"):
        agent = load(f"pretrained/{name}")
        own, other = (rate(make(agent, 256), options.seconds) for make in (in_the_loop, as_gymnasium))
        print(f"dream of pretrained/{name}, 256 lanes: Gymnasium {other:,.0f} steps/s, {other / own:.2f} of the engine's loop")
    one, cores = rate(dream(memory, fused=True), options.seconds), len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    print(f"dream on {cores} cores: {rate(dream(memory, fused=True), options.seconds) / one:.2f} times one")


if __name__ == "__main__":
    main()
