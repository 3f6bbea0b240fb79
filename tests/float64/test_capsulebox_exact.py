"""Capsule on box gives MuJoCo C's contact set to rounding, and its derivative is that of the set."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from narrowphase import Pair, after, gap, ours, turn

from physics.capsulebox import capsule_box

SIZES = {
    "rod on cube": ((0.05, 0.2), (0.1, 0.1, 0.1)),
    "pin on plate": ((0.02, 0.1), (0.3, 0.2, 0.05)),
    "pill on slat": ((0.1, 0.05), (0.1, 0.02, 0.3)),
}
narrow = jax.jit(capsule_box, static_argnames="margin")


def compare(sizes, margin, qpos):
    """Per world the gap to MuJoCo C, and its number of contacts."""
    (radius, half), box = sizes
    pair = Pair(f"type='capsule' size='{radius} {half}'", f"type='box' size='{box[0]} {box[1]} {box[2]}'", margin)
    seen, wide = [pair.collide(q) for q in qpos], partial(np.full, len(qpos))
    found = ours(partial(narrow, margin=margin), seen, [wide(radius), wide(half)], [tuple(map(wide, box))])
    return np.array([gap(a, b[2]) for a, b in zip(found, seen, strict=True)]), np.array([len(s[2]) for s in seen])


@pytest.mark.parametrize("margin", [0.0, 0.02])
@pytest.mark.parametrize("name", SIZES)
def test_random_poses_have_the_same_contacts(name, margin):
    capsule, box = SIZES[name]
    rng, n = np.random.default_rng(11), 800
    offset, quat = rng.normal(size=(n, 3)), rng.normal(size=(n, 2, 4))
    offset *= rng.uniform(0, sum(capsule) + np.linalg.norm(box), (n, 1)) / np.linalg.norm(offset, axis=1, keepdims=True)
    gaps, counts = compare(SIZES[name], margin, np.concatenate([offset, quat[:, 0], np.zeros((n, 3)), quat[:, 1]], 1))
    assert set(counts) == {0, 1, 2}
    assert gaps.max() < 1e-10


@pytest.mark.parametrize("name", SIZES)
def test_lying_capsules_have_the_same_contacts(name):
    """On the upper face: along a side, across, askew, hanging over; flat, or tilted by so little that it looks flat."""
    (radius, _), box = SIZES[name]
    qpos = [
        np.r_[x * box[0], y * box[1], box[2] + radius - depth, lying, 0, 0, 0, 1, 0, 0, 0]
        for yaw in (0, np.pi / 2, np.pi / 4, 0.3)
        for tilt in (0, 1e-6, 1e-3, 0.1)
        for lying in [after(turn([0, 0, 1], yaw), turn([1, 0, 0], np.pi / 2 + tilt))]
        for x in (0, 0.3, 0.9)
        for y in (0, -0.4, 0.95)
        for depth in (1e-3, 1e-5)
    ]
    gaps, counts = compare(SIZES[name], 0.0, np.array(qpos))
    assert (counts == 2).sum() > 50
    assert gaps.max() < 1e-10


def test_the_gradient_is_that_of_the_contacts():
    """Central differences in the place of the capsule, but where the step of 1e-7 crosses from one set to another."""
    rng, n, step = np.random.default_rng(1), 300, 1e-7
    place, direction = rng.uniform(-0.25, 0.25, (3, n)), rng.normal(size=(3, n))
    pair = Pair("type='capsule' size='0.05 0.2'", "type='box' size='0.1 0.1 0.1'")
    quat = rng.normal(size=(n, 4))
    rot = np.stack([pair.collide(np.r_[0, 0, 0, q, 0, 0, 0, 1, 0, 0, 0])[1] for q in quat], -1)
    rows = [tuple(map(tuple, r)) for r in rot]

    def summary(place):
        found = narrow(tuple(place), rows[0], 0.05, 0.2, (0.0,) * 3, rows[1], (0.1,) * 3, margin=0.02)
        weighed = 1 + found.position.sum(1) + (found.normal * jnp.asarray([1.0, -2, 3])[:, None]).sum(1)
        return (jnp.where(found.distance < 1, found.distance, 0.0) * weighed).sum(0)

    slope = (jax.grad(lambda p: summary(p).sum())(jnp.asarray(place)) * direction).sum(0)
    difference = (summary(place + step * direction) - summary(place - step * direction)) / (2 * step)
    close = jnp.abs(slope - difference) < 1e-5 * (1 + jnp.abs(slope))
    assert (slope != 0).sum() > 100
    assert close.mean() > 0.99
