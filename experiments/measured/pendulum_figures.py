"""The figures of the study `doublepend`: errors, no measured motion."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.measured.options import Doublepend as Options
from experiments.measured.pendulum_fit import HORIZONS_S
from experiments.measured.tracking import PLANNERS

COLOURS = {"published": "0.6", "identified": "C0", "network": "C2", "hybrid": "C3"}


def draw(numbers: dict[str, Any], track: dict[str, np.ndarray], options: Options) -> None:
    """horizons.png: median error of each unseen group by horizon; tracking.png: error by planner."""
    options.out.mkdir(parents=True, exist_ok=True)
    groups = numbers["unseen"]["groups"]
    columns = min(len(groups), 4)
    down = -(-len(groups) // columns)
    figure = Figure(figsize=(3 * columns, 2.8 * down), layout="constrained")
    panels = np.atleast_1d(figure.subplots(down, columns, sharex=True, sharey=True)).ravel()
    for axes, (name, found) in zip(panels, groups.items(), strict=False):
        for model, median in found["median"].items():
            axes.loglog(HORIZONS_S, median, marker="o", markersize=3, color=COLOURS[model], label=model)
        axes.set_title(name, fontsize="small")
    for axes in panels[len(groups) :]:
        axes.set_visible(False)
    panels[0].legend(fontsize="x-small")
    figure.supxlabel("seconds ahead; controllers never seen")
    figure.supylabel("median error (rad)")
    figure.savefig(options.out / "horizons.png", dpi=150)
    figure = Figure(figsize=(5.5, 3), layout="constrained")
    axes = figure.subplots()
    for k in range(len(PLANNERS)):
        axes.plot(track["error"][:, k], np.full(len(track["error"]), -k), "o", alpha=0.6, color="C3" if k % 2 else "C0")
        axes.plot(track["error"][:, k].mean(), -k, "|", markersize=20, color="black")
    axes.set_yticks([-k for k in range(len(PLANNERS))], list(PLANNERS))
    axes.set(xlabel="tracking error (rad), one dot a path, bar: mean", xlim=(0, None))
    figure.savefig(options.out / "tracking.png", dpi=150)
