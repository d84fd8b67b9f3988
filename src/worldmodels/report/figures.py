"""Plots: learning curves, scores as bars, returns episode by episode.

Every function returns an image, (H, W, 3) uint8, drawn without a display and without matplotlib's global state.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from worldmodels.report.references import REFERENCES, Reference
from worldmodels.report.studies import Variant
from worldmodels.report.style import (
    FAINT_INK,
    GRID,
    INK,
    PAPER_COLOUR,
    PAPER_WHITE,
    SERIES,
    TRAIN_COLOUR,
    VALIDATION_COLOUR,
    WORLD_COLOURS,
)

DPI = 144
WORLDS = ("random", "dream", "real")
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
_STYLE: Any = {
    "font.family": "DejaVu Sans",  # shipped with matplotlib, so the same on every machine
    "font.size": 10,
    "axes.edgecolor": FAINT_INK,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": FAINT_INK,
    "ytick.color": FAINT_INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
    "figure.facecolor": PAPER_WHITE,
}


def learning_curves(curves: Mapping[str, pd.DataFrame]) -> dict[str, np.ndarray]:
    """Draw the curve of every stage that learns.

    Args:
        curves: stage (``vision``, ``memory``, ``controller``) -> its curve file as a table.

    Returns:
        stage -> image. Stages whose table is empty are left out.
    """
    return {stage: _draw(_PLOTS[stage], table) for stage, table in curves.items() if len(table)}


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
    return _draw(_plot_scores, scores, width=max(6.4, 3.0 + 1.6 * len(scores)))


def return_strip(returns: pd.DataFrame) -> np.ndarray:
    """Draw every episode's return as a dot, one row a world, with the mean: the spread behind a score.

    Args:
        returns: columns ``world`` (real, dream, random) and ``total``, one row an episode.
    """
    return _draw(_plot_returns, returns)


def calibration_bars(table: pd.DataFrame) -> np.ndarray:
    """Draw blind policies' returns in the game and in the dream, with standard errors.

    Args:
        table: columns policy, real, real_stderr, dream, dream_stderr.
    """
    return _draw(_plot_calibration, table, width=max(4.8, 2.0 + 0.9 * len(table)))


def study_bars(study: str, variants: Sequence[Variant]) -> np.ndarray:
    """Draw what the variants of a study got in the game: bars of the means with standard errors, a dot for every seed.

    Args:
        study: its name.
        variants: of ``studies.variants``.
    """
    return _draw(_plot_study, (study, variants), width=max(4.8, 2.0 + 1.5 * len(variants)))


def reward_rates(rates: Mapping[str, Mapping[str, float]]) -> np.ndarray:
    """Draw the reward per step of all that was collected, by iteration: a line for each way of playing.

    Args:
        rates: iteration's key -> way of playing, without the name of who played -> reward per step.
    """
    return _draw(_plot_rates, rates, width=max(4.8, 2.0 + 0.8 * len(rates)))


def open_loop_lines(errors: Mapping[str, Mapping[int, float]]) -> np.ndarray:
    """Draw how far dreams on real actions stay real, a line for each iteration.

    Args:
        errors: iteration's key -> steps ahead -> squared error over the variance of z.
    """
    return _draw(_plot_open_loop, errors, width=4.8)


def search_rounds(curves: Mapping[str, pd.DataFrame]) -> np.ndarray:
    """Draw what the search of every iteration made of its C, on its own selection episodes, beside what its dream said last.

    Args:
        curves: iteration's key -> curve of the controller stage. The C that a search begins with is generation -1.
    """
    return _draw(_plot_rounds, curves, width=max(6.4, 2.0 + 0.8 * len(curves)))


def sweep_points(setting: str, scores: Sequence[tuple[str, Mapping[str, Any] | None, Mapping[str, Any]]]) -> np.ndarray:
    """Draw the scores of experiments over the value of a param: a dot each, and the mean over those of the same value.

    Args:
        setting: the param's name.
        scores: its value as typed, and the summaries ``dream`` and ``real`` of ``scores.json``, for every experiment.
    """
    return _draw(_plot_sweep, (setting, scores))


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


def _plot_study(axes: Axes, data: tuple[str, Sequence[Variant]]) -> None:
    study, variants = data
    for place, variant in enumerate(variants):
        _bar(axes, place, "real", {"mean": variant.mean, "stderr": variant.stderr}, None, width=0.5)
        spread = 0.3 * (_spread(len(variant.seeds)) - 0.5)
        axes.scatter(place + spread, variant.seeds, s=18, color=PAPER_WHITE, edgecolors=INK, linewidths=0.9, zorder=3)
    names = [f"{variant.name}\n{variant.mean:.0f} ± {variant.stderr:.0f}" for variant in variants]  # clear of the dots
    axes.set_xticks(range(len(variants)), names)
    axes.set_xlim(-0.6, len(variants) - 0.4)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    axes.axhline(0, color=FAINT_INK, linewidth=0.8)
    axes.set_ylabel("mean return in the game")
    axes.set_title(f"{study} (dots: seeds; lines: standard error)")


def _plot_rates(axes: Axes, rates: Mapping[str, Mapping[str, float]]) -> None:
    keys = list(rates)
    for number, way in enumerate(sorted({way for found in rates.values() for way in found})):
        at = [place for place, key in enumerate(keys) if way in rates[key]]
        again, colour = divmod(number, len(SERIES))
        dashes: Any = (0, (1.5 * again, 1.5 * again)) if again else "solid"  # where there are more ways than colours
        line: Any = {"color": SERIES[colour], "linestyle": dashes, "marker": "o", "markersize": 4, "linewidth": 1.8}
        axes.plot(at, [rates[keys[place]][way] for place in at], label=way, **line)
    axes.set_xticks(range(len(keys)), keys)
    axes.set_xlim(-0.4, len(keys) - 0.6)
    axes.axhline(0, color=FAINT_INK, linewidth=0.8)
    axes.set_ylabel("reward per step")
    axes.set_title("What was collected for each iteration")
    axes.figure.legend(loc="outside lower center", ncols=3, fontsize=8.5)


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


def _plot_calibration(axes: Axes, table: pd.DataFrame) -> None:
    place = np.arange(len(table))
    for shift, world in ((-0.2, "real"), (0.2, "dream")):
        axes.bar(
            place + shift, table[world], 0.38, yerr=table[f"{world}_stderr"], label=world, color=WORLD_COLOURS[world],
            error_kw={"ecolor": INK, "elinewidth": 1.0, "capsize": 2.5},
        )  # fmt: skip
    axes.set_xticks(place, table["policy"])
    axes.set_ylabel("return")
    axes.set_title("Blind policies, lived and dreamt")
    axes.legend(loc="upper left")


def _draw(plot: Callable[[Axes, Any], None], data: Any, width: float = 6.4, height: float = 3.6) -> np.ndarray:
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        canvas: Any = FigureCanvasAgg(figure)
        plot(figure.add_subplot(), data)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _plot_losses(axes: Axes, table: pd.DataFrame) -> None:
    for split, colour, width in (("train", TRAIN_COLOUR, 1.2), ("validation", VALIDATION_COLOUR, 2.0)):
        rows = table[table["split"] == split]
        if not len(rows):
            continue
        marker = "o" if len(rows) < 20 and split == "validation" else None
        line: Any = {"color": colour, "lw": width, "marker": marker, "markersize": 3.5}
        axes.plot(rows["update"], rows["loss"], label=split, **line)
    held_out = table[table["split"] == "validation"]
    if len(held_out):
        _note_end(axes, float(held_out["update"].iloc[-1]), float(held_out["loss"].iloc[-1]), VALIDATION_COLOUR)
    loss = table["loss"].to_numpy(dtype=float)
    loss = loss[np.isfinite(loss)]
    if len(loss) and loss.min() > 0 and loss.max() / loss.min() > 20:
        axes.set_yscale("log")
    axes.set_xlabel("update")
    axes.legend(loc="upper right")


def _plot_vision(axes: Axes, table: pd.DataFrame) -> None:
    _plot_losses(axes, table)
    axes.set_title("V: loss of a frame")
    axes.set_ylabel("squared error + KL")


def _plot_memory(axes: Axes, table: pd.DataFrame) -> None:
    _plot_losses(axes, table)
    axes.set_title("M: loss of a step")
    axes.set_ylabel("negative log-likelihood")


def _plot_controller(axes: Axes, table: pd.DataFrame) -> None:
    searched = table[table["phase"] != "selection"]
    for phase in searched["phase"].drop_duplicates():
        rows = searched[searched["phase"] == phase]
        generation, colour = rows["generation"].to_numpy(dtype=float), WORLD_COLOURS.get(str(phase), FAINT_INK)
        if rows["mean"].isna().all():  # PPO where no episode ends, or paid with risks: it has rewards and no returns
            paid = axes.twinx()
            paid.plot(generation, rows["reward"], color=colour, linewidth=1, alpha=0.6, label=f"{phase}: reward of a step")
            low, high = rows["reward"].quantile(0.1), rows["reward"].max()  # what C earned untaught would flatten the rest
            paid.set_ylim(low - 0.3 * (high - low) - 1e-9, high + 0.1 * (high - low) + 1e-9)
            paid.set_ylabel("reward of a step")
            paid.grid(visible=False)
            axes.set_zorder(paid.get_zorder() + 1)  # contestants before it
            axes.patch.set_visible(False)
            continue
        mean, std = rows["mean"].to_numpy(dtype=float), rows["std"].to_numpy(dtype=float)
        axes.fill_between(generation, mean - std, mean + std, color=colour, alpha=0.18, linewidth=0)
        axes.plot(generation, mean, color=colour, linewidth=2, label=f"{phase}: mean")
        axes.plot(generation, rows["best"], color=colour, lw=1, ls=(0, (3, 2)), label=f"{phase}: best")
        _note_end(axes, generation[-1], mean[-1], colour)
    selection = table[table["phase"] == "selection"]
    if len(selection):
        style: Any = {"color": WORLD_COLOURS["real"], "marker": "D", "ls": "none", "markersize": 5, "capsize": 2.5, "zorder": 3}
        axes.errorbar(selection["generation"], selection["mean"], selection.get("stderr"), label="selection (real)", **style)
    axes.set_title("C: while it learns")
    axes.set_xlabel("generation")
    axes.set_ylabel("return")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.figure.legend(loc="outside lower center", ncols=5, fontsize=8.5, handlelength=1.6, columnspacing=1.2)


def _note_end(axes: Axes, x: float, y: float, colour: str) -> None:
    axes.annotate(f"{y:.4g}", (x, y), xytext=(6, 0), textcoords="offset points", color=colour, va="center", fontsize=9)


def _plot_scores(axes: Axes, scores: Sequence[Mapping[str, Any]]) -> None:
    ranked = sorted(scores, key=lambda score: score["iteration"])
    for place, score in enumerate(ranked):
        for slot, world in enumerate(WORLDS):
            summary = score[_FIELDS[world]]
            if summary is not None:
                label = world if _first(ranked, world) is score else None  # one entry a world in the legend
                _bar(axes, place + (slot - 1) * 0.27, world, summary, label)
                _number(axes, place + (slot - 1) * 0.27, summary)
    environment, rules = ranked[0]["environment"], {score["rules"] for score in ranked}
    for reference in REFERENCES.get(rules.pop(), ()) if len(rules) == 1 else ():
        _reference_line(axes, reference)
    axes.set_xlim(-0.6, len(ranked) - 0.4)
    axes.set_xticks(range(len(ranked)), [f"iteration {score['iteration']}" for score in ranked])
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    axes.axhline(0, color=FAINT_INK, linewidth=0.8)
    axes.set_ylabel("mean return")
    axes.set_title(f"{environment}: return of an episode (bars: standard error)", pad=26)
    axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(-0.01, 1.0), borderaxespad=0.2, handlelength=1.0)


def _bar(axes: Axes, x: float, world: str, summary: Mapping[str, Any], label: str | None, width: float = 0.25) -> None:
    error = summary["stderr"] or 0.0
    axes.bar(x, summary["mean"], width, color=WORLD_COLOURS[world], label=label)
    axes.errorbar(x, summary["mean"], yerr=error, color=INK, capsize=3, linewidth=1.2)


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


def _plot_returns(axes: Axes, returns: pd.DataFrame) -> None:
    shown = [world for world in reversed(WORLDS) if (returns["world"] == world).any()]
    for row, world in enumerate(reversed(shown)):
        totals = returns.loc[returns["world"] == world, "total"].to_numpy(dtype=float)
        height = row + 0.5 * (_spread(len(totals)) - 0.5)
        axes.scatter(totals, height, s=16, color=WORLD_COLOURS[world], alpha=0.55, linewidths=0)
        axes.plot([totals.mean()] * 2, [row - 0.34, row + 0.34], color=INK, linewidth=2)
        axes.annotate(f"{totals.mean():.0f}", (totals.mean(), row + 0.36), ha="center", va="bottom", fontsize=9)
    axes.set_yticks(range(len(shown)), list(reversed(shown)))
    axes.set_ylim(-0.55, len(shown) - 0.25)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_title("returns, episode by episode")
    axes.set_xlabel("return (line: mean)")


def _spread(count: int) -> np.ndarray:
    """Return ``count`` heights in [0, 1) that fill it evenly, so that dots do not hide each other."""
    return np.arange(count) * 0.6180339887 % 1.0  # golden ratio: even for every count, and no random numbers


_PLOTS: dict[str, Callable[[Axes, Any], None]] = {
    "vision": _plot_vision,
    "memory": _plot_memory,
    "controller": _plot_controller,
}
