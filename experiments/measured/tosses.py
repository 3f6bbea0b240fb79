"""Measured throws of a cube: a folder that the user names -> throws, folds by throw, and how a prediction is scored.

    cube_toss*.npz    pos [N, 3] m, quat [N, 4] wxyz body to world, vel [N, 3] m/s, omega [N, 3] rad/s in the body's frame,
                      offsets [n + 1]: throw i is rows offsets[i] to offsets[i + 1]; all such files of the folder are read

    position          mean over time of |p − p̂| in % of the width of the cube
    rotation          mean over time of the angle between the two orientations, in degrees
    face              whether the same face is down at the end
    penetration       mean over time of the depth of the deepest corner below the board, in % of the width

Legend: H rows after the first, W throws, worlds last.
"""

from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

DT = 0.006743
"""s between rows: 148.3 Hz."""
HALF_WIDTH = 0.0524
"""m, of the cube as drawn: the unit of all percentages."""
TRUE_HALF_WIDTH = 0.0513
"""m, at which it rests: penetration is measured with it."""
LEAST_ROWS = 20
_COLUMNS = {"pos": 3, "quat": 4, "vel": 3, "omega": 3}


class Throw(NamedTuple):
    """One throw as measured."""

    name: str
    pos: np.ndarray  # [H+1, 3] m
    quat: np.ndarray  # [H+1, 4] wxyz, unit
    vel: np.ndarray  # [H+1, 3] m/s: backward differences, so half a row late
    omega: np.ndarray  # [H+1, 3] rad/s, body frame


class Scores(NamedTuple):
    """Of W throws, each [W]."""

    position: np.ndarray  # %
    rotation: np.ndarray  # degrees
    face: np.ndarray  # 0 or 1
    penetration: np.ndarray  # %
    deepest: np.ndarray  # %


def read_throws(folder: Path, prefix: str = "cube_toss") -> tuple[Throw, ...]:
    """All throws in `prefix`*.npz of a folder; says which file and what is wrong with it."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give the one that holds {prefix}*.npz")
    files = sorted(folder.glob(f"{prefix}*.npz"))
    if not files:
        there = ", ".join(sorted(path.name for path in folder.glob("*.npz"))) or "no .npz file"
        raise ValueError(f"{folder}: no file {prefix}*.npz; there is {there}")
    return tuple(throw for path in files for throw in _throws(path))


def _throws(path: Path) -> list[Throw]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if missing := {*_COLUMNS, "offsets"} - set(arrays.files):
                raise ValueError(
                    f"{path}: {', '.join(sorted(missing))} missing; expected pos, quat, vel, omega, offsets"
                )
            found, offsets = {name: arrays[name].astype(float) for name in _COLUMNS}, arrays["offsets"].astype(int)
    except (OSError, EOFError, KeyError, UnicodeDecodeError, BadZipFile) as error:
        raise ValueError(f"{path} is no whole .npz file: download it again") from error
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path} is no whole .npz file: download it again") from error
    _checked(path, found, offsets)
    names = (f"{path.stem}/{i}" for i in range(len(offsets) - 1))
    cut = zip(names, offsets[:-1], offsets[1:], strict=True)
    return [Throw(name, *(found[c][a:b] for c in _COLUMNS)) for name, a, b in cut]


def _checked(path: Path, found: dict[str, np.ndarray], offsets: np.ndarray) -> None:
    """Refuse what is not rows of throws in the units above."""
    rows = len(found["pos"])
    for name, width in _COLUMNS.items():
        if found[name].shape != (rows, width):
            raise ValueError(f"{path}: {name} is {found[name].shape}; expected ({rows}, {width})")
        if not np.isfinite(found[name]).all():
            row = int(np.argwhere(~np.isfinite(found[name]))[0, 0])
            raise ValueError(f"{path}: {name} is not finite at row {row}; expected numbers")
    if offsets.ndim != 1 or len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != rows:
        raise ValueError(
            f"{path}: offsets run from {offsets[:1]} to {offsets[-1:]}; expected 0 to {rows}: half a download?"
        )
    if (short := np.diff(offsets)).min() < LEAST_ROWS:
        throw = int(short.argmin())
        raise ValueError(f"{path}: throw {throw} has {short[throw]} rows; expected at least {LEAST_ROWS}")
    if (off := np.abs(np.linalg.norm(found["quat"], axis=1) - 1)).max() > 1e-3:
        raise ValueError(f"{path}: quat at row {int(off.argmax())} is not of length 1; expected w x y z")
    rest = float(np.median(found["pos"][offsets[1:] - 1, 2]))
    if not 0.9 * TRUE_HALF_WIDTH < rest < 1.1 * HALF_WIDTH:
        raise ValueError(
            f"{path}: the cube ends {rest:.3g} above the board; expected about {TRUE_HALF_WIDTH} m: other units?"
        )
    moved = np.diff(found["pos"], axis=0)[np.setdiff1d(np.arange(rows - 1), offsets[1:-1] - 1)]
    speed = found["vel"][np.setdiff1d(np.arange(1, rows), offsets[1:-1])]
    ratio = float(np.sum(moved * speed) / np.sum(speed * speed))
    if not 0.9 * DT < ratio < 1.1 * DT:
        raise ValueError(
            f"{path}: pos moves {ratio:.3g} s times vel in a row; expected {DT} s: other units, or another rate?"
        )


def folds(count: int, number: int, seed: int) -> list[np.ndarray]:
    """`number` disjoint parts of `count` throws, at random but always alike."""
    if not 2 <= number <= count:
        raise ValueError(f"{number} folds of {count} throws: give 2 to {count}")
    return [np.sort(part) for part in np.array_split(np.random.default_rng(seed).permutation(count), number)]


class Stacked(NamedTuple):
    """Throws side by side; short ones are continued with their last row, which `seen` leaves out."""

    pos: np.ndarray  # [H+1, 3, W]
    quat: np.ndarray  # [H+1, 4, W]
    vel: np.ndarray  # [3, W] at the first row
    omega: np.ndarray  # [3, W]
    seen: np.ndarray  # [H+1, W] 1 where a throw has rows


def stacked(throws: tuple[Throw, ...] | list[Throw], rows: int | None = None) -> Stacked:
    """Throws as one array; `rows` cuts or continues them."""
    lengths = np.array([len(t.pos) for t in throws])
    rows = int(lengths.max()) if rows is None else rows
    wide = lambda x: np.stack([v[np.minimum(np.arange(rows), len(v) - 1)] for v in x], -1)  # noqa: E731
    first = lambda x: np.stack([v[0] for v in x], -1)  # noqa: E731
    pos, quat, vel, omega = ([t[i] for t in throws] for i in (1, 2, 3, 4))
    return Stacked(wide(pos), wide(quat), first(vel), first(omega), (np.arange(rows)[:, None] < lengths).astype(float))


def scores(found: np.ndarray, truth: Stacked) -> Scores:
    """Of predicted poses [H+1, 7, W]; a prediction that is not finite scores as if it were far away and upside down."""
    found = np.where(np.isfinite(found).all((0, 1)), found, _AWAY[None, :, None])
    pos, quat = found[:, :3], found[:, 3:]
    count, last = truth.seen.sum(0), truth.seen.sum(0).astype(int) - 1
    mean = lambda x: (x * truth.seen).sum(0) / count  # noqa: E731
    low = depth(pos, quat)
    same = np.einsum("iw,iw->w", vertical(_at(quat, last)), vertical(_at(truth.quat, last)))
    width = 2 * HALF_WIDTH / 100
    return Scores(
        position=mean(np.linalg.norm(pos - truth.pos, axis=1)) / width,
        rotation=mean(np.degrees(angle(quat, truth.quat))),
        face=(same > np.sqrt(0.5)).astype(float),
        penetration=mean(low) / width,
        deepest=(low * truth.seen).max(0) / width,
    )


_AWAY = np.array([0.0, 0.0, 10.0, 0.0, 1.0, 0.0, 0.0])


def angle(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Angle in rad between orientations [..., 4, W]."""
    one = one / np.linalg.norm(one, axis=-2, keepdims=True)
    apart = np.minimum(np.linalg.norm(one - two, axis=-2), np.linalg.norm(one + two, axis=-2))
    return 4 * np.arcsin(np.clip(apart / 2, 0, 1))


def depth(pos: np.ndarray, quat: np.ndarray) -> np.ndarray:
    """How far the deepest corner of a cube of the true size is below the board, m: [H+1, W]."""
    return np.maximum(TRUE_HALF_WIDTH * np.abs(vertical(quat)).sum(-2) - pos[:, 2], 0)


def vertical(quat: np.ndarray) -> np.ndarray:
    """The world's vertical in the body's frame: [..., 4, W] -> [..., 3, W]."""
    w, x, y, z = np.moveaxis(quat, -2, 0)
    return np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -2)


def _at(quat: np.ndarray, last: np.ndarray) -> np.ndarray:
    return np.take_along_axis(quat, last[None, None], 0)[0]
