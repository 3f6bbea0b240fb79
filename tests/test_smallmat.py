"""Cholesky of small matrices, worlds last, against numpy's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics import smallmat

SIZES = (1, 2, 7, smallmat.UNROLL, smallmat.UNROLL + 1, 18)
ROUNDING = 2e-5  # float32 on matrices of condition 100


def positive(size, worlds=(5,)):
    """Symmetric matrices [size, size, *worlds] with eigenvalues from 0.1 to 10, and right sides [size, *worlds]."""
    rng = np.random.default_rng(size)
    turn, _ = np.linalg.qr(rng.normal(size=(*worlds, size, size)))
    matrix = (turn * np.geomspace(0.1, 10.0, size)) @ np.swapaxes(turn, -1, -2)
    last = np.moveaxis(matrix, (-2, -1), (0, 1)), np.moveaxis(rng.normal(size=(*worlds, size)), -1, 0)
    return tuple(jnp.asarray(x, jnp.float32) for x in last)


@pytest.mark.parametrize("worlds", [(), (5,), (2, 3)])
@pytest.mark.parametrize("size", SIZES)
def test_solves(size, worlds):
    a, b = positive(size, worlds)
    x = smallmat.solve(smallmat.cholesky(a), b)
    assert x.shape == b.shape
    np.testing.assert_allclose(jnp.einsum("ij...,j...->i...", a, x), b, atol=ROUNDING * size)
    np.testing.assert_allclose(smallmat.matvec(a, x), b, atol=ROUNDING * size)


@pytest.mark.parametrize("size", SIZES)
def test_the_factor_is_lower_triangular_and_reads_the_lower_triangle(size):
    a, _ = positive(size)
    spoilt = a + jnp.triu(jnp.ones((size, size)), 1)[..., None]
    factor = smallmat.cholesky(spoilt)
    lower = np.swapaxes(factor.columns, 0, 1)
    expected = np.moveaxis(np.linalg.cholesky(np.moveaxis(np.asarray(a), -1, 0)), 0, -1)
    np.testing.assert_allclose(lower, expected, atol=ROUNDING)
    np.testing.assert_allclose(factor.inverse, 1 / np.einsum("iiw->iw", expected), rtol=ROUNDING)


@pytest.mark.parametrize("size", [3, smallmat.UNROLL + 1])
def test_one_factor_serves_many_right_sides(size):
    a, _ = positive(size)
    many = jnp.asarray(np.random.default_rng(0).normal(size=(size, 4, 5)), jnp.float32)
    factor = smallmat.cholesky(a)
    wide = smallmat.Factor(factor.columns[:, :, None], factor.inverse[:, None])
    x = smallmat.solve(wide, many)
    for k in range(4):
        np.testing.assert_allclose(x[:, k], smallmat.solve(factor, many[:, k]), atol=ROUNDING)


@pytest.mark.parametrize("size", [3, smallmat.UNROLL + 1])
def test_derivatives_and_vmap(size):
    a, b = positive(size)
    da, db = positive(size, (5,))[0] * 0.1, b[::-1]

    def solve(a, b):
        return smallmat.solve(smallmat.cholesky(a), b)

    x, dx = jax.jvp(solve, (a, b), (da, db))
    expected = solve(a, db - jnp.einsum("ijw,jw->iw", da, x))  # A dx = db − dA x
    np.testing.assert_allclose(dx, expected, atol=1e-3)
    bars = jax.vjp(solve, a, b)[1](db)
    np.testing.assert_allclose(bars[1], solve(a, db), atol=1e-4)
    mapped = jax.vmap(solve, (2, 1), 1)(a, b)
    np.testing.assert_allclose(mapped, x, atol=ROUNDING)
