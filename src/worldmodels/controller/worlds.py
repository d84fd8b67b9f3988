"""The worlds in which C learns: dreams of this M, games as this V and M see them."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from worldmodels.compute.engine import Engine
from worldmodels.controller.arena import Arena, SpreadArena, WorldArena
from worldmodels.controller.basis import played_features
from worldmodels.games.base import GameConfig
from worldmodels.memory.base import Memory
from worldmodels.memory.features import Features, feature_size
from worldmodels.params import Config
from worldmodels.rollout.patience import PatientWorld
from worldmodels.rollout.world import ModelWorld, World
from worldmodels.vision.model import Vision
from worldmodels.worlds.dream import DreamWorld, Replay, Starts
from worldmodels.worlds.pay import Pay, paid
from worldmodels.worlds.real import RealWorld


class MomentsConfig(Config):
    """Dreams that begin in the middle of play.

    Attributes:
        share: of all dreams; the others begin at first frames.
        context: steps that M reads before such a dream.
        newest: frames at the end of the data from which the moments are taken: what the latest players saw.
    """

    share: float = Field(default=0.0, ge=0, le=1)
    context: int = Field(default=20, ge=1, le=1_000_000)
    newest: int = Field(default=150_000, ge=1, le=1_000_000_000)


@dataclass(frozen=True)
class Reward:
    """What C is paid with.

    Attributes:
        pay: the game's ``return``; ``survival``, the expected return instead of chance deaths; or ``hazard``, M's probability
            of an end at each step.
        hazard_cost: what a step costs per unit of that probability.
    """

    pay: Pay = "return"
    hazard_cost: float = 0.0


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
    ) -> None:
        self.game, self.features, self.rows = game, features, rows
        self._judge = deepcopy(memory).to(device)  # with the weights as they are, for what C has seen
        self.vision, self.memory = deepcopy(vision).to(device, products), deepcopy(memory).to(device, products)
        self._engine, self._threads, self._compiled = engine, threads, compiled
        self.feature_size, self.action_size = feature_size(features, memory.latent, memory), memory.action

    def dream(self, reward: Reward, moments: MomentsConfig, *, num_steps: int, temperature: float) -> Callable[[], World]:
        """Return what opens a dream of at most ``num_steps`` steps."""
        places: Starts | Replay = Starts.of(self.rows)
        if moments.share:
            places = Replay.of(self.rows, **moments.model_dump())
        return partial(
            _open_dream, self.memory, places, self.features, self.game, reward, num_steps, temperature, self._compiled
        )

    def play(self, reward: Reward, *, num_steps: int = 0) -> Callable[[], World]:
        """Return what opens the game; an episode is cut off after ``num_steps``; 0: at the game's own limit."""
        return partial(_open_game, self.vision, self.memory, self.features, self._rules(num_steps), self._threads, reward)

    def patient_game(self, num_steps: int) -> ModelWorld:
        """Open the game on the processor; an episode that is lost ends.

        Value gradients learn on the processor whatever ``compute.device`` says: their products are too small for a GPU.
        """
        vision, memory = deepcopy(self.vision).cpu(), deepcopy(self.memory).cpu()
        real = RealWorld(self._rules(num_steps).make(threads=self._threads), vision, memory, self.features)
        return PatientWorld(real, self.game.patience) if self.game.patience else real

    def arena(self, open_world: Callable[[], World]) -> Arena:
        """Return a place to play with many candidates: here, or on the workers of the engine."""
        if self._engine.parts == 1:
            return WorldArena(open_world())
        return SpreadArena(self._engine, open_world, self.feature_size, self.action_size)

    def seen(self, seed: int | None = None) -> np.ndarray:
        """Return what C would have seen in the data, (n, F) float64; see ``played_features``."""
        return played_features(self.features, self._judge, self.rows, seed)

    def _rules(self, num_steps: int) -> GameConfig:
        return self.game.at_most(num_steps)


def _open_dream(
    memory: Memory,
    places: Starts | Replay,
    features: Features,
    game: GameConfig,
    reward: Reward,
    num_steps: int,
    temperature: float,
    compiled: bool,
) -> World:
    dream = DreamWorld(
        memory, places, features, temperature=temperature, limit=num_steps or game.steps, worth=game.worth, fused=compiled
    )
    return paid(dream, reward.pay, hazard_cost=reward.hazard_cost, goal=game.goal)


def _open_game(vision: Vision, memory: Memory, features: Features, game: GameConfig, threads: int, reward: Reward) -> World:
    world = RealWorld(game.make(threads=threads), vision, memory, features)
    return paid(world, reward.pay, hazard_cost=reward.hazard_cost)
