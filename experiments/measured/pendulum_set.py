"""The set `doublepend`: runs of a double pendulum with a motor on each joint, on an even grid of time.

The log's time is uneven, its velocities are noisy, its torque is one sample of a motor's current. Here

    q, v      on a grid of STEP (linear; cubic through slopes where the log is slower than COARSE), then smoothed by the
              likeliest Rauch–Tung–Striebel smoother (`hybridwm.logs.smoothing`) where the log is fast
    u         mean torque over each step: the current read at a row is what flowed since the row before. Runs whose
              current was not logged use the commanded torque, which holds from its row on
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.measured.reading import Column, MeasuredSet, join, read_set
from hybridwm.logs.recordings import Dataset, Recording
from hybridwm.logs.smoothing import smooth
from physics.scene import load_scene

STEP = 0.004  # s
COARSE = 0.01  # s between rows
DESIGNS = ("A.0", "C.0", "C.1")
COLUMNS = {
    "t": Column(-10.0, 3600.0, "s", per_sample=True),
    "q": Column(-60.0, 60.0, "rad", per_sample=True),
    "qd": Column(-100.0, 100.0, "rad/s", per_sample=True),
    "tau_con": Column(-40.0, 40.0, "N m", per_sample=True),
    "tau_meas": Column(-40.0, 40.0, "N m", per_sample=True),
    "design": Column(),
    "kind": Column(),
}


class Run(NamedTuple):
    """One run on the grid."""

    design: int  # of DESIGNS
    kind: str  # what drove it
    q: np.ndarray  # [H+1, 2] rad: shoulder from hanging down, elbow relative to it
    v: np.ndarray  # [H+1, 2] rad/s
    u: np.ndarray  # [H, 2] N m over each step
    measured: bool  # whether u is a measured torque
    aside: bool

    @property
    def group(self) -> str:
        """Design and controller."""
        return f"{DESIGNS[self.design]} {self.kind}"


def read_runs(data: Path, holdout: Path | None = None) -> tuple[tuple[Run, ...], MeasuredSet]:
    """All runs of a folder (and of a part kept aside), and where they come from."""
    found = read_set(data, "doublepend", COLUMNS)
    _check(found)
    own = len(found.columns["kind"])
    if holdout:
        aside = read_set(holdout, "doublepend", COLUMNS)
        _check(aside)
        found = join(found, aside)
    assert found.offsets is not None
    return _smoothed([_even(found, i, i >= own) for i in range(len(found.offsets) - 1)]), found


def _check(found: MeasuredSet) -> None:
    where = found.files[0]
    if unknown := set(found.columns["design"].tolist()) - set(DESIGNS):
        raise ValueError(f"{where}: design {', '.join(sorted(unknown))} is unknown; {', '.join(DESIGNS)} are allowed")
    assert found.offsets is not None
    for key in ("q", "qd", "tau_con", "tau_meas"):
        if found.columns[key].ndim != 2 or found.columns[key].shape[1] != 2:
            raise ValueError(
                f"{where}: {key} is {found.columns[key].shape}; two columns, shoulder and elbow, are expected"
            )
        if key != "tau_meas" and not np.isfinite(found.columns[key]).all():
            row = int(np.argwhere(~np.isfinite(found.columns[key]))[0, 0])
            raise ValueError(f"{where}: {key} is not finite at row {row}; numbers are expected")
    for i in range(len(found.offsets) - 1):
        rows = np.diff(found.record(i, "t").astype(float))
        if len(rows) < 20 or (rows < 0).any():
            raise ValueError(
                f"{where}: run {i} has {len(rows) + 1} rows or a time that falls; at least 21 rising are expected"
            )
        if not 2e-4 <= np.median(rows) <= 0.2:
            raise ValueError(
                f"{where}: rows of run {i} are {np.median(rows):g} s apart, 0.0002 to 0.2 s is allowed; other units?"
            )


def _even(found: MeasuredSet, index: int, aside: bool) -> Run:
    of = {key: found.record(index, key).astype(float) for key in ("t", "q", "qd", "tau_con", "tau_meas")}
    keep = np.concatenate([[True], np.diff(of["t"]) > 1e-4])
    t, q, v = of["t"][keep], np.unwrap(of["q"][keep], axis=0), of["qd"][keep]
    grid = np.arange(t[0], t[-1], STEP)
    measured = bool(np.isfinite(of["tau_meas"]).all())
    held = of["tau_meas"][keep][1:] if measured else of["tau_con"][keep][:-1]
    impulse = np.concatenate([np.zeros((1, 2)), np.cumsum(held * np.diff(t)[:, None], 0)])
    if np.median(np.diff(t)) > COARSE:
        q, v = _hermite(grid, t, q, v), _linear(grid, t, v)
        v = np.gradient(q, STEP, axis=0)
    else:
        q, v = _linear(grid, t, q), _linear(grid, t, v)
    u = np.diff(_linear(grid, t, impulse), axis=0) / STEP
    return Run(
        DESIGNS.index(str(found.columns["design"][index])), str(found.columns["kind"][index]), q, v, u, measured, aside
    )


def _linear(grid: np.ndarray, t: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.column_stack([np.interp(grid, t, y[:, j]) for j in range(2)])


def _hermite(grid: np.ndarray, t: np.ndarray, q: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The cubic through both ends of each interval, with their slopes."""
    k = np.clip(np.searchsorted(t, grid, side="right") - 1, 0, len(t) - 2)
    h = (t[k + 1] - t[k])[:, None]
    s = (grid - t[k])[:, None] / h
    ends = (1 + 2 * s) * (1 - s) ** 2 * q[k] + s * s * (3 - 2 * s) * q[k + 1]
    return ends + s * (1 - s) ** 2 * h * v[k] + s * s * (s - 1) * h * v[k + 1]


def _smoothed(runs: list[Run]) -> tuple[Run, ...]:
    """Fast runs smoothed; those whose velocity is the slope of a cubic already are left alone."""
    fast = [i for i, run in enumerate(runs) if not np.allclose(run.v, np.gradient(run.q, STEP, axis=0))]
    if not fast:
        return tuple(runs)
    logs = tuple(Recording(str(i), runs[i].q, runs[i].v, runs[i].u, np.zeros((len(runs[i].q), 0))) for i in fast)
    clean = smooth(Dataset(load_scene("double_pendulum"), STEP, logs, {}), "always")[0]
    for i, log in zip(fast, clean.recordings, strict=True):
        runs[i] = runs[i]._replace(q=log.qpos, v=log.qvel)
    return tuple(runs)
