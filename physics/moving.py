"""Inputs of a derivative: numbers stay in the program, arrays that stand still cost nothing.

JAX would make arrays of the numbers in a tree, whose zeros then no longer fold away, and fill the tangents of all that stands
still with zeros, along which reverse mode computes slopes that nobody asks for: those of all of θ, in every step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

Array = jax.Array


def arrays(tree: Any) -> tuple[list[Array], Callable[[Sequence[Array]], Any]]:
    """The arrays of a tree, and the tree again from other arrays in their place."""
    leaves, shape = jax.tree.flatten(tree)
    where = [i for i, x in enumerate(leaves) if isinstance(x, jax.Array)]

    def again(xs: Sequence[Array]) -> Any:
        full = list(leaves)
        for i, x in zip(where, xs, strict=True):
            full[i] = x
        return jax.tree.unflatten(shape, full)

    return [leaves[i] for i in where], again


def along(fun: Callable[[list[Array]], Any], xs: Sequence[Array], tangents: Sequence[Any]) -> Any:
    """∂fun(xs) · tangents, these as `defjvp(…, symbolic_zeros=True)` hands them over."""
    moving = [i for i, t in enumerate(tangents) if not isinstance(t, SymbolicZero)]
    if not moving:
        return jax.tree.map(lambda y: jnp.zeros(y.shape, y.dtype), jax.eval_shape(fun, list(xs)))

    def of(*moved: Array) -> Any:
        full = list(xs)
        for i, x in zip(moving, moved, strict=True):
            full[i] = x
        return fun(full)

    return jax.jvp(of, tuple(xs[i] for i in moving), tuple(tangents[i] for i in moving))[1]
