"""Training C: phases of CMA-ES, in the dream or in reality, and the choice of the controller that is kept."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor

from worldmodels.errors import WorldModelsError
from worldmodels.controller.model import ControllerConfig, parameter_count
from worldmodels.params import Config
from worldmodels.seeds import Purpose, episode_seeds, stream_seed
from worldmodels.storage.checkpoint import Checkpoint
from worldmodels.controller.arena import Arena
from worldmodels.controller.phases.basis import Basis
from worldmodels.controller.phases.cmaes import Evolution, EvolutionConfig
from worldmodels.learning.fit import Observe, Row
from worldmodels.controller.phases.config import DreamPhase, GradientPhase, LearnerPhase, PPOPhase, RealPhase
from worldmodels.controller.selection import SelectionConfig, choose

START = -1
"""Generation of the C that a search begins with."""


class ControllerTraining(Config):
    """The ``controller`` section of an environment.

    Attributes:
        model: shape of C.
        evolution: the search.
        dream: the search in the dream.
        real: the search in the game, from the mean where the one in the dream ended.
        ppo: what follows it, without a search.
        gradient: the same, by M's derivatives instead; one of the two.
        selection: what is kept.
        games: what is played in the game, to learn and to select, is played on the back end that trains, which may be faster,
            or on the one that scores.
        warm_start: begin at the C of the previous iteration where there is one and its shape is the same; where V is another,
            at the C nearest to it (``training.carry``).
    """

    model: ControllerConfig
    evolution: EvolutionConfig
    dream: DreamPhase
    real: RealPhase
    ppo: PPOPhase
    gradient: GradientPhase
    selection: SelectionConfig
    games: Literal["training", "scoring"]
    warm_start: bool

    @model_validator(mode="after")
    def _learns_one_way(self) -> "ControllerTraining":
        if self.ppo.generations and self.gradient.generations:
            raise ValueError("ppo and gradient both have generations: a search has one of them, a trial can go on from another")
        if self.ppo.risk and self.ppo.world == "real" and self.model.features == "z":
            raise ValueError("ppo.risk is told by M: in the game it needs features with h (zh, zch)")
        if self.gradient.generations and not self.model.bias:
            raise ValueError("gradient needs a C with biases: set model.bias: true")
        return self

    @property
    def learning(self) -> LearnerPhase:
        """The phase without a search: PPO, or value gradients."""
        return self.gradient if self.gradient.generations else self.ppo

    @property
    def generations(self) -> int:
        """Generations of all phases."""
        return self.dream.generations + self.real.generations + self.learning.generations * self.learning.runs

    def contests(self, generation: int) -> bool:
        """Return whether C as it is after a generation may be kept: the last, and, if there is a choice, some before it."""
        if generation == self.generations - 1 or not self.selection.episodes:
            return generation == self.generations - 1
        learned = generation + 1 - self.dream.generations - self.real.generations
        ends_a_run = learned > 0 and learned % self.learning.generations == 0
        return (generation + 1) % self.selection.every == 0 or ends_a_run

    @model_validator(mode="after")
    def _searches(self) -> "ControllerTraining":
        if not self.generations:
            raise ValueError("dream, real, ppo and gradient all have 0 generations: C would learn nothing")
        if self.learning.runs > 1 and not self.selection.episodes:
            raise ValueError("ppo.runs and gradient.runs are told apart by the selection: give it episodes")
        return self


class Generation(NamedTuple):
    """What a generation of a learner gave.

    Attributes:
        parameters: C after it, (N,) float64.
        returns: of the episodes that ended in it; where few do, short ones are overrepresented. None where C is paid with
            something that is no return of the game.
        ended: how many did.
        reward: what C is paid for a step, in the mean.
        steps: played.
        noise: standard deviation of the actions before their tanh.
        explained: share of the variance of the returns that the critic foresaw.
    """

    parameters: np.ndarray
    returns: list[float]
    ended: int
    reward: float
    steps: int
    noise: float
    explained: float


class Found(NamedTuple):
    """What a search for C gave.

    Attributes:
        parameters: C, (N,) float32.
        rejected: the contestants from this search that came through the selection's first round and were not kept, (K, N)
            float32, in the order of their generations.
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

    def close(self) -> None:
        """Free what it plays in."""
        ...


OpenArena = Callable[[DreamPhase | RealPhase | SelectionConfig], Arena]
OpenLearner = Callable[[np.ndarray | None, int], Learner]
"""From parameters of C, (N,), or None for first ones, and the number of the run."""


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
        generations: 0 .. all generations - 1 and on, one for every round of the selection, possibly wrapped to show progress.
        observe: called with metrics and the number of the generation.
        checkpoint: saved now and then; where it holds fitness values, their generations are not played again: the search
            depends on its seed and the fitness alone.
        open_learner: gives what improves C without a search; needed where ``config.learning`` has generations.
    """
    search = _Search(config, open_arena, start, seed, stream, iter(generations), observe, checkpoint)
    found = start
    phases: dict[str, DreamPhase | RealPhase] = {"dream": config.dream, "real": config.real}
    for world, phase in phases.items():
        if phase.generations:
            found = search.evolve(world, phase, found, directions)
    if config.learning.generations:
        assert open_learner is not None
        search.learn(open_learner, found)
    return search.select()


class _Search:
    """A search under way, and what of it a checkpoint keeps."""

    def __init__(
        self,
        config: ControllerTraining,
        open_arena: OpenArena,
        start: np.ndarray | None,
        seed: int,
        stream: str,
        counter: Iterator[int],
        observe: Observe,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.config, self.open_arena, self.seed, self.stream = config, open_arena, seed, stream
        self.counter, self.observe, self.checkpoint = counter, observe, checkpoint
        self.curve: list[Row] = []
        self.contestants = {} if start is None or not config.selection.episodes else {START: start}
        self.tensors, values = checkpoint.load() if checkpoint else ({}, {})
        self.fitness: list[list[float]] = values.get("fitness", [])
        self.learned: list[Row] = values.get("learned", [])
        self.played: list[list[list[float]]] = values.get("played", [])
        if "contestants" in self.tensors:
            self.contestants |= dict(zip(values["generations"], self.tensors.pop("contestants").numpy(), strict=True))

    def evolve(
        self, world: str, phase: DreamPhase | RealPhase, begin: np.ndarray | None, directions: np.ndarray | None
    ) -> np.ndarray:
        """Search from ``begin``; return the last mean. What of it was played before a checkpoint is not played again."""
        config = self.config
        arena = self.open_arena(phase)
        try:
            basis = Basis(np.eye(arena.feature_size) if directions is None else directions, config.model, arena.action_size)
            origin = np.zeros(parameter_count(config.model, arena.feature_size, arena.action_size)) if begin is None else begin
            sigma = phase.sigma if isinstance(phase, RealPhase) else config.evolution.sigma
            search = Evolution(config.evolution, sigma, np.zeros(basis.size), stream_seed(self.seed, world))
            mean = origin
            for _ in range(phase.generations):
                generation = next(self.counter)
                candidates = origin + basis.expand(search.ask())
                new = generation == len(self.fitness)
                if new:
                    self.fitness.append(_fitness(candidates, phase, arena, config, self.stream, generation))
                *fitness, steps = self.fitness[generation]
                search.tell(np.array(fitness))
                mean = origin + basis.expand(search.mean[None])[0]
                self._after(_row(generation, world, np.array(fitness), int(steps), sigma=search.sigma), mean)
                if new and self.checkpoint and self.checkpoint.due():
                    self._save({})
        finally:
            arena.close()
        return mean

    def learn(self, open_learner: OpenLearner, begin: np.ndarray | None) -> None:
        """Let C learn without a search, in every run, the first from ``begin``; on from where a checkpoint was saved."""
        phase = self.config.learning
        name = "ppo" if isinstance(phase, PPOPhase) else "gradient"
        self.curve += self.learned
        for _ in self.learned:
            next(self.counter)
        learner: Learner | None = None
        for done in range(len(self.learned), phase.generations * phase.runs):
            run, number = divmod(done, phase.generations)
            if learner is None or not number:
                learner = open_learner(None if run else begin, run)
                if number:
                    learner.state = self.tensors
            generation, result = next(self.counter), learner.generation(number)
            told = {"reward": result.reward, "noise": result.noise, "explained": result.explained}
            row = _row(generation, name, np.array(result.returns), result.steps, ended=result.ended, **told)
            self.learned.append(row)
            self._after(row, result.parameters)
            if self.checkpoint and self.checkpoint.due():
                self._save(learner.state)
            if number == phase.generations - 1:
                learner.close()

    def select(self) -> Found:
        """Let the contestants play, where there is a choice."""
        config = self.config
        next(self.counter, None)
        kept, rejected = next(iter(self.contestants)), list[int]()
        if len(self.contestants) > 1:
            seeds = episode_seeds("selection", config.selection.episodes, stream=self.stream)
            arena = self.open_arena(config.selection)
            try:
                kept, rejected, rows = choose(
                    self.contestants,
                    config.selection,
                    config.model,
                    arena,
                    seeds,
                    played=self.played,
                    observe=self._after_round,
                )
            finally:
                arena.close()
            self.curve += rows
        parameters = self.contestants[kept].astype(np.float32)
        others = np.array([self.contestants[each] for each in rejected if each != START], np.float32)
        return Found(torch.from_numpy(parameters), torch.from_numpy(others.reshape(-1, len(parameters))), self.curve)

    def _after(self, row: Row, parameters: np.ndarray) -> None:
        generation = int(row["generation"])
        self.curve.append(row)
        if self.config.contests(generation):
            self.contestants[generation] = parameters
        told = {f"{row['phase']}/{name}": float(value) for name, value in row.items() if name not in ("generation", "phase")}
        self.observe(told, generation)

    def _after_round(self) -> None:
        if self.checkpoint:
            self._save({})
        next(self.counter, None)

    def _save(self, state: Mapping[str, Tensor]) -> None:
        assert self.checkpoint is not None
        found = {generation: each for generation, each in self.contestants.items() if generation != START}
        tensors = {"contestants": torch.from_numpy(np.stack(list(found.values())))} if found else {}
        values = {"fitness": self.fitness, "learned": self.learned, "played": self.played, "generations": list(found)}
        self.checkpoint.save({**state, **tensors}, values)


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
