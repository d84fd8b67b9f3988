"""The worlds in which C learns: dreams of this M, games as this V and M see them."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from worldmodels.compute.engine import Engine
from worldmodels.controller.arena import Arena
from worldmodels.controller.basis import played_features, played_skill
from worldmodels.games.base import GameConfig
from worldmodels.memory.base import Memory
from worldmodels.memory.features import Features, feature_size
from worldmodels.params import Config
from worldmodels.rollout.patience import PatientWorld
from worldmodels.rollout.world import ModelWorld, World
from worldmodels.shapes import Told
from worldmodels.vision.model import Vision
from worldmodels.worlds.curiosity import Paying, curiosity, is_curious
from worldmodels.worlds.dream import DreamWorld, Replay, Starts
from worldmodels.worlds.pay import Pay, open_paid
from worldmodels.worlds.real import RealWorld


class MomentsConfig(Config):
    """Dreams that begin in the middle of play."""

    share: float = Field(default=0.0, ge=0, le=1)  # of all dreams; the others begin at first frames
    context: int = Field(default=20, ge=1, le=1_000_000)  # steps that M reads before such a dream
    # frames at the end of the data from which the moments are taken: what the latest players saw
    newest: int = Field(default=150_000, ge=1, le=1_000_000_000)


class Worlds:
    """Opens the worlds of one search.

    Args:
        vision: V.
        memory: M.
        rows: the latents of the world model, a row a frame (stage ``encode``).
        game: its rules.
        features: what C sees.
        engine: where candidates play.
        threads: cores of the games.
        device: where dreams are dreamt and frames are encoded.
        products: type of matrix products there.
        compiled: fuse the steps of dreams.
        before: the M that M began from, for ``pay: progress``.
        seed: of what curiosity learns and samples.
    """

    def __init__(
        self,
        vision: Vision,
        memory: Memory,
        rows: Mapping[str, Tensor],
        game: GameConfig,
        features: Features,
        *,
        engine: Engine,
        threads: int,
        device: torch.device,
        products: torch.dtype,
        compiled: bool,
        before: Memory | None,
        seed: int,
    ) -> None:
        self.game, self.features, self.rows = game, features, rows
        self._judge = deepcopy(memory).to(device)  # with the weights as they are, for what C has seen
        self.vision, self.memory = deepcopy(vision).to(device, products), deepcopy(memory).to(device, products)
        self._before, self._seed = None if before is None else deepcopy(before).to(device), seed
        self._curiosities: dict[str, Paying] = {}
        self._engine, self._threads, self._compiled = engine, threads, compiled
        self.feature_size, self.action_size = feature_size(features, memory.latent, memory), memory.action

    def dream(
        self, moments: MomentsConfig, *, num_steps: int, temperature: float, pay: Pay = "return", hazard_cost: float = 0.0
    ) -> Callable[[], World]:
        """Return what opens a dream of at most ``num_steps`` steps; 0: the game's own limit. See ``worlds.pay`` for the pay."""
        game = self.game
        places = Replay.of(self.rows, **moments.model_dump()) if moments.share else Starts.of(self.rows)
        how: dict[str, Any] = {"temperature": temperature, "limit": num_steps or game.steps, "worth": game.worth}
        dream = partial(DreamWorld, self.memory, places, self.features, fused=self._compiled, **how)
        return partial(open_paid, dream, pay, hazard_cost=hazard_cost, goal=game.goal, curiosity=self.curiosity(pay))

    def play(self, *, num_steps: int = 0, pay: Pay = "return", hazard_cost: float = 0.0) -> Callable[[], World]:
        """Return what opens the game; an episode is cut off after ``num_steps``; 0: at the game's own limit."""
        rules = self.game.at_most(num_steps)
        games = partial(_open_games, rules, self._threads, self.vision, self.memory, self.features)
        return partial(open_paid, games, pay, hazard_cost=hazard_cost, curiosity=self.curiosity(pay))

    def curiosity(self, pay: Pay) -> Paying | None:
        """Return what makes a world pay for curiosity, which is learned once; None with another pay."""
        if not is_curious(pay):
            return None
        if pay not in self._curiosities:
            self._curiosities[pay] = curiosity(pay, self._judge, self._before, self.rows, seed=self._seed)
        return self._curiosities[pay]

    def patient_game(self, num_steps: int) -> ModelWorld:
        """Open the game on the processor; an episode that is lost ends.

        Value gradients learn on the processor whatever ``compute.device`` says: their products are too small for a GPU.
        """
        vision, memory = deepcopy(self.vision).cpu(), deepcopy(self.memory).cpu()
        real = _open_games(self.game.at_most(num_steps), self._threads, vision, memory, "zh")  # M is told of, whatever C sees
        return PatientWorld(real, self.game.patience) if self.game.patience else real

    def arena(self, open_world: Callable[[], World], told: Told | None = None) -> Arena:
        """Return a place to play with many candidates: here, or on the workers of the engine; ``told`` is told of play."""
        return Arena(self._engine, open_world, told)

    def spread(self, discount: float) -> float:
        """Return how far apart the discounted returns behind the frames of the data are: their standard deviation."""
        return float(np.std(discounted(self.rows["reward"], self.rows["first"], discount)))

    def seen(self, seed: int | None = None) -> np.ndarray:
        """Return what C would have seen in the data, (n, F) float64; see ``played_features``."""
        return played_features(self.features, self._judge, self.rows, seed)

    def skill(self, seed: int, newest: int) -> tuple[np.ndarray, Tensor]:
        """Return what C would have seen in the newest frames of the data, and what M foretold that it does there.

        See ``played_skill``.
        """
        rows = {name: each[-newest:] for name, each in self.rows.items()}
        return played_skill(self.features, self._judge, rows, seed)


def discounted(reward: Tensor, first: Tensor, discount: float) -> np.ndarray:
    """Return the discounted sum of rewards from each row on to the end of its episode, (N,); a reward that is NaN counts as 0.

    >>> discounted(torch.tensor([0.0, 4.0, 0.0, 1.0]), torch.tensor([True, False, False, True]), 0.5).tolist()
    [2.0, 4.0, 0.0, 1.0]
    """
    worth, total = [], 0.0
    for paid, begins in zip(reward.nan_to_num().tolist()[::-1], first.tolist()[::-1], strict=True):
        total = paid + discount * total
        worth.append(total)
        total = 0.0 if begins else total
    return np.array(worth[::-1])


def _open_games(game: GameConfig, threads: int, *known: Any) -> RealWorld:
    return RealWorld(game.make(threads=threads), *known)
