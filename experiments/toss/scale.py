"""What a throw says of scale and tilt without any fit: the fall before the first touch, and the rest after the last.

    g, pull       bend of the path of the centre of mass in free flight, along and across the heading
    half width    height at rest
    slope         lean of the face that is up at rest, along and across the heading

Each is a mean over throws, drawn towards the guess by its own standard error.
"""

from typing import NamedTuple

import numpy as np

from experiments.measured.tosses import DT
from experiments.toss.corners import HINGE
from experiments.toss.things import Thing
from experiments.toss.windows import Throws

CLEAR = 0.01  # m above the board: in free flight
LEAST_FLIGHT, MOST_FLIGHT = 8, 40  # rows
FLATTEST = np.cos(np.radians(2))
SPREAD = {"half_width": 0.0015, "gravity": 0.0015}  # of the log: what a fit may still change
TILT_SPREAD = {"pull": 0.02, "slope": 0.001}
NOISE = {"pull": 0.1, "slope": 0.004}  # of one throw


class Seen(NamedTuple):
    """Values by the names of the unknowns."""

    gravity: float
    half_width: float
    pull_along: float
    pull_across: float
    slope_along: float
    slope_across: float


def begin(thing: Thing, parts: list[Throws]) -> tuple[np.ndarray, np.ndarray]:
    """φ₀ and its spread, each [P, M], after looking at every group's throws."""
    centre = np.repeat(thing.guess[:, None], len(parts), 1)
    spread = np.repeat(thing.spread[:, None], len(parts), 1)
    for m, part in enumerate(parts):
        for name, value in scale(thing, part)._asdict().items():
            p = thing.place(name)
            centre[p, m] = np.log(value) if thing.unknowns[p].log else value
            spread[p, m] = SPREAD.get(name) or TILT_SPREAD[name.split("_")[0]]
    return centre.astype(np.float32), spread.astype(np.float32)


def scale(thing: Thing, throws: Throws) -> Seen:
    """Scale and tilt of throws."""
    bends, slopes, ratio = _falls(thing, throws), *_rests(thing, throws)
    pull = [_drawn(x, 0.1, NOISE["pull"]) for x in bends[:2]]
    slope = [_drawn(x, 0.01, NOISE["slope"]) for x in slopes]
    g = _mean_fall(bends[2], bends[3]) if bends.shape[1] else 9.81
    return Seen(g, float(np.median(ratio)) if len(ratio) else 1.0, *pull, *slope)


def _mean_fall(bend: np.ndarray, weight: np.ndarray) -> float:
    """g; a flight that is far off is not one."""
    near = np.abs(bend - np.median(bend)) < 1.0
    return -float(np.average(bend[near], weights=weight[near]))


def _drawn(values: np.ndarray, prior: float, noise: float) -> float:
    """The median, drawn towards 0."""
    n = len(values)
    return float(np.median(values) * n * prior**2 / (n * prior**2 + noise**2)) if n else 0.0


def _falls(thing: Thing, throws: Throws) -> np.ndarray:
    """Acceleration along, across and up, and the weight of each throw that flies long enough, then lands: [4, k]."""
    places = throws.qpos.astype(float)
    rows = (np.cumprod(_lowest(thing, places) > CLEAR, 0) * throws.seen).sum(0).astype(int)
    path, out = np.mean([centre for centre, _ in _boxes(thing, places)], 0), []
    for i in np.flatnonzero((rows >= LEAST_FLIGHT) & (rows < MOST_FLIGHT)):
        n, (c, s) = rows[i], throws.heading[:, i]
        ax, ay, az = 2 * np.polyfit(DT * np.arange(n), path[:n, :, i], 2)[0]
        out.append((c * ax + s * ay, c * ay - s * ax, az, float(n) ** 5))
    return np.array(out).reshape(-1, 4).T


def _rests(thing: Thing, throws: Throws) -> tuple[np.ndarray, np.ndarray]:
    """Slope of the board [2, k], and factor on the size [k], of throws whose first box ends flat.

    Poses of the two boxes were smoothed by their authors until they just touch at rest: their size is as drawn.
    """
    n, last = np.arange(throws.number), throws.seen.sum(0).astype(int) - 1
    ends = throws.qpos[last, :, n].T.astype(float)[None]
    up = vertical(ends)[0]
    face = np.abs(up).argmax(0)
    flat = np.abs(up).max(0) > FLATTEST
    normal = np.sign(up[face, n]) * columns(ends[0, 3:7])[:, face, n]
    c, s = throws.heading
    slope = np.stack([c * normal[0] + s * normal[1], c * normal[1] - s * normal[0]])
    ratio = ends[0, 2] / np.array(thing.boxes[0][1])[face] if len(thing.boxes) == 1 else np.ones(len(n))
    return slope[:, flat], ratio[flat & (np.abs(ratio - 1) < 0.1)]


def _lowest(thing: Thing, qpos: np.ndarray) -> np.ndarray:
    """Height of the lowest corner of all boxes, [R, n]."""
    halves = [np.array(half) for _, half, _ in thing.boxes]
    found = zip(_boxes(thing, qpos), halves, strict=True)
    return np.min([c[:, 2] - np.einsum("rin,i->rn", np.abs(up), half) for (c, up), half in found], 0)


def _boxes(thing: Thing, qpos: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Centre [R, 3, n] of each box and the vertical in its frame."""
    up = vertical(qpos)
    if len(thing.boxes) == 1:
        return [(qpos[:, :3], up)]
    x, y, z = thing.boxes[1][2]
    c, s = np.cos(qpos[:, 7]), np.sin(qpos[:, 7])
    arm = HINGE[None, :, None] + np.stack([c * x + s * z, y + 0 * c, c * z - s * x], 1)
    turn = np.stack([columns(q[3:7]) for q in qpos])
    swung = np.stack([c * up[:, 0] - s * up[:, 2], up[:, 1], s * up[:, 0] + c * up[:, 2]], 1)
    return [(qpos[:, :3], up), (qpos[:, :3] + np.einsum("rijn,rjn->rin", turn, arm), swung)]


def vertical(qpos: np.ndarray) -> np.ndarray:
    """The vertical in the first body's frame, [R, 3, n]."""
    return np.stack([columns(q[3:7])[2] for q in qpos])


def columns(quat: np.ndarray) -> np.ndarray:
    """The rotation matrix, its columns the body's axes in the world: [4, n] -> [3, 3, n]."""
    w, x, y, z = quat
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
