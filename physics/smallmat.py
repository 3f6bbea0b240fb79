"""Cholesky for many small symmetric matrices, worlds last: A = L Lᵀ, x = A⁻¹ b.

XLA's CPU backend runs one library call per matrix for `jnp.linalg.cholesky` (and jaxlib 0.10.2 can deadlock in it); here the
matrix is structure and the worlds fill the vector units. Up to UNROLL rows every entry is an expression of its own (24 ns for a
7×7 with 512 worlds, where the library takes 333 ns); above, a loop over columns keeps the program small: 1 µs for an 18×18.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array
UNROLL = 8


class Factor(NamedTuple):
    """L by columns and the inverse of its diagonal."""

    columns: Array  # [n, n, W] columns[k, i] = L_ik, zero for i < k
    inverse: Array  # [n, W] 1 / L_ii


def cholesky(a: Array) -> Factor:
    """Factor of a symmetric positive definite [n, n, W]; reads the lower triangle."""
    return _unrolled(a) if a.shape[0] <= UNROLL else _looped(a)


def solve(factor: Factor, b: Array) -> Array:
    """A⁻¹ b for b [n, W] (or any world axes that broadcast against the factor's)."""
    return _substitute(factor, b) if b.shape[0] <= UNROLL else _substitute_looped(factor, b)


def times(factor: Factor, x: Array) -> Array:
    """A x = L (Lᵀ x)."""
    columns = factor.columns
    return jnp.sum(columns * jnp.sum(columns * x[None], 1)[:, None], 0)


def _unrolled(a: Array) -> Factor:
    n = a.shape[0]
    low: list[list[Array]] = [[] for _ in range(n)]
    inverse: list[Array] = []
    for i in range(n):
        for j in range(i):
            low[i].append((a[i, j] - sum(low[i][k] * low[j][k] for k in range(j))) * inverse[j])
        inverse.append(lax.rsqrt(a[i, i] - sum(x * x for x in low[i])))
    zero = jnp.zeros_like(a[0, 0])
    diagonal = [1 / x for x in inverse]
    entry = [[low[i][k] if k < i else diagonal[i] if k == i else zero for i in range(n)] for k in range(n)]
    return Factor(jnp.stack([jnp.stack(column) for column in entry]), jnp.stack(inverse))


def _looped(a: Array) -> Factor:
    n = a.shape[0]
    rows = jnp.arange(n).reshape((n,) + (1,) * (a.ndim - 2))

    def column(j: Array, carry: Factor) -> Factor:
        columns, inverse = carry
        row = lax.dynamic_index_in_dim(columns, j, 1, keepdims=False)
        s = lax.dynamic_index_in_dim(a, j, 1, keepdims=False)
        for k in range(n):
            s = s - columns[k] * row[k]
        d = lax.rsqrt(lax.dynamic_index_in_dim(s, j, 0, keepdims=False))
        s = jnp.where(rows >= j, s * d, 0)
        put = lax.dynamic_update_index_in_dim
        return Factor(put(columns, s, j, 0), put(inverse, d, j, 0))

    return lax.fori_loop(0, n, column, Factor(jnp.zeros_like(a), jnp.zeros_like(a[0])))


def _substitute(factor: Factor, b: Array) -> Array:
    columns, inverse = factor
    n = b.shape[0]
    y: list[Array] = []
    for j in range(n):
        y.append((b[j] - sum(columns[k, j] * y[k] for k in range(j))) * inverse[j])
    x: list[Array] = [b[0]] * n
    for j in reversed(range(n)):
        x[j] = (y[j] - sum(columns[j, k] * x[k] for k in range(j + 1, n))) * inverse[j]
    return jnp.stack(x)


def _substitute_looped(factor: Factor, b: Array) -> Array:
    columns, inverse = factor
    n = b.shape[0]
    at = lambda x, j: lax.dynamic_index_in_dim(x, j, 0, keepdims=False)  # noqa: E731

    def forward(j: Array, b: Array) -> Array:
        y = at(b, j) * at(inverse, j)
        return lax.dynamic_update_index_in_dim(b - at(columns, j) * y, y, j, 0)

    def backward(i: Array, x: Array) -> Array:
        j = n - 1 - i
        column, y = at(columns, j), at(x, j)
        s = y + at(column, j) * y
        for k in range(n):
            s = s - column[k] * x[k]
        return lax.dynamic_update_index_in_dim(x, s * at(inverse, j), j, 0)

    shape = jnp.broadcast_shapes(b.shape, inverse.shape)
    return lax.fori_loop(0, n, backward, lax.fori_loop(0, n, forward, jnp.broadcast_to(b, shape)))


def matvec(a: Array, x: Array) -> Array:
    """a [m, n, W] times x [n, W]: a sum of columns, which XLA fuses into one pass."""
    return sum(a[:, j] * x[j] for j in range(1, a.shape[1])) + a[:, 0] * x[0]
