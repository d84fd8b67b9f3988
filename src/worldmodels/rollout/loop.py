"""The only rollout loop of the project, and what keeps its frames."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from worldmodels.rollout.policies import Policy
from worldmodels.rollout.world import Step, World
from worldmodels.shapes import Episode, Job, Returns


class EpisodeRecorder:
    """Hands every finished episode of a rollout, with its frames, to ``sink``, in the order of their ends."""

    def __init__(self, sink: Callable[[Episode], object]) -> None:
        self._sink = sink
        self._lanes: list[tuple[int, list[np.ndarray], list[np.ndarray], list[float]]] = []  # seed, frames, actions, rewards

    def start(self, jobs: Sequence[Job], world: World) -> None:
        """Lanes were appended for these jobs; ``world.frames()`` holds their first frames."""
        frames = world.frames()[-len(jobs) :]
        self._lanes += [(job.seed, [frame.copy()], [], []) for job, frame in zip(jobs, frames, strict=True)]

    def step(self, actions: Tensor, step: Step, world: World) -> None:
        """All lanes took these actions; the world is at the state after them."""
        rows = zip(self._lanes, world.frames(), actions.cpu().numpy(), step.reward.tolist(), strict=True)
        for (_, frames, taken, rewards), frame, action, reward in rows:
            frames.append(frame.copy())
            taken.append(action.copy())
            rewards.append(reward)
        visited = world.visited()
        for index in (step.terminal | step.truncated).nonzero().flatten().tolist():
            seed, frames, taken, rewards = self._lanes[index]
            terminal, cells = bool(step.terminal[index]), None if visited is None else visited[index].copy()
            self._sink(Episode(np.stack(frames), np.stack(taken), np.array(rewards, np.float32), terminal, seed, cells))

    def keep(self, lanes: Tensor) -> None:
        """Only these lanes stay."""
        self._lanes = [self._lanes[lane] for lane in lanes.tolist()]


def run_episodes(
    world: World,
    policy: Policy,
    seeds: Sequence[int],
    *,
    candidates: int = 1,
    lanes: int | None = None,
    recorder: EpisodeRecorder | None = None,
) -> Returns:
    """Play every seed with every candidate, as one batch, and return what each episode gave.

    Args:
        world, policy: without lanes.
        seeds: E episodes, the same for each candidate.
        candidates: P.
        lanes: most episodes at a time; when one ends, the next starts in its place. None: all at once.
        recorder: keeps the frames.

    Returns:
        Returns of shape (P, E). They do not depend on ``lanes``.
    """
    jobs = [Job(candidate, seed) for candidate in range(candidates) for seed in seeds]
    room = len(jobs) if lanes is None else min(lanes, len(jobs))
    total = np.zeros(len(jobs))
    length = np.zeros(len(jobs), np.int64)
    ended = np.zeros(len(jobs), bool)
    visited: np.ndarray | None = None
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
        over = step.terminal | step.truncated
        if bool(over.any()):
            ended[playing] = step.terminal.numpy()
            cells = world.visited()
            if cells is not None:
                visited = np.zeros((len(jobs), cells.shape[1]), bool) if visited is None else visited
                visited[playing] = cells
            left = torch.nonzero(~over).flatten()
            world.keep(left)
            policy.keep(left)
            if recorder is not None:
                recorder.keep(left)
            playing = playing[left.numpy()]
    shape = (candidates, len(seeds))
    cells = None if visited is None else visited.reshape(*shape, -1)
    return Returns(total.reshape(shape), length.reshape(shape), ended.reshape(shape), np.array(seeds, np.int64), cells)
