"""The public files of the thrown cube -> one cube_toss.npz that the study `toss` reads, each throw once.

    .pt       one tensor (1, T, 19) or (T, 19) a file, read without running anything in it (tensors.py)
    .csv      T rows of 13 or 19 numbers a file; the first row may hold titles

    columns   position 3, quaternion w x y z 4, velocity 3, angular velocity in the body's frame 3, control 6 (all zero)

Positions and velocities come in half widths of the cube as drawn, 0.0524 m, and are multiplied back. Some public files are
the same throw again, turned about the vertical and about a body axis, perhaps cut otherwise: heights and speeds do not know of
such turns, so two throws whose heights agree within `SAME` over their moving rows at some shift are one, and the later goes.
"""

import csv
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hybridwm.logs.tensors import read_tensor

UNIT = 0.0524
"""m, the public files' unit of length."""
SAME = 2e-4  # m
LONGEST_SHIFT = 20  # rows
COMPARED = 30  # rows
LEAST_ROWS = 20
LEAST_MOVING = 12
"""Rows that must move for two throws to be told apart: all cubes lie alike."""
COLUMNS = {"pos": slice(0, 3), "quat": slice(3, 7), "vel": slice(7, 10), "omega": slice(10, 13)}


class Imported(NamedTuple):
    """What came of a folder."""

    arrays: dict[str, np.ndarray]
    files: tuple[str, ...]  # kept, in order
    twins: tuple[tuple[str, str], ...]  # (left out, the same as)


def run_command(source: Path, out: Path) -> None:
    """What `hybridwm import cube-toss` does."""
    target = out / "cube_toss.npz"
    if target.exists():
        raise ValueError(f"--out {out}: {target.name} is there already; give another folder")
    found = import_throws(source)
    out.mkdir(parents=True, exist_ok=True)
    part = out / f".{os.getpid()}.cube_toss.npz"
    np.savez_compressed(part, allow_pickle=False, **found.arrays)
    part.replace(target)
    for twin, first in found.twins:
        print(f"left out {twin}: the same throw as {first}")
    print(f"{len(found.files)} throws, {len(found.arrays['pos'])} rows, {len(found.twins)} twins left out: {target}")


def import_throws(source: Path) -> Imported:
    """Every .pt and .csv file of a folder, or one file."""
    paths = _paths(source)
    throws = [_throw(path) for path in paths]
    same = twins([t[:, 2] for t in throws])
    kept = [i for i in range(len(throws)) if i not in same]
    rows = np.concatenate([throws[i] for i in kept])
    arrays = {name: rows[:, place].astype(np.float32) for name, place in COLUMNS.items()}
    arrays["offsets"] = np.cumsum([0, *(len(throws[i]) for i in kept)])
    arrays["file_name"] = np.array([paths[i].name for i in kept])
    left = tuple((paths[i].name, paths[j].name) for i, j in sorted(same.items()))
    return Imported(arrays, tuple(paths[i].name for i in kept), left)


def _paths(source: Path) -> list[Path]:
    if not source.exists():
        raise ValueError(f"{source}: no such file or folder; give the folder of the public .pt or .csv files")
    found = [source] if source.is_file() else [p for p in source.iterdir() if p.suffix in (".pt", ".csv")]
    if not found or found[0].suffix not in (".pt", ".csv"):
        raise ValueError(f"{source}: no .pt or .csv file of a throw")
    return sorted(found, key=lambda p: (int(p.stem), "") if p.stem.isdecimal() else (1 << 60, p.stem))


def _throw(path: Path) -> np.ndarray:
    """Rows [T, 13] in m, m/s and rad/s, checked."""
    rows = read_tensor(path) if path.suffix == ".pt" else _table(path)
    rows = rows[0] if rows.ndim == 3 and len(rows) == 1 else rows
    if rows.ndim != 2 or rows.shape[1] not in (13, 19):
        raise ValueError(f"{path}: an array {rows.shape}; expected rows of 13 or 19 numbers")
    if len(rows) < LEAST_ROWS:
        raise ValueError(f"{path}: {len(rows)} rows; a throw has at least {LEAST_ROWS}: half a download?")
    if not np.isfinite(rows).all():
        raise ValueError(f"{path}: row {int(np.argwhere(~np.isfinite(rows))[0, 0])} holds something that is no number")
    if (off := np.abs(np.linalg.norm(rows[:, 3:7], axis=1) - 1)).max() > 1e-2:
        raise ValueError(f"{path}: columns 3 to 6 at row {int(off.argmax())} are no unit quaternion w x y z")
    if not 0.8 < rows[-1, 2] < 1.2:
        raise ValueError(
            f"{path}: the cube ends {rows[-1, 2]:.3g} above the board; expected about 1, in half widths: other units?"
        )
    rows = rows[:, :13].copy()
    rows[:, COLUMNS["pos"]] *= UNIT
    rows[:, COLUMNS["vel"]] *= UNIT
    return rows


def _table(path: Path) -> np.ndarray:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = [line for line in csv.reader(file) if line]
        first = 0 if _numbers(lines[0]) else 1
        return np.array([[float(word) for word in line] for line in lines[first:]])
    except (UnicodeDecodeError, ValueError, IndexError, csv.Error) as error:
        raise ValueError(f"{path} is no table of numbers: half a download?") from error


def _numbers(words: list[str]) -> bool:
    try:
        return bool([float(word) for word in words])
    except ValueError:
        return False


def twins(heights: list[np.ndarray]) -> dict[int, int]:
    """Throws that are an earlier one again: {later: earlier}, from the heights of their centres."""
    longest = max(map(len, heights))
    padded = np.stack([np.concatenate([h, np.full(longest - len(h), np.nan)]) for h in heights])
    found: dict[int, int] = {}
    for i in range(1, len(heights)):
        before = [j for j in range(i) if j not in found]
        for shift in range(-LONGEST_SHIFT, LONGEST_SHIFT + 1):
            own, other = max(shift, 0), max(-shift, 0)
            count = min(COMPARED, len(heights[i]) - own)
            if count < LEAST_ROWS // 2 or other + count > longest:
                continue
            apart = np.abs(padded[before, other : other + count] - heights[i][own : own + count])
            hit = np.flatnonzero(apart.max(1) < SAME)  # NaN where the other has ended: never below
            if len(hit) and _moving(heights[i][own : own + count]):
                found[i] = before[int(hit[0])]
                break
    return found


def _moving(height: np.ndarray) -> bool:
    return int((np.abs(np.diff(height)) > 3 * SAME).sum()) >= LEAST_MOVING
