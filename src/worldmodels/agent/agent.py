"""An agent: V, M and C together, as it is stored, deployed, and put into worlds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodels.controller import model as controller_module
from worldmodels.controller import policy as driver
from worldmodels.controller.model import ControllerConfig, Controllers, act
from worldmodels.controller.policy import ControllerPolicy
from worldmodels.errors import ArtifactError
from worldmodels.games.base import BatchEnv, GameConfig
from worldmodels.games.make import Game
from worldmodels.memory import base as memory_module
from worldmodels.memory.base import Memory
from worldmodels.memory.features import feature_size, select_features
from worldmodels.memory.make import memory_from_description
from worldmodels.params import validate
from worldmodels.rollout import noise, world
from worldmodels.rollout.evaluation import NUM_ENVS, Block
from worldmodels.rollout.loop import EpisodeRecorder, run_episodes
from worldmodels.rollout.world import ModelWorld
from worldmodels.seeds import episode_seeds
from worldmodels.shapes import Episode, Returns
from worldmodels.storage.agents import AgentCard, code_fingerprint, read_card, read_part, write_card
from worldmodels.storage.layout import damaged
from worldmodels.storage.weights import load_model, load_tensors, save_model, save_tensors
from worldmodels.vision import model as vision_module
from worldmodels.vision.model import Vision, to_images
from worldmodels.worlds import real
from worldmodels.worlds.dream import DreamWorld, Starts
from worldmodels.worlds.pay import paid
from worldmodels.worlds.real import RealWorld

_ACTING_CODE = (world, noise, real, driver, vision_module, controller_module)
"""Modules that turn frames into actions, beside those of M's folder."""


@dataclass(frozen=True)
class Agent:
    """V, M, C and the card that says what they are for."""

    card: AgentCard
    vision: Vision
    memory: Memory
    parameters: Tensor  # C, (N,)
    starts: Starts  # latents of real first frames, where its dreams begin

    @property
    def config(self) -> ControllerConfig:
        """Shape of C."""
        return ControllerConfig(**(self.card.controller or {}))

    @property
    def game(self) -> GameConfig:
        """The game that the agent was made for."""
        game: GameConfig = validate(self.card.game, "game", Game)
        return game

    def controllers(self, parameters: Tensor | None = None) -> Controllers:
        """Return a stack of controllers on this V and M: the agent's own, or the ones with ``parameters`` (P, N)."""
        inputs = feature_size(self.config.features, self.vision.config.latent, self.memory)
        stack = self.parameters[None] if parameters is None else parameters
        return Controllers(self.config, stack, inputs, self.memory.action)

    def policy(self, parameters: Tensor | None = None) -> ControllerPolicy:
        """Return ``controllers`` as a policy."""
        return ControllerPolicy(self.controllers(parameters))

    def real_world(self, env: BatchEnv) -> RealWorld:
        """Return the games as this agent knows them."""
        return RealWorld(env, self.vision, self.memory, self.config.features)

    def dream_world(self, *, temperature: float, limit: int | None = None, starts: Starts | None = None) -> ModelWorld:
        """Return this agent's dream, by the rules of its game.

        Args:
            temperature: tau.
            limit: steps after which a dream is truncated; None: as many as an episode of the game has at most.
            starts: where episodes can begin; None: at the agent's own.
        """
        game, features = self.game, self.config.features
        limit = game.steps if limit is None else limit
        how: dict[str, Any] = {"temperature": temperature, "limit": limit, "worth": game.worth, "vision": self.vision}
        return paid(DreamWorld(self.memory, starts or self.starts, features, **how), "return", goal=game.goal)

    def evaluate(self, episodes: int, *, block: Block = "test") -> Returns:
        """Play the first ``episodes`` of a block in the game, on the back end that scores; arrays are (1, episodes)."""
        from worldmodels.agent.play import play_real  # here: it imports this module

        return play_real(self, self.game, episode_seeds(block, episodes), NUM_ENVS)

    def dream(self, seed: int, *, temperature: float = 1.0, limit: int | None = None) -> Episode:
        """Act in its own dream of a seed, with pictures; see ``dream_world``."""
        kept: list[Episode] = []
        world = self.dream_world(temperature=temperature, limit=limit)
        run_episodes(world, self.policy(), [seed], recorder=EpisodeRecorder(kept.append))
        return kept[0]

    @torch.inference_mode()
    def act(self, frames: np.ndarray, state: Tensor) -> tuple[np.ndarray, Tensor]:
        """Choose actions for B streams of frames, statelessly: memory in, memory out. z is V's mean.

        Args:
            frames: (B, 64, 64, 3) uint8.
            state: M's state before these frames, (B, S); a row of zeros says that an episode begins (``initial_state``).

        Returns:
            Actions (B, A) in [-1, 1] and M's state after them.
        """
        z, _ = self.vision.encode(to_images(torch.from_numpy(frames)))
        seen = select_features(self.config.features, z, self.memory, state)
        actions = act(seen, self.controllers().alone)
        restart = (state == 0).all(1)
        _, after = self.memory.observe(z[:, None], actions[:, None], restart[:, None], state)
        return actions.numpy(), after

    def initial_state(self, streams: int) -> Tensor:
        """Return M's state at the start of an episode: zeros, (streams, S)."""
        return self.memory.initial_state(streams)


def save_agent(folder: Path, agent: Agent) -> None:
    """Write agent.json and the weights of V, M and C."""
    of_memory = sorted(Path(str(memory_module.__file__)).parent.glob("*.py"))
    code = code_fingerprint([*(Path(str(module.__file__)) for module in _ACTING_CODE), *of_memory])
    write_card(folder, agent.card.model_copy(update={"code": code}))
    save_model(folder / "vision.safetensors", agent.vision)
    save_model(folder / "memory.safetensors", agent.memory)
    tensors = {"parameters": agent.parameters, "start_mean": agent.starts.mean}
    tensors["start_log_variance"] = agent.starts.log_variance
    save_tensors(folder / "controller.safetensors", tensors, agent.config.model_dump())


def load_agent(folder: Path) -> Agent:
    """Read an agent's folder.

    Raises:
        ArtifactError: something is missing or damaged, or the agent is the random policy.
    """
    card = read_card(folder)
    if card.kind == "random":
        raise ArtifactError(f"{folder} is the random policy: it has no V, M and C. Name a later iteration.")
    read_part(folder, card.game, "game", Game)
    read_part(folder, card.controller, "controller", ControllerConfig)
    vision = load_model(folder / "vision.safetensors", Vision.from_description)
    memory = load_model(folder / "memory.safetensors", memory_from_description)
    path = folder / "controller.safetensors"
    tensors, _ = load_tensors(path)
    try:
        starts = Starts(tensors["start_mean"].float(), tensors["start_log_variance"].float())
        agent = Agent(card, vision, memory, tensors["parameters"].float(), starts)
        agent.controllers()
    except (KeyError, ValueError) as error:
        raise damaged(path, f"by its agent.json: {error}") from None
    return agent
