"""How far the residual of a double pendulum is to be trusted, g, from runs set aside while it was learned.

    kinds of driving    runs that excite the arm to identify it, and runs under a controller: what is learned mostly on
                        wild motion harms slow motion a little
    g of a kind         of GRID the one with the lowest error at 1 s on the runs set aside, beside the identified physics:
                        geometric mean over groups of the ratio of medians; at g = 0 the hybrid is the physics

A controller never seen is trusted as the controllers that were seen are; no run that is asked about is looked at.
"""

from collections.abc import Sequence

import numpy as np

from experiments.measured.pendulum_fit import HORIZONS_S, Models, errors, every
from experiments.measured.pendulum_set import Run

GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
KINDS = ("identification", "controller")
AT = HORIZONS_S.index(1.0)


def kind_of(run: Run) -> str:
    """What drove a run, as far as trust goes."""
    return KINDS[not run.kind.startswith("sysid")]


def calibrated(models: Models, valid: Sequence[Run]) -> dict[str, float]:
    """Trust of each kind of driving; where no run of a kind was set aside, or the residual was refused, 1."""
    if models.residual is None:
        return dict.fromkeys(KINDS, 1.0)
    asked = every(valid, most=12)
    found = [errors("hybrid", models.theta, models.residual, valid, asked, lambda run, g=g: g)[:, AT] for g in GRID]
    return {kind: _best(np.stack(found), valid, [i for i, _ in asked], kind) for kind in KINDS}


def _best(error: np.ndarray, valid: Sequence[Run], at: Sequence[int], kind: str) -> float:
    """The trust of the lowest mean log ratio to g = 0, from errors [grid, windows]."""
    group = np.array([valid[i].group if kind_of(valid[i]) == kind else "" for i in at])
    names = sorted(set(group.tolist()) - {""})
    if not names:
        return 1.0
    median = np.log([[np.median(row[group == name]) for name in names] for row in error])
    return GRID[int(np.argmin((median - median[0]).mean(1)))]
