"""The measured throws of each thing, as arrays, and how predicted throws of it are scored.

Cube: `experiments.measured.tosses`. Elbow: the same measures of the first box, the rotation averaged over both boxes; its
`elbow_toss*.npz` also hold `theta` (rad) and `thetadot` (rad/s) of the hinge.
"""

from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.measured import tosses
from experiments.measured.reading import Column, read_set
from experiments.measured.tosses import Scores, Stacked
from experiments.toss import corners
from experiments.toss.things import Thing
from experiments.toss.windows import Throws, throws_of

MEASURES = Scores._fields


class Set(NamedTuple):
    """All throws of one thing."""

    names: tuple[str, ...]
    throws: Throws
    digest: str


def read_cubes(folder: Path) -> Set:
    """cube_toss*.npz of a folder."""
    found = tosses.read_throws(folder)
    qpos = [np.concatenate([t.pos, t.quat], 1) for t in found]
    throws = throws_of(qpos, [np.concatenate([t.vel[0], t.omega[0]]) for t in found])
    return Set(tuple(t.name for t in found), throws, _digest(throws))


_ELBOW = {
    "pos": Column(-5, 5, "m", per_sample=True),
    "quat": Column(-1.001, 1.001, "", per_sample=True),
    "vel": Column(-20, 20, "m/s", per_sample=True),
    "omega": Column(-150, 150, "rad/s", per_sample=True),
    "theta": Column(-3.1416, 3.1416, "rad", per_sample=True),
    "thetadot": Column(-200, 200, "rad/s", per_sample=True),
}


def read_elbows(folder: Path) -> Set:
    """elbow_toss*.npz of a folder."""
    found = read_set(folder, "elbow_toss", _ELBOW)
    assert found.offsets is not None
    qpos, first = [], []
    for i in range(len(found.offsets) - 1):
        pos, quat, vel, omega, theta, thetadot = (np.asarray(found.record(i, c), float) for c in _ELBOW)
        if len(pos) < tosses.LEAST_ROWS:
            raise ValueError(
                f"{found.files[0]}: throw {i} has {len(pos)} rows; expected at least {tosses.LEAST_ROWS}: half a download?"
            )
        qpos.append(np.column_stack([pos, quat, np.unwrap(theta)]))
        first.append(np.concatenate([vel[0], omega[0], thetadot[:1]]))
    throws = throws_of(qpos, first)
    speed, moved = np.linalg.norm([f[:3] for f in first], axis=1), np.linalg.norm(throws.qvel[1, :3], axis=0)
    if not 0.7 < (ratio := float(np.median(moved) / np.median(speed))) < 1.4:
        raise ValueError(f"{found.files[0]}: pos moves {ratio:.3g} times vel: other units, or another rate?")
    return Set(tuple(f"elbow_toss/{i}" for i in range(len(qpos))), throws, found.digest)


def _digest(throws: Throws) -> str:
    import hashlib

    return hashlib.sha256(b"".join(np.ascontiguousarray(x).tobytes() for x in throws)).hexdigest()


def score(thing: Thing, found: np.ndarray, throws: Throws) -> Scores:
    """Of predicted qpos [R, nq, n], the first row included."""
    truth = throws.qpos.astype(float)
    if thing.name == "cube":
        seen = Stacked(truth[:, :3], truth[:, 3:7], throws.qvel[0, :3], throws.qvel[0, 3:6], throws.seen)
        return tosses.scores(found.astype(float), seen)
    good = np.isfinite(found).all((0, 1))
    found = np.where(good, found, truth[:1] + np.array([0, 0, 10.0, 0, 0, 0, 0, 0])[None, :, None]).astype(float)
    count = throws.seen.sum(0)
    mean = lambda x: (x * throws.seen).sum(0) / count  # noqa: E731
    n, last = np.arange(throws.number), count.astype(int) - 1
    first = tosses.angle(found[:, 3:7], truth[:, 3:7])
    second = tosses.angle(_second(found), _second(truth))
    ends = [tosses.vertical(x[:, 3:7])[last, :, n] for x in (found, truth)]
    flat = found.transpose(1, 0, 2).reshape(8, -1)
    rest = np.zeros((7, flat.shape[1]))
    low = (
        np.asarray(corners.all_corners(thing, jnp.asarray(flat), jnp.asarray(rest)).height)
        .min(0)
        .reshape(len(found), -1)
    )
    low, unit = np.maximum(-low, 0), thing.width / 100
    return Scores(
        position=mean(np.linalg.norm(found[:, :3] - truth[:, :3], axis=1)) / unit,
        rotation=mean(np.degrees(first + second) / 2),
        face=(np.einsum("ni,ni->n", *ends) > np.sqrt(0.5)).astype(float),
        penetration=mean(low) / unit,
        deepest=(low * throws.seen).max(0) / unit,
    )


def _second(qpos: np.ndarray) -> np.ndarray:
    """Orientation of the second box: [R, 4, n]."""
    half = qpos[:, 7] / 2
    c, s = np.cos(half), np.sin(half)
    w, x, y, z = np.moveaxis(qpos[:, 3:7], 1, 0)
    return np.stack([w * c - y * s, x * c - z * s, y * c + w * s, z * c + x * s], 1)
