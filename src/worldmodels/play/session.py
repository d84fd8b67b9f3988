"""One visitor's dream: it can be driven, bent, stopped, taken back, and replayed."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodels.agent.agent import Agent
from worldmodels.controller.model import act
from worldmodels.errors import EnvironmentFault, ParamsError
from worldmodels.games.base import BatchEnv
from worldmodels.memory.features import select_features
from worldmodels.rollout.noise import EpisodeNoise
from worldmodels.rollout.world import pad_lanes
from worldmodels.vision.model import to_frames, to_images
from worldmodels.worlds.dream import DreamWorld

LONGEST = 5000
"""Steps after which any dream ends: all of them are kept, to go back to."""
COLDEST, HOTTEST = 0.01, 10.0
"""Range of the temperature."""
FURTHEST = 10.0
"""Largest latent that a slider sets, in absolute value."""
LARGEST = 1e4  # number in latents and in M's state that a recording sets, in absolute value
BATCH = 64
"""Frames that are decoded at once."""
LANES, STEPS = 16, 100
"""Dreams that say how wide each dimension of z is, and their steps."""


@dataclass(frozen=True)
class Moment:
    """A dream at one step: all that is needed to show it, and to go on from it."""

    step: int  # since the start
    z: Tensor  # (1, Z)
    state: Tensor  # M's, before it reads z, (1, S)
    action: np.ndarray | None = None  # that led here, (A,); None at the start
    total: float = 0.0  # return so far
    earned: float = 0.0  # the same without what every step costs: what the goal of a dream counts
    reward: float = 0.0  # of the last step
    hazard: float | None = None  # probability with which M ended the dream in the last step; None if M foretells none
    spread: float = 0.0  # mean standard deviation of what M predicted for the last step, over the latent's dimensions
    ended: bool = False  # M ended it, or it has earned its goal
    real: np.ndarray | None = None  # the game's frame beside it, (64, 64, 3) uint8; None without a game, or if it is over
    seen: tuple[Tensor, Tensor] | None = None  # z and M's state in that game, (1, Z) and (1, S)


class Session:
    """A dream, step by step. Left alone it is the dream that ``DreamWorld`` dreams of the same seed, bit by bit.

    Not for several threads at once.

    Args:
        agent: whose dream it is, and who drives if nobody else does.
        temperature: at first.
        seed: of the dream.
    """

    def __init__(self, agent: Agent, *, temperature: float, seed: int = 0) -> None:
        self.agent, self.temperature = agent, temperature
        self.game: BatchEnv | None = None
        self.trouble = ""  # why the game beside has left, until somebody was told
        self._game = agent.game
        self._layers = agent.controllers().alone
        self.start(seed)

    @property
    def now(self) -> Moment:
        """Where the dream is."""
        return self.moments[-1]

    @torch.inference_mode()
    def start(self, seed: int) -> None:
        """Begin another dream, where the episode of this seed begins; with a game, on its first frame."""
        self.seed = seed
        self._changes: dict[int, dict[str, Any]] = {0: {"temperature": self.temperature}}
        state, frame = self.agent.initial_state(1), self._start_beside(seed)
        if frame is not None:
            z = self._look(frame)
            self.moments = [Moment(0, z, state, real=frame, seen=(z, state))]
        else:
            world = DreamWorld(self.agent.memory, self.agent.starts, "z", temperature=self.temperature, limit=1)
            world.start([seed])
            self.moments = [Moment(0, world.latents(), state)]
        self._first = self.now.z

    def put_beside(self, game: BatchEnv | None) -> None:
        """Play a game on the same actions, from the start; None plays none. It stays its owner's, until it fails and leaves."""
        self.game = game
        self.start(self.seed)

    @torch.inference_mode()
    def step(self, action: Sequence[float] | None = None) -> Moment:
        """Dream one step on, and play it beside. An ended dream stays where it is.

        Args:
            action: in [-1, 1], (A,); None leaves it to the agent.

        Raises:
            ParamsError: the action has another size or is no number.
        """
        before, memory = self.now, self.agent.memory
        if before.ended:
            return before
        if action is None:
            chosen = act(select_features(self.agent.config.features, before.z, memory, before.state), self._layers)
        else:
            chosen = torch.tensor([action], dtype=torch.float32)
            if chosen.shape != (1, memory.action) or not bool(chosen.isfinite().all()):
                raise ParamsError(f"action: must be {memory.action} numbers in [-1, 1]")
            chosen = chosen.clamp(-1, 1)
        noise = EpisodeNoise("dream", 2 * memory.latent + 1).at(self.seed, before.step + 1)  # as ``DreamWorld`` draws it
        uniform, normal = torch.special.ndtr(noise[:, memory.latent :]), noise[:, : memory.latent]
        first = torch.tensor([before.step == 0])
        z, acted, first, state, chance, normal = pad_lanes(before.z, chosen, first, before.state, uniform[:, :-1], normal)
        z, state, told = memory.dream(z, acted, first, state, chance, normal, self.temperature)
        hazard, ended = None, False
        if told.done is not None:
            hazard = float(memory.hazard(told.done)[0])
            ended = float(uniform[0, -1]) < hazard
        reward = self._game.worth if told.reward is None else float(told.reward[0])
        earned = float(np.float32(before.earned) + (np.float32(reward) - np.float32(memory.usual_reward)))  # as ``GoalWorld``
        ended |= before.step + 1 >= LONGEST or (bool(self._game.goal) and earned >= self._game.goal)
        spread = float(told.latent.mean_and_std()[1][0].mean())
        total, taken = before.total + reward, chosen[0].numpy()
        if not (isfinite(total + spread + (hazard or 0)) and bool(z[:1].isfinite().all() and state[:1].isfinite().all())):
            self._change(ended=True)  # M has no numbers for what follows
            return self.now
        moment = Moment(before.step + 1, z[:1], state[:1], taken, total, earned, reward, hazard, spread, ended)
        self.moments.append(self._play_beside(before, moment, chosen))
        return self.now

    def back(self, steps: int) -> None:
        """Take the dream back. The game beside it cannot be, and leaves until the next start.

        What follows is the same again, unless something is changed.
        """
        steps = max(0, min(steps, len(self.moments) - 1))
        if steps:
            del self.moments[len(self.moments) - steps :]
            self._changes = {step: change for step, change in self._changes.items() if step <= self.now.step}
            self._change(real=None, seen=None)

    def set_temperature(self, temperature: float) -> None:
        """Dream on at another temperature; ParamsError out of [0.01, 10]."""
        if not COLDEST <= temperature <= HOTTEST:
            raise ParamsError(f"temperature: must be from {COLDEST:g} to {HOTTEST:g}")
        self.temperature = temperature
        self._note(temperature=temperature)

    def set_latent(self, index: int, value: float) -> None:
        """Bend the dream: it goes on from here with another value in one dimension of z."""
        if not 0 <= index < self.agent.memory.latent:
            raise ParamsError(f"latent: must be from 0 to {self.agent.memory.latent - 1}")
        if not -FURTHEST <= value <= FURTHEST:
            raise ParamsError(f"value: must be from {-FURTHEST:g} to {FURTHEST:g}")
        z = self.now.z.clone()
        z[0, index] = value
        self._change(z=z)
        self._note(latents={**self._changes.get(self.now.step, {}).get("latents", {}), str(index): value})

    def wake(self) -> None:
        """Set the dream to what is real now: z and M's state of the game beside it.

        Raises:
            ParamsError: there is no game, or it is over.
        """
        if self.now.seen is None:
            raise ParamsError("there is no game beside this dream, or it is over: start again with one")
        self._wake_at(*self.now.seen)

    def recording(self) -> dict[str, Any]:
        """Return what ``replay`` needs to dream the same again, as JSON values."""
        actions = [moment.action.tolist() for moment in self.moments if moment.action is not None]
        changes = {str(step): change for step, change in self._changes.items()}
        return {"seed": self.seed, "first": self._first[0].tolist(), "actions": actions, "changes": changes}

    @torch.inference_mode()
    def replay(self, recording: Mapping[str, Any]) -> None:
        """Dream a recorded episode again, without a game, to its end.

        Raises:
            ParamsError: it is no recording of a dream of this agent.
        """
        again = self.copy()
        again.game = None
        try:
            actions, changes, seed = recording["actions"], recording["changes"], int(recording["seed"])
            if len(actions) > LONGEST or not 0 <= seed < 2**53:
                raise ValueError("too many actions, or a seed out of range")
            again.start(seed)
            first = _row(recording["first"], again.now.z)
            again._first, again.moments = first, [replace(again.now, z=first)]
            for action in [*actions, None]:
                again._apply(changes.get(str(again.now.step), {}))
                if action is not None:
                    again.step(action)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
            raise ParamsError(f"this is no recording of a dream of this agent ({str(error)[:200]})") from None
        vars(self).update(vars(again))

    def copy(self) -> "Session":
        """Return a session that is where this one is, and goes on apart from it; a game beside it would be the same."""
        other = copy(self)
        other.moments = list(self.moments)
        return other

    @torch.inference_mode()
    def frames(self, moments: Sequence[Moment]) -> np.ndarray:
        """Return what moments look like, (N, 64, 64, 3) uint8."""
        z = torch.cat([moment.z for moment in moments])
        return np.concatenate([to_frames(self.agent.vision.decode(batch)).numpy() for batch in z.split(BATCH)])

    def _apply(self, change: Mapping[str, Any]) -> None:
        if "wake" in change:
            z, state = change["wake"]
            self._wake_at(_row(z, self.now.z), _row(state, self.now.state))
        for index, value in change.get("latents", {}).items():
            self.set_latent(int(index), float(value))
        if "temperature" in change:
            self.set_temperature(float(change["temperature"]))

    def _change(self, **fields: Any) -> None:
        self.moments[-1] = replace(self.now, **fields)

    def _note(self, **change: Any) -> None:
        step = self.now.step
        self._changes = {**self._changes, step: {**self._changes.get(step, {}), **change}}

    def _wake_at(self, z: Tensor, state: Tensor) -> None:
        self._change(z=z, state=state, ended=False)
        self._note(wake=[z[0].tolist(), state[0].tolist()])

    def _look(self, frame: np.ndarray) -> Tensor:
        (padded,) = pad_lanes(torch.from_numpy(frame[None]))
        return self.agent.vision.encode(to_images(padded))[0][:1]

    def _start_beside(self, seed: int) -> np.ndarray | None:
        """Return the first frame of the game beside the dream; None if there is no game."""
        if self.game is None:
            return None
        try:
            self.game.keep(np.zeros(0, np.int64))
            return self.game.start([seed])[0]
        except EnvironmentFault as fault:
            self._lose_game(self.game, fault)
            return None

    def _lose_game(self, game: BatchEnv, fault: EnvironmentFault) -> None:
        """Go on without the game beside the dream."""
        self.game, self.trouble = None, f"the game beside the dream has failed, and the dream goes on alone: {fault}"
        with suppress(Exception):  # one that has failed may not close either
            game.close()

    def _play_beside(self, before: Moment, moment: Moment, action: Tensor) -> Moment:
        if self.game is None or before.seen is None:
            return moment
        try:
            result = self.game.step(action.numpy())
        except EnvironmentFault as fault:
            self._lose_game(self.game, fault)
            return moment
        if result.terminal[0] or result.truncated[0]:
            return moment
        z, state = before.seen
        _, state = self.agent.memory.observe(z[:, None], action[:, None], torch.tensor([[before.step == 0]]), state)
        frame = result.frames[0]
        return replace(moment, real=frame, seen=(self._look(frame), state))


def _row(values: Any, like: Tensor) -> Tensor:
    """Return recorded numbers as a tensor; ValueError if they are too large, or not as many as in ``like``."""
    found = torch.tensor([values], dtype=torch.float32)
    if found.shape != like.shape or not bool((found.abs() <= LARGEST).all()):
        raise ValueError(f"needs {like.shape[1]} numbers up to {LARGEST:g}")
    return found


def about(agent: Agent, *, name: str, temperature: float, rate: float) -> dict[str, Any]:
    """Return what any page needs to know before anything is dreamt."""
    memory = agent.memory
    return {"name": name, "environment": agent.card.environment, "temperature": temperature, "rate": rate,
            "actions": memory.action, "choices": memory.choices, "options": agent.game.options,
            "latents": widest_latents(agent), "pay": agent.game.pay,
            "reward": memory.config.reward != "none", "done": memory.config.done}  # fmt: skip


def widest_latents(agent: Agent) -> list[tuple[int, float, float]]:
    """Return every dimension of z with its mean and standard deviation over dreams of the agent, the widest first."""
    world = agent.dream_world(temperature=1.0, limit=STEPS)
    world.start(range(LANES))
    layers, seen = agent.controllers().alone, []
    for _ in range(STEPS):
        world.step(act(world.features(), layers))  # also after ends: what follows is still a picture of the game
        seen.append(world.latents())
    z = torch.cat(seen)
    mean, std = z.mean(0).tolist(), z.std(0).tolist()
    return sorted(((index, mean[index], std[index]) for index in range(len(mean))), key=lambda each: -each[2])
