"""How well it went: the best agent of a game against others, in words; the agents of a study, seeds taken together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from worldmodels.report.table import Rival, rivals, with_error
from worldmodels.storage.layout import NO_STUDY

CLEAR = 2.0
"""If a difference is at least so many of its standard errors, it is called one."""


_WHO = {"random": "random play", "blind": "the best blind policy", "paper": "the paper's agent"}


class Variant(NamedTuple):
    """The agents of a study that differ in their seed alone."""

    name: str  # of their controller, with their world model if the study has several
    mean: float  # mean of the seeds' mean returns in the game
    stderr: float  # of that mean, from the spread of the seeds; if there is one seed, over its episodes
    seeds: list[float]  # their mean returns


def variants(scores: Sequence[Mapping[str, Any]]) -> list[Variant]:
    """Return the variants of one study, in the order in which they first appear. ``scores``: of its agents."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for score in scores:
        groups.setdefault((score["controller"], score["world_model"]), []).append(score["real"])
    several = len({world_model for _, world_model in groups}) > 1
    found = []
    for (controller, world_model), own in groups.items():
        means = [float(real["mean"]) for real in own]
        stderr = float(np.std(means, ddof=1)) / len(own) ** 0.5 if len(own) > 1 else float(own[0]["stderr"])
        found.append(Variant(f"{controller}, {world_model}" if several else controller, float(np.mean(means)), stderr, means))
    return found


def chain(scores: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the scores of the agents that belong to no study; if all do, of all of them."""
    return [score for score in scores if score["study"] == NO_STUDY] or list(scores)


def best_agent(scores: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the scores of the agent of the chain with the best mean return. ``scores``: of one game, at least one."""
    return max(chain(scores), key=lambda score: score["real"]["mean"])


def errors_above(one: Rival, other: Rival) -> float:
    """Return by how many standard errors of the difference one score is above another; negative if it is below.

    >>> errors_above(Rival("a", "agent", 900, 30, 50), Rival("b", "blind", 800, 40, 50))
    2.0
    """
    difference, error = one.mean - other.mean, math.hypot(one.stderr, other.stderr)
    if error == 0:
        return math.copysign(math.inf, difference) if difference else 0.0
    return difference / error


def pays_nothing(score: Mapping[str, Any]) -> bool:
    """Return whether neither the agent nor random play ever got a reward."""
    return all(score[who][bound] == 0 for who in ("real", "random") for bound in ("min", "max"))


def headline(score: Mapping[str, Any]) -> str:
    """Return one sentence: what an agent got, and how it stands beside blind play, the paper's agent and random play."""
    if pays_nothing(score):
        return f"This game pays no score: the film shows what {score['key']} does."
    *beside, agent = rivals(score)
    first, *rest = *beside[1:], beside[0]
    stands = [_beside(agent, first, " standard errors"), *(_beside(agent, rival) for rival in rest)]
    return f"{agent.name} gets {with_error(agent.mean, agent.stderr)} a game: {', '.join(stands)}."


def _beside(agent: Rival, rival: Rival, unit: str = "") -> str:
    """Return how an agent stands beside another score, with the difference in standard errors."""
    above = errors_above(agent, rival)
    size = "by more than chance can explain" if math.isinf(above) else f"by {abs(above):.1f}{unit}"
    if abs(above) >= CLEAR:
        than = f"{'better' if above > 0 else 'worse'} than"
    else:
        than = "level with" if rival.kind == "paper" else "not clearly better than"
        size = f"{size.removeprefix('by ')} {'above' if above >= 0 else 'below'}"
    return f"{than} {_WHO[rival.kind]} ({with_error(rival.mean, rival.stderr)}; {size})"
