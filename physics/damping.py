"""Damping of the joints, implicit in Euler's step: the acceleration y that the velocity is moved on with.

    (M + hD) y = M x                    x: acceleration from the constraint solve, y = x where nothing is damped
    (M + hD) dy = M dx − ∂[M(q)(y − x) + h D y]        its derivative, with M(q)(y − x) by one pass over the tree

Trees of one size share one factorisation.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from physics import dynamics, smallmat
from physics import lanes as ln
from physics.constraints import Structure
from physics.lanes import Lane
from physics.stage import fused
from physics.tree import forward

Array = jax.Array


def damped(structure: Structure, blocks: list[Array], params: Any, qpos: Any, x: Array) -> Array:
    """y [nv, W] from the trees' mass matrices, θ and qpos as lanes, and x [nv, W]."""
    h = float(structure.model.opt.timestep)

    def moves(d: Lane) -> bool:
        return not isinstance(d, float) or d != 0.0

    if not any(moves(d) for d in params.dof_damping):
        return x

    @jax.custom_jvp
    def run(given: Any, blocks: list[Array], x: Array) -> Array:
        return x - _solve(structure, blocks, given[0].dof_damping, _rate(given[0].dof_damping, x, h) * x)

    @run.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        given, blocks, x = primals
        y = run(*primals)
        drop = ln.lanes(y - x)

        def momentum_change(given: Any) -> Array:
            return ln.stack(fused(_inertial, given, drop), x[0]) + _rate(given[0].dof_damping, y, h) * y

        _, change = jax.jvp(momentum_change, (given,), (tangents[0],))
        right = _times(structure, blocks, tangents[2]) - change
        damping = given[0].dof_damping

        def matvec(v: Array) -> Array:
            return _times(structure, blocks, v) + _rate(damping, v, h) * v

        return y, lax.custom_linear_solve(
            matvec, right, lambda _, b: _solve(structure, blocks, damping, b), symmetric=True
        )

    def _inertial(given: Any, acceleration: Any) -> list[Lane]:
        params, qpos = given
        tree = structure.tree
        pose = forward(tree, params.body_ipos, qpos)
        bodies = dynamics.inertias(tree, pose, params.body_mass, params.body_inertia)
        force = dynamics.bias(tree, pose, bodies, (0.0,) * structure.model.nv, ln.ZERO, qacc=acceleration)
        return [ln.add(f, ln.mul(a, y)) for f, a, y in zip(force, params.dof_armature, acceleration, strict=True)]

    return run((params, qpos), lax.stop_gradient(blocks), x)


def _rate(damping: Any, like: Array, h: float) -> Array:
    """h D [nv, W]."""
    return ln.stack([ln.mul(h, d) for d in damping], like[0])


def _times(structure: Structure, blocks: list[Array], x: Array) -> Array:
    """M x."""
    return jnp.concatenate(
        [smallmat.matvec(block, x[a:b]) for block, (a, b) in zip(blocks, structure.spans, strict=True)]
    )


def _solve(structure: Structure, blocks: list[Array], damping: Any, right: Array) -> Array:
    """(M + hD)⁻¹ right."""
    rate = _rate(damping, right, float(structure.model.opt.timestep))
    parts: list[Any] = [None] * len(blocks)
    sizes: dict[int, list[int]] = {}
    for t, block in enumerate(blocks):
        sizes.setdefault(block.shape[0], []).append(t)
    for n, trees in sizes.items():
        take = lambda v, trees=trees: jnp.stack([v[slice(*structure.spans[t])] for t in trees], 1)  # noqa: E731
        block = jnp.stack([blocks[t] for t in trees], 2)
        eye = jnp.eye(n, dtype=right.dtype).reshape((n, n) + (1,) * (block.ndim - 2))
        found = smallmat.solve(smallmat.cholesky(block + eye * take(rate)), take(right))
        for i, t in enumerate(trees):
            parts[t] = found[:, i]
    return jnp.concatenate(parts)
