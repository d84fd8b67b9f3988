"""Dreams, and games as V and M see them, as Gymnasium environments, for learners of other libraries.

``WorldModels/Dream-v0``   M alone plays the game
``WorldModels/Real-v0``    the game, seen by V and remembered by M

    import gymnasium
    one = gymnasium.make("worldmodels.gym:WorldModels/Dream-v0", agent="pretrained/doom")
    many = gymnasium.make_vec("worldmodels.gym:WorldModels/Dream-v0", num_envs=256, agent="pretrained/doom")

Both take what ``AgentWorld`` says. A seed names an episode, as everywhere in this project: the dream or the
game of a seed is the same in any lane. Many lanes are one batch.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

import worldmodels
from worldmodels.agent.agent import Agent
from worldmodels.compute.precision import Precision, products_in
from worldmodels.games.choices import option
from worldmodels.rollout.lanes import Lanes
from worldmodels.rollout.world import ModelWorld
from worldmodels.seeds import INDEX_BITS, episode_seeds
from worldmodels.shapes import FRAME_SHAPE
from worldmodels.worlds.dream import Starts

Observation = Literal["features", "pixels"]
"""What is observed: what C sees, (F,) float32; or the picture, (64, 64, 3) uint8, in a dream as V draws it."""


def drawn(random: np.random.Generator) -> int:
    """Return the seed of some episode that is there to learn from: no test, selection or development episode."""
    return episode_seeds("evolution", 1, start=int(random.integers(2**INDEX_BITS)))[0]


class AgentWorld:
    """A world of an agent, and the spaces of one lane.

    Args:
        agent: an agent, or what names one (``worldmodels.load``).
        dream: its dream, or its game.
        observation: what is observed.
        temperature: tau of the dream.
        limit: steps after which an episode is truncated; None: as many as the game has at most.
        starts: latents at which dreams can begin; None: the agent's own.
        precision: of M's matrix products in dreams, as ``compute.precision`` in params.yaml.
        threads: cores of the games.
    """

    def __init__(
        self,
        agent: Agent | str,
        *,
        dream: bool,
        observation: Observation = "features",
        temperature: float = 1.0,
        limit: int | None = None,
        starts: Starts | None = None,
        precision: Precision = "auto",
        threads: int = 1,
    ) -> None:
        if observation not in ("features", "pixels"):
            raise ValueError(f"observation must be `features` or `pixels`, not {observation!r}")
        agent = worldmodels.load(agent) if isinstance(agent, str) else agent
        self.world: ModelWorld
        if dream:
            memory = deepcopy(agent.memory).to(products_in(precision, torch.device("cpu")))
            self.world = replace(agent, memory=memory).dream_world(temperature=temperature, limit=limit, starts=starts)
        else:
            self.world = agent.real_world(agent.game.at_most(limit or 0).make(scoring=True, threads=threads))
        self.pixels, self.choices, self.rate = observation == "pixels", agent.memory.choices, agent.game.frames_a_second
        size = (self.world.feature_size,)
        self.observation_space: Space[Any] = (
            Box(0, 255, FRAME_SHAPE, np.uint8) if self.pixels else Box(-np.inf, np.inf, size, np.float32)
        )
        self.action_space: Space[Any] = Box(-1, 1, (self.world.action_size,), np.float32)
        if self.choices:
            self.action_space = Discrete(self.choices[0]) if len(self.choices) == 1 else MultiDiscrete(self.choices)

    def look(self) -> np.ndarray:
        """Return what the world's lanes observe, (lanes, ...)."""
        return self.world.frames().copy() if self.pixels else self.world.features().float().cpu().numpy()

    def taken(self, actions: Any) -> Tensor:
        """Return actions (B, A) of Gymnasium's actions, (B, ...)."""
        if not self.choices:
            return torch.from_numpy(np.asarray(actions, np.float32)).clamp(-1, 1)
        picked = np.asarray(actions, np.int64).reshape(len(actions), len(self.choices))
        rows = [np.concatenate([option(each, count) for each, count in zip(row, self.choices, strict=True)]) for row in picked]
        return torch.tensor(np.array(rows), dtype=torch.float32)


class WorldEnv(gymnasium.Env[Any, Any]):
    """One dream or game at a time. What can be set: see ``AgentWorld``."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012  as Gymnasium has it

    def __init__(self, render_mode: str | None = None, **told: Any) -> None:
        self._of = AgentWorld(**told)
        self.observation_space, self.action_space = self._of.observation_space, self._of.action_space
        self.metadata = {**self.metadata, "render_fps": self._of.rate}
        self.render_mode, self._playing = render_mode, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin the episode of a seed; without one, of a seed that is drawn."""
        super().reset(seed=seed)
        world, episode = self._of.world, drawn(self.np_random) if seed is None else seed
        world.keep(torch.zeros(0, dtype=torch.int64))
        world.start([episode])
        self._playing = True
        return self._of.look()[0], {"seed": episode}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step; gymnasium.error.ResetNeeded if no episode goes on."""
        if not self._playing:
            raise gymnasium.error.ResetNeeded("the episode is over: call reset() first")
        step = self._of.world.step(self._of.taken([action]))
        self._playing = not bool(step.terminal[0] | step.truncated[0])
        return self._of.look()[0], float(step.reward[0]), bool(step.terminal[0]), bool(step.truncated[0]), {}

    def render(self) -> np.ndarray | None:
        """Return the picture, (64, 64, 3) uint8."""
        return self._of.world.frames()[0].copy() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """End the game."""
        self._of.world.close()


class WorldVectorEnv(VectorEnv[Any, Any, Any]):
    """Many dreams or games, as one batch; where an episode ends, the next begins in the same step. See ``AgentWorld``."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int = 1, render_mode: str | None = None, **told: Any) -> None:
        self._of, self.num_envs, self.render_mode = AgentWorld(**told), num_envs, render_mode
        self.metadata = {**self.metadata, "render_fps": self._of.rate}
        self.single_observation_space, self.single_action_space = self._of.observation_space, self._of.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._lanes = Lanes(self._of.world, num_envs, self._of.look)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every lane: of ``seed``, ``seed`` + 1 and so on, or of the listed ones; else of drawn ones."""
        super().reset(seed=seed if isinstance(seed, int) else None)
        seeds = [seed + lane for lane in range(self.num_envs)] if isinstance(seed, int) else seed or [None] * self.num_envs
        drawn = self._drawn()
        return self._lanes.reset([next(drawn) if each is None else each for each in seeds]), {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take a step in every lane; ``info["final_obs"]`` has what was seen at the end of the episodes that ended."""
        step = self._lanes.step(self._of.taken(actions), self._drawn())
        info: dict[str, Any] = {}
        if step.last is not None:
            ended = np.isin(np.arange(self.num_envs), step.ended)
            info = {"final_obs": np.array([*step.last, None], dtype=object)[:-1], "_final_obs": ended}
        return step.seen, step.rewards.astype(np.float64), step.terminal, step.truncated, info

    def render(self) -> Any:
        """Return the pictures of all lanes."""
        return tuple(self._of.world.frames().copy()) if self.render_mode == "rgb_array" else None

    def close_extras(self, **kwargs: Any) -> None:
        """End the games."""
        self._of.world.close()

    def _drawn(self) -> Iterator[int]:
        while True:
            yield drawn(self.np_random)


def for_stable_baselines3(env: WorldVectorEnv) -> Any:
    """Return the same lanes as a ``VecEnv``, which stable-baselines3 takes.

    Raises:
        ImportError: stable-baselines3 is not installed.
    """
    from worldmodels.controller.phases.vec_env import PlainVecEnv

    class Adapter(PlainVecEnv):
        def reset(self) -> np.ndarray:
            seen = np.asarray(env.reset(seed=self._seeds[0])[0])
            self._reset_seeds()  # else every `learn` would begin with the same episodes
            return seen

        def step_async(self, actions: np.ndarray) -> None:
            self._actions = actions

        def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
            seen, rewards, terminal, truncated, info = env.step(self._actions)
            infos: list[dict[str, Any]] = [{} for _ in rewards]
            for lane in np.flatnonzero(terminal | truncated):
                infos[lane] = {"terminal_observation": info["final_obs"][lane], "TimeLimit.truncated": bool(truncated[lane])}
            return seen, rewards.astype(np.float32), terminal | truncated, infos

    return Adapter(env.num_envs, env.single_observation_space, env.single_action_space)


for _name, _dream in (("Dream", True), ("Real", False)):
    gymnasium.register(
        f"WorldModels/{_name}-v0",
        entry_point="worldmodels.gym:WorldEnv",
        vector_entry_point="worldmodels.gym:WorldVectorEnv",
        kwargs={"dream": _dream},
    )
