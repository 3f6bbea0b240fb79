"""The smallest program that hangs jaxlib 0.10.2 on two cores: two independent batched Cholesky solves in one scan.

Run as a child process with a time limit (see `hybridwm.doctor`). A whole system prints `done`; a sick one never ends.
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

SIZE, WORLDS, STEPS = 18, 512, 20


def solves(spd: jax.Array, vectors: jax.Array) -> jax.Array:
    """STEPS times two independent solves whose matrices change; `spd` [W, n, n], `vectors` [W, n]."""

    def solve(vector: jax.Array) -> jax.Array:
        matrix = spd + vector[:, :, None] * vector[:, None, :]
        return jax.vmap(lambda a, b: cho_solve(cho_factor(a), b))(matrix, vector)

    def step(pair: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], None]:
        left, right = pair
        return (solve(left), solve(right)), None

    (left, right), _ = jax.lax.scan(step, (vectors, -vectors), None, length=STEPS)
    return left + right


if __name__ == "__main__":
    matrices = jnp.broadcast_to(jnp.eye(SIZE) * 2.0, (WORLDS, SIZE, SIZE))
    jax.jit(solves)(matrices, jnp.ones((WORLDS, SIZE))).block_until_ready()
    print("done")
