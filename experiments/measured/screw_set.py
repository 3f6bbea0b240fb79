"""The set `screw_s01`: screws driven into the same plastic holes 25 times, as a table of holes × uses.

    curve     mean torque [N m] in bins of 1/32 turn, up to where the run ended
    seat      angle [turns] at which the torque begins its last rise: the head meets the part
    torque    whether the run was stopped by too much torque while the thread was formed (most failures are)

A hole that was used once has a thread, and a screw finds it only when its own thread comes round to it: the seat of a
later use lies anywhere within one turn (`measured.seat`).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.measured.reading import Column, MeasuredSet, join, read_set

BIN = 360 / 32  # degrees
BINS = 132  # up to 1485°: the forming of the thread ends at 1500°
STEEP, SEATED = 0.7, 0.9  # N m: the last rise begins at STEEP where it goes beyond SEATED
LIMIT = 1500.0  # degrees: a head that meets the part before it fails by torque
COLUMNS = {
    "angle_q": Column(-4000, 32767, "quarters of a degree", per_sample=True),
    "torque_q": Column(-3000, 6000, "mN m", per_sample=True),
    "workpiece": Column(),
    "usage": Column(0, 99),
    "side": Column(0, 1),
    "nok": Column(0, 1),
    "last_cmd": Column(0, 3),
}
TORQUE_MAX = 1  # of last_cmd


class Screws(NamedTuple):
    """H holes × K uses; `used` says which cells hold a run."""

    hole: np.ndarray  # [H] workpiece · 2 + side
    workpiece: np.ndarray  # [H]
    used: np.ndarray  # [H, K] bool
    curve: np.ndarray  # [H, K, BINS] N m, nan after the end of the run
    seat: np.ndarray  # [H, K] turns from LIMIT, nan where no head met the part
    failed: np.ndarray  # [H, K] bool
    by_torque: np.ndarray  # [H, K] bool
    kept_aside: np.ndarray  # [H] bool
    digest: str


def read_screws(data: Path, holdout: Path | None = None) -> tuple[Screws, tuple[Path, ...]]:
    """All runs of a folder (and of a part kept aside), and the files they come from."""
    found = read_set(data, "screw_s01", COLUMNS)
    _check_units(found)
    own = len(found.columns["usage"])
    if holdout:
        aside = read_set(holdout, "screw_s01", COLUMNS)
        _check_units(aside)
        found = join(found, aside)
    return tabulate(found, np.arange(len(found.columns["usage"])) >= own), found.files


def tabulate(found: MeasuredSet, aside: np.ndarray) -> Screws:
    """The runs as a table; the uses of a hole must begin with the first and leave none out."""
    of = found.columns
    holes, h = np.unique(of["workpiece"].astype(np.int64) * 2 + of["side"], return_inverse=True)
    k = of["usage"].astype(int)
    if len(set(zip(h, k, strict=True))) < len(h):
        raise ValueError(f"{found.files[0]}: the same use of one hole is there twice")
    used = np.zeros((len(holes), int(k.max()) + 1), bool)
    used[h, k] = True
    if bad := np.flatnonzero((~used[:, :-1] & used[:, 1:]).any(1)).tolist():
        raise ValueError(
            f"{found.files[0]}: workpiece {holes[bad[0]] // 2} lacks a use between others: half a download?"
        )
    curve, seat = np.full((*used.shape, BINS), np.nan), np.full(used.shape, np.nan)
    for i in range(len(h)):
        angle, torque = found.record(i, "angle_q") / 4, found.record(i, "torque_q") / 1000
        curve[h[i], k[i]], seat[h[i], k[i]] = binned(angle, torque), seat_of(angle, torque)
    failed, by_torque, kept = np.zeros(used.shape, bool), np.zeros(used.shape, bool), np.zeros(len(holes), bool)
    failed[h, k], by_torque[h, k] = of["nok"] > 0, (of["nok"] > 0) & (of["last_cmd"] == TORQUE_MAX)
    kept[h[aside]] = True
    return Screws(holes, holes // 2, used, curve, seat, failed, by_torque, kept, found.digest)


def binned(angle: np.ndarray, torque: np.ndarray) -> np.ndarray:
    """Mean torque in each bin of angle, [BINS]; gaps are bridged, what was not reached is nan."""
    at = np.clip((np.maximum.accumulate(angle) / BIN).astype(int), 0, BINS)
    count, total = np.bincount(at, minlength=BINS + 1), np.bincount(at, torque, minlength=BINS + 1)
    there = np.flatnonzero(count)
    mean = np.interp(np.arange(BINS), there, total[there] / count[there])
    return np.where(np.arange(BINS) <= there[-1], mean, np.nan)


def seat_of(angle: np.ndarray, torque: np.ndarray) -> float:
    """Where the head meets the part, in turns from LIMIT; nan if the torque never rose."""
    peak = int(np.argmax(torque))
    if torque[peak] < SEATED:
        return float("nan")
    below = np.flatnonzero(torque[: peak + 1] <= STEEP)
    return float((angle[below[-1] if below.size else 0] - LIMIT) / 360)


def _check_units(found: MeasuredSet) -> None:
    assert found.offsets is not None
    for key, low, high, unit in (("torque_q", 500, 3000, "mN m"), ("angle_q", 2000, 12000, "quarters of a degree")):
        typical = float(np.median(np.maximum.reduceat(found.columns[key], found.offsets[:-1])))
        if not low <= typical <= high:
            raise ValueError(
                f"{found.files[0]}: {key} of a run goes up to {typical:g}, {low} to {high} {unit} is expected; other units?"
            )
