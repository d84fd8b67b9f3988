"""Plots that compare: iterations of a chain, the variants of a study, experiments.

Every function returns an image, (H, W, 3) uint8.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from worldmodels.games.base import Reference
from worldmodels.games.make import references
from worldmodels.report.canvas import WORLDS, bar, draw, spread
from worldmodels.report.studies import Variant
from worldmodels.report.style import FAINT_INK, INK, PAPER_COLOUR, PAPER_WHITE, SERIES, WORLD_COLOURS

_FIELDS = {"random": "baseline", "dream": "dream", "real": "real"}  # names in scores.json
_ROUND_STYLES: dict[str, Any] = {
    "dream, last generation": {"color": WORLD_COLOURS["dream"], "marker": "o"},
    "game, C at the beginning": {
        "color": WORLD_COLOURS["real"],
        "marker": "D",
        "markerfacecolor": PAPER_WHITE,
        "linestyle": "none",
    },
    "game, C that is kept": {"color": WORLD_COLOURS["real"], "marker": "D"},
}


def score_bars(scores: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Draw random, dream and real scores of one environment's iterations, with standard errors.

    Where the rules are the paper's, the paper's figure stands beside them as a line, labelled so.

    Args:
        scores: the ``scores.json`` of every iteration of one environment.

    Raises:
        ValueError: where scores of several environments are mixed: their units differ.
    """
    environments = {score["environment"] for score in scores}
    if len(environments) != 1:
        raise ValueError(f"scores of exactly one environment are needed, got {sorted(environments)}")
    return draw(_plot_scores, scores, width=max(6.4, 3.0 + 1.6 * len(scores)))


def study_bars(study: str, variants: Sequence[Variant]) -> np.ndarray:
    """Draw what the variants of a study got in the game: bars of the means with standard errors, a dot for every seed.

    Args:
        study: its name.
        variants: of ``studies.variants``.
    """
    return draw(_plot_study, (study, variants), width=max(4.8, 2.0 + 1.5 * len(variants)))


def collected_lines(measure: str, found: Mapping[str, Mapping[str, float]]) -> np.ndarray:
    """Draw what all that was collected was worth, by iteration: a line for each way of playing.

    Args:
        measure: what the numbers are: the axis says so.
        found: iteration's key -> way of playing, without the name of who played -> its worth.
    """
    return draw(_plot_collected, (measure, found), width=max(4.8, 2.0 + 0.9 * len(found)))


def open_loop_lines(errors: Mapping[str, Mapping[int, float]]) -> np.ndarray:
    """Draw how far dreams on real actions stay real, a line for each iteration.

    Args:
        errors: iteration's key -> steps ahead -> squared error over the variance of z.
    """
    return draw(_plot_open_loop, errors, width=4.8)


def search_rounds(curves: Mapping[str, pd.DataFrame]) -> np.ndarray:
    """Draw what the search of every iteration made of its C, on its own selection episodes, beside what its dream said last.

    Args:
        curves: iteration's key -> curve of the controller stage. The C that a search begins with is generation -1.
    """
    return draw(_plot_rounds, curves, width=max(6.4, 2.0 + 0.9 * len(curves)))


def sweep_points(setting: str, scores: Sequence[tuple[str, Mapping[str, Any] | None, Mapping[str, Any]]]) -> np.ndarray:
    """Draw the scores of experiments over the value of a param: a dot each, and the mean over those of the same value.

    Args:
        setting: the param's name.
        scores: its value as typed, and the summaries ``dream`` and ``real`` of ``scores.json``, for every experiment.
    """
    return draw(_plot_sweep, (setting, scores))


def _plot_scores(axes: Axes, scores: Sequence[Mapping[str, Any]]) -> None:
    ranked = sorted(scores, key=lambda score: score["iteration"])
    for place, score in enumerate(ranked):
        for slot, world in enumerate(WORLDS):
            summary = score[_FIELDS[world]]
            if summary is not None:
                label = world if _first(ranked, world) is score else None  # one entry a world in the legend
                bar(axes, place + (slot - 1) * 0.27, world, summary, label)
                _number(axes, place + (slot - 1) * 0.27, summary)
    environment, rules = ranked[0]["environment"], {score["rules"] for score in ranked}
    for reference in references(rules.pop()) if len(rules) == 1 else ():
        _reference_line(axes, reference)
    axes.set_xlim(-0.6, len(ranked) - 0.4)
    axes.set_xticks(range(len(ranked)), [f"iteration {score['iteration']}" for score in ranked])
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    axes.axhline(0, color=FAINT_INK, linewidth=0.8)
    axes.set_ylabel("mean return")
    axes.set_title(f"{environment}: return of an episode (bars: standard error)", pad=26)
    axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(-0.01, 1.0), borderaxespad=0.2, handlelength=1.0)


def _number(axes: Axes, x: float, summary: Mapping[str, Any]) -> None:
    """Write the mean above its bar and its error."""
    end = max(summary["mean"], 0) + (summary["stderr"] or 0.0)
    text = f"{summary['mean']:.0f}"
    axes.annotate(text, (x, end), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=9)


def _reference_line(axes: Axes, reference: Reference) -> None:
    axes.axhline(reference.mean, color=PAPER_COLOUR, linewidth=1.1, linestyle=(0, (4, 3)), zorder=0.5)
    axes.annotate(
        reference.label,
        (1.0, reference.mean),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        color=PAPER_COLOUR,
        fontsize=8.5,
    )


def _first(ranked: Sequence[Mapping[str, Any]], world: str) -> Mapping[str, Any] | None:
    """Return the first score that has this world's bar."""
    return next((score for score in ranked if score[_FIELDS[world]] is not None), None)


def _plot_study(axes: Axes, data: tuple[str, Sequence[Variant]]) -> None:
    study, variants = data
    for place, variant in enumerate(variants):
        bar(axes, place, "real", {"mean": variant.mean, "stderr": variant.stderr}, None, width=0.5)
        beside = 0.3 * (spread(len(variant.seeds)) - 0.5)
        axes.scatter(place + beside, variant.seeds, s=18, color=PAPER_WHITE, edgecolors=INK, linewidths=0.9, zorder=3)
    names = [f"{variant.name}\n{variant.mean:.0f} ± {variant.stderr:.0f}" for variant in variants]  # clear of the dots
    axes.set_xticks(range(len(variants)), names)
    axes.set_xlim(-0.6, len(variants) - 0.4)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
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
    axes.set_xticks(range(len(keys)), keys)
    axes.set_xlim(-0.4, len(keys) - 0.6)
    axes.axhline(0, color=FAINT_INK, linewidth=0.8)
    axes.set_ylabel(measure)
    axes.set_title("What was collected for each iteration")
    axes.figure.legend(loc="outside lower center", ncols=2 if len(keys) < 4 else 3, fontsize=8.5)


def _plot_rounds(axes: Axes, curves: Mapping[str, pd.DataFrame]) -> None:
    points: dict[str, list[tuple[float, float, float]]] = {name: [] for name in _ROUND_STYLES}  # x, mean, standard error
    for place, table in enumerate(curves.values()):
        dreamt, played = (table[table["phase"] == phase] for phase in ("dream", "selection"))
        if len(dreamt):
            points["dream, last generation"].append((place, dreamt["mean"].iloc[-1], 0.0))
        if "stderr" in played and len(played):
            kept = played.sort_values("mean").iloc[-1]
            points["game, C that is kept"].append((place + 0.08, kept["mean"], kept["stderr"]))
            for _, begun in played[played["generation"] < 0].iterrows():
                points["game, C at the beginning"].append((place - 0.08, begun["mean"], begun["stderr"]))
    for name, style in _ROUND_STYLES.items():
        if points[name]:
            x, mean, error = np.array(points[name]).T
            axes.errorbar(x, mean, error if error.any() else None, label=name, markersize=5, capsize=2.5, **style)
    axes.set_xticks(range(len(curves)), list(curves))
    axes.set_xlim(-0.4, len(curves) - 0.6)
    axes.set_ylabel("return")
    axes.set_title("What the search of each iteration found")
    axes.figure.legend(loc="outside lower center", ncols=3, fontsize=8.5)


def _plot_open_loop(axes: Axes, errors: Mapping[str, Mapping[int, float]]) -> None:
    for number, (key, found) in enumerate(errors.items()):
        shade: Any = {"color": WORLD_COLOURS["dream"], "alpha": (number + 1) / len(errors)}
        axes.plot(list(found), list(found.values()), marker="o", markersize=4, linewidth=1.8, label=key, **shade)
    axes.axhline(1, color=FAINT_INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("steps ahead, on the actions of the game")
    axes.set_ylabel("squared error / variance of z")
    axes.set_title("How far dreams stay real")
    axes.figure.legend(loc="outside lower center", ncols=3, fontsize=8.5)


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
