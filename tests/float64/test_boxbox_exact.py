"""Box on box gives MuJoCo C's contact set to rounding, and its derivative is that of the set."""

from functools import partial

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from narrowphase import Pair, after, gap, ours, turn

from physics.boxbox import box_box

SIZES = {
    "cubes": ((0.1, 0.1, 0.1), (0.1, 0.1, 0.1)),
    "bricks": ((0.1, 0.2, 0.3), (0.15, 0.1, 0.05)),
    "cube on plate": ((1.0, 1.0, 0.05), (0.1, 0.1, 0.1)),
    "blades": ((0.3, 0.02, 0.2), (0.02, 0.3, 0.25)),
}
narrow = jax.jit(box_box, static_argnames="margin")


def compare(sizes, margin, qpos):
    """Per world the gap to MuJoCo C, and its number of contacts."""
    pair = Pair(*(f"type='box' size='{s[0]} {s[1]} {s[2]}'" for s in sizes), margin=margin)
    seen = [pair.collide(q) for q in qpos]
    boxes = [(np.full(len(qpos), x) for x in size) for size in sizes]
    found = ours(partial(narrow, margin=margin), seen, *([tuple(box)] for box in boxes))
    return np.array([gap(a, b[2]) for a, b in zip(found, seen, strict=True)]), np.array([len(s[2]) for s in seen])


def anywhere(rng, sizes, count):
    """Any two orientations, centres from coinciding to apart."""
    reach = 0.8 * sum(np.linalg.norm(size) for size in sizes)
    pos = rng.normal(size=(count, 3))
    offset = rng.normal(size=(count, 3))
    offset *= reach * rng.uniform(0, 1, (count, 1)) / np.linalg.norm(offset, axis=1, keepdims=True)
    quat = rng.normal(size=(count, 2, 4))
    quat /= np.linalg.norm(quat, axis=2, keepdims=True)
    return np.concatenate([pos, quat[:, 0], pos + offset, quat[:, 1]], 1)


@pytest.mark.parametrize("margin", [0.0, 0.02])
@pytest.mark.parametrize("name", SIZES)
def test_random_boxes_have_the_same_contacts(name, margin):
    sizes = SIZES[name]
    gaps, counts = compare(sizes, margin, anywhere(np.random.default_rng(7), sizes, 600))
    assert 0 < (counts > 0).sum() < len(counts)
    assert gaps.max() < 1e-12


def stacked(base, yaw, tilt, sideways, dz, sizes):
    """Box 2 on box 1, turned about z, tilted a little, moved sideways (in half sizes of box 1)."""
    offset = np.array([sideways[0] * sizes[0][0], sideways[1] * sizes[0][1], sizes[0][2] + sizes[1][2] + dz])
    world = np.zeros(3)
    mujoco.mju_rotVecQuat(world, offset, base)
    return np.r_[0, 0, 0, base, world, after(base, after(turn([0, 0, 1], yaw), turn([1, 2, 3], tilt)))]


RESTING = [
    (yaw, sideways, dz)
    for yaw in (0.0, np.pi / 4, np.pi / 2, 0.3, 2.5)
    for sideways in ((0, 0), (0.5, 0.25), (1, 0), (1, 1), (0.3, -0.9))
    for dz in (-1e-3, -1e-6, 1e-3)
]


@pytest.mark.parametrize("name", ["cubes", "bricks"])
def test_boxes_at_rest_have_the_same_contacts(name):
    """Flush faces, parallel sides, corners on corners: ties on an upright box, where the products are exact."""
    upright = np.array([1.0, 0, 0, 0])
    qpos = [stacked(upright, yaw, tilt, s, dz, SIZES[name]) for yaw, s, dz in RESTING for tilt in (0, 1e-5, 1e-4, 1e-3)]
    gaps, counts = compare(SIZES[name], 0.002, np.array(qpos))
    assert (counts >= 4).sum() > 100
    assert gaps.max() < 1e-10


@pytest.mark.parametrize(("tilt", "error"), [(1e-6, 1e-9), (1e-5, 1e-10), (1e-3, 1e-12)])
def test_boxes_at_rest_on_a_slope(tilt, error):
    """Sides at an angle φ cross at a point that double precision knows to 1e-16/φ."""
    slope = turn([1.0, 0.3, -0.2], 0.7)
    qpos = [stacked(slope, yaw, tilt, s, dz, SIZES["cubes"]) for yaw, s, dz in RESTING]
    gaps, _ = compare(SIZES["cubes"], 0.002, np.array(qpos))
    assert gaps.max() < error


def summary(q, weight):
    """Distance, position and normal of every contact in one number per world."""
    (pos1, rot1), (pos2, rot2) = ((tuple(p[:3]), _rotation(p[3:])) for p in (q[:7], q[7:]))
    found = narrow(pos1, rot1, SIZES["bricks"][0], pos2, rot2, SIZES["bricks"][1], margin=0.0)
    along = jnp.einsum("kiw,i->kw", found.position, weight) + jnp.einsum("iw,i->w", found.normal, weight**2)
    return (jnp.where(found.distance < 100, found.distance, 0.0) * (1 + along)).sum(0)


def test_the_gradient_is_that_of_the_contacts():
    """Central differences, but in the few worlds where the step of 1e-7 crosses a switch from one set to another."""
    rng = np.random.default_rng(3)
    q, weight = jnp.asarray(anywhere(rng, SIZES["bricks"], 300).T), jnp.asarray([0.7, -0.4, 1.1])
    direction, step = jnp.asarray(rng.normal(size=q.shape)), 1e-7
    slope = (jax.grad(lambda q: summary(q, weight).sum())(q) * direction).sum(0)
    ahead, behind = (summary(q + s * step * direction, weight) for s in (1, -1))
    difference = (ahead - behind) / (2 * step)
    close = jnp.abs(slope - difference) < 1e-5 * (1 + jnp.abs(slope))
    assert (slope != 0).sum() > 150
    assert close.mean() > 0.99


def _rotation(q):
    w, x, y, z = q / jnp.sqrt((q * q).sum(0))
    return (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
