"""The accelerations of a step, and their derivatives: those of the equations that they solve.

    F(x) = 0              x: acceleration under the constraints (solver.py)      dx = −H⁻¹ ∂F
    (M + hD) y = M x      y: what Euler's step moves on with (damping.py)        dy = (M + hD)⁻¹ (M dx − ∂[M(q)(y − x) + hD y])

The ∂ at fixed x and y come from one pass over the tree (imbalance.py); neither Newton's iterations nor Jacobians are
differentiated. Forward and reverse mode.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from physics import damping, moving, smallmat, solver
from physics.imbalance import Inputs, imbalance
from physics.solver import Problem
from physics.structure import Structure

Array = jax.Array


def accelerations(
    structure: Structure, problem: Problem, blocks: list[Array], start: Array, given: Inputs
) -> tuple[Array, Array, Array, Array]:
    """x* [nv, W], y [nv, W], iterations [], relative residual [W]; `blocks`: the mass matrix tree by tree."""
    xs, again = moving.arrays(given)
    damped = damping.matters(given.params)

    @jax.custom_jvp
    def run(xs: list[Array], problem: Problem, blocks: list[Array], start: Array) -> tuple[Array, ...]:
        x, count, error = solver.newton(structure.layout, problem, start)
        y = damping.slowed(structure, blocks, again(xs).params.dof_damping, x) if damped else x
        return x, y, count, error

    def differentiate(primals: Any, tangents: Any) -> Any:
        xs, problem, blocks, _ = primals
        x, y, count, error = run(*primals)
        # Computed again on the way back: faster than reading what it would keep of each step.
        residuals = jax.checkpoint(
            lambda xs: imbalance(structure, again(xs), x, y if damped else None), prevent_cse=False
        )
        change, late = moving.along(residuals, xs, tangents[0])
        dx = -_symmetric_solve(structure, problem, x, change)
        dy = dx
        if damped:
            dy = damping.solved(
                structure, blocks, again(xs).params.dof_damping, damping.times(structure, blocks, dx) - late
            )
        return (x, y, count, error), (dx, dy, np.zeros((), jax.dtypes.float0), jnp.zeros_like(error))

    run.defjvp(differentiate, symbolic_zeros=True)
    return run(xs, *lax.stop_gradient((problem, blocks, start)))  # type: ignore[return-value]


def _symmetric_solve(structure: Structure, problem: Problem, x: Array, right: Array) -> Array:
    """H⁻¹ right."""
    factor = smallmat.cholesky(solver.curvature(structure.layout, problem, x))
    return lax.custom_linear_solve(
        lambda v: smallmat.times(factor, v), right, lambda _, b: smallmat.solve(factor, b), symmetric=True
    )
