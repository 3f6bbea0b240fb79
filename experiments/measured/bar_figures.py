"""The figures of the study `break`."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.measured import strength
from experiments.measured.bar_set import AXES, Bars
from experiments.measured.options import Break

SHOWN = 3  # materials


def draw(scored: dict[str, dict[str, np.ndarray]], bars: Bars, options: Break) -> None:
    """pit.png, whether u is uniform; chance.png, P(break below F) of a few materials, fitted to all bars."""
    options.out.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, (kind, found) in zip(figure.subplots(1, 2), scored.items(), strict=False):
        _pit(axes, kind, found)
    figure.savefig(options.out / "pit.png", dpi=150)
    figure = Figure(figsize=(9, 4), layout="constrained")
    _chances(list(figure.subplots(1, 2)), bars)
    figure.savefig(options.out / "chance.png", dpi=150)


def _pit(axes: Axes, kind: str, found: dict[str, np.ndarray]) -> None:
    u = np.sort(found["u"][found["seed"] == found["seed"].min(), :3], axis=0)
    share = (np.arange(len(u)) + 0.5) / len(u)
    fit = "per group" if kind == "seen" else "pooled"
    for column, label in enumerate(("hazard", f"normal, {fit}", f"Weibull, {fit}")):
        axes.plot(u[:, column], share, label=label, linewidth=2 if column == 0 else 1)
    line, band = np.array([0.0, 1.0]), 1.358 / np.sqrt(len(u))
    axes.plot(line, line, color="black", linewidth=0.8)
    axes.fill_between(line, line - band, line + band, color="black", alpha=0.08, label="chance, 95 %")
    axes.set(title=f"{kind} materials", xlabel="P(break below the breaking force)", ylabel="share of bars", ylim=(0, 1))
    axes.legend(fontsize="small")


def _chances(panels: list[Axes], bars: Bars) -> None:
    fitted = strength.fit(bars, bars.used)
    loads = np.linspace(50.0, 2200.0, 300)
    grid = np.broadcast_to(np.log(loads), (*bars.log_area.shape, len(loads)))
    chance = strength.predict(fitted, grid, bars.log_area)[1]
    safe = strength.largest_load(fitted, bars.log_area)
    picked = np.linspace(0, len(bars.materials) - 1, SHOWN).astype(int)
    for a, axes in enumerate(panels):
        for colour, m in enumerate(picked):
            measured = np.exp(bars.log_load[m, a][bars.used[m, a] & bars.broke[m, a]])
            axes.plot(loads, chance[m, a], color=f"C{colour}", label=bars.materials[m])
            axes.plot(measured, np.full(len(measured), 0.02 + 0.03 * colour), "|", color=f"C{colour}", markersize=10)
            axes.axvline(safe[m, a], color=f"C{colour}", linestyle=":")
        axes.set(title=f"direction {AXES[a]}", xlabel="load (N); dotted: P(break) = 1 %", ylabel="P(break below load)")
        axes.legend(fontsize="x-small")
