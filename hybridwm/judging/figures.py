"""Figures of an evaluation: error against horizon, what each part explains, reliability, timing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

COLOURS = ("#9a9a9a", "#3a6ea5", "#d9783c", "#3f8f5b", "#8a5aa8", "#b8a13a")
_STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 9,
    "legend.frameon": False,
}


def canvas(columns: int, *, width: float = 4.2) -> tuple[Any, Any]:
    """(figure, axes side by side) in our style, so many inches wide each."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(width * columns, 3.4), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots(1, columns, squeeze=False)[0]


def horizon(errors: Mapping[str, Mapping[str, np.ndarray]], dt: float, path: Path) -> None:
    """Median error against horizon of every model (errors[model][quantity] [H, W]), with the middle half of the windows."""
    quantities = list(next(iter(errors.values())))
    figure, axes = canvas(len(quantities))
    for axis, quantity in zip(axes, quantities, strict=True):
        for colour, (name, found) in zip(COLOURS, errors.items(), strict=False):
            low, middle, high = np.quantile(found[quantity], [0.25, 0.5, 0.75], axis=1)
            time = dt * np.arange(1, len(middle) + 1)
            axis.plot(time, middle, color=colour, label=name, lw=1.6)
            axis.fill_between(time, low, high, color=colour, alpha=0.15, lw=0)
        axis.set(xlabel="horizon (s)", ylabel=f"error in {quantity}", yscale="log")
    axes[0].legend()
    figure.savefig(path)


def shares(parts: Mapping[str, float], path: Path) -> None:
    """Bar of what each part explains of the squared error."""
    figure, (axis,) = canvas(1)
    axis.barh(list(parts), [100 * x for x in parts.values()], color=[COLOURS[i % 6] for i in range(len(parts))])
    axis.axvline(0, color="black", lw=0.8)
    axis.invert_yaxis()
    axis.set(xlabel="share of the squared position error (%)")
    figure.savefig(path)


def reliability(tables: Mapping[str, np.ndarray], path: Path) -> None:
    """How often events came against how likely they were said to be; areas as the number of windows."""
    figure, (axis,) = canvas(1)
    axis.plot([0, 1], [0, 1], color="black", lw=0.8, ls=":")
    for colour, (name, table) in zip(COLOURS[1:], tables.items(), strict=False):
        p, y, n = table[table[:, 2] > 0].T
        spread = 1.96 * np.sqrt(np.maximum(y * (1 - y), 0.25 / n) / n)
        axis.errorbar(p, y, spread, color=colour, lw=1, capsize=2, fmt="none")
        axis.scatter(p, y, 10 + 150 * n / n.sum(), color=colour, label=name, zorder=3)
    axis.set(xlabel="predicted chance of a break", ylabel="share that broke", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axis.legend(loc="upper left")
    figure.savefig(path)


def timing(late: Mapping[str, np.ndarray], path: Path) -> None:
    """Histogram of how many steps too late each found break was."""
    figure, (axis,) = canvas(1)
    edges = np.arange(-10.5, 11.5)
    for colour, (name, steps) in zip(COLOURS[1:], late.items(), strict=False):
        axis.hist(np.clip(steps, -10, 10), edges, color=colour, alpha=0.6, label=name)
    axis.set(xlabel="steps too late (−10 and 10: or more)", ylabel="breaks")
    axis.legend()
    figure.savefig(path)
