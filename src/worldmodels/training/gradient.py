"""C by value gradients: the game says where C gets to and what that is worth, M how it depends on what C does.

From states that C has reached in the game, M dreams a few steps on, and a critic that has learned in the game says what the
rest is worth. All of it is differentiable in the actions, so C follows the gradient itself, where PPO has to guess it from
returns (SVG, Heess et al. 2015; short dreams from real states, Janner et al. 2019). Nothing is learned of long dreams, so
there are none to exploit.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodels.engine.features import select_features
from worldmodels.engine.world import World
from worldmodels.errors import ParamsError
from worldmodels.models.controller import ControllerConfig, first_layer
from worldmodels.models.memory import Memory, MemoryState, Prediction
from worldmodels.training.controller import Generation
from worldmodels.training.phases import GradientPhase

CRITIC_UNITS, CRITIC_BATCH, CRITIC_RATE, SWEEPS = 128, 1024, 1e-3, 2
"""The critic: units of its two layers, steps of an update, Adam's learning rate, and how often its targets are made anew."""
TRACE = 0.95
"""lambda of the critic's targets (Sutton & Barto 2018, section 12.1)."""
SCALE = 10.0
"""What the critic's output is in units of."""
COLOURED = 48
"""Principal components of the features that are as good as white to C; those behind are the smaller the less they vary."""
TAMED, OUTLIER = 0.9, 2.0
"""A dream's gradient at a step is cut to ``OUTLIER`` times this quantile of its batch: some dreams are chaotic."""


class Whitening(NamedTuple):
    """Coordinates of the features in which gradients go straight: x = (f - mean) @ matrix, (F,) and (F, F) float64."""

    mean: np.ndarray
    matrix: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Whitening":
        """Return those of some features (N, F)."""
        mean = features.mean(0)
        centred = features - mean
        variances, directions = np.linalg.eigh(centred.T @ centred / len(features))
        variances, directions = variances[::-1].clip(min=0), directions[:, ::-1]
        floor = variances[min(COLOURED, len(variances) - 1)] + 1e-6 * variances[0]
        strongest = np.abs(directions).argmax(0)
        directions = directions * np.sign(directions[strongest, np.arange(len(mean))])
        return cls(mean, directions / np.sqrt(variances + floor))

    def enter(self, parameters: np.ndarray, units: int) -> np.ndarray:
        """Return a C with biases, (N,) float64, whose first layer has so many units, in these coordinates."""
        end = units * len(self.mean)
        weight, rest = parameters[:end].reshape(units, -1), parameters[end:].copy()
        rest[:units] += weight @ self.mean
        return np.concatenate([np.linalg.solve(self.matrix, weight.T).T.ravel(), rest])

    def leave(self, parameters: np.ndarray, units: int) -> np.ndarray:
        """Return such a C as it reads the features themselves.

        >>> white = Whitening.of(np.random.default_rng(0).normal(size=(50, 3)))
        >>> c = np.arange(8.0)
        >>> np.allclose(white.leave(white.enter(c, 2), 2), c)
        True
        """
        end = units * len(self.mean)
        weight, rest = parameters[:end].reshape(units, -1) @ self.matrix.T, parameters[end:].copy()
        rest[:units] -= weight @ self.mean
        return np.concatenate([weight.ravel(), rest])


class Played(NamedTuple):
    """A collection: T steps of B lanes, (T, B, ...); where no step follows, the next episode of the lane begins.

    Attributes:
        z: latents.
        h: M's state before them.
        c: the same.
        restart: whether the episode begins, bool.
        x: C's features, white.
        after: those of the state that the step led to.
        worth: what it was worth.
        lost: whether the episode ended there, bool.
        over: whether it ended there or was cut off.
    """

    z: Tensor
    h: Tensor
    c: Tensor
    restart: Tensor
    x: Tensor
    after: Tensor
    worth: Tensor
    lost: Tensor
    over: Tensor


class ValueGradients:
    """Value gradients for one C; a ``Learner``.

    Each generation begins with new episodes and its own random numbers: it depends on ``state`` and its number alone.

    Args:
        phase: the settings.
        model: the shape of C, which must have biases.
        world: the game with the features ``zch``, without lanes; this one owns it from now on.
        memory: M, as the world reads it.
        start: parameters of C, (N,).
        features: what C has seen, (N, F), to measure it by.
        seed: of the critic's first weights and of all noise; the seed of generation g is ``seed(g)``.
        episodes: the episodes of generation g, ``episodes(g)``.

    Raises:
        ParamsError: M foretells no events for the drought, or no ends for the risk.
    """

    def __init__(
        self,
        phase: GradientPhase,
        model: ControllerConfig,
        world: World,
        memory: Memory,
        start: np.ndarray,
        features: np.ndarray,
        *,
        seed: Callable[[int], int],
        episodes: Callable[[int], Iterator[int]],
    ) -> None:
        if phase.drought and memory.config.reward != "event":
            raise ParamsError("gradient.drought is told by M's event head: set memory.model.reward: event, or drought: 0.")
        if phase.risk and not memory.config.done:
            raise ParamsError("gradient.risk is told by M's done head: set memory.model.done: true, or risk: 0.")
        self._phase, self._model, self._world, self._seed, self._episodes = phase, model, world, seed, episodes
        self._memory = deepcopy(memory).requires_grad_(requires_grad=False)
        self._white = Whitening.of(features)
        self._mean, self._matrix = (torch.from_numpy(part).float() for part in self._white)
        inputs = features.shape[1]
        self._policy = _perceptron([inputs, model.hidden, world.action_size] if model.hidden else [inputs, world.action_size])
        nn.utils.vector_to_parameters(
            torch.from_numpy(self._white.enter(start.astype(np.float64), self._units)).float(), self._policy.parameters()
        )
        self._critic = _perceptron([inputs, CRITIC_UNITS, CRITIC_UNITS, 1])
        draw = torch.Generator().manual_seed(seed(-1) % 2**63)
        for parameter in self._critic.parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter, generator=draw)
            else:
                nn.init.zeros_(parameter)
        self._improve = torch.optim.Adam(self._policy.parameters(), phase.learning_rate)
        self._judge = torch.optim.Adam(self._critic.parameters(), CRITIC_RATE)

    @property
    def _units(self) -> int:
        return first_layer(self._model, self._world.action_size)

    def generation(self, number: int) -> Generation:
        """Collect, teach the critic, and improve C."""
        draw = torch.Generator().manual_seed(self._seed(number) % 2**63)
        with torch.inference_mode():
            played, returns = self._play(draw, self._episodes(number))
        played = Played(*(part.clone() for part in played))
        explained = self._learn_values(played, draw)
        if number >= self._phase.critic_generations:
            for group in self._improve.param_groups:
                group["lr"] = self._phase.learning_rate_at(number)
            for _ in range(self._phase.updates):
                self._update(played, draw)
        return Generation(
            parameters=self.parameters,
            returns=returns,
            ended=len(returns),
            reward=float(played.worth.mean()),
            steps=played.worth.numel(),
            noise=self._phase.noise,
            explained=explained,
        )

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
        kept: dict[str, Tensor] = {}
        for name, part, optimiser in self._learners():
            kept |= {f"{name}.{key}": value.clone() for key, value in part.state_dict().items()}
            for index, moments in optimiser.state_dict()["state"].items():
                kept |= {f"{name}.optimizer.{index}.{key}": value.clone() for key, value in moments.items()}
        return kept

    @state.setter
    def state(self, kept: dict[str, Tensor]) -> None:
        for name, part, optimiser in self._learners():
            mine = {key.removeprefix(f"{name}."): value for key, value in kept.items() if key.startswith(f"{name}.")}
            part.load_state_dict({key: value for key, value in mine.items() if not key.startswith("optimizer.")})
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in mine.items():
                if key.startswith("optimizer."):
                    _, index, moment = key.split(".")
                    moments.setdefault(int(index), {})[moment] = value
            optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})

    def _learners(self) -> list[tuple[str, nn.Sequential, torch.optim.Adam]]:
        return [("policy", self._policy, self._improve), ("critic", self._critic, self._judge)]

    def _act(self, x: Tensor, draw: Tensor) -> Tensor:
        said: Tensor = self._policy(x)
        return torch.tanh(said + self._phase.noise * draw)

    def _see(self, z: Tensor, state: MemoryState) -> Tensor:
        return (select_features(self._model.features, z, state) - self._mean) @ self._matrix

    def _value(self, x: Tensor) -> Tensor:
        value: Tensor = self._critic(x)
        return value[..., 0] * SCALE

    def _worth(self, told: Prediction) -> tuple[Tensor, Tensor]:
        """Return what the steps (B, 1) are worth that M foretells, and the probability that the episode ends there, (B,)."""
        phase = self._phase
        worth = hazard = torch.zeros(len(told.latent.mean))
        if told.reward is not None:
            worth = worth + phase.pay * told.reward[:, 0]
        if told.event is not None and phase.drought:
            worth = worth - phase.drought * (-phase.drought_steps * F.softplus(told.event[:, 0])).exp()
        if told.done is not None:
            hazard = torch.sigmoid(told.done[:, 0])
            worth = worth - phase.risk * hazard
        return worth, hazard

    def _play(self, draw: torch.Generator, seeds: Iterator[int]) -> tuple[Played, list[float]]:
        """Play ``limit`` steps in every lane; return them, and what the episodes that ended have earned."""
        phase, world = self._phase, self._world
        lanes, latent, hidden = phase.lanes, self._memory.latent, self._memory.config.hidden
        place = torch.arange(lanes)  # the lane in which each of the world's lanes is noted
        earned, begins, returns = torch.zeros(lanes), torch.ones(lanes, dtype=torch.bool), list[float]()
        world.keep(torch.zeros(0, dtype=torch.int64))
        world.start([next(seeds) for _ in range(lanes)])
        steps: list[Played] = []
        seen = world.features().float()
        for _ in range(phase.limit):
            order = torch.empty_like(place)
            order[place] = torch.arange(lanes)  # from here on in the order in which lanes are noted
            z, c, h = seen[order].split([latent, hidden, hidden], 1)
            x = self._see(z, MemoryState(h, c))
            actions = self._act(x, torch.randn(lanes, world.action_size, generator=draw))
            step = world.step(actions[place])
            after = world.features().float()
            z_after, c_after, h_after = after[order].split([latent, hidden, hidden], 1)
            worth, _ = self._worth(self._memory.predict(h_after[:, None]))
            reward, terminal, truncated = step.reward[order], step.terminal[order], step.truncated[order]
            earned += reward
            lost = terminal & (earned < (phase.goal or torch.inf))
            over = terminal | truncated
            x_after = self._see(z_after, MemoryState(h_after, c_after))
            steps.append(Played(z, h, c, begins, x, x_after, worth - phase.loss * lost, lost, over))
            begins = over
            if bool(over.any()):
                returns += earned[over].tolist()
                earned[over] = 0
                stay = torch.nonzero(~over[place]).flatten()
                fresh = torch.nonzero(over).flatten()
                world.keep(stay)
                world.start([next(seeds) for _ in fresh])
                place = torch.cat([place[stay], fresh])
                after = world.features().float()
            seen = after
        return Played(*(torch.stack(part) for part in zip(*steps, strict=True))), returns

    def _learn_values(self, played: Played, draw: torch.Generator) -> float:
        """Fit the critic to lambda-returns; return the share of their variance that it foresees."""
        phase = self._phase
        steps = len(played.worth)
        x = played.x.flatten(0, 1)
        wanted = torch.zeros_like(played.worth)
        for _ in range(SWEEPS):
            with torch.no_grad():
                after = self._value(played.after)
                following = after[-1]
                for t in range(steps - 1, -1, -1):
                    onward = torch.where(played.over[t], after[t], (1 - TRACE) * after[t] + TRACE * following)
                    following = played.worth[t] + phase.discount * torch.where(played.lost[t], 0.0, onward)
                    wanted[t] = following
            y = wanted.flatten()
            for _ in range(phase.epochs):
                for rows in torch.randperm(len(x), generator=draw).split(CRITIC_BATCH):
                    loss = F.smooth_l1_loss(self._value(x[rows]) / SCALE, y[rows] / SCALE)
                    self._judge.zero_grad()
                    loss.backward()
                    self._judge.step()
        with torch.no_grad():
            return float(1 - (self._value(x) - y).var() / y.var().clamp(min=1e-12))

    def _update(self, played: Played, draw: torch.Generator) -> None:
        """Let M dream from states of the game, and let C follow the gradient of what that is worth."""
        phase, memory = self._phase, self._memory
        steps, lanes = played.worth.shape
        rows = torch.randint(steps * lanes, (phase.batch,), generator=draw)
        z, h, c, restart = (part.flatten(0, 1)[rows] for part in (played.z, played.h, played.c, played.restart))
        state, alive, total = MemoryState(h, c), torch.ones(phase.batch), torch.zeros(phase.batch)
        x = self._see(z, state)
        for _ in range(phase.horizon):
            actions = self._act(x, torch.randn(phase.batch, memory.action, generator=draw))
            prediction, _, state = memory(z[:, None], actions[:, None], restart[:, None], state)
            latent = type(prediction.latent)(*(field[:, 0] for field in prediction.latent))
            uniform = torch.rand(phase.batch, memory.latent, generator=draw)
            z = latent.sample(uniform, torch.randn(phase.batch, memory.latent, generator=draw), 1.0)
            for part in (z, *state):
                part.register_hook(tame)
            worth, hazard = self._worth(prediction)
            total = total + alive * worth
            alive = alive * phase.discount * (1 - hazard)
            restart = torch.zeros_like(restart)
            x = self._see(z, state)
        loss = -(total + alive * self._value(x)).mean()
        self._improve.zero_grad()
        loss.backward()
        self._improve.step()


def tame(gradient: Tensor | None) -> Tensor | None:
    """Return gradients (B, N) of a batch of dreams with those of outliers cut to ``OUTLIER`` times the quantile ``TAMED``.

    None, where nothing depends on what it would be the gradient of, stays None.

    >>> tame(torch.tensor([[1.0]] * 19 + [[50.0]])).max().item()
    2.0
    """
    if gradient is None:
        return None
    size = gradient.norm(dim=1, keepdim=True)
    most = OUTLIER * torch.quantile(size, TAMED)
    return gradient * (most / size.clamp(min=1e-30)).clamp(max=1)


def _perceptron(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1])
