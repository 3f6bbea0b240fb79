"""Damping of the joints, implicit in Euler's step: the acceleration y that the velocity is moved on with.

    (M + hD) y = M x        x: acceleration from the constraint solve, y = x where nothing is damped

M is given by its blocks, one for each kinematic tree. Trees of one size share one factorisation.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from physics import lanes as ln
from physics import smallmat
from physics.structure import Structure

Array = jax.Array


def matters(params: Any) -> bool:
    """Whether any dof is, or may be, damped."""
    return any(not isinstance(d, float) or d != 0.0 for d in params.dof_damping)


def slowed(structure: Structure, blocks: list[Array], damping: Any, x: Array) -> Array:
    """y [nv, W] from x [nv, W]."""
    return x - _solve(structure, blocks, damping, rate(structure, damping, x) * x)


def solved(structure: Structure, blocks: list[Array], damping: Any, right: Array) -> Array:
    """(M + hD)⁻¹ right, linear in `right` in both modes."""

    def matvec(v: Array) -> Array:
        return times(structure, blocks, v) + rate(structure, damping, v) * v

    solve = lambda _, b: _solve(structure, blocks, damping, b)  # noqa: E731
    return lax.custom_linear_solve(matvec, right, solve, symmetric=True)


def rate(structure: Structure, damping: Any, like: Array) -> Array:
    """h D [nv, W]."""
    h = float(structure.model.opt.timestep)
    return ln.stack([ln.mul(h, d) for d in damping], like[0])


def times(structure: Structure, blocks: list[Array], x: Array) -> Array:
    """M x."""
    return jnp.concatenate(
        [smallmat.matvec(block, x[a:b]) for block, (a, b) in zip(blocks, structure.spans, strict=True)]
    )


def _solve(structure: Structure, blocks: list[Array], damping: Any, right: Array) -> Array:
    """(M + hD)⁻¹ right."""
    damped = rate(structure, damping, right)
    parts: list[Any] = [None] * len(blocks)
    sizes: dict[int, list[int]] = {}
    for t, block in enumerate(blocks):
        sizes.setdefault(block.shape[0], []).append(t)
    for n, trees in sizes.items():
        take = lambda v, trees=trees: jnp.stack([v[slice(*structure.spans[t])] for t in trees], 1)  # noqa: E731
        block = jnp.stack([blocks[t] for t in trees], 2)
        eye = jnp.eye(n, dtype=right.dtype).reshape((n, n) + (1,) * (block.ndim - 2))
        found = smallmat.solve(smallmat.cholesky(block + eye * take(damped)), take(right))
        for i, t in enumerate(trees):
            parts[t] = found[:, i]
    return jnp.concatenate(parts)
