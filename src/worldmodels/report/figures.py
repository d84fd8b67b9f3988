"""Plots of one agent or world model: learning curves, returns episode by episode, blind policies lived and dreamt.

Every function returns an image, (H, W, 3) uint8.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from worldmodels.report.canvas import WORLDS, draw, spread
from worldmodels.report.style import FAINT_INK, INK, TRAIN_COLOUR, VALIDATION_COLOUR, WORLD_COLOURS, lighter

PLACES = {"dream": WORLD_COLOURS["dream"], "game": WORLD_COLOURS["real"]}
"""Colour of a phase by where it learns."""


def loss_curve(title: str, unit: str, table: pd.DataFrame) -> np.ndarray:
    """Draw the loss of V or M over its updates.

    Args:
        title: of the plot.
        unit: what the loss is.
        table: columns update, split (``train`` or ``validation``), loss; at least one row.
    """
    return draw(lambda axes, rows: _plot_losses(axes, title, unit, rows), table)


def search_curve(table: pd.DataFrame) -> np.ndarray:
    """Draw a search for C, phase by phase: returns while it learns, or rewards of a step if a phase has no returns.

    Args:
        table: the curve file: columns generation, phase, world (``dream``, ``game``, empty for the selection), mean, std, best,
            reward and stderr, NaN if a row has no such figure; at least one row.
    """
    return draw(_plot_search, table)


def return_strip(returns: pd.DataFrame) -> np.ndarray:
    """Draw every episode's return as a dot, one row a world, with the mean: the spread behind a score.

    Args:
        returns: columns ``world`` (real, dream, random) and ``total``, one row an episode.
    """
    return draw(_plot_returns, returns)


def calibration_bars(table: pd.DataFrame) -> np.ndarray:
    """Draw blind policies' returns in the game and in the dream, with standard errors.

    Args:
        table: columns policy, real, real_stderr, dream, dream_stderr.
    """
    return draw(_plot_calibration, table)


def _plot_losses(axes: Axes, title: str, unit: str, table: pd.DataFrame) -> None:
    for split, colour, width in (("train", TRAIN_COLOUR, 1.2), ("validation", VALIDATION_COLOUR, 2.0)):
        rows = table[table["split"] == split]
        if not len(rows):
            continue
        marker = "o" if len(rows) < 20 and split == "validation" else None
        label = "trained on" if split == "train" else "held out"
        line: Any = {"color": colour, "lw": width, "marker": marker, "markersize": 3.5}
        axes.plot(rows["update"], rows["loss"], label=label, **line)
    held_out = table[table["split"] == "validation"]
    if len(held_out):
        _note_end(axes, float(held_out["update"].iloc[-1]), float(held_out["loss"].iloc[-1]), VALIDATION_COLOUR)
    loss = table["loss"].to_numpy(dtype=float)
    loss = loss[np.isfinite(loss)]
    if len(loss) and loss.min() > 0 and loss.max() / loss.min() > 20:
        axes.set_yscale("log")
    axes.set_title(title)
    axes.set_xlabel("update")
    axes.set_ylabel(unit)
    axes.legend(loc="upper right")


def _plot_search(axes: Axes, table: pd.DataFrame) -> None:
    searched, selection = table[table["phase"] != "selection"], table[table["phase"] == "selection"]
    phases = list(searched["phase"].drop_duplicates())
    before = dict.fromkeys(PLACES, 0)  # phases in the same world so far: each is paler than the one before
    paid: Axes | None = None
    for number, phase in enumerate(phases):
        rows = searched[searched["phase"] == phase]
        place, name = str(rows["world"].iloc[0]), f"{phase} ({rows['world'].iloc[0]})"
        colour = lighter(PLACES[place], 1 - 0.6 ** before[place])
        before[place] += 1
        if number:
            axes.axvline(float(rows["generation"].iloc[0]) - 0.5, color=FAINT_INK, linewidth=0.9, linestyle=(0, (1, 2)))
        if rows["mean"].notna().any():
            _plot_returns_of(axes, rows, name, colour)
        elif rows["reward"].notna().any():
            paid = paid or _second_axis(axes)
            paid.plot(
                rows["generation"], rows["reward"], color=colour, linewidth=1.2, alpha=0.7, label=f"{name}: reward of a step"
            )
    if paid is not None:
        shown = searched.loc[searched["mean"].isna(), "reward"]
        low, high = shown.quantile(0.1), shown.max()  # what C earned untaught would flatten the rest
        reach = max(high - low, 0.05 * abs(high), 1e-6)
        paid.set_ylim(low - 0.3 * reach, high + 0.1 * reach)
    if len(selection):
        style: Any = {"color": INK, "marker": "D", "ls": "none", "markersize": 5, "capsize": 2.5, "zorder": 3}
        axes.errorbar(selection["generation"], selection["mean"], selection["stderr"], label="selection (game)", **style)
    axes.set_title("C: while it learns" + (f" ({' → '.join(map(str, phases))})" if len(phases) > 1 else ""))
    axes.set_xlabel("generation")
    axes.set_ylabel("return")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.figure.legend(loc="outside lower center", ncols=3, fontsize=8.5, handlelength=1.6, columnspacing=1.2)


def _plot_returns_of(axes: Axes, rows: pd.DataFrame, name: str, colour: str) -> None:
    """Draw the mean return of each generation with a standard deviation, and the best of it."""
    generation = rows["generation"].to_numpy(dtype=float)
    mean, std = rows["mean"].to_numpy(dtype=float), rows["std"].to_numpy(dtype=float)
    axes.fill_between(generation, mean - std, mean + std, color=colour, alpha=0.18, linewidth=0)
    marker = "o" if len(rows) < 10 else None
    axes.plot(generation, mean, color=colour, linewidth=2, marker=marker, markersize=3.5, label=f"{name}: mean")
    axes.plot(generation, rows["best"], color=colour, lw=1, ls=(0, (3, 2)), label=f"{name}: best")
    known = np.flatnonzero(np.isfinite(mean))
    _note_end(axes, generation[known[-1]], mean[known[-1]], colour)


def _second_axis(axes: Axes) -> Axes:
    """Return an axis on the right for what is no return."""
    paid: Axes = axes.twinx()
    paid.set_ylabel("reward of a step")
    paid.grid(visible=False)
    axes.set_zorder(paid.get_zorder() + 1)  # contestants before it
    axes.patch.set_visible(False)
    return paid


def _note_end(axes: Axes, x: float, y: float, colour: str) -> None:
    axes.annotate(f"{y:.4g}", (x, y), xytext=(6, 0), textcoords="offset points", color=colour, va="center", fontsize=9)


def _plot_returns(axes: Axes, returns: pd.DataFrame) -> None:
    shown = [world for world in reversed(WORLDS) if (returns["world"] == world).any()]
    for row, world in enumerate(reversed(shown)):
        totals = returns.loc[returns["world"] == world, "total"].to_numpy(dtype=float)
        height = row + 0.5 * (spread(len(totals)) - 0.5)
        axes.scatter(totals, height, s=16, color=WORLD_COLOURS[world], alpha=0.55, linewidths=0)
        axes.plot([totals.mean()] * 2, [row - 0.34, row + 0.34], color=INK, linewidth=2)
        axes.annotate(f"{totals.mean():.0f}", (totals.mean(), row + 0.36), ha="center", va="bottom", fontsize=9)
    axes.set_yticks(range(len(shown)), list(reversed(shown)))
    axes.set_ylim(-0.55, len(shown) - 0.25)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_title("returns, episode by episode")
    axes.set_xlabel("return (line: mean)")


def _plot_calibration(axes: Axes, table: pd.DataFrame) -> None:
    place = np.arange(len(table))
    for shift, world in ((-0.2, "real"), (0.2, "dream")):
        axes.bar(
            place + shift, table[world], 0.38, yerr=table[f"{world}_stderr"], label=world, color=WORLD_COLOURS[world],
            error_kw={"ecolor": INK, "elinewidth": 1.0, "capsize": 2.5},
        )  # fmt: skip
    axes.axhline(0, color=FAINT_INK, linewidth=0.8)
    axes.set_xticks(place, table["policy"], fontsize=8.5)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("return")
    axes.set_title("Policies that do not look, in the game and in the dream")
    axes.figure.legend(loc="outside lower center", ncols=2, fontsize=8.5)
