"""The look that every plot shares, and what draws one without a display and without matplotlib's global state."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from worldmodels.report.style import FAINT_INK, GRID, INK, PAPER_WHITE, WORLD_COLOURS

DPI = 144
WIDTH = 6.4
"""Of a plot, in inches."""
WORLDS = ("random", "dream", "real")
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


def draw(plot: Callable[[Axes, Any], None], data: Any, width: float = WIDTH, height: float = 3.6) -> np.ndarray:
    """Return what ``plot`` makes of the data, (H, W, 3) uint8; sizes in inches."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        canvas: Any = FigureCanvasAgg(figure)
        plot(figure.add_subplot(), data)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def bar(axes: Axes, x: float, world: str, summary: Mapping[str, Any], label: str | None, width: float = 0.25) -> None:
    """Draw a bar of a mean, in its world's colour, with its standard error."""
    error = summary["stderr"] or 0.0
    axes.bar(x, summary["mean"], width, color=WORLD_COLOURS[world], label=label)
    axes.errorbar(x, summary["mean"], yerr=error, color=INK, capsize=3, linewidth=1.2)


def spread(count: int) -> np.ndarray:
    """Return ``count`` heights in [0, 1) that fill it evenly, so that dots do not hide each other."""
    return np.arange(count) * 0.6180339887 % 1.0  # golden ratio: even for every count, and no random numbers
