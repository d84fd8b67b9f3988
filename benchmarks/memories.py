"""Kinds of M on the same latents: what each foretells after equal minutes, and what it forgets of the iteration before.

    python benchmarks/memories.py PROJECT EARLIER [LATER] [--minutes 5] [--out results/memories.csv]

PROJECT is the folder of a project that ran. EARLIER and LATER are two of its world models, the second with the data of the
first and of the iterations after it. LATER's V sees both, so that z means the same in both.

Each M learns for so many minutes of one core's time on EARLIER's episodes. Then it goes on for half as long: one copy on the
new episodes alone, another on all of them. Both are judged on a tenth of the old and of the new episodes, from which no M
learns. How many updates fit into the minutes is measured first: two runs give the same only to within that.
"""

import argparse
import csv
import time
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path

import torch
from models import dream, rate
from torch import Tensor

from worldmodels.compute.allocator import keep_freed_memory
from worldmodels.compute.precision import products_in, training_in
from worldmodels.learning.fit import OptimiserConfig
from worldmodels.memory.base import Memory
from worldmodels.memory.make import new_memory
from worldmodels.memory.training import MemoryTraining, judge, train_memory
from worldmodels.project import load_project
from worldmodels.storage.weights import load_tensors

KINDS: dict[str, dict[str, object]] = {
    "LSTM of 256": {"kind": "lstm", "hidden": 256},
    "LSTM of 512": {"kind": "lstm", "hidden": 512},
    "LSTM of 1,024": {"kind": "lstm", "hidden": 1024},
    "transformer": {"kind": "transformer", "hidden": 256, "layers": 2, "heads": 4, "window": 32},
}
FIGURES = ("latent", "done", "reward", "open_loop_1", "open_loop_10", "open_loop_30")
HELD_OUT = 0.1
"""Share of the old and of the new rows on which an M is judged."""
FIRST = 20
"""Updates by which the rate of an M is measured."""

Rows = Mapping[str, Tensor]


def split(rows: Rows, share: float) -> tuple[Rows, Rows]:
    """Return the rows before an episode that begins at about this share of them, and from it on."""
    begins = rows["first"].nonzero()[:, 0]
    at = int(begins[(begins - share * len(rows["first"])).abs().argmin()])
    return part(rows, 0, at), part(rows, at, None)


def part(rows: Rows, begin: int, end: int | None) -> Rows:
    return {name: tensor[begin:end] for name, tensor in rows.items()}


def joined(first: Rows, second: Rows) -> Rows:
    return {name: torch.cat([first[name], second[name]]) for name in first}


class Lesson:
    """How an M learns here: the settings of the project's own M, by the clock."""

    def __init__(self, config: MemoryTraining, seed: int) -> None:
        self.config, self.seed = config, seed

    def learn(self, memory: Memory, rows: Rows, optimiser: OptimiserConfig, updates: int) -> Memory:
        """Return a copy of M that has learned."""
        memory = deepcopy(memory)
        counted = optimiser.model_copy(update={"updates": updates, "passes": 0})
        config = self.config.model_copy(update={"optimiser": counted})
        train_memory(memory, rows, config, seed=self.seed, updates=range(updates), observe=lambda row: None)
        return memory

    def updates_in(self, memory: Memory, rows: Rows, seconds: float) -> int:
        """Return how many updates of this M take so long."""
        times = []
        for updates in (1, 1, FIRST + 1):  # a warm-up; then two that begin with the same work and end with the same judgement
            begun = time.process_time()
            self.learn(memory, rows, self.config.optimiser, updates)
            times.append(time.process_time() - begun)
        return max(1, int(seconds * FIRST / (times[2] - times[1])))

    def judged(self, memory: Memory, rows: Rows) -> dict[str, float]:
        """Return the figures of M on rows from which it has not learned."""
        found = judge(memory, rows, self.config, begin=0, seed=self.seed)
        return {name: round(found[name], 4) for name in FIGURES if name in found}


def compared(
    memory: Memory, lesson: Lesson, old: Rows, new: Rows | None, minutes: float, seconds: float = 4.0
) -> Iterator[dict[str, object]]:
    """Let an M learn for so many minutes; yield the rows of the table. Its dream's speed is measured for so many seconds."""
    optimiser = lesson.config.optimiser
    (old, old_test), (new, new_test) = split(old, 1 - HELD_OUT), split(new, 1 - HELD_OUT) if new else (None, None)
    updates = lesson.updates_in(memory, old, 60 * minutes)
    first = lesson.learn(memory, old, optimiser, updates)
    learned = {"old": (first, updates)}
    if new is not None:
        for name, rows in {"old, then new": new, "old, then all": joined(old, new)}.items():
            learned[name] = lesson.learn(first, rows, optimiser.warm(), updates // 2), updates + updates // 2
    speed = round(rate(dream(first), seconds, time.process_time))
    for name, (each, count) in learned.items():
        for tested, rows in {"old": old_test, "new": new_test}.items():
            if rows is not None:
                yield {"learned": name, "judged": tested, "updates": count, "dream": speed, **lesson.judged(each, rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, nargs="?")
    parser.add_argument("earlier", nargs="?")
    parser.add_argument("later", nargs="?")
    parser.add_argument("--minutes", type=float, default=5.0, help="of learning on the old episodes")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rate", type=float, default=1.0, help="times the learning rates of the project")
    parser.add_argument("--out", type=Path, help="a table to which rows are added")
    options = parser.parse_args()
    if not options.earlier:
        print("Which project and which of its world models? See --help.")
        return
    torch.set_num_threads(1)
    keep_freed_memory()  # as stages do
    project = load_project(options.project / "params.yaml")
    section = project.sections[project.world_models[options.earlier].env].memory
    models = options.project / "artifacts/world_models"
    rows, told = load_tensors(models / (options.later or options.earlier) / "latents.safetensors")
    before = int(load_tensors(models / options.earlier / "latents.safetensors")[1]["frames"])
    old, new = part(rows, 0, before), part(rows, before, None) if options.later else None
    rates = ("learning_rate", "warm_learning_rate", "final_learning_rate")
    faster = {name: options.rate * getattr(section.optimiser, name) for name in rates}
    for kind in options.kinds:
        shape = {name: value for name, value in section.model if name not in {"kind", "hidden"}} | KINDS[kind]
        config = MemoryTraining.model_validate({**section.model_dump(exclude_unset=True), "model": shape})
        config = config.model_copy(update={"optimiser": config.optimiser.model_copy(update=faster)})
        memory = new_memory(config.model, rows["mean"].shape[1], rows["action"].shape[1], project.seed, told["choices"])
        size = sum(weights.numel() for weights in memory.parameters())
        with training_in(products_in("auto", memory.device), memory.device):
            for row in compared(memory, Lesson(config, project.seed), old, new, options.minutes):
                about = {"game": options.earlier.rsplit("-", 1)[0], "seed": project.seed, "memory": kind, "parameters": size}
                line = {**about, "minutes": options.minutes, "rate": options.rate, **row}
                print(*(f"{name} {value}" for name, value in line.items()), sep=", ", flush=True)
                if options.out:
                    begun = options.out.exists()
                    with options.out.open("a", newline="") as file:
                        table = csv.DictWriter(file, [*(name for name in line if name not in FIGURES), *FIGURES])
                        if not begun:
                            table.writeheader()
                        table.writerow(line)


if __name__ == "__main__":
    main()
