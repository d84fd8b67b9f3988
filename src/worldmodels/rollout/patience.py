"""Giving up on an episode that is no longer paid: what follows a crash costs steps, and hides from M that there was one."""

import numpy as np
import torch
from torch import Tensor

from worldmodels.rollout.world import Step, W, WorldWrapper
from worldmodels.shapes import Episode


class PatientWorld(WorldWrapper[W]):
    """Another world, but an episode ends, as if the game had ended it, after ``patience`` steps without a reward above 0."""

    def __init__(self, world: W, patience: int) -> None:
        super().__init__(world)
        self._patience = patience

    def step(self, actions: Tensor) -> Step:
        step = super().step(actions)
        self.tally = torch.where(step.reward > 0, 0, self.tally + 1)  # steps since a reward above 0
        stuck = self.tally >= self._patience
        return Step(step.reward, step.terminal | stuck, step.truncated & ~stuck)


def out_of_patience(episode: Episode, patience: int) -> Episode:
    """Return an episode that was not played in a ``PatientWorld`` up to where that one would have ended it.

    >>> stuck = Episode(np.arange(31), np.zeros((30, 1)), np.array([1.0] * 4 + [-0.1] * 26), terminal=False, seed=0)
    >>> cut = out_of_patience(stuck, 10)
    >>> len(cut.rewards), cut.terminal
    (14, True)
    """
    steps = np.arange(len(episode.rewards))
    paid = np.maximum.accumulate(np.where(episode.rewards > 0, steps, -1))  # the last step that was, up to each
    stuck = np.flatnonzero(steps - paid >= patience)
    if not len(stuck):
        return episode
    end = int(stuck[0]) + 1
    return Episode(episode.frames[: end + 1], episode.actions[:end], episode.rewards[:end], terminal=True, seed=episode.seed)


def cut_when_decided(episode: Episode, patience: int, aftermath: int, won: float) -> Episode:
    """Return an episode of a ``PatientWorld`` up to where it was lost or won, and without what follows; others as they are.

    Lost: patience ran out. Such an episode ends ``aftermath`` steps after its last reward, so that M learns what leads there,
    and how it looks. Won: it earned ``won`` (0: none can). It ends at its last reward: M cannot see that a lap is over, and
    another lap on tiles that pay no more is nothing for M to learn.

    >>> lost = Episode(np.arange(31), np.zeros((30, 1)), np.array([1.0] * 4 + [-0.1] * 26), terminal=True, seed=0)
    >>> [len(cut_when_decided(lost, patience, 5, won=0.0).rewards) for patience in (26, 27)]
    [9, 30]
    >>> won = cut_when_decided(lost, 26, 5, won=1.0)
    >>> len(won.rewards), won.terminal
    (4, False)
    """
    paid = np.flatnonzero(episode.rewards > 0)
    steps, terminal = int(paid[-1]) + 1 if len(paid) else 0, episode.terminal
    if won and episode.rewards.sum() >= won:
        terminal = False
    elif terminal and len(episode.rewards) - steps >= patience:
        steps += min(aftermath, patience)
    else:
        return episode
    kept = episode.frames[: steps + 1], episode.actions[:steps], episode.rewards[:steps]
    return Episode(*kept, terminal=terminal, seed=episode.seed, visited=episode.visited)
