"""Plots that compare: an agent with others, the agents and world models of a game, the variants of a study, experiments.

Each returns an image, (H, W, 3) uint8.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from worldmodels.report.figures import PLACES, WIDTH, bars, figure, frame, spread
from worldmodels.report.statistics import Runs, interval, share_above
from worldmodels.report.style import BLIND_COLOUR, FAINT_INK, INK, PAPER_COLOUR, PAPER_WHITE, SERIES, WORLD_COLOURS
from worldmodels.report.table import Rival, others, with_error
from worldmodels.report.verdict import Variant

_COLOURS = {"random": WORLD_COLOURS["random"], "blind": BLIND_COLOUR, "paper": PAPER_COLOUR, "agent": WORLD_COLOURS["real"]}


@figure
def standing_bars(axes: Axes, found: Sequence[Rival]) -> None:
    """Draw scores on the same game as lying bars with standard errors, one below the other."""
    page: Any = axes.figure
    page.set_size_inches(WIDTH, 0.75 + 0.42 * len(found))
    ends = [max(rival.mean, 0) + rival.stderr for rival in found]
    reach = max(ends) - min(min(rival.mean, 0) for rival in found) + 1e-9
    for place, (rival, end) in enumerate(zip(found, ends, strict=True)):
        axes.barh(-place, rival.mean, 0.62, color=_COLOURS[rival.kind], xerr=rival.stderr, error_kw={"ecolor": INK})
        weight = "bold" if rival.kind == "agent" else "normal"
        text = with_error(rival.mean, rival.stderr)
        axes.annotate(text, (end + 0.015 * reach, -place), va="center", fontweight=weight)
    axes.axvline(0, color=FAINT_INK, linewidth=0.8)
    axes.set_yticks([-place for place in range(len(found))], [rival.name.replace(" (", "\n(") for rival in found])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(right=max(ends) + 0.2 * reach)
    frame(axes, x="mean return of an episode in the game (line: standard error)")


@figure
def agent_bars(axes: Axes, scores: Sequence[Mapping[str, Any]]) -> None:
    """Draw what every agent of one game got in its dream and in the game, in the order given, with standard errors.

    Random play, the best policy that does not look and, if the rules are the paper's, its agent stand beside them as lines.
    """
    for world, shift, label in (("dream", -0.19, "in its dream"), ("real", 0.19, "in the game")):
        own = [(place + shift, score[world]) for place, score in enumerate(scores) if score[world] is not None]
        if own:
            places, found = zip(*own, strict=True)
            bars(axes, places, [each["mean"] for each in found], [each["stderr"] for each in found], world, 0.36, label)
        for x, each in own:
            style: Any = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "fontsize": 9}
            axes.annotate(f"{each['mean']:.0f}", (x, max(each["mean"], 0) + each["stderr"]), **style)
    for number, rival in enumerate(others(scores), start=1):
        line: Any = {"color": _COLOURS[rival.kind], "linewidth": 1.4, "linestyle": (0, (3 * number - 2, 2)), "zorder": 0.9}
        axes.axhline(rival.mean, label=rival.name, **line)
    names = [score["key"] for score in scores]
    frame(axes, "Every agent, in its dream and in the game", y="mean return", names=names, legend=3)


@figure
def study_bars(axes: Axes, study: str, variants: Sequence[Variant]) -> None:
    """Draw what the variants of a study got in the game: bars of the means with standard errors, a dot for every seed."""
    for place, variant in enumerate(variants):
        bars(axes, place, variant.mean, variant.stderr, "real", 0.5)
        beside = place + 0.3 * spread(len(variant.seeds))
        axes.scatter(beside, variant.seeds, s=18, color=PAPER_WHITE, edgecolors=INK, linewidths=0.9, zorder=3)
    names = [f"{variant.name}\n{with_error(variant.mean, variant.stderr)}" for variant in variants]
    frame(axes, f"{study} (dots: seeds; lines: standard error)", y="mean return in the game", names=names)


@figure
def collected_lines(axes: Axes, measure: str, found: Mapping[str, Mapping[str, float]]) -> None:
    """Draw what all that was collected was worth, by world model: a line for each way of playing.

    Args:
        axes: what is drawn on.
        measure: what the numbers are.
        found: world model's key -> way of playing, without the name of who played -> its worth.
    """
    for number, way in enumerate(sorted({way for worth in found.values() for way in worth})):
        points = [(place, worth[way]) for place, worth in enumerate(found.values()) if way in worth]
        again, colour = divmod(number, len(SERIES))
        style: Any = {"color": SERIES[colour], "marker": "oDsv"[again % 4], "linewidth": 1.8 / (1 + again)}
        axes.plot(*zip(*points, strict=True), label=way, **style)
    axes.axhline(0, color=FAINT_INK, linewidth=0.8)
    frame(axes, "What was collected for each world model", y=measure, names=list(found), legend=3)


@figure
def open_loop_lines(axes: Axes, errors: Mapping[str, Mapping[int, float]]) -> None:
    """Draw how far dreams on real actions stay real, a line for each world model.

    Args:
        axes: what is drawn on.
        errors: world model's key -> steps ahead -> squared error over the variance of z.
    """
    for number, (key, found) in enumerate(errors.items(), start=1):
        shade: Any = {"color": WORLD_COLOURS["dream"], "alpha": 0.25 + 0.75 * number / len(errors)}
        axes.plot(list(found), list(found.values()), marker="o", label=key, **shade)
    axes.axhline(1, color=FAINT_INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.set_ylim(bottom=0)
    steps = "steps ahead, on the actions of the game"
    frame(axes, "How far dreams stay real", steps, "squared error / variance of z", legend=4)


@figure
def search_rounds(axes: Axes, curves: Mapping[str, pd.DataFrame]) -> None:
    """Draw what the search of every agent made of its C, on its own selection episodes, beside what it said of itself last.

    Args:
        axes: what is drawn on.
        curves: agent's key -> its curve. The C that a search begins with is generation -1.
    """
    one = pd.concat([curve.assign(place=place) for place, curve in enumerate(curves.values())], ignore_index=True)
    played = one[(one["phase"] == "selection") & one["mean"].notna()]
    ends = {world: one[(one["world"] == world) & one["mean"].notna()].groupby("place").tail(1) for world in PLACES}
    diamond: Any = {"color": INK, "marker": "D"}
    shown: list[tuple[str, float, pd.DataFrame, Any]] = [
        ("dream, end of the search", -0.08, ends["dream"], {"color": PLACES["dream"], "marker": "o", "linewidth": 1.2}),
        ("game, end of the search", -0.08, ends["game"], {"color": PLACES["game"], "marker": "o", "ls": "none", "alpha": 0.5}),
        ("selection, C at the beginning", 0, played[played["generation"] < 0], diamond | {"mfc": PAPER_WHITE, "ls": "none"}),
        ("selection, C that is kept", 0.08, played.loc[played.groupby("place")["mean"].idxmax()], diamond | {"linewidth": 1.2}),
    ]
    for label, shift, rows, style in shown:
        if len(rows):
            axes.errorbar(rows["place"] + shift, rows["mean"], rows["stderr"].fillna(0), label=label, **style)
    frame(axes, "What each search found", y="return", names=list(curves), legend=2)


@figure
def profile_lines(axes: Axes, runs: Runs, drawn: Sequence[Runs], blind: np.ndarray, limit: float | None) -> None:
    """Draw which share of episodes scored at least so much: of all seeds with their interval, of each seed, of blind play.

    Args:
        axes: what is drawn on.
        runs: scores of the seeds, (N,) each.
        drawn: the same as they might have been.
        blind: scores of the best policy that does not look, (M,).
        limit: the game's, if a score is how long an episode lasted: nobody knows how much longer it would have.
    """
    every = np.concatenate([*runs, blind])
    points = np.linspace(min(0.0, every.min()), every.max() if limit is None else limit, 200)
    low, high = interval([share_above(each, points) for each in drawn])
    axes.fill_between(points, low, high, color=WORLD_COLOURS["real"], alpha=0.2, linewidth=0, label="95 %")
    for scores in runs:
        axes.plot(points, share_above([scores], points), color=WORLD_COLOURS["real"], linewidth=0.6, alpha=0.6)
    label = f"{len(runs)} seeds (thin: each)" if len(runs) > 1 else "one seed"
    axes.plot(points, share_above(runs, points), color=WORLD_COLOURS["real"], label=label)
    axes.plot(points, share_above([blind], points), color=BLIND_COLOUR, linestyle="--", label="best blind policy")
    if limit is not None:
        reached = float(share_above(runs, np.array([limit]))[0])
        axes.axvline(limit, color=FAINT_INK, linewidth=0.8)
        style: Any = {"xytext": (-4, -2), "textcoords": "offset points", "ha": "right", "va": "top", "fontsize": 9}
        axes.annotate(f"{reached:.0%} reach the limit", (limit, 1.0), **style)
    axes.set_ylim(0, 1.02)
    frame(axes, "Share of episodes that score at least so much", "score of an episode", "share of episodes", legend=3)


@figure
def sweep_points(axes: Axes, setting: str, scores: Sequence[tuple[str, Mapping[str, Any] | None, Mapping[str, Any]]]) -> None:
    """Draw the scores of experiments over the value of a param: a dot each, and the mean over the dots of the same value.

    Args:
        axes: what is drawn on.
        setting: the param's name.
        scores: its value as typed, and the summaries ``dream`` and ``real`` of its scores, for every experiment.
    """
    values = list(dict.fromkeys(value for value, *_ in scores))
    for side, (shift, world) in enumerate(((-0.08, "dream"), (0.08, "real"))):
        rows = [(values.index(value) + shift, found[side]) for value, *found in scores]
        points = pd.DataFrame([(x, each["mean"], each["stderr"]) for x, each in rows if each], columns=["x", "mean", "error"])
        axes.errorbar(points["x"], points["mean"], points["error"], fmt="o", color=WORLD_COLOURS[world], alpha=0.55)
        means = points.groupby("x")["mean"].mean()
        axes.plot(means.index, means, color=WORLD_COLOURS[world], marker="_", markersize=14, label=world)
    frame(axes, "dots: experiments, with standard errors; lines: their means", setting, "mean return", names=values)
    axes.legend(loc="best")
