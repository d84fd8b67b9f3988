"""Plots of one iteration: learning curves, returns episode by episode, blind policies lived and dreamt.

Every function returns an image, (H, W, 3) uint8.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from worldmodels.report.canvas import WORLDS, draw, spread
from worldmodels.report.style import FAINT_INK, INK, TRAIN_COLOUR, VALIDATION_COLOUR, WORLD_COLOURS


def learning_curves(curves: Mapping[str, pd.DataFrame]) -> dict[str, np.ndarray]:
    """Draw the curve of every stage that learns.

    Args:
        curves: stage (``vision``, ``memory``, ``controller``) -> its curve file as a table.

    Returns:
        stage -> image. Stages whose table is empty are left out.
    """
    return {stage: draw(_PLOTS[stage], table) for stage, table in curves.items() if len(table)}


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
    return draw(_plot_calibration, table, width=max(4.8, 2.0 + 0.9 * len(table)))


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
    axes.set_xticks(place, table["policy"])
    axes.set_ylabel("return")
    axes.set_title("Blind policies, lived and dreamt")
    axes.legend(loc="upper left")


_PLOTS: dict[str, Callable[[Axes, Any], None]] = {
    "vision": _plot_vision,
    "memory": _plot_memory,
    "controller": _plot_controller,
}
