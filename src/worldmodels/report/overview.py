"""Pictures over all agents and world models of a game: what they got, what was collected and found, how far dreams hold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodels.report.comparisons import agent_bars, collected_lines, is_wide, open_loop_lines, search_rounds
from worldmodels.report.html import Picture
from worldmodels.report.pictures import png_bytes
from worldmodels.report.run import GameRun, keep, search_table, table
from worldmodels.report.verdict import pays_nothing
from worldmodels.storage.files import read_json
from worldmodels.storage.layout import require

_AGENTS_TEXT = (
    "Bars: mean return of an episode, with its standard error. Lines: play that does not look, and the paper's agent if the "
    "rules are the paper's. Agents of a study are not shown here."
)
_COLLECTED_TEXT = (
    "over the episodes that each world model learns from: random play, then the agent that collects, with more or less noise "
    "on its actions."
)
_ALIKE = 0.02  # rates that differ by less say nothing: a step pays the same, as in games of survival
_SEARCH_TEXT = (
    "Diamonds: the C that each search began with and the one that was kept, on selection episodes, with their standard error. "
    "Each agent has selection episodes of its own, and the best of several contestants is a little lucky on them. Dots: the "
    "mean return at the end of the search, where it learned."
)
_HORIZON_TEXT = (
    "Held-out play: M sees some steps, then only the actions of the game, and dreams on. 1 (dashed) is no better than the mean "
    "of all frames."
)


def rounds(run: GameRun, reports: Path) -> list[Picture]:
    """Return the pictures; each is written into ``reports`` too. Agents of a study are left out."""
    name = run.environments[0]
    drawn = [_agents(run, reports, name), _searches(run, reports, name)]
    if run.world_models:
        drawn += [_collected(run, reports, name), *_horizon(run, reports, name)]
    return drawn


def _agents(run: GameRun, reports: Path, name: str) -> Picture:
    scores = [run.scores[key] for key in run.chain]
    png = keep(reports / f"agents-{name}.png", png_bytes(agent_bars(scores)))
    dreamt = {score["key"]: f", dream {score['dream']['mean']:.0f}" if score["dream"] else "" for score in scores}
    parts = [f"{score['key']}: real {score['real']['mean']:.0f}{dreamt[score['key']]}" for score in scores]
    text = "This game pays no score." if all(map(pays_nothing, scores)) else _AGENTS_TEXT
    return Picture(png, f"Mean returns of agents in {name}. {'; '.join(parts)}", text, is_wide(len(scores)))


def _searches(run: GameRun, reports: Path, name: str) -> Picture:
    curves = {key: search_table(files) for key, files in run.chain.items()}
    png = keep(reports / f"search-{name}.png", png_bytes(search_rounds(curves)))
    means = {key: curve.loc[curve["phase"] == "selection", "mean"] for key, curve in curves.items()}
    alt = "; ".join(f"{key}: {played.max():.0f}" for key, played in means.items() if len(played))
    alt = f"What the search of each agent found, on selection episodes: {alt or 'not played'}"
    return Picture(png, alt, _SEARCH_TEXT, is_wide(len(curves)))


def _collected(run: GameRun, reports: Path, name: str) -> Picture:
    """Return the picture of what was collected: reward per step, or returns if every step pays alike."""
    played = {key: read_json(require(files.data))["policies"] for key, files in run.world_models.items()}
    rates = [each["reward_per_step"] for ways in played.values() for each in ways.values()]
    field, measure = "reward_per_step", "reward per step"
    if rates and max(rates) - min(rates) < _ALIKE * abs(max(rates)):
        field, measure = "mean_return", "mean return of an episode"
    found = {key: {_way(policy): each[field] for policy, each in ways.items()} for key, ways in played.items()}
    png = keep(reports / f"collected-{name}.png", png_bytes(collected_lines(measure, found)))
    measure = measure.capitalize()
    alt = f"{measure} of what was collected. {_listed(found, '{0} {1:.4g}')}"
    return Picture(png, alt, f"{measure}, {_COLLECTED_TEXT}", is_wide(len(found)))


def _horizon(run: GameRun, reports: Path, name: str) -> list[Picture]:
    """Return the picture of how far dreams stay real; none if held-out episodes are too short to say."""
    errors = {}
    for key, files in run.world_models.items():
        judged = table(files.memory_curve, "split").query("split == 'validation'").tail(1)
        found = judged.filter(regex=r"^open_loop_\d+$").dropna(axis=1)
        if len(found.columns):
            errors[key] = {int(str(column).rpartition("_")[2]): float(found[column].iloc[0]) for column in found}
    if not errors:
        return []
    png = keep(reports / f"horizon-{name}.png", png_bytes(open_loop_lines(errors)))
    alt = f"Error of M's open-loop predictions over the variance of z. {_listed(errors, '{1:.2f} at {0}')}"
    return [Picture(png, alt, _HORIZON_TEXT)]


def _listed(found: Mapping[str, Mapping[Any, float]], text: str) -> str:
    return "; ".join(f"{key}: " + ", ".join(text.format(*item) for item in each.items()) for key, each in found.items())


def _way(policy: str) -> str:
    """Return a way of playing without the name of the agent.

    >>> _way("random, walk 0.9"), _way("doom-1, strength 0.2"), _way("doom-1 rejected, strength 0")
    ('random, walk 0.9', 'agent, strength 0.2', 'rejected, strength 0')
    """
    who, _, how = policy.partition(", ")
    if who == "random":
        return policy
    return f"{'rejected' if who.endswith(' rejected') else 'agent'}, {how}"
