"""How well it went: the best agent of a game against others, in words; the agents of a study, seeds taken together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from worldmodels.report.table import NO_STUDY, paper, score_text

CLEAR = 2.0
"""If a difference is at least so many of its standard errors, it is called one."""


class Rival(NamedTuple):
    """Another score on the same game."""

    name: str  # who has it
    kind: str  # ``random``, ``blind``, ``paper`` or ``agent``
    mean: float  # mean return
    stderr: float  # its standard error


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


def rivals(score: Mapping[str, Any]) -> list[Rival]:
    """Return what an agent stands beside: random play, the best policy that does not look, the paper's agent, itself.

    What there is not is left out.
    """
    blind, published = score["blind"], paper(score)
    found = [Rival("random play", "random", score["random"]["mean"], score["random"]["stderr"])]
    if blind:
        found.append(Rival(f"best blind policy\n({blind['policy']})", "blind", blind["mean"], blind["stderr"]))
    if published:
        found.append(Rival("the paper's agent", "paper", published["mean"], published["stderr"]))
    return [*found, Rival(score["key"], "agent", score["real"]["mean"], score["real"]["stderr"])]


def errors_above(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return by how many standard errors of the difference one score is above another; negative if it is below.

    >>> errors_above({"mean": 900, "stderr": 30}, {"mean": 800, "stderr": 40})
    2.0
    """
    difference, error = one["mean"] - other["mean"], math.hypot(one["stderr"], other["stderr"])
    if error == 0:
        return math.copysign(math.inf, difference) if difference else 0.0
    return float(difference / error)


def pays_nothing(score: Mapping[str, Any]) -> bool:
    """Return whether neither the agent nor random play ever got a reward."""
    return all(score[who][bound] == 0 for who in ("real", "random") for bound in ("min", "max"))


def headline(score: Mapping[str, Any]) -> str:
    """Return one sentence: what an agent got, and whether it is above the best policy that does not look."""
    key, real = score["key"], score["real"]
    if pays_nothing(score):
        return f"This game pays no score: the film shows what {key} does."
    rival = score["blind"] or score["random"]
    who = "the best policy that does not look" if score["blind"] else "random play"
    above = errors_above(real, rival)
    if abs(above) >= CLEAR:
        stands = f"{'better' if above > 0 else 'worse'} than {who}, by {_errors(above)}"
    else:
        stands = f"not clearly better than {who} ({_errors(above)} {'above' if above >= 0 else 'below'} it)"
    return f"{key} gets {score_text(real)} a game: {stands}."


def details(score: Mapping[str, Any]) -> str:
    """Return what a reader of the headline needs beside it: what was measured, and where the paper's agent stands."""
    parts = [f"Mean return and standard error of {score['real']['n']} test episodes, which nothing was trained or selected on."]
    if pays_nothing(score):
        return parts[0]
    if score["blind"]:
        parts.append("A policy that does not look moves by the clock alone. An agent that uses what it sees is better.")
    published = paper(score)
    if published:
        above = errors_above(score["real"], published)
        stands = "level with this one" if abs(above) < CLEAR else f"{_errors(above)} {'lower' if above > 0 else 'higher'}"
        parts.append(f"The paper's agent has {score_text(published)}: {stands}.")
    return " ".join(parts)


def _errors(number: float) -> str:
    return "more than chance can explain" if math.isinf(number) else f"{abs(number):.1f} standard errors"
