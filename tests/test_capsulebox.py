"""Capsule on box in float32: known contacts, and gradients that are finite at every tie. Exact: float64/."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics.boxbox import IDLE
from physics.capsulebox import capsule_box

EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
ALONG_X = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0))  # the capsule's own axis is z
narrow = jax.jit(capsule_box, static_argnames="margin")


def on_a_box(place, rot, margin=0.0):
    """A capsule of radius 0.05 and half length 0.2 on a box of half sizes 0.3, 0.2, 0.1; lanes [W]."""
    return narrow(tuple(place), rot, 0.05, 0.2, (0.0,) * 3, EYE, (0.3, 0.2, 0.1), margin=margin)


def test_a_lying_capsule_touches_at_both_ends():
    found = on_a_box(np.array([[0.0], [0.0], [0.149]]), ALONG_X)
    np.testing.assert_allclose(found.distance[:, 0], -1e-3, atol=1e-7)
    np.testing.assert_allclose(np.sort(found.position[:, 0, 0]), [-0.2, 0.2], atol=1e-6)
    np.testing.assert_allclose(found.position[:, 2, 0], 0.0995, atol=1e-6)
    np.testing.assert_allclose(found.normal[:, :, 0], [[0, 0, -1]] * 2, atol=1e-6)


def test_a_hanging_capsule_touches_within_the_face():
    found = on_a_box(np.array([[0.25], [0.0], [0.149]]), ALONG_X)
    np.testing.assert_allclose(np.sort(found.position[:, 0, 0]), [0.05, 0.3], atol=1e-6)


def test_a_standing_capsule_touches_once():
    found = on_a_box(np.array([[0.1], [0.1], [0.349]]), EYE)
    used = np.asarray(found.distance[:, 0]) < IDLE
    assert used[0]
    np.testing.assert_allclose(found.distance[0], -1e-3, atol=1e-6)
    np.testing.assert_allclose(found.position[used, :2, 0], [[0.1, 0.1]] * used.sum(), atol=1e-6)


TIES = {
    "the same place": (0, 0, 0),
    "touching": (0, 0, 0.15),
    "along a side": (0, 0.2, 0.14),
    "across a side": (0.3, 0, 0.12),
    "at a corner": (0.5, 0.2, 0.1),
    "in the face": (0, 0, 0.1),
    "apart": (1, 1, 1),
}


@pytest.mark.parametrize("place", TIES.values(), ids=TIES)
def test_gradients_are_finite_at_ties(place):
    """Parallel lines, points in one place, directions of no length: every root and division has a limit of its own."""

    def total(place, rot):
        found = on_a_box(place, rot, margin=0.01)
        return jnp.where(found.distance < 1, found.distance, 0).sum() + found.position.sum() + found.normal.sum()

    for rot in (EYE, ALONG_X):
        lanes = jax.tree.map(lambda x: jnp.full(1, x), rot)
        grads = jax.grad(total, (0, 1))(jnp.asarray(place, float)[:, None], lanes)
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
