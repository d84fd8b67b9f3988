"""The only rollout loop of the project."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from worldmodels.rollout.policies import Policy
from worldmodels.rollout.world import Step, World
from worldmodels.shapes import Job, Returns


class Recorder(Protocol):
    """Watches a rollout. Lanes come and go as in the ``World``."""

    def start(self, jobs: Sequence[Job], world: World) -> None:
        """Lanes were appended for these jobs; ``world.frames()`` holds their first frames."""
        ...

    def step(self, actions: Tensor, step: Step, world: World) -> None:
        """All lanes took these actions; the world is at the state after them."""
        ...

    def keep(self, lanes: Tensor) -> None:
        """Only these lanes stay."""
        ...


def run_episodes(
    world: World,
    policy: Policy,
    seeds: Sequence[int],
    *,
    candidates: int = 1,
    lanes: int | None = None,
    recorder: Recorder | None = None,
    on_steps: Callable[[int], object] | None = None,
) -> Returns:
    """Play every seed with every candidate, as one batch, and return what each episode gave.

    Args:
        world: real or dreamt; without lanes.
        policy: chooses the actions; without lanes.
        seeds: E episodes, the same for each candidate.
        candidates: P.
        lanes: most episodes at a time; when one ends, the next starts in its place. None: all at once.
        recorder: watches.
        on_steps: called after every step with the number of episode steps just played (for progress).

    Returns:
        Returns of shape (P, E). They do not depend on ``lanes``.
    """
    jobs = [Job(candidate, seed) for candidate in range(candidates) for seed in seeds]
    room = len(jobs) if lanes is None else min(lanes, len(jobs))
    total = np.zeros(len(jobs))
    length = np.zeros(len(jobs), np.int64)
    ended = np.zeros(len(jobs), bool)
    playing = np.zeros(0, np.int64)  # job of every lane
    waiting = 0
    while waiting < len(jobs) or len(playing):
        if waiting < len(jobs) and len(playing) < room:
            fresh = np.arange(waiting, min(waiting + room - len(playing), len(jobs)))
            waiting = int(fresh[-1]) + 1
            starting = [jobs[job] for job in fresh]
            world.start([job.seed for job in starting])
            policy.start(starting)
            playing = np.concatenate([playing, fresh])
            if recorder is not None:
                recorder.start(starting, world)
        actions = policy.act(world.features())
        step = world.step(actions)
        total[playing] += step.reward.numpy().astype(np.float64)
        length[playing] += 1
        if recorder is not None:
            recorder.step(actions, step, world)
        if on_steps is not None:
            on_steps(len(playing))
        over = step.terminal | step.truncated
        if bool(over.any()):
            ended[playing] = step.terminal.numpy()
            left = torch.nonzero(~over).flatten()
            world.keep(left)
            policy.keep(left)
            if recorder is not None:
                recorder.keep(left)
            playing = playing[left.numpy()]
    shape = (candidates, len(seeds))
    return Returns(total.reshape(shape), length.reshape(shape), ended.reshape(shape), np.array(seeds, np.int64))
