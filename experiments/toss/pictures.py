"""The learning curve of the study `toss` as a picture, and a few throws, measured beside predicted, as replays.

Replays hold measured poses: they stay in `--out` and are not for committing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.measured.tosses import DT
from experiments.toss import things
from experiments.toss.sets import Set
from experiments.toss.verdicts import PUBLISHED, Parts, sizes
from hybridwm.judging.figures import COLOURS, canvas
from hybridwm.replay import Track, replay

LABELS = {"identified": "identified physics", "network": "network alone", "hybrid": "hybrid"}


def draw(numbers: Mapping[str, Any], out: Path) -> None:
    """curve.png: errors against the number of known throws."""
    out.mkdir(parents=True, exist_ok=True)
    figure, panels = canvas(2)
    named = sizes(numbers)
    x = np.arange(len(named))
    for axes, measure, unit, published in zip(panels, ("position", "rotation"), ("%", "°"), (1, 2), strict=True):
        for colour, (kind, label) in zip(COLOURS[1:], LABELS.items(), strict=False):
            found = [numbers[f"{kind}-{size}"][measure] for size in named]
            mean, low, high = np.array([(f["mean"], *f["interval"]) for f in found]).T
            axes.plot(x, mean, "o-", color=colour, label=label, ms=3.5, lw=1.6)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
        best = min(row[published] for row in PUBLISHED)
        axes.axhline(best, color="0.4", ls=":", lw=1.2, label="best published simulator")
        axes.set_xticks(x, named)
        axes.set(xlabel="throws known", ylabel=f"{measure} error ({unit})", ylim=(0, None))
    panels[0].legend(fontsize=8)
    figure.savefig(out / "curve.png")


def replays(found: Mapping[str, Parts], data: Mapping[str, Set], out: Path) -> None:
    """replays/THING-NUMBER.html of a few throws; without viser they are left out, and that is said."""
    try:
        for name, parts in found.items():
            first = parts["hybrid-all"][0]
            for k in range(first["shown"].shape[-1]):
                _replay(name, int(first["throw"][k]), k, parts, data[name], out / "replays")
    except ValueError as error:
        print(f"no replays: {error}")


def _replay(name: str, throw: int, k: int, parts: Parts, data: Set, folder: Path) -> None:
    """One throw: measured, with the hybrid's prediction over it, and both again beside with the physics'."""
    rows = int(data.throws.seen[:, throw].sum())
    truth = data.throws.qpos[:rows, :, throw]
    middle = [*-truth[-1, :2], 0.0]
    tracks = []
    for i, kind in enumerate(("hybrid", "identified")):
        offset = (middle[0], middle[1] + 0.6 * i, 0.0)
        tracks.append(Track(f"measured ({kind} over it)", truth, offset=offset))
        tracks.append(Track(LABELS[kind], parts[f"{kind}-all"][0]["shown"][:rows, :, k], ghost=True, offset=offset))
    scene = (things.cube() if name == "cube" else things.elbow()).engine.scene
    text = replay(scene, tracks, dt=DT, speed=0.4)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}-{throw}.html").write_text(text)
