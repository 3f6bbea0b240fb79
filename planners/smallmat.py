"""Small symmetric systems, unrolled by hand, with any batch in the trailing axes.

For n up to about a dozen. Nothing here calls LAPACK, so it is safe inside batched programs on every backend.
"""

import jax
import jax.numpy as jnp


def cholesky(matrix: jax.Array) -> tuple[list[list[jax.Array]], jax.Array]:
    """(L as rows of columns, whether it exists) with L L^T = matrix `[n, n, ...]`.

    A pivot that is not positive is replaced by one, so that the numbers stay finite.
    """
    n = matrix.shape[0]
    lower: list[list[jax.Array]] = []
    positive = jnp.ones(matrix.shape[2:], bool)
    for i in range(n):
        row: list[jax.Array] = []
        for j in range(i):
            rest = matrix[i, j] - sum((row[k] * lower[j][k] for k in range(j)), jnp.zeros_like(matrix[0, 0]))
            row.append(rest / lower[j][j])
        pivot = matrix[i, i] - sum((entry**2 for entry in row), jnp.zeros_like(matrix[0, 0]))
        positive = positive & (pivot > 0)
        row.append(jnp.sqrt(jnp.where(pivot > 0, pivot, 1)))
        lower.append(row)
    return lower, positive


def solve_lower(lower: list[list[jax.Array]], right: jax.Array) -> jax.Array:
    """x with L L^T x = right `[n, ...]`."""
    n = len(lower)
    y: list[jax.Array] = []
    for i in range(n):
        y.append((right[i] - sum((lower[i][k] * y[k] for k in range(i)), jnp.zeros_like(right[0]))) / lower[i][i])
    x: list[jax.Array] = [y[0]] * n
    for i in reversed(range(n)):
        rest = y[i] - sum((lower[k][i] * x[k] for k in range(i + 1, n)), jnp.zeros_like(right[0]))
        x[i] = rest / lower[i][i]
    return jnp.stack(x)
