"""Episodes played by workers, kept as they come: a stage that is killed plays only what is missing."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipeline.stage import Stage
from worldmodels.shapes import Returns
from worldmodels.storage.checkpoint import Checkpoint


def play(
    stage: Stage, function: Callable[..., Returns], tasks: Sequence[tuple[Any, ...]], checkpoint: Checkpoint, limit: int
) -> list[Returns]:
    """Return what every task gave, in their order. The third argument of a task is its seeds.

    ``limit``: steps of an episode at most.
    """
    kept = checkpoint.load()[1].get("played", {})
    played = {int(index): _from_lists(each) for index, each in kept.items()}
    if any(index >= len(tasks) or each.seeds.tolist() != list(tasks[index][2]) for index, each in played.items()):
        played = {}  # it was cut into other tasks, for other workers
    missing = [index for index in range(len(tasks)) if index not in played]
    told = stage.play(sum(len(tasks[index][2]) for index in missing), limit)
    heard = np.zeros((len(missing), 2), np.int64)  # steps and ends that were told of each

    def hear(position: int, steps: int, ended: int) -> None:
        heard[position] += steps, ended
        told(steps, ended)

    for position, returns in stage.engine.run(function, [tasks[index] for index in missing], hear):
        played[missing[position]] = returns
        steps, ended = heard[position].tolist()
        told(returns.steps - steps, returns.total.size - ended)  # all, if nothing could be heard
        if checkpoint.due():
            checkpoint.save({}, {"played": {str(index): _to_lists(each) for index, each in played.items()}})
    return [played[index] for index in range(len(tasks))]


def _to_lists(returns: Returns) -> dict[str, list[Any]]:
    kept = {name: getattr(returns, name).tolist() for name in ("total", "length", "terminal", "seeds")}
    return kept if returns.visited is None else {**kept, "visited": returns.visited.tolist()}


def _from_lists(kept: dict[str, list[Any]]) -> Returns:
    return Returns(
        np.array(kept["total"]),
        np.array(kept["length"], np.int64),
        np.array(kept["terminal"], bool),
        np.array(kept["seeds"], np.int64),
        np.array(kept["visited"], bool) if "visited" in kept else None,
    )
