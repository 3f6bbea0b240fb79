"""Figures of the study: error against horizon, ratio against shift, and how true the chances of a break are."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.worlds.episodes import said
from hybridwm.judging import figures
from hybridwm.judging.figures import COLOURS, canvas
from hybridwm.learning.contenders import HYBRID, IDENTIFIED, NETWORK

_TINT = {"physics as given": COLOURS[0], IDENTIFIED: COLOURS[1], NETWORK: COLOURS[4], HYBRID: COLOURS[2]}


def draw(found: dict[str, list[Any]], numbers: dict[str, Any], out: Path) -> None:
    """horizon.png, shifts.png and, where there are events, reliability.png and timing.png."""
    _horizon(found, out / "horizon.png")
    _shifts(numbers, out / "shifts.png")
    for parts in (p for p in found.values() if "events" in p[0]):
        pooled = {m: _pooled([p["events"][m]["reliability"] for p in parts]) for m in (NETWORK, HYBRID)}
        figures.reliability(pooled, out / "reliability.png")
        late = {m: np.concatenate([p["events"][m]["late"] for p in parts]) for m in (NETWORK, HYBRID)}
        figures.timing(late, out / "timing.png")


def _horizon(found: dict[str, list[Any]], path: Path) -> None:
    figure, axes = canvas(len(found))
    for axis, (name, parts) in zip(axes, found.items(), strict=True):
        for model in parts[0]["curve"]:
            curves = np.median(
                np.array([p["curve"][model] for p in parts], float), 0
            )  # [3, points]; one seed must not rule
            time = np.linspace(0, 1, curves.shape[1] + 1)[1:]
            axis.plot(time, 1000 * curves[1], color=_TINT[model], label=model, lw=1.6)
            axis.fill_between(time, 1000 * curves[0], 1000 * curves[2], color=_TINT[model], alpha=0.15, lw=0)
        axis.set(title=name, xlabel="horizon (s)", ylabel="distance from what happened (mm)", yscale="log")
    axes[0].legend()
    figure.savefig(path)


def _shifts(numbers: dict[str, Any], path: Path) -> None:
    figure, axes = canvas(len(numbers))
    for axis, (name, world) in zip(axes, numbers.items(), strict=True):
        places = np.arange(len(world["outside"]))
        for model, step in ((NETWORK, 0.15), (HYBRID, -0.15)):
            ratio = np.array([o[model]["ratio"] for o in world["outside"]])
            low, high = np.array([o[model]["interval"] for o in world["outside"]]).T
            spread = np.abs(np.stack([ratio - low, high - ratio]))
            axis.errorbar(ratio, places + step, xerr=spread, fmt="o", ms=4, lw=1, color=_TINT[model], label=model)
        axis.axvline(1.05, color="black", lw=0.8, ls=":")
        axis.set(title=name, xlabel="error / error of the identified physics", xscale="log")
        axis.set_yticks(places, [said(o["beyond"]) for o in world["outside"]])
        axis.invert_yaxis()
    axes[0].legend()
    figure.savefig(path)


def _pooled(tables: list[Any]) -> np.ndarray:
    """Reliability tables of several seeds as one: [bins, 3]."""
    tables_ = np.array(tables, float)  # NaN where a bin was empty
    count = np.nan_to_num(tables_[..., 2])
    total = count.sum(0)
    weighed = np.nan_to_num(tables_[..., :2]) * count[..., None]
    return np.concatenate([weighed.sum(0) / np.maximum(total, 1)[:, None], total[:, None]], 1)
