"""The search for C: its phases one after the other, and the choice of the contestant that is kept."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodels.controller.config import ControllerSection
from worldmodels.controller.phases.base import Context, Learner
from worldmodels.controller.selection import choose
from worldmodels.controller.worlds import Worlds
from worldmodels.learning.fit import Observe, Row
from worldmodels.seeds import episode_seeds
from worldmodels.shapes import Told
from worldmodels.storage.checkpoint import Checkpoint

_SUMMARY: dict[str, Callable[[np.ndarray], Any]] = {"best": np.max, "mean": np.mean, "std": np.std}
START = -1
"""Generation of the C that a search begins with."""


class Found(NamedTuple):
    """What a search for C gave."""

    parameters: Tensor  # C, (N,) float32
    # the contestants of this search that came through the selection's first round and were not kept, (K, N) float32, in the
    # order of their generations
    rejected: Tensor
    curve: list[Row]  # a row a generation, then one a contestant


class Step(NamedTuple):
    """One generation of a search."""

    phase: str  # name of its phase
    run: int  # of the phase
    number: int  # of the generation within the run
    last: bool  # it is the last one of its run


def steps_of(config: ControllerSection) -> list[Step]:
    """Return all generations of a search, in their order."""
    steps = []
    for name in config.order:
        phase = config.phases[name]
        for run in range(phase.repeats):
            steps += [Step(name, run, number, number == phase.per_run - 1) for number in range(phase.per_run)]
    return steps


def contestants_of(config: ControllerSection) -> set[int]:
    """Return the generations whose C may be kept: the last, and, if there is a choice, some before it and the end of each run.

    Generations are numbered through all phases.
    """
    steps, every = steps_of(config), config.selection.every
    last = len(steps) - 1
    if not config.selection.episodes:
        return {last}
    return {last} | {number for number, step in enumerate(steps) if step.last or (every and (number + 1) % every == 0)}


def train_controller(
    config: ControllerSection,
    worlds: Worlds,
    start: np.ndarray | None,
    *,
    seed: int,
    stream: str,
    controller_seed: int,
    generations: Iterable[int],
    observe: Observe,
    choosing: Callable[[int], Told] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Found:
    """Search for C.

    Args:
        config: the section.
        worlds: where C learns.
        start: parameters (N,) to begin at; None for a C that has learned nothing.
        seed: of the project.
        stream: names the search's episodes.
        controller_seed: of the search alone: the same V and M, another C.
        generations: 0 .. all generations - 1, possibly wrapped to show progress.
        observe: called with each row of the curve.
        choosing: called with how many episodes the selection is to play; returns what is told of them.
        checkpoint: saved now and then; a search goes on from it to the same bytes.
    """
    search = _Search(config, worlds, start, iter(generations), observe, checkpoint)
    search.learn(seed, stream, controller_seed)
    return search.select(episode_seeds("selection", config.selection.episodes, stream=stream), choosing)


class _Search:
    """A search that is not finished, and what of it a checkpoint keeps."""

    def __init__(
        self,
        config: ControllerSection,
        worlds: Worlds,
        start: np.ndarray | None,
        counter: Iterator[int],
        observe: Observe,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.config, self.worlds, self.counter, self.observe, self.checkpoint = config, worlds, counter, observe, checkpoint
        self.contestants = {} if start is None or not config.selection.episodes else {START: start}
        self.tensors, values = checkpoint.load() if checkpoint else ({}, {})
        self.curve: list[Row] = values.get("curve", [])
        self.played: list[list[list[float]]] = values.get("played", [])
        self.begin = self.tensors.pop("begin").numpy() if "begin" in self.tensors else start  # where the present phase begins
        if "contestants" in self.tensors:
            self.contestants |= dict(zip(values["generations"], self.tensors.pop("contestants").numpy(), strict=True))

    def learn(self, seed: int, stream: str, controller_seed: int) -> None:
        """Run the phases; go on from where a checkpoint was saved."""
        steps, wanted = steps_of(self.config), contestants_of(self.config)
        done = len(self.curve)
        for _ in range(done):
            next(self.counter)
        learner: Learner | None = None
        try:
            for generation in range(done, len(steps)):
                step = steps[generation]
                phase = self.config.phases[step.phase]
                if learner is None:
                    name = f"{stream}/{step.phase}/{controller_seed}" + (f"/{step.run}" if step.run else "")
                    context = Context(self.config.model, self.worlds, seed, name)
                    learner = phase.open(context, None if step.run else self.begin)
                    if step.number:
                        learner.state = self.tensors
                next(self.counter)
                result = learner.generation(step.number)
                summary = {name: float(of(result.returns)) for name, of in _SUMMARY.items()} if len(result.returns) else {}
                row = {
                    "generation": generation,
                    "phase": step.phase,
                    "world": phase.world,
                    **summary,
                    **result.told,
                    "steps": result.steps,
                }
                self._after(row, result.parameters if generation in wanted else None)
                due = self.checkpoint is not None and self.checkpoint.due()
                state = learner.state if due and not step.last else {}
                if step.last:
                    learner.close()
                    learner, self.begin = None, result.parameters
                if due:
                    self._save(state)
        finally:
            if learner is not None:
                learner.close()

    def select(self, seeds: list[int], choosing: Callable[[int], Told] | None) -> Found:
        """Let the contestants play, if there is a choice."""
        config = self.config
        next(self.counter, None)  # the end of the generations
        kept, rejected, curve = next(iter(self.contestants)), list[int](), self.curve
        if len(self.contestants) > 1:
            left = config.selection.games(len(self.contestants), done=len(self.played))
            arena = self.worlds.arena(self.worlds.play(), choosing(left) if choosing else None)
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
            curve = [*curve, *rows]
        parameters = self.contestants[kept].astype(np.float32)
        others = np.array([self.contestants[each] for each in rejected if each != START], np.float32)
        return Found(torch.from_numpy(parameters), torch.from_numpy(others.reshape(-1, len(parameters))), curve)

    def _after(self, row: Row, contestant: np.ndarray | None) -> None:
        generation = int(row["generation"])
        self.curve.append(row)
        if contestant is not None:
            self.contestants[generation] = contestant
        self.observe(row)

    def _after_round(self) -> None:
        if self.checkpoint:
            self._save({})

    def _save(self, state: Mapping[str, Tensor]) -> None:
        assert self.checkpoint is not None
        found = {generation: each for generation, each in self.contestants.items() if generation != START}
        tensors = {"contestants": torch.from_numpy(np.stack(list(found.values())))} if found else {}
        if self.begin is not None:
            tensors["begin"] = torch.from_numpy(np.asarray(self.begin, np.float64))
        values = {"curve": self.curve, "played": self.played, "generations": list(found)}
        self.checkpoint.save({**state, **tensors}, values)
