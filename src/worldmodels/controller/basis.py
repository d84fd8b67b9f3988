"""The directions in which C's inputs vary: a search along them needs fewer generations than one along the single inputs."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from worldmodels.controller.model import ControllerConfig, first_layer, parameter_count
from worldmodels.memory.base import Memory
from worldmodels.memory.features import Features, select_features
from worldmodels.memory.prediction import steps_so_far, stretches
from worldmodels.vision.model import sample_latent

LENGTH, SKIPPED = 64, 16
"""Frames of each stretch of the data that is read, and those at its beginning that do not count: M gets its bearings."""


class Basis:
    """C's first layer, written as a sum of F-dimensional directions. All other parameters are as they are.

    Args:
        directions: (K, F), orthonormal rows.
        config: the shape of C.
        actions: A.

    Attributes:
        size: N', how many coordinates there are.

    >>> basis = Basis(np.eye(2, 3), ControllerConfig(features="z", hidden=0, bias=True), actions=1)
    >>> basis.expand(np.array([[1.0, 2.0, 9.0]]))  # two coordinates and a bias
    array([[1., 2., 0., 9.]])
    """

    def __init__(self, directions: np.ndarray, config: ControllerConfig, actions: int) -> None:
        self._directions, self._rows = directions, first_layer(config, actions)
        self.size = parameter_count(config, len(directions), actions)

    def expand(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the parameters (P, N) at coordinates (P, N')."""
        end = self._rows * len(self._directions)
        first = coordinates[:, :end].reshape(len(coordinates), self._rows, -1) @ self._directions
        return np.concatenate([first.reshape(len(coordinates), -1), coordinates[:, end:]], 1)


def principal_directions(features: np.ndarray, count: int) -> np.ndarray:
    """Return the ``count`` directions (K, F) along which features (N, F) vary most, in falling order; at most F.

    >>> principal_directions(np.array([[3.0, 0.1], [-3.0, -0.1], [0.0, 0.0]]), 1).round(2)
    array([[1.  , 0.03]])
    """
    centred = features - features.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    directions = vectors.T[::-1][:count]
    strongest = np.abs(directions).argmax(1)
    return np.asarray(directions * np.sign(directions[np.arange(len(directions)), strongest])[:, None])


@torch.inference_mode()
def played_features(kind: Features, memory: Memory, rows: Mapping[str, Tensor], seed: int | None = None) -> np.ndarray:
    """Return what C would have seen, (N, F) float64, in stretches spread evenly over the data.

    z is V's mean: what varies then is what V tells. With a ``seed`` it is a sample, as C sees it in the game, where a dimension
    that tells nothing is noise of variance 1.
    """
    walked = _walk(memory, rows, seed)
    return torch.cat([select_features(kind, z, memory, state) for z, state, _, _ in walked]).double().cpu().numpy()


@torch.inference_mode()
def played_skill(kind: Features, memory: Memory, rows: Mapping[str, Tensor], seed: int) -> tuple[np.ndarray, Tensor]:
    """Return what C would have seen, (N, F) float64, and the actions that M foretold there, (N, A), on the processor.

    As ``played_features``, without the first frames of episodes, of which M foretells nothing. ``memory`` predicts actions.
    """
    seen, skill = [], []
    for z, state, outputs, fresh in _walk(memory, rows, seed):
        foretold = memory.predict(outputs[:, None]).step(0).action
        assert foretold is not None
        seen.append(select_features(kind, z, memory, state)[~fresh])
        skill.append(memory.skill(foretold)[~fresh])
    return torch.cat(seen).double().cpu().numpy(), torch.cat(skill).cpu()


def _walk(memory: Memory, rows: Mapping[str, Tensor], seed: int | None) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Walk through stretches of the data, step by step, in S lanes.

    Yields:
        z (S, Z), M's state before it reads that, (S, state), the output of the step before, (S, H), and whether an episode
        begins there, (S,) bool.
    """
    at = stretches(len(rows["first"]), LENGTH)
    begin, length = at[:, 0], at.shape[1]
    z, action, log_variance = (rows[name][at].float().to(memory.device) for name in ("mean", "action", "log_variance"))
    if seed is not None:
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed % 2**63)).to(memory.device)
        z = sample_latent(z, log_variance, noise)
    first = rows["first"][at].to(memory.device)
    state = memory.initial_state(len(at), steps_so_far(rows["first"])[begin].to(memory.device))
    for step in range(length - 1):
        now = slice(step, step + 1)
        _, state = memory.observe(z[:, now], action[:, now], first[:, now], state)
        if step >= min(SKIPPED, length - 2):  # where an episode begins at the next step, M remembers nothing
            fresh = first[:, step + 1]
            yield z[:, step + 1], state * (~fresh[:, None]).float(), memory.outputs(state), fresh
