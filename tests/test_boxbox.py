"""Box on box in float32: near MuJoCo C, finite with its gradients at every tie, any world shape. Exact: float64/."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxprs import lapack_primitives
from narrowphase import Pair, gap, ours

from physics.boxbox import IDLE, box_box

HALF = (0.1, 0.2, 0.3)
EYE = np.eye(3)
narrow = jax.jit(box_box, static_argnames="margin")


def collide(pos1, rot1, pos2, rot2, margin=0.0):
    """Lanes of one world, or of as many as the arrays have."""
    rows = lambda m: tuple(tuple(row) for row in m)  # noqa: E731
    return narrow(tuple(pos1), rows(rot1), HALF, tuple(pos2), rows(rot2), HALF, margin=margin)


def test_single_precision_is_near_mujoco():
    """Contacts agree to 1e-5 m; about 1 in 500 random worlds is so near a tie that rounding picks another set."""
    rng = np.random.default_rng(5)
    quat = rng.normal(size=(500, 2, 4))
    offset = rng.uniform(-0.35, 0.35, (500, 3))
    box = "type='box' size='0.1 0.2 0.3'"
    pair = Pair(box, box)
    seen = [pair.collide(np.r_[0, 0, 0, q[0], d, q[1]]) for q, d in zip(quat, offset, strict=True)]
    sizes = [[tuple(np.full(500, x) for x in HALF)]] * 2
    found = ours(partial(narrow, margin=0.0), seen, *sizes)
    gaps = np.array([gap(a, s[2]) for a, s in zip(found, seen, strict=True)])
    assert sum(len(s[2]) for s in seen) > 1000
    assert (gaps < 1e-5).mean() > 0.99


def test_a_box_flush_on_another_touches_at_four_corners():
    pos2 = np.array([[0.0], [0.0], [0.6 - 1e-3]])
    found = collide(np.zeros((3, 1)), EYE[..., None], pos2, EYE[..., None])
    used = np.asarray(found.distance[:, 0]) < IDLE
    assert used.sum() == 4
    np.testing.assert_allclose(found.distance[used, 0], -1e-3, atol=1e-7)
    corners = {tuple(np.round(p, 5)) for p in np.asarray(found.position[used, :, 0], float)}
    assert corners == {(x, y, 0.2995) for x in (-0.1, 0.1) for y in (-0.2, 0.2)}
    np.testing.assert_allclose(found.normal[:, 0], [0, 0, 1])


TIES = {
    "the same place": (0, 0, 0),
    "touching": (0, 0, 0.6),
    "flush sides": (0, 0.4, 0.599),
    "edge on edge": (0.2, 0.4, 0.0),
    "corner on corner": (0.2, 0.4, 0.6),
    "apart": (1.0, 1.0, 1.0),
}


@pytest.mark.parametrize("place", TIES.values(), ids=TIES)
def test_gradients_are_finite_at_ties(place):
    """Faces flush, edges parallel, corners in one place: every square root and division has a limit of its own."""

    def total(pos2, rot2):
        found = collide(np.zeros((3, 1)), EYE[..., None], pos2, rot2, margin=0.01)
        return jnp.where(found.distance < 1, found.distance, 0).sum() + found.position.sum() + found.normal.sum()

    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    for rot in (EYE, quarter):
        value, grads = jax.value_and_grad(total, (0, 1))(
            jnp.asarray(place, float)[:, None], jnp.asarray(rot)[..., None]
        )
        assert np.isfinite(value)
        assert all(np.isfinite(g).all() for g in grads)


def test_world_axes_broadcast():
    """[P, W] lanes give what each pair gives by itself."""
    rng = np.random.default_rng(2)
    quat = rng.normal(size=(2, 4, 3, 5))
    quat /= np.linalg.norm(quat, axis=1, keepdims=True)
    w, x, y, z = np.moveaxis(quat, 1, 0)
    row = lambda *r: np.stack(r)  # noqa: E731
    rot = np.stack(
        [
            row(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            row(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            row(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        ]
    )  # [3, 3, 2, P, W]
    pos = rng.uniform(-0.2, 0.2, (3, 3, 5))
    both = collide(np.zeros((3, 3, 5)), rot[:, :, 0], pos, rot[:, :, 1])
    for p in range(3):
        one = collide(np.zeros((3, 5)), rot[:, :, 0, p], pos[:, p], rot[:, :, 1, p])
        np.testing.assert_allclose(both.distance[:, p], one.distance, atol=1e-6)
        np.testing.assert_allclose(both.position[:, :, p], one.position, atol=1e-6)
        np.testing.assert_allclose(both.normal[:, p], one.normal, atol=1e-6)


def test_no_call_into_lapack():
    world = jnp.zeros(4)
    rot = tuple(tuple(world + x for x in row) for row in EYE)
    program = jax.make_jaxpr(partial(box_box, margin=0.0))((world,) * 3, rot, HALF, (world,) * 3, rot, HALF)
    assert not lapack_primitives(program)
