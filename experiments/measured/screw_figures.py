"""The figures of the study `screws`: derived quantities only, no measured curve."""

import numpy as np
from matplotlib.figure import Figure

from experiments.measured.calibration import reliability
from experiments.measured.options import Screws as Options
from experiments.measured.screw_set import Screws
from experiments.measured.thread import AHEAD


def draw(screws: Screws, scored: dict[str, np.ndarray], options: Options) -> None:
    """next_use.png: is a stated chance what happens, and by use; torque.png: error by what is known."""
    options.out.mkdir(parents=True, exist_ok=True)
    rows = screws.used[scored["holes"]]
    failed = screws.failed[scored["holes"]]
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for model, label in ((0, "hybrid"), (3, "regression on usage and failures")):
        stated, share, count = reliability(scored["chance"][..., model][rows], failed[rows].astype(float))
        spread = 1.96 * np.sqrt(np.maximum(share * (1 - share), 1e-4) / count)
        left.errorbar(stated, share, spread, marker="o", markersize=4, linewidth=1, label=label)
    left.plot([0, 0.7], [0, 0.7], color="black", linewidth=0.8)
    left.set(title="next use", xlabel="stated chance of failing", ylabel="share that failed (95 %)")
    left.legend(fontsize="small")
    uses = np.arange(rows.shape[1])
    share = [failed[:, k][rows[:, k]].mean() for k in uses]
    stated = [scored["chance"][:, k, 0][rows[:, k]].mean() for k in uses]
    right.plot(uses, share, "o", markersize=4, label="measured")
    right.plot(uses, stated, label="hybrid, mean")
    right.set(title="by use of the hole", xlabel="earlier uses", ylabel="share that fails")
    right.legend(fontsize="small")
    figure.savefig(options.out / "next_use.png", dpi=150)
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axes = figure.subplots()
    ratio = [
        np.nanmean(scored["so_far"][..., i]) / np.nanmean(scored["friction_begun"][..., i]) for i in range(len(AHEAD))
    ]
    axes.semilogx(np.array(AHEAD) / 32, ratio, marker="o", base=2, label="history and this run so far")
    axes.axhline(
        float(np.nanmean(scored["history"]) / np.nanmean(scored["friction"])), color="C1", label="history alone"
    )
    axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":", label="asked")
    axes.set(xlabel="turns ahead", ylabel="torque error / friction model's", ylim=(0, 1))
    axes.legend(fontsize="small")
    figure.savefig(options.out / "torque.png", dpi=150)
