"""Recorders: what keeps a rollout's frames."""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from worldmodels.rollout.world import Step, World
from worldmodels.shapes import Episode, Job


class EpisodeRecorder:
    """Hands every finished episode, with its frames, to ``sink``.

    Args:
        sink: called with each ``Episode`` when it ends, in the order of their ends.
    """

    def __init__(self, sink: Callable[[Episode], object]) -> None:
        self._sink = sink
        self._lanes: list[_Lane] = []

    def start(self, jobs: Sequence[Job], world: World) -> None:
        frames = world.frames()[-len(jobs) :]
        self._lanes += [_Lane(job, frame.copy()) for job, frame in zip(jobs, frames, strict=True)]

    def step(self, actions: Tensor, step: Step, world: World) -> None:
        rows = zip(self._lanes, world.frames(), actions.cpu().numpy(), step.reward.tolist(), strict=True)
        for lane, frame, action, reward in rows:
            lane.frames.append(frame.copy())
            lane.actions.append(action.copy())
            lane.rewards.append(reward)
        for index in (step.terminal | step.truncated).nonzero().flatten().tolist():
            self._sink(self._lanes[index].episode(bool(step.terminal[index])))

    def keep(self, lanes: Tensor) -> None:
        self._lanes = [self._lanes[lane] for lane in lanes.tolist()]


class _Lane:
    def __init__(self, job: Job, frame: np.ndarray) -> None:
        self.seed = job.seed
        self.frames = [frame]
        self.actions: list[np.ndarray] = []
        self.rewards: list[float] = []

    def episode(self, terminal: bool) -> Episode:
        return Episode(
            frames=np.stack(self.frames),
            actions=np.stack(self.actions),
            rewards=np.array(self.rewards, np.float32),
            terminal=terminal,
            seed=self.seed,
        )
