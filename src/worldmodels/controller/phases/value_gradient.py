"""C by value gradients: the game says where C gets to and what that is worth, M how it depends on what C does.

From states that C has reached in the game, M dreams a few steps on, and a critic that has learned in the game says what the
rest is worth. All of it is differentiable in the actions, so C follows the gradient itself, and PPO has to guess it from
returns (SVG, Heess et al. 2015; short dreams from real states, Janner et al. 2019). Nothing is learned of long dreams, so
there are none to exploit.

A C that drives well loses one episode in ten, in a place that a hundred others have like it. So a share of the episodes are
those that were lost before (Jiang et al. 2021 replay levels so), and a share of the states that C learns from lie shortly
before a loss.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from worldmodels.controller.model import first_layer, perceptron
from worldmodels.controller.phases.base import Context, Generation, Given, LearnerConfig
from worldmodels.controller.phases.critic import Critic, Lesson
from worldmodels.controller.whitening import Whitening
from worldmodels.learning.resume import restore, state_of
from worldmodels.memory.features import select_features
from worldmodels.memory.prediction import Prediction

HORIZON = 12
"""Steps that M dreams on from a state of the game before the critic says what the rest is worth."""
BATCH, EPOCHS = 512, 5
"""States of a gradient step; passes of the critic over a collection."""
DROUGHT_STEPS = 20
"""Steps alike that earn nothing, by which M is sure not to be paid."""
TAMED, OUTLIER = 0.9, 2.0
"""A dream's gradient at a step is cut to ``OUTLIER`` times this quantile of its batch: some dreams are chaotic."""
BEFORE, BEHIND = 90, 20
"""States are perilous from so many steps before what lost an episode to so many behind it."""
HARDEST, FORGOTTEN = 96, 0.5
"""Lost episodes that are kept to be played again, the newest; the share of those won at last that is no longer."""


class ValueGradientConfig(LearnerConfig):
    """A stretch of value gradients, in the game.

    A step is worth, by what M expects there, ``reward_weight`` times the reward, less ``drought_cost`` times the probability
    that ``DROUGHT_STEPS`` steps alike would earn nothing, less ``hazard_cost`` times the probability of an end.
    """

    kind: Literal["value_gradient"] = "value_gradient"
    world: Literal["game"] = "game"
    critic_updates: int = Field(default=3, ge=0, le=100_000)
    learning_rate: float = Field(default=0.0001, gt=0, le=1)
    final_learning_rate: float = Field(default=0.00002, ge=0, le=1)
    noise: float = Field(default=0.1, gt=0, le=10)
    gradient_steps: int = Field(default=24, ge=1, le=100_000)  # of C, after each collection
    # weight of the reward. A discounted sum pays for speed a hundred steps ahead, a lap pays for its tiles
    reward_weight: float = Field(default=0.3, ge=0, le=1e6)
    # weight of the steps that M is sure not to be paid for: off the road. It needs an M that foretells events
    drought_cost: float = Field(default=3.0, ge=0, le=1e6)
    # what a step costs per unit of M's probability of an end. It needs an M that foretells ends
    hazard_cost: float = Field(default=200.0, ge=0, le=1e6)
    loss_cost: float = Field(default=100.0, ge=0, le=1e6)  # what an episode that is lost costs, beside the hazard
    # share of the episodes that were lost before and are played again until C wins them
    replay_share: float = Field(default=0.5, ge=0, lt=1)
    # share of the states that C learns from that lie shortly before a loss, or in it
    peril_share: float = Field(default=0.3, ge=0, lt=1)
    # collections that the critic learns from, and that those states are taken from; a checkpoint holds them
    remembered: int = Field(default=6, ge=1, le=1000)
    needs_bias: ClassVar[bool] = True

    def check(self, given: Given) -> list[str]:
        wrong, memory = [], given.memory
        if self.drought_cost and memory.reward != "event":
            wrong.append("drought_cost is told by M's event head: set memory.model.reward: event, or drought_cost: 0")
        if self.hazard_cost and not memory.done:
            wrong.append("hazard_cost is told by M's done head: set memory.model.done: true, or hazard_cost: 0")
        if given.game.choices:
            wrong.append("value gradients need actions that are numbers, and this game's are choices: take kind: ppo or cmaes")
        return wrong

    def open(self, context: Context, begin: np.ndarray | None) -> "ValueGradients":
        return ValueGradients(self, context, begin)


class Moments(NamedTuple):
    """States of the game for M to dream on from, (N, ...)."""

    z: Tensor  # latents
    state: Tensor  # M's before it reads them, (N, S)
    restart: Tensor  # whether the episode begins, bool


class Played(NamedTuple):
    """A collection: T steps of B lanes; if an episode is over, the next one of the lane begins."""

    moments: Moments  # (T, B, ...)
    lesson: Lesson  # for the critic
    returns: list[float]  # what the new episodes that ended have earned


class ValueGradients:
    """Value gradients for one C; a ``Learner``.

    Each generation begins with new episodes and its own random numbers: it depends on ``state`` and its number alone.
    """

    def __init__(self, config: ValueGradientConfig, context: Context, begin: np.ndarray | None) -> None:
        worlds = context.worlds
        self._config, self._context, self._model, self._game = config, context, context.model, worlds.game
        self._world = worlds.patient_game(config.num_steps)
        self._memory = deepcopy(worlds.memory).cpu().requires_grad_(requires_grad=False)
        self._white = Whitening.of(worlds.seen(context.draw("seen")))
        self._mean, self._matrix = (torch.from_numpy(part).float() for part in self._white)
        inputs, hidden = len(self._white.mean), context.model.hidden
        self._policy = perceptron([inputs, *([hidden] if hidden else []), worlds.action_size])
        start = context.first_parameters() if begin is None else begin
        nn.utils.vector_to_parameters(
            torch.from_numpy(self._white.enter(start.astype(np.float64), self._units)).float(), self._policy.parameters()
        )
        self._improve = torch.optim.Adam(self._policy.parameters(), config.learning_rate)
        self._critic = Critic(inputs, config.discount, torch.Generator().manual_seed(context.draw(-1) % 2**63))
        self._lessons, self._perils = list[Lesson](), list[Moments]()
        self._hard = list[int]()

    @property
    def _units(self) -> int:
        return first_layer(self._model, self._world.action_size)

    def generation(self, number: int) -> Generation:
        """Collect, teach the critic, and improve C."""
        config = self._config
        draw = torch.Generator().manual_seed(self._context.draw(number) % 2**63)
        fresh = self._context.episodes("evolution", number * config.num_envs * config.num_steps)
        with torch.no_grad():
            played = self._play(draw, fresh)
        perils = perilous(played.lesson.lost, played.lesson.over, self._game.patience)
        self._lessons = [*self._lessons, played.lesson][-config.remembered :]
        self._perils = [*self._perils, Moments(*(part[perils] for part in played.moments))][-config.remembered :]
        foreseen = self._critic.learn(self._lessons, EPOCHS, draw)
        if number >= config.critic_updates:
            for group in self._improve.param_groups:
                group["lr"] = config.learning_rate_at(number)
            moments = Moments(*(part.flatten(0, 1) for part in played.moments))
            dangers = Moments(*(torch.cat(parts) for parts in zip(*self._perils, strict=True)))
            for _ in range(config.gradient_steps):
                self._update(moments, dangers, draw)
        told = {
            "ended": len(played.returns),
            "reward": float(played.lesson.worth.mean()),
            "noise": config.noise,
            "explained": foreseen,
        }
        return Generation(self.parameters, np.array(played.returns), played.lesson.worth.numel(), told)

    def close(self) -> None:
        """Close the world."""
        self._world.close()

    @property
    def parameters(self) -> np.ndarray:
        """C as it is now, (N,) float64."""
        flat = nn.utils.parameters_to_vector(self._policy.parameters()).detach().double().numpy()
        return self._white.leave(flat, self._units)

    @property
    def state(self) -> dict[str, Tensor]:
        """All that the next generation depends on."""
        kept: dict[str, Tensor] = {"hard": torch.tensor(self._hard, dtype=torch.int64)}
        for name, part, optimiser in self._learners():
            kept |= state_of(part, optimiser, f"{name}/")
        for name, notes in self._notes():
            for index, note in enumerate(notes):
                kept |= {f"{name}/{index}/{field}": value for field, value in note._asdict().items()}
        return kept

    @state.setter
    def state(self, kept: dict[str, Tensor]) -> None:
        self._hard = kept["hard"].tolist()
        for name, part, optimiser in self._learners():
            restore(part, optimiser, kept, f"{name}/")
        for name, notes in self._notes():
            kind: Any = Lesson if name == "lesson" else Moments
            count = sum(key.startswith(f"{name}/") for key in kept) // len(kind._fields)
            notes[:] = [kind(*(kept[f"{name}/{index}/{field}"] for field in kind._fields)) for index in range(count)]

    def _learners(self) -> list[tuple[str, nn.Sequential, torch.optim.Adam]]:
        return [("policy", self._policy, self._improve), ("critic", self._critic.network, self._critic.optimiser)]

    def _notes(self) -> list[tuple[str, list[Any]]]:
        return [("lesson", self._lessons), ("peril", self._perils)]

    def _act(self, x: Tensor, draw: Tensor) -> Tensor:
        said: Tensor = self._policy(x)
        return torch.tanh(said + self._config.noise * draw)

    def _see(self, z: Tensor, state: Tensor) -> Tensor:
        return (select_features(self._model.features, z, self._memory, state) - self._mean) @ self._matrix

    def _worth(self, told: Prediction) -> tuple[Tensor, Tensor]:
        """Return what the steps are worth that M foretells, and the probability that the episode ends there, (B,) each."""
        config = self._config
        worth = hazard = torch.zeros(len(told.latent.mean))
        if told.reward is not None:
            worth = worth + config.reward_weight * told.reward
        if told.event is not None and config.drought_cost:
            worth = worth - config.drought_cost * (-DROUGHT_STEPS * F.softplus(told.event)).exp()
        if told.done is not None:
            hazard = torch.sigmoid(told.done)
            worth = worth - config.hazard_cost * hazard
        return worth, hazard

    def _play(self, draw: torch.Generator, fresh: Iterator[int]) -> Played:
        """Play ``num_steps`` steps in every lane."""
        config, world = self._config, self._world
        lanes, memory = config.num_envs, self._memory
        place = torch.arange(lanes)  # the lane in which each of the world's lanes is noted
        earned, begins, returns = torch.zeros(lanes), torch.ones(lanes, dtype=torch.bool), list[float]()
        world.keep(torch.zeros(0, dtype=torch.int64))
        seeds, again = (list(column) for column in zip(*(self._next(fresh, draw) for _ in range(lanes)), strict=True))
        world.start(seeds)
        steps: list[tuple[Tensor, ...]] = []
        ends: list[Tensor] = []
        seen = world.latents().float(), world.state()
        for number in range(config.num_steps):
            order = torch.empty_like(place)
            order[place] = torch.arange(lanes)  # from here on in the order in which lanes are noted
            z, state = (part[order] for part in seen)
            x = self._see(z, state)
            actions = self._act(x, torch.randn(lanes, world.action_size, generator=draw))
            step = world.step(actions[place])
            after = world.latents().float(), world.state()
            z_after, state_after = (part[order] for part in after)
            worth, _ = self._worth(memory.predict(memory.outputs(state_after)[:, None]).step(0))
            reward, terminal, truncated = step.reward[order], step.terminal[order], step.truncated[order]
            earned += reward
            lost = terminal & (earned < (self._game.won or torch.inf))
            over = terminal | truncated
            steps.append((z, state, begins, x.half(), worth - config.loss_cost * lost, lost, over))
            edge = over | (number == config.num_steps - 1)
            ends.append(self._see(z_after, state_after)[edge].half())
            begins = over
            if bool(over.any()):
                stay, gone = torch.nonzero(~over[place]).flatten(), torch.nonzero(over).flatten()
                for lane in gone.tolist():
                    returns += [] if again[lane] else [float(earned[lane])]
                    self._note(seeds[lane], lost=bool(lost[lane]), draw=draw)
                    seeds[lane], again[lane] = self._next(fresh, draw)
                earned[over] = 0
                world.keep(stay)
                world.start([seeds[lane] for lane in gone.tolist()])
                place = torch.cat([place[stay], gone])
                after = world.latents().float(), world.state()
            seen = after
        *moments, x, worth, lost, over = (torch.stack(part) for part in zip(*steps, strict=True))
        return Played(Moments(*moments), Lesson(x, torch.cat(ends), worth, lost, over), returns)

    def _next(self, fresh: Iterator[int], draw: torch.Generator) -> tuple[int, bool]:
        """Return an episode to play, and whether it is one that was lost before."""
        again, which = torch.rand(2, generator=draw).tolist()
        if self._hard and again < self._config.replay_share:
            return self._hard[int(which * len(self._hard))], True
        return next(fresh), False

    def _note(self, episode: int, *, lost: bool, draw: torch.Generator) -> None:
        """Note how an episode ended."""
        forget = float(torch.rand(1, generator=draw)) < FORGOTTEN
        if lost and episode not in self._hard:
            self._hard = [*self._hard, episode][-HARDEST:]
        elif not lost and forget and episode in self._hard:
            self._hard.remove(episode)

    def _update(self, moments: Moments, dangers: Moments, draw: torch.Generator) -> None:
        """Let M dream from states of the game, and let C follow the gradient of what that is worth."""
        config, memory = self._config, self._memory
        count = int(config.peril_share * BATCH) if len(dangers.restart) else 0
        usual = torch.randint(len(moments.restart), (BATCH - count,), generator=draw)
        rare = torch.randint(max(1, len(dangers.restart)), (count,), generator=draw)
        z, state, restart = (torch.cat([part[usual], danger[rare]]) for part, danger in zip(moments, dangers, strict=True))
        alive, total = torch.ones(BATCH), torch.zeros(BATCH)
        x = self._see(z, state)
        for _ in range(HORIZON):
            actions = self._act(x, torch.randn(BATCH, memory.action, generator=draw))
            uniform = torch.rand(BATCH, memory.latent, generator=draw)
            normal = torch.randn(BATCH, memory.latent, generator=draw)
            z, state, told = memory.dream(z, actions, restart, state, uniform, normal, 1.0)
            z.register_hook(tame)
            state.register_hook(self._tame_parts)
            worth, hazard = self._worth(told)
            total = total + alive * worth
            alive = alive * config.discount * (1 - hazard)
            restart = torch.zeros_like(restart)
            x = self._see(z, state)
        loss = -(total + alive * self._critic.value(x)).mean()
        self._improve.zero_grad()
        loss.backward()
        self._improve.step()

    def _tame_parts(self, gradient: Tensor) -> Tensor:
        """Tame the gradient (B, N) of M's state, each part by its own scale."""
        return torch.cat([tame(part) for part in gradient.split(self._memory.parts, 1)], 1)


def perilous(lost: Tensor, over: Tensor, patience: int) -> Tensor:
    """Return which states (T, B) of a collection led to a loss or followed it.

    Args:
        lost: (T, B) bool, where episodes are lost.
        over: (T, B) bool, where they end.
        patience: steps before that end at which it was decided.

    >>> lost = torch.zeros(200, 1, dtype=torch.bool)
    >>> lost[[60, 180]] = True
    >>> torch.nonzero(perilous(lost, lost, patience=40))[[0, 40, 41, -1], 0].tolist()
    [0, 40, 61, 160]
    """
    found = torch.zeros_like(lost)
    for step, lane in torch.nonzero(lost).tolist():
        begins = int(over[:step, lane].nonzero().max()) + 1 if bool(over[:step, lane].any()) else 0
        decided = step - patience
        found[max(begins, decided - BEFORE) : max(begins, min(step, decided + BEHIND) + 1), lane] = True
    return found


def tame(gradient: Tensor) -> Tensor:
    """Return gradients (B, N) of a batch of dreams with outliers cut to ``OUTLIER`` times the quantile ``TAMED``.

    >>> tame(torch.tensor([[1.0]] * 19 + [[50.0]])).max().item()
    2.0
    """
    size = gradient.norm(dim=1, keepdim=True)
    most = OUTLIER * torch.quantile(size, TAMED)
    return gradient * (most / size.clamp(min=1e-30)).clamp(max=1)
