"""The look that every plot shares, and the plots of one agent or world model. Each returns an image, (H, W, 3) uint8."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from worldmodels.report.style import FAINT_INK, GRID, INK, PAPER_WHITE, TRAIN_COLOUR, VALIDATION_COLOUR, WORLD_COLOURS, lighter

P = ParamSpec("P")
WIDTH, HEIGHT = 6.4, 3.6
"""Size of a plot, in inches."""
PLACES = {"dream": WORLD_COLOURS["dream"], "game": WORLD_COLOURS["real"]}
"""Colour of a phase by where it learns."""
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
    "errorbar.capsize": 2.5,
    "grid.color": GRID,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.markersize": 4,
    "xtick.color": FAINT_INK,
    "ytick.color": FAINT_INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "figure.facecolor": PAPER_WHITE,
}


def figure(plot: Callable[Concatenate[Axes, P], None]) -> Callable[P, np.ndarray]:
    """Turn a function that draws on axes into one that returns an image, without a display and matplotlib's global state."""

    @wraps(plot)
    def image(*args: P.args, **kwargs: P.kwargs) -> np.ndarray:
        with rc_context(_STYLE):
            page = Figure(figsize=(WIDTH, HEIGHT), dpi=144, layout="constrained")
            canvas: Any = FigureCanvasAgg(page)
            plot(page.add_subplot(), *args, **kwargs)
            canvas.draw()
            return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    return image


def frame(axes: Axes, title: str = "", x: str = "", y: str = "", *, names: Sequence[str] = (), legend: int = 0) -> None:
    """Write what stands around a plot.

    Args:
        axes: what is drawn on.
        title: above it.
        x: name of the horizontal axis.
        y: name of the vertical axis.
        names: of places side by side; a plot with many is twice as wide, and names that would overlap are aslant.
        legend: columns of a legend below; 0 for none.
    """
    axes.set(title=title, xlabel=x, ylabel=y)
    page: Any = axes.figure
    if names:
        width = WIDTH * (2.1 if len(names) > 7 else 1)
        page.set_size_inches(width, HEIGHT)
        long = len(names) * max(len(line) for name in names for line in name.splitlines()) > 9 * width  # letters an inch
        axes.set_xticks(range(len(names)), list(names), rotation=30 if long else 0, ha="right" if long else "center")
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.tick_params(axis="x", length=0)
        axes.grid(visible=False, axis="x")
    if legend:
        page.legend(loc="outside lower center", ncols=legend, handlelength=1.6, columnspacing=1.2)


def bars(axes: Axes, x: Any, mean: Any, error: Any, world: str, width: float, label: str | None = None) -> None:
    """Draw bars of means with their standard errors, in the colour of their world, on a line at 0."""
    colour: Any = {"color": WORLD_COLOURS[world], "error_kw": {"ecolor": INK, "elinewidth": 1.2}}
    axes.bar(x, mean, width, yerr=error, label=label, **colour)
    axes.axhline(0, color=FAINT_INK, linewidth=0.8)


def spread(count: int) -> np.ndarray:
    """Return ``count`` numbers in [-0.5, 0.5) that fill it evenly, so that dots do not hide each other."""
    return np.arange(count) * 0.6180339887 % 1.0 - 0.5  # golden ratio: even for every count, and no random numbers


@figure
def loss_curve(axes: Axes, title: str, unit: str, table: pd.DataFrame) -> None:
    """Draw the loss of V or M over its updates. ``table``: columns update, split (``train`` or ``validation``), loss."""
    for split, label, colour, width in (
        ("train", "trained on", TRAIN_COLOUR, 1.2),
        ("validation", "held out", VALIDATION_COLOUR, 2.0),
    ):
        rows = table[table["split"] == split]
        marker = "o" if len(rows) < 20 and split == "validation" else None
        axes.plot(rows["update"], rows["loss"], label=label, color=colour, linewidth=width, marker=marker)
        if split == "validation":
            _note_end(axes, rows["update"], rows["loss"], colour)
    if 0 < 20 * table["loss"].min() < table["loss"].max():
        axes.set_yscale("log")
    axes.legend(loc="upper right")
    frame(axes, title, "update", unit)


@figure
def search_curve(axes: Axes, table: pd.DataFrame) -> None:
    """Draw a search for C, phase by phase: returns while it learns, or rewards of a step if a phase has no returns.

    Args:
        axes: what is drawn on.
        table: the curve file: columns generation, phase, world (``dream``, ``game``, empty for the selection), mean, std, best,
            reward and stderr, NaN if a row has no such figure; at least one row.
    """
    searched, selection = table[table["phase"] != "selection"], table[table["phase"] == "selection"]
    unpaid = searched.loc[searched["mean"].isna(), "reward"].dropna()
    paid = _second_axis(axes, unpaid) if len(unpaid) else axes
    before = dict.fromkeys(PLACES, 0)  # phases in the same world so far: each is paler than the one before
    for phase, rows in searched.groupby("phase", sort=False):
        generation, mean, place = rows["generation"], rows["mean"], str(rows["world"].iloc[0])
        colour = lighter(PLACES[place], 1 - 0.6 ** before[place])
        before[place] += 1
        if generation.iloc[0] > searched["generation"].min():
            axes.axvline(generation.iloc[0] - 0.5, color=FAINT_INK, linewidth=0.9, linestyle=(0, (1, 2)))
        if mean.isna().all():
            label = f"{phase} ({place}): reward of a step"
            paid.plot(generation, rows["reward"], color=colour, linewidth=1.2, alpha=0.7, label=label)
            continue
        axes.fill_between(generation, mean - rows["std"], mean + rows["std"], color=colour, alpha=0.18, linewidth=0)
        marker = "o" if len(rows) < 10 else None
        axes.plot(generation, mean, color=colour, linewidth=2, marker=marker, label=f"{phase} ({place}): mean")
        axes.plot(generation, rows["best"], color=colour, lw=1, ls=(0, (3, 2)), label=f"{phase} ({place}): best")
        _note_end(axes, generation, mean, colour)
    if len(selection):
        style: Any = {"color": INK, "marker": "D", "ls": "none", "zorder": 3, "label": "selection (game)"}
        axes.errorbar(selection["generation"], selection["mean"], selection["stderr"], **style)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    phases = " → ".join(searched["phase"].unique())
    frame(axes, f"C: while it learns ({phases})", "generation", "return", legend=3)


@figure
def return_strip(axes: Axes, returns: pd.DataFrame) -> None:
    """Draw every episode's return as a dot, one row a world, with the mean: the spread behind a score.

    Args:
        axes: what is drawn on.
        returns: columns ``world`` (real, dream, random) and ``total``, one row an episode.
    """
    shown = [world for world in ("random", "dream", "real") if (returns["world"] == world).any()]
    for row, world in enumerate(shown):
        totals = returns.loc[returns["world"] == world, "total"]
        axes.scatter(totals, row + 0.5 * spread(len(totals)), s=16, color=WORLD_COLOURS[world], alpha=0.55, linewidths=0)
        axes.plot([totals.mean()] * 2, [row - 0.34, row + 0.34], color=INK, linewidth=2)
        axes.annotate(f"{totals.mean():.0f}", (totals.mean(), row + 0.36), ha="center", va="bottom", fontsize=9)
    axes.set_yticks(range(len(shown)), shown)
    axes.set_ylim(-0.55, len(shown) - 0.25)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    frame(axes, "returns, episode by episode", "return (line: mean)")


@figure
def calibration_bars(axes: Axes, table: pd.DataFrame) -> None:
    """Draw blind policies' returns in the game and in the dream; columns policy, real, real_stderr, dream, dream_stderr."""
    for shift, world in ((-0.2, "real"), (0.2, "dream")):
        bars(axes, np.arange(len(table)) + shift, table[world], table[f"{world}_stderr"], world, 0.38, world)
    names = [str(policy) for policy in table["policy"]]
    frame(axes, "Policies that do not look, in the game and in the dream", y="return", names=names, legend=2)


def _second_axis(axes: Axes, rewards: pd.Series) -> Axes:
    """Return an axis on the right for what is no return, as wide as these rewards but for the worst of them."""
    paid: Axes = axes.twinx()
    low, high = rewards.quantile(0.1), rewards.max()  # what C earned untaught would flatten the rest
    reach = max(high - low, 0.05 * abs(high), 1e-6)
    paid.set_ylim(low - 0.3 * reach, high + 0.1 * reach)
    paid.set_ylabel("reward of a step")
    paid.grid(visible=False)
    axes.set_zorder(paid.get_zorder() + 1)  # contestants before it
    axes.patch.set_visible(False)
    return paid


def _note_end(axes: Axes, x: pd.Series, y: pd.Series, colour: str) -> None:
    """Write the last number of a line beside its end."""
    last = y.last_valid_index()
    if last is not None:
        style: Any = {"xytext": (6, 0), "textcoords": "offset points", "color": colour, "va": "center", "fontsize": 9}
        axes.annotate(f"{y[last]:.4g}", (x[last], y[last]), **style)
