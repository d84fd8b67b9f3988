"""Training C: phases of CMA-ES, in the dream or in reality, and the choice of the controller that is kept."""

import math
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from worldmodels.errors import WorldModelsError
from worldmodels.models.controller import ControllerConfig, parameter_count
from worldmodels.params import Config
from worldmodels.seeds import Purpose, episode_seeds, stream_seed
from worldmodels.storage.checkpoint import Checkpoint
from worldmodels.training.arena import Arena
from worldmodels.training.basis import Basis
from worldmodels.training.evolution import Evolution, EvolutionConfig
from worldmodels.training.fit import Observe, Row

START = -1
"""Generation of the C that a search begins with."""


class MomentsConfig(Config):
    """Dreams that begin in the middle of real play.

    Attributes:
        share: of all dreams of the phase; the others begin at first frames.
        random_play: so it is too where no agent has played yet. Else all dreams begin at first frames then: random play may be
            where no agent wants to be, as a car off its road.
        context: steps that M reads before such a dream.
        newest: frames, at the end of the data, among which the moments lie: what the latest agents saw.
    """

    share: float = Field(ge=0, le=1)
    random_play: bool
    context: int = Field(ge=1, le=1_000_000)
    newest: int = Field(ge=1, le=1_000_000_000)


class DreamPhase(Config):
    """A stretch of CMA-ES in the dream, where a generation is played at once.

    Attributes:
        generations: how many; 0 leaves the dream out.
        rollouts: E, dreams that each candidate is judged on.
        limit: most steps of a dream.
        temperature: tau.
        survival: above 0, candidates are judged by their expected returns instead of sampled deaths (``DreamWorld``), down to
            this probability of being alive.
        goal: above 0, sum of rewards, without what every step costs, at which a dream is over (``DreamWorld``).
        moments: where dreams begin, beside first frames.
    """

    generations: int = Field(ge=0, le=100_000)
    rollouts: int = Field(ge=1, le=10_000)
    limit: int = Field(ge=1, le=1_000_000)
    temperature: float = Field(gt=0, le=10)
    survival: float = Field(ge=0, lt=1)
    goal: float = Field(ge=0, le=1e9)
    moments: MomentsConfig


class RealPhase(Config):
    """A stretch of CMA-ES in the game.

    Attributes:
        generations: how many; 0 leaves the game out.
        rollouts: E, episodes that each candidate is judged on.
        limit: most steps of an episode.
        lanes: most games at a time.
        patience: steps without a reward above 0 after which an episode ends (``PatientWorld``); 0: none does.
        sigma: first step size. Episodes of a game are few and their returns far apart: around a C that can play already, small
            steps lose less.
    """

    generations: int = Field(ge=0, le=100_000)
    rollouts: int = Field(ge=1, le=10_000)
    limit: int = Field(ge=1, le=1_000_000)
    lanes: int = Field(ge=1, le=4096)
    patience: int = Field(ge=0, le=1_000_000)
    sigma: float = Field(gt=0, le=10)


class PPOPhase(Config):
    """A stretch of PPO (Schulman et al. 2017), from the mean where the search before it ended.

    Its critic says what the rest of an episode is worth, so that short dreams need not be short-sighted.

    Attributes:
        world: the game, or the dream, at the ``dream`` phase's temperature and from its starts.
        generations: collections, each followed by its updates; 0 leaves PPO out.
        critic_generations: the first so many train the critic alone, so that an untrained one does not spoil C.
        lanes: games at a time.
        limit: steps of a collection in every lane; it begins with new episodes, and those that end are followed by others.
        patience: in the game, ``RealPhase``'s.
        epochs: passes over a collection.
        batch: steps of an update.
        learning_rate: of Adam.
        discount: gamma.
        noise: standard deviation of an action before its tanh, at the start.
        risk: above 0, C is not paid for living but pays this much times M's probability of an end, step by step, as M dreams
            (``DreamWorld``) or reads the game (``RealWorld``): a sharper signal than deaths are.
    """

    world: Literal["dream", "real"]
    generations: int = Field(ge=0, le=100_000)
    critic_generations: int = Field(ge=0, le=100_000)
    lanes: int = Field(ge=1, le=4096)
    limit: int = Field(ge=2, le=1_000_000)
    patience: int = Field(ge=0, le=1_000_000)
    epochs: int = Field(ge=1, le=1000)
    batch: int = Field(ge=2, le=1_000_000)
    learning_rate: float = Field(gt=0, le=1)
    discount: float = Field(gt=0, lt=1)
    noise: float = Field(gt=0, le=10)
    risk: float = Field(default=0.0, ge=0, le=1e6)

    @model_validator(mode="after")
    def _risk_or_patience(self) -> "PPOPhase":
        if self.risk and self.patience:
            raise ValueError("risk pays no rewards that a patience could wait for: set one of them to 0")
        return self


class SelectionConfig(Config):
    """Which mean of the search is kept: judged on real selection episodes, never on test episodes.

    Attributes:
        episodes: real episodes a contestant; 0 keeps the last mean without playing.
        every: the mean of every so many generations is a contestant; the last always is, and so is the C that the search
            began with, where it is an earlier iteration's: a dream that misleads costs no more than the round.
        limit: most steps of an episode.
        lanes: most games at a time.
    """

    episodes: int = Field(ge=0, le=10_000)
    every: int = Field(ge=1, le=100_000)
    limit: int = Field(ge=1, le=1_000_000)
    lanes: int = Field(ge=1, le=4096)


class ControllerTraining(Config):
    """The ``controller`` section of an environment.

    Attributes:
        model: shape of C.
        evolution: the search.
        dream: the search in the dream.
        real: the search in the game, from the mean where the one in the dream ended.
        ppo: what follows it, without a search.
        selection: what is kept.
        warm_start: begin at the C of the previous iteration where there is one and its shape is the same; where V is another,
            at the C nearest to it (``training.carry``).
    """

    model: ControllerConfig
    evolution: EvolutionConfig
    dream: DreamPhase
    real: RealPhase
    ppo: PPOPhase
    selection: SelectionConfig
    warm_start: bool

    @model_validator(mode="after")
    def _risk_is_told(self) -> "ControllerTraining":
        if self.ppo.risk and self.ppo.world == "real" and self.model.features == "z":
            raise ValueError("ppo.risk is told by M: in the game it needs features with h (zh, zch)")
        return self

    @property
    def generations(self) -> int:
        """Generations of all phases."""
        return self.dream.generations + self.real.generations + self.ppo.generations

    @model_validator(mode="after")
    def _searches(self) -> "ControllerTraining":
        if not self.generations:
            raise ValueError("dream, real and ppo all have 0 generations: C would learn nothing")
        return self


class Generation(NamedTuple):
    """What a generation of PPO gave.

    Attributes:
        parameters: C after it, (N,) float64.
        returns: of the episodes that ended in it; where few do, short ones are overrepresented.
        reward: mean of a step.
        steps: played.
        noise: standard deviation of the actions before their tanh.
        explained: share of the variance of the returns that the critic foresaw.
    """

    parameters: np.ndarray
    returns: list[float]
    reward: float
    steps: int
    noise: float
    explained: float


class Found(NamedTuple):
    """What a search for C gave.

    Attributes:
        parameters: C, (N,) float32.
        rejected: the means of the search that were contestants and not kept, (K, N) float32, in the order of their generations.
        curve: a row a generation, then one a contestant.
    """

    parameters: Tensor
    rejected: Tensor
    curve: list[Row]


class Learner(Protocol):
    """Improves one C by generations, in the order of their numbers.

    Attributes:
        state: all that the next generation depends on.
    """

    state: dict[str, Tensor]

    def generation(self, number: int) -> Generation:
        """Collect, and update."""
        ...


OpenArena = Callable[[DreamPhase | RealPhase | SelectionConfig], Arena]
OpenLearner = Callable[[np.ndarray | None], Learner]
"""From parameters of C, (N,); None for zeros."""


def train_controller(
    config: ControllerTraining,
    open_arena: OpenArena,
    start: np.ndarray | None,
    directions: np.ndarray | None = None,
    *,
    seed: int,
    stream: str,
    generations: Iterable[int],
    observe: Observe,
    checkpoint: Checkpoint | None = None,
    open_learner: OpenLearner | None = None,
) -> Found:
    """Search for C.

    Args:
        config: the section.
        open_arena: opens the place to play of a phase, or the real one of the selection.
        start: parameters (N,) to begin at; None for zeros.
        directions: (K, F), along which the weights on the features are searched, from where a phase begins; None: along each
            feature.
        seed: of the search.
        stream: names this search's training episodes.
        generations: 0 .. all generations - 1, possibly wrapped to show progress.
        observe: called with metrics and the number of the generation.
        checkpoint: saved now and then; where it holds fitness values, their generations are not played again: the search
            depends on its seed and the fitness alone.
        open_learner: gives what improves C without a search; needed where ``config.ppo`` has generations.
    """
    curve: list[Row] = []
    means: list[np.ndarray] = []
    saved, values = checkpoint.load() if checkpoint else ({}, {})
    told: list[list[float]] = values.get("fitness", [])
    counter = iter(generations)
    phases: dict[str, DreamPhase | RealPhase] = {"dream": config.dream, "real": config.real}
    for world, phase in phases.items():
        if not phase.generations:
            continue
        arena = open_arena(phase)
        try:
            basis = Basis(np.eye(arena.feature_size) if directions is None else directions, config.model, arena.action_size)
            size = parameter_count(config.model, arena.feature_size, arena.action_size)
            begin = means[-1] if means else np.zeros(size) if start is None else start
            sigma = phase.sigma if isinstance(phase, RealPhase) else config.evolution.sigma
            search = Evolution(config.evolution, sigma, np.zeros(basis.size), stream_seed(seed, world))
            for _ in range(phase.generations):
                generation = next(counter)
                candidates = begin + basis.expand(search.ask())
                if generation == len(told):
                    told.append(_fitness(candidates, phase, arena, config, stream, generation))
                fitness, steps = np.array(told[generation][:-1]), int(told[generation][-1])
                search.tell(fitness)
                curve.append(_row(generation, world, fitness, steps, sigma=search.sigma))
                means.append(begin + basis.expand(search.mean[None])[0])
                if checkpoint and checkpoint.due():
                    checkpoint.save({}, {"fitness": told})
                observe(_metrics(curve[-1]), len(means))
        finally:
            arena.close()
    if config.ppo.generations and open_learner:
        learner = open_learner(means[-1] if means else start)
        if "learned" in saved:
            learned = saved.pop("learned")
            learner.state = saved
            means += list(learned.numpy())
            curve += values["learned"]
            for _ in learned:
                next(counter)
        for number in range(len(means) - len(told), config.ppo.generations):
            result = learner.generation(number)
            curve.append(
                _row(
                    len(means),
                    "ppo",
                    np.array(result.returns),
                    result.steps,
                    ended=len(result.returns),
                    reward=result.reward,
                    noise=result.noise,
                    explained=result.explained,
                )
            )
            means.append(result.parameters)
            if checkpoint and checkpoint.due():
                learned = torch.from_numpy(np.stack(means[len(told) :]))
                checkpoint.save(learner.state | {"learned": learned}, {"fitness": told, "learned": curve[len(told) :]})
            observe(_metrics(curve[-1]), len(means))
            next(counter)
    next(counter, None)
    kept, rejected, rows = _select(config, means, start, open_arena, stream)
    return Found(kept, rejected, curve + rows)


def _fitness(
    candidates: np.ndarray,
    phase: DreamPhase | RealPhase,
    arena: Arena,
    config: ControllerTraining,
    stream: str,
    generation: int,
) -> list[float]:
    """Play a generation; return the fitness of every candidate, and behind them the steps that this took."""
    purpose: Purpose = "dream" if isinstance(phase, DreamPhase) else "evolution"
    stream = f"{stream}/{config.evolution.seed}"
    seeds = episode_seeds(purpose, phase.rollouts, stream=stream, start=generation * phase.rollouts)
    lanes = phase.lanes if isinstance(phase, RealPhase) else None
    returns = arena.play(config.model, candidates, seeds, lanes)
    if not np.isfinite(returns.total).all():
        raise WorldModelsError(
            f"a return of generation {generation} is not a number: M or C grew beyond bounds. Lower "
            f"`sigma` of controller.evolution (now {config.evolution.sigma:g}) or of controller.real, or "
            "memory.optimiser.learning_rate."
        )
    return [*returns.total.mean(1).tolist(), returns.steps]


def _row(generation: int, phase: str, returns: np.ndarray, steps: int, **others: float) -> Row:
    """Return a generation's row of the curve; returns of candidates, or of episodes."""
    summary = {"best": float(returns.max()), "mean": float(returns.mean()), "std": float(returns.std())} if len(returns) else {}
    return {"generation": generation, "phase": phase, **summary, **others, "steps": steps}


def _metrics(row: Row) -> dict[str, float]:
    return {f"{row['phase']}/{name}": float(value) for name, value in row.items() if name not in ("generation", "phase")}


def _contestants(config: ControllerTraining, means: list[np.ndarray], start: np.ndarray | None) -> dict[int, np.ndarray]:
    """Return the parameters that may be kept, by their generation; without a selection, the last mean alone."""
    every, last = config.selection.every, len(means) - 1
    if not config.selection.episodes:
        return {last: means[last]}
    return ({} if start is None else {START: start}) | {i: means[i] for i in (*range(every - 1, last, every), last)}


def _select(
    config: ControllerTraining,
    means: list[np.ndarray],
    start: np.ndarray | None,
    open_arena: OpenArena,
    stream: str,
) -> tuple[Tensor, Tensor, list[Row]]:
    """Return the contestant that is best in the game, the others but ``start``, which is generation -1, and a row for each."""
    contestants = _contestants(config, means, start)
    kept, rows = next(iter(contestants)), list[Row]()
    if len(contestants) > 1:
        arena = open_arena(config.selection)
        try:
            seeds = episode_seeds("selection", config.selection.episodes, stream=stream)
            returns = arena.play(config.model, np.stack(list(contestants.values())), seeds, config.selection.lanes)
        finally:
            arena.close()
        score = returns.total.mean(1)
        kept = list(contestants)[int(score.argmax())]
        rows = [
            {"generation": generation, "phase": "selection", "mean": mean, "std": std, "stderr": std / math.sqrt(len(seeds))}
            for generation, mean, std in zip(contestants, score.tolist(), returns.total.std(1).tolist(), strict=True)
        ]
    rejected = [each for generation, each in contestants.items() if generation not in (kept, START)]
    stack = np.array(rejected, np.float32).reshape(len(rejected), len(contestants[kept]))
    return torch.from_numpy(contestants[kept].astype(np.float32)), torch.from_numpy(stack), rows
