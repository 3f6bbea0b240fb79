"""What the filter over seats is compared with: logistic regressions on what is known before a use.

    plain      usage, failures of the hole so far: their number and share
    recent     the same with the last result, a running mean of results, log usage, usage²; its ridge is chosen
    curves     all of that, seats and torque levels of earlier uses of this hole and of the other one of the workpiece

Ridges are chosen by the log-loss of inner folds, by workpiece, of the holes that are shown.
"""

from collections.abc import Callable

import numpy as np

from experiments.measured.calibration import log_loss
from experiments.measured.screw_set import Screws
from experiments.measured.splits import group_folds

RIDGES = (1.0, 10.0, 100.0)
EDGES = (-0.15, 0.0, 0.1, 0.2, 0.4, 0.6, 0.75)  # turns: how often did the head come this early?


def levels(screws: Screws) -> np.ndarray:
    """Log torque [N m] in four parts of each run, [H, K, 4]; a part not reached has the run's part before it."""
    parts = [screws.curve[:, :, a:b] for a, b in ((9, 13), (13, 36), (36, 80), (80, 111))]
    count = [np.isfinite(part).sum(-1) for part in parts]
    mean = [np.nansum(part, -1) / np.maximum(n, 1) for part, n in zip(parts, count, strict=True)]
    for i in range(1, 4):
        mean[i] = np.where(count[i] > 0, mean[i], mean[i - 1])
    return np.log(np.clip(np.stack(mean, -1), 0.02, 5.0))


def earlier(x: np.ndarray, lag: int = 1) -> np.ndarray:
    """The values [H, K, …] of `lag` uses before, 0 where there was none."""
    return np.concatenate([np.zeros_like(x[:, :lag]), x[:, :-lag]], 1)


def running(x: np.ndarray, weight: float) -> np.ndarray:
    """Running mean of all uses before, with more weight on the last, [H, K, …]."""
    out, mean, total = np.zeros_like(x), np.zeros_like(x[:, 0]), 0.0
    for k in range(1, x.shape[1]):
        mean, total = (1 - weight) * mean + weight * x[:, k - 1], (1 - weight) * total + weight
        out[:, k] = mean / total
    return out


def other_side(screws: Screws, x: np.ndarray) -> np.ndarray:
    """The values of the other hole of each workpiece, its own where there is none."""
    at = {int(hole): i for i, hole in enumerate(screws.hole)}
    return x[[at.get(int(hole) ^ 1, i) for i, hole in enumerate(screws.hole)]]


def inputs(screws: Screws, name: str) -> np.ndarray:
    """What one regression knows before each use, [H, K, F]."""
    failed, use = screws.failed.astype(float), np.broadcast_to(np.arange(screws.used.shape[1]) / 25, screws.used.shape)
    number = earlier(np.cumsum(failed, 1))
    found = [use, number / 10, number / np.maximum(25 * use, 1)]
    if name != "plain":
        found += [earlier(failed), running(failed, 0.3), np.log1p(25 * use), use**2]
    if name == "curves":
        seat = np.where(np.isfinite(screws.seat), screws.seat, 0.3)
        soft = [1 / (1 + np.exp((seat - edge) / 0.05)) for edge in EDGES]
        found += [
            running(seat, 0.1),
            running(seat, 0.3),
            *(running(x, 0.15) for x in soft),
            running(soft[1], 0.15) * use,
        ]
        torque = np.moveaxis(levels(screws), -1, 0)
        found += [*map(earlier, torque), *(running(x, 0.3) for x in torque)]
        found += [running(other_side(screws, x), 0.15) for x in (failed, seat, soft[2])]
    return np.stack(found, -1)


def foretell(screws: Screws, name: str, shown: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """P(fail) of each use but the first, [asked, K-1], by a regression fitted to the holes `shown` [H] bool."""
    x, used = inputs(screws, name)[:, 1:], screws.used[:, 1:]
    rows = shown[:, None] & used
    seen, failed = x[rows], screws.failed[:, 1:][rows]
    groups = np.broadcast_to(screws.workpiece[:, None], used.shape)[rows]
    ask = regression(seen, failed, 1.0 if name == "plain" else _chosen(seen, failed, groups))
    return ask(x[asked].reshape(-1, x.shape[-1])).reshape(-1, x.shape[1])


def _chosen(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float:
    folds = group_folds(groups, min(4, len(np.unique(groups))), seed=0)

    def loss(ridge: float, fold: int) -> float:
        ask = regression(x[folds != fold], y[folds != fold], ridge)
        return float(log_loss(ask(x[folds == fold]), y[folds == fold]).mean())

    losses = [np.mean([loss(ridge, fold) for fold in range(folds.max() + 1)]) for ridge in RIDGES]
    return RIDGES[int(np.argmin(losses))]


def regression(x: np.ndarray, y: np.ndarray, ridge: float) -> Callable[[np.ndarray], np.ndarray]:
    """Ridge logistic regression by Newton's steps, [n, F] -> a function of inputs that gives P(fail)."""
    mean, std = x.mean(0), x.std(0) + 1e-9
    wide = lambda x: np.column_stack([np.ones(len(x)), (x - mean) / std])  # noqa: E731
    a, w = wide(x), np.zeros(x.shape[1] + 1)
    penalty = np.diag([1e-3, *[ridge] * x.shape[1]])
    for _ in range(15):
        p = 1 / (1 + np.exp(-np.clip(a @ w, -30, 30)))
        w -= np.linalg.solve((a * (p * (1 - p))[:, None]).T @ a + penalty, a.T @ (p - y) + penalty @ w)
    return lambda x: 1 / (1 + np.exp(-np.clip(wide(x) @ w, -30, 30)))
