"""Directions of vectors that are as good as nothing: a fallback, and slopes that are finite."""

import jax
import jax.numpy as jnp
import pytest

from physics import lanes as ln


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-20, 1e-15, 1e-12, 1e-6, 1.0])
def test_the_direction_of_a_vector_has_finite_slopes_at_any_length(size):
    along = lambda x: ln.stack(ln.unit((x, jnp.zeros(()), jnp.zeros(())), (0.0, 1.0, 0.0))[0])  # noqa: E731
    value, slope = jax.jvp(along, (jnp.asarray(size),), (jnp.ones(()),))
    assert jnp.isfinite(slope).all()
    assert jnp.abs(jnp.linalg.norm(value) - 1) < 1e-5
    assert bool(value[0] > 0.5) == (size > 1e-12 * 0.99)
    assert jnp.isfinite(jax.grad(lambda x: ln.norm((x, 0 * x, 0 * x)))(jnp.asarray(size)))
