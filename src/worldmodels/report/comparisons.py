"""Plots that compare: an agent with others, the agents and world models of a game, the variants of a study, experiments.

Every function returns an image, (H, W, 3) uint8.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from worldmodels.report.canvas import WIDTH, bar, draw, spread
from worldmodels.report.figures import PLACES
from worldmodels.report.studies import Variant
from worldmodels.report.style import BLIND_COLOUR, FAINT_INK, INK, PAPER_COLOUR, PAPER_WHITE, SERIES, WORLD_COLOURS
from worldmodels.report.table import with_error
from worldmodels.report.verdict import Rival, rivals

_COLOURS = {"random": WORLD_COLOURS["random"], "blind": BLIND_COLOUR, "paper": PAPER_COLOUR, "agent": WORLD_COLOURS["real"]}
_ROUND_STYLES: dict[str, Any] = {
    "dream, end of the search": {"color": PLACES["dream"], "marker": "o", "linewidth": 1.2},
    "game, end of the search": {"color": PLACES["game"], "marker": "o", "linestyle": "none", "alpha": 0.5},
    "selection, C at the beginning": {"color": INK, "marker": "D", "markerfacecolor": PAPER_WHITE, "linestyle": "none"},
    "selection, C that is kept": {"color": INK, "marker": "D", "linewidth": 1.2},
}
_LINES = ((0, (1, 2)), (0, (4, 2)), (0, (7, 2)))


def is_wide(places: int) -> bool:
    """Return whether a plot with so many places side by side needs the width of two."""
    return places > 7


def width_for(places: int) -> float:
    """Return the width in inches of a plot with so many places side by side."""
    return 2.1 * WIDTH if is_wide(places) else WIDTH


def standing_bars(found: Sequence[Rival]) -> np.ndarray:
    """Draw scores on the same game as lying bars with standard errors, one below the other.

    Args:
        found: of ``verdict.rivals``.
    """
    return draw(_plot_standing, found, height=0.75 + 0.42 * len(found))


def agent_bars(scores: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Draw what every agent got in its dream and in the game, in the order given, with standard errors.

    Random play, the best policy that does not look and, if the rules are the paper's, its agent stand beside them as lines.

    Args:
        scores: of agents of one game.

    Raises:
        ValueError: the scores are of games with several rules, or of none: they do not compare.
    """
    rules = {score["rules"] for score in scores}
    if len(rules) != 1:
        raise ValueError(f"scores of exactly one game are needed, got {sorted(rules)}")
    return draw(_plot_agents, scores, width=width_for(len(scores)))


def study_bars(study: str, variants: Sequence[Variant]) -> np.ndarray:
    """Draw what the variants of a study got in the game: bars of the means with standard errors, a dot for every seed.

    Args:
        study: its name.
        variants: of ``studies.variants``.
    """
    return draw(_plot_study, (study, variants), width=width_for(len(variants)))


def collected_lines(measure: str, found: Mapping[str, Mapping[str, float]]) -> np.ndarray:
    """Draw what all that was collected was worth, by world model: a line for each way of playing.

    Args:
        measure: what the numbers are: the axis says so.
        found: world model's key -> way of playing, without the name of who played -> its worth.
    """
    return draw(_plot_collected, (measure, found), width=width_for(len(found)))


def open_loop_lines(errors: Mapping[str, Mapping[int, float]]) -> np.ndarray:
    """Draw how far dreams on real actions stay real, a line for each world model.

    Args:
        errors: world model's key -> steps ahead -> squared error over the variance of z.
    """
    return draw(_plot_open_loop, errors)


def search_rounds(curves: Mapping[str, pd.DataFrame]) -> np.ndarray:
    """Draw what the search of every agent made of its C, on its own selection episodes, beside what it said of itself last.

    Args:
        curves: agent's key -> its curve. The C that a search begins with is generation -1.
    """
    return draw(_plot_rounds, curves, width=width_for(len(curves)))


def sweep_points(setting: str, scores: Sequence[tuple[str, Mapping[str, Any] | None, Mapping[str, Any]]]) -> np.ndarray:
    """Draw the scores of experiments over the value of a param: a dot each, and the mean over those of the same value.

    Args:
        setting: the param's name.
        scores: its value as typed, and the summaries ``dream`` and ``real`` of its scores, for every experiment.
    """
    return draw(_plot_sweep, (setting, scores))


def _plot_standing(axes: Axes, found: Sequence[Rival]) -> None:
    reach = max(max(rival.mean, 0) + rival.stderr for rival in found) - min(min(rival.mean, 0) for rival in found)
    for place, rival in enumerate(found):
        axes.barh(-place, rival.mean, 0.62, color=_COLOURS[rival.kind])
        axes.errorbar(rival.mean, -place, xerr=rival.stderr, color=INK, capsize=3, linewidth=1.2)
        text, end = with_error(rival.mean, rival.stderr), max(rival.mean + rival.stderr, 0)
        weight = "bold" if rival.kind == "agent" else "normal"
        axes.annotate(text, (end + 0.015 * reach, -place), va="center", fontsize=10, fontweight=weight)
    axes.axvline(0, color=FAINT_INK, linewidth=0.8)
    axes.set_yticks([-place for place in range(len(found))], [rival.name for rival in found])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(right=max(max(rival.mean, 0) + rival.stderr for rival in found) + 0.2 * reach + 1e-9)
    axes.set_xlabel("mean return of an episode in the game (line: standard error)", fontsize=8.5)


def _plot_agents(axes: Axes, scores: Sequence[Mapping[str, Any]]) -> None:
    for world, shift in (("dream", -0.19), ("real", 0.19)):
        label: str | None = {"dream": "in its dream", "real": "in the game"}[world]
        for place, score in enumerate(scores):
            if score[world] is not None:
                bar(axes, place + shift, world, score[world], label, width=0.36)
                end = max(score[world]["mean"], 0) + score[world]["stderr"]
                style: Any = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "fontsize": 9}
                axes.annotate(f"{score[world]['mean']:.0f}", (place + shift, end), **style)
                label = None  # one entry a world in the legend
    best = max(scores, key=lambda score: (score["blind"] or score["random"])["mean"])
    others = [rival for rival in rivals(best) if rival.kind != "agent"]
    for rival, dashes in zip(others, _LINES, strict=False):
        name = rival.name.replace("\n", " ")
        axes.axhline(rival.mean, color=_COLOURS[rival.kind], linewidth=1.4, linestyle=dashes, zorder=0.9, label=name)
    axes.set_xlim(-0.6, len(scores) - 0.4)
    _name(axes, [score["key"] for score in scores])
    axes.axhline(0, color=FAINT_INK, linewidth=0.8)
    axes.set_ylabel("mean return")
    axes.set_title("Every agent, in its dream and in the game")
    axes.figure.legend(loc="outside lower center", ncols=3, fontsize=8.5)


def _name(axes: Axes, keys: Sequence[str]) -> None:
    """Write keys below their places, aslant if they would overlap."""
    longest = max(len(line) for key in keys for line in key.splitlines())
    long = len(keys) * longest > 9 * width_for(len(keys))  # about 9 letters an inch
    axes.set_xticks(range(len(keys)), list(keys), rotation=30 if long else 0, ha="right" if long else "center")
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")


def _plot_study(axes: Axes, data: tuple[str, Sequence[Variant]]) -> None:
    study, variants = data
    for place, variant in enumerate(variants):
        bar(axes, place, "real", {"mean": variant.mean, "stderr": variant.stderr}, None, width=0.5)
        beside = 0.3 * (spread(len(variant.seeds)) - 0.5)
        axes.scatter(place + beside, variant.seeds, s=18, color=PAPER_WHITE, edgecolors=INK, linewidths=0.9, zorder=3)
    names = [f"{variant.name}\n{variant.mean:.0f} ± {variant.stderr:.0f}" for variant in variants]  # clear of the dots
    axes.set_xlim(-0.6, len(variants) - 0.4)
    _name(axes, names)
    axes.axhline(0, color=FAINT_INK, linewidth=0.8)
    axes.set_ylabel("mean return in the game")
    axes.set_title(f"{study} (dots: seeds; lines: standard error)")


def _plot_collected(axes: Axes, data: tuple[str, Mapping[str, Mapping[str, float]]]) -> None:
    measure, found = data
    keys = list(found)
    for number, way in enumerate(sorted({way for worth in found.values() for way in worth})):
        at = [place for place, key in enumerate(keys) if way in found[key]]
        again, colour = divmod(number, len(SERIES))
        marker = "oDsv"[again % 4]  # where there are more ways than colours
        line: Any = {"color": SERIES[colour], "marker": marker, "markersize": 4, "linewidth": 1.8 / (1 + again)}
        axes.plot(at, [found[keys[place]][way] for place in at], label=way, **line)
    axes.set_xlim(-0.4, len(keys) - 0.6)
    _name(axes, keys)
    axes.axhline(0, color=FAINT_INK, linewidth=0.8)
    axes.set_ylabel(measure)
    axes.set_title("What was collected for each world model")
    axes.figure.legend(loc="outside lower center", ncols=6 if is_wide(len(keys)) else 3, fontsize=8.5)


def _plot_rounds(axes: Axes, curves: Mapping[str, pd.DataFrame]) -> None:
    points: dict[str, list[tuple[float, float, float]]] = {name: [] for name in _ROUND_STYLES}  # x, mean, standard error
    for place, table in enumerate(curves.values()):
        ends = {world: table[(table["world"] == world) & table["mean"].notna()] for world in PLACES}
        for world, rows in ends.items():
            if len(rows):
                points[f"{world}, end of the search"].append((place - 0.08, rows["mean"].iloc[-1], 0.0))
        played = table[table["phase"] == "selection"]
        if len(played):
            kept = played.sort_values("mean").iloc[-1]
            points["selection, C that is kept"].append((place + 0.08, kept["mean"], kept["stderr"]))
            for _, begun in played[played["generation"] < 0].iterrows():
                points["selection, C at the beginning"].append((place, begun["mean"], begun["stderr"]))
    for name, style in _ROUND_STYLES.items():
        if points[name]:
            x, mean, error = np.array(points[name]).T
            axes.errorbar(x, mean, error if error.any() else None, label=name, markersize=5, capsize=2.5, **style)
    axes.set_xlim(-0.4, len(curves) - 0.6)
    _name(axes, list(curves))
    axes.set_ylabel("return")
    axes.set_title("What each search found")
    if any(points.values()):
        axes.figure.legend(loc="outside lower center", ncols=2, fontsize=8.5)


def _plot_open_loop(axes: Axes, errors: Mapping[str, Mapping[int, float]]) -> None:
    for number, (key, found) in enumerate(errors.items()):
        shade: Any = {"color": WORLD_COLOURS["dream"], "alpha": 0.25 + 0.75 * (number + 1) / len(errors)}
        axes.plot(list(found), list(found.values()), marker="o", markersize=4, linewidth=1.8, label=key, **shade)
    axes.axhline(1, color=FAINT_INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("steps ahead, on the actions of the game")
    axes.set_ylabel("squared error / variance of z")
    axes.set_title("How far dreams stay real")
    axes.figure.legend(loc="outside lower center", ncols=4, fontsize=8.5)


def _plot_sweep(axes: Axes, data: tuple[str, Sequence[tuple[str, Mapping[str, Any] | None, Mapping[str, Any]]]]) -> None:
    setting, scores = data
    values = list(dict.fromkeys(value for value, _, _ in scores))
    for shift, world in ((-0.08, "dream"), (0.08, "real")):
        means: list[list[float]] = [[] for _ in values]
        for value, *summaries in scores:
            summary = summaries[world == "real"]
            if summary is not None:
                place = values.index(value)
                style: Any = {"color": WORLD_COLOURS[world], "alpha": 0.55, "markersize": 4}
                means[place].append(summary["mean"])
                axes.errorbar(place + shift, summary["mean"], yerr=summary["stderr"], fmt="o", linewidth=1.0, **style)
        shown = [place for place, found in enumerate(means) if found]
        line: Any = {"color": WORLD_COLOURS[world], "linewidth": 2, "marker": "_", "markersize": 14}
        axes.plot([place + shift for place in shown], [np.mean(means[place]) for place in shown], label=world, **line)
    axes.set_xticks(range(len(values)), values)
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.set_xlabel(setting)
    axes.set_ylabel("mean return")
    axes.set_title("dots: experiments, with standard errors; lines: their means")
    axes.legend(loc="best")
