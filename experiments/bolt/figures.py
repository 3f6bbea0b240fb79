"""The figures of the study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bolt.judge import HORIZONS
from experiments.bolt.rack import CONTROL_S
from hybridwm.judging.figures import COLOURS, canvas
from hybridwm.report import Figure

LABELS = {
    "hybrid": "hybrid", "identified": "physics identified", "given": "physics as given", "network": "network alone",
    "blind": "blind to events", "pid": "PID on torque", "threshold": "torque threshold",
}  # fmt: skip


def draw(out: Path, parts: Sequence[Mapping[str, Any]], clock: Mapping[str, Any]) -> list[Figure]:
    """Write all of them."""
    return [
        errors(out / "clamp.png", parts), courses(out / "courses.png", parts[0]["traces"]),
        horizon(out / "horizon.png", parts), certainty(out / "certainty.png", parts), times(out / "times.png", clock),
    ]  # fmt: skip


def errors(path: Path, parts: Sequence[Mapping[str, Any]]) -> Figure:
    """Distribution of the final error of every controller."""
    figure, (axis,) = canvas(1)
    racks = list(parts[0]["racks"])
    for at, rack in enumerate(racks):
        off = 100 * np.abs(np.concatenate([np.asarray(p["racks"][rack]["off"], float) for p in parts]))
        spread = np.random.default_rng(0).uniform(-0.3, 0.3, len(off))
        axis.plot(np.maximum(off, 1e-3), at + spread, ".", ms=3, color=COLOURS[2 if "hybrid" in rack else 1], alpha=0.6)
    axis.axvline(0.1, color="black", lw=0.8, ls=":")
    axis.axvline(1.0, color="black", lw=0.8, ls="--")
    name = lambda rack: LABELS[rack.split("-")[0]] + (", true state" if "truth" in rack else "")  # noqa: E731
    axis.set(
        xscale="log", xlabel="final clamp force off by (%)", yticks=range(len(racks)), yticklabels=map(name, racks)
    )
    axis.invert_yaxis()
    figure.savefig(path)
    return Figure(path, "How far the clamp force ends from what was asked, every bolt a dot; dotted 0.1 %, dashed 1 %.")


def courses(path: Path, traces: Mapping[str, Any]) -> Figure:
    """One bolt under three controllers."""
    figure, axes = canvas(2)
    for colour, rack in zip(COLOURS[1:], ("hybrid-sensors", "pid-sensors", "threshold-sensors"), strict=False):
        course, label = traces[rack], LABELS[rack.split("-")[0]]
        force = np.asarray(course["force"], float) / 1e3
        axes[0].plot(CONTROL_S * np.arange(len(force)), force, color=colour, label=label, lw=1.4)
        axes[1].plot(CONTROL_S * np.arange(len(force) - 1), course["ctrl"], color=colour, lw=1.0)
    hybrid = traces["hybrid-sensors"]
    told = np.asarray(hybrid["told"], float) / 1e3
    axes[0].plot(CONTROL_S * np.arange(len(told)), told, color="black", lw=0.8, ls=":", label="hybrid, told")
    axes[0].axhline(float(hybrid["target"]) / 1e3, color="black", lw=0.8, ls="--", label="asked")
    axes[0].set(xlabel="time (s)", ylabel="clamp force (kN)")
    axes[1].set(xlabel="time (s)", ylabel="command, share of the torque")
    axes[0].legend()
    figure.savefig(path)
    return Figure(path, "One bolt by sensors: clamp force, what the filter thinks it is, and the commands.")


def horizon(path: Path, parts: Sequence[Mapping[str, Any]]) -> Figure:
    """Prediction error against horizon."""
    figure, (axis,) = canvas(1)
    for colour, name in zip((COLOURS[2], COLOURS[1], COLOURS[0], COLOURS[4]), parts[0]["prediction"], strict=True):
        error = np.mean([np.asarray(p["prediction"][name]["against_horizon"], float) for p in parts], 0)
        axis.plot(
            CONTROL_S * (HORIZONS + 1), 100 * np.maximum(error, 1e-5), "o-", ms=3, color=colour, label=LABELS[name]
        )
    axis.set(xscale="log", yscale="log", xlabel="horizon (s)", ylabel="median error of the clamp force (%)")
    axis.legend()
    figure.savefig(path)
    return Figure(path, "Prediction along the closed loop: error against horizon.")


def certainty(path: Path, parts: Sequence[Mapping[str, Any]]) -> Figure:
    """What the filter says of its own error, against what it was."""
    figure, (axis,) = canvas(1)
    for colour, rack in zip(COLOURS[1:], ("identified-sensors", "hybrid-sensors"), strict=False):
        off, std = (
            100 * np.concatenate([np.asarray(p["racks"][rack][k], float) for p in parts])
            for k in ("told_off", "told_std")
        )
        axis.plot(std, off, ".", ms=4, color=colour, label=LABELS[rack.split("-")[0]])
    top = axis.get_xlim()[1]
    for side in (-2, 2):
        axis.plot([0, top], [0, side * top], color="black", lw=0.8, ls=":")
    axis.set(xlabel="standard deviation told (%)", ylabel="told less real (%)", xlim=(0, top))
    axis.legend()
    figure.savefig(path)
    return Figure(path, "How well the filter knows the clamp force at the end; dotted: two standard deviations.")


def times(path: Path, clock: Mapping[str, Any]) -> Figure:
    """Plan times of the run by the clock."""
    figure, (axis,) = canvas(1)
    took = np.concatenate([np.asarray(x, float) for x in clock["plan_ms"]])
    axis.hist(np.minimum(took, 60), bins=60, color=COLOURS[1])
    axis.axvline(20, color="black", lw=0.8, ls="--")
    axis.set(xlabel="time of a plan (ms)", ylabel="plans")
    figure.savefig(path)
    return Figure(path, "Plan times in real time; dashed: the period of 20 ms.")
