"""The friction cones: f = −∇s of a convex cost, its Hessian, and the laws of Coulomb at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics import cones

RATIO = 1.6  # impratio
GRIP = cones.Grip(d=50.0, d1=50 * RATIO, d2=50 * RATIO * (0.5 / 0.7) ** 2, mu1=0.7, mu2=0.5, mu=0.7 / RATIO**0.5)
KINDS = ("frictionless", "pyramidal", "elliptic")


def cost(kind, u):
    """The costs as the module states them, straight from the text."""
    n, t1, t2 = u
    d, d1, d2, mu1, mu2, mu = GRIP
    if kind == "frictionless":
        return 0.5 * d * jnp.minimum(n, 0) ** 2
    if kind == "pyramidal":
        edges = jnp.stack([n + mu1 * t1, n - mu1 * t1, n + mu2 * t2, n - mu2 * t2])
        return 0.5 * d * jnp.sum(jnp.minimum(edges, 0) ** 2, 0)
    big_n, big_t = mu * n, jnp.sqrt((mu1 * t1) ** 2 + (mu2 * t2) ** 2)
    stick = 0.5 * (d * n * n + d1 * t1 * t1 + d2 * t2 * t2)
    slide = 0.5 * d / (mu * mu * (1 + mu * mu)) * (big_n - mu * big_t) ** 2
    return jnp.where(big_n >= mu * big_t, 0.0, jnp.where(mu * big_n + big_t <= 0, stick, slide))


def points(count=400):
    """Contact-space accelerations in all zones, none within 1e-3 of an edge where a second derivative jumps."""
    u = np.random.default_rng(0).uniform(-1, 1, (3, count)).astype(np.float32)
    n, t1, t2 = u
    big_n, big_t = GRIP.mu * n, np.hypot(GRIP.mu1 * t1, GRIP.mu2 * t2)
    edges = [n, n + GRIP.mu1 * t1, n - GRIP.mu1 * t1, n + GRIP.mu2 * t2, n - GRIP.mu2 * t2]
    edges += [big_n - GRIP.mu * big_t, GRIP.mu * big_n + big_t]
    return jnp.asarray(u[:, np.abs(edges).min(0) > 1e-3])


def evaluate(kind, u):
    grip = cones.Grip(*(jnp.full_like(u[0], x) for x in GRIP))
    force, h = getattr(cones, kind)(tuple(u), grip)
    rows = ((h.nn, h.n1, h.n2), (h.n1, h.t11, h.t12), (h.n2, h.t12, h.t22))
    return jnp.stack(force), jnp.stack([jnp.stack(row) for row in rows])


@pytest.mark.parametrize("kind", KINDS)
def test_force_is_minus_the_gradient_of_the_cost(kind):
    # The scaling d1 = d · mu1² / mu² that MuJoCo uses makes the elliptic cost continuous across the edge of sticking.
    u = points()
    force, _ = evaluate(kind, u)
    np.testing.assert_allclose(force, -jax.grad(lambda u: jnp.sum(cost(kind, u)))(u), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_hessian_is_the_slope_of_the_force(kind):
    u, step = points(), 5e-4
    _, hessian = evaluate(kind, u)
    for k in range(3):
        move = jnp.zeros_like(u).at[k].set(step)
        slope = (evaluate(kind, u + move)[0] - evaluate(kind, u - move)[0]) / (2 * step)
        np.testing.assert_allclose(hessian[:, k], -slope, atol=0.1)  # of 200; float32 rounds these differences to 0.05
    assert np.linalg.eigvalsh(np.moveaxis(np.asarray(hessian), -1, 0)).min() > -1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_no_force_apart_and_none_that_pulls(kind):
    u = points()
    force, _ = evaluate(kind, u)
    assert (np.asarray(force[0]) >= 0).all()
    separate = np.asarray(cost(kind, u)) == 0
    assert separate.any()
    assert not np.asarray(force)[:, separate].any()


@pytest.mark.parametrize("kind", ["pyramidal", "elliptic"])
def test_friction_stays_in_its_cone(kind):
    force, _ = evaluate(kind, points())
    sides = np.abs(np.asarray(force[1:])) / [[GRIP.mu1], [GRIP.mu2]]
    used = sides.sum(0) if kind == "pyramidal" else np.hypot(*sides)
    assert (used <= np.asarray(force[0]) * (1 + 1e-4) + 1e-5).all()
    assert (used > 0.999 * np.asarray(force[0]) - 1e-5).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normal", [-0.5, 0.0, 0.5])
def test_without_slip_nothing_is_nan_not_even_a_derivative(kind, normal):
    u = jnp.asarray([[normal], [0.0], [0.0]])
    force, hessian = evaluate(kind, u)
    slopes = jax.jacrev(lambda u: evaluate(kind, u))(u)
    for x in (force, hessian, *slopes):
        assert np.isfinite(x).all()
    np.testing.assert_allclose(force[1:], 0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_contact_that_is_switched_off_does_nothing(kind):
    u = points()
    off = cones.Grip(*(jnp.full_like(u[0], 0.0 if k < 3 else x) for k, x in enumerate(GRIP)))
    for x in jax.tree.leaves(getattr(cones, kind)(tuple(u), off)):
        assert not np.asarray(x).any()
