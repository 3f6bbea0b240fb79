"""What a planner remembers from one call to the next, and what it does when that is all there is.

The ladder of fallbacks: the shifted previous plan; where it is not finite, the last control held; else zero. Each is
clipped to the limits, so there is always a finite control. Legend: K knots, H horizon, nu controls.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from planners import knots as splines
from planners.problem import Problem


class Carry(NamedTuple):
    """Memory of a planner."""

    knots: jax.Array
    """`[K, nu]`, the warm start."""
    std: jax.Array
    """`[K, nu]`, how far to search around it, as a share of half the control range."""
    ctrl: jax.Array
    """`[nu]`, the control in use now; rate limits start from it."""
    phase: jax.Array
    """`[]`, how many steps the present is past the first knot."""


def fresh(problem: Problem, std: float) -> Carry:
    """Start from zero control, or the control nearest to zero."""
    ctrl = rest(problem)
    count = problem.spline.knots
    return Carry(
        jnp.tile(ctrl, (count, 1)), jnp.full((count, problem.nu), std, ctrl.dtype), ctrl, jnp.zeros((), ctrl.dtype)
    )


def advance(problem: Problem, carry: Carry, std: float, ctrl: jax.Array, steps: jax.Array | int) -> Carry:
    """The memory `steps` steps later, with `ctrl` in use; the search opens to `std` again."""
    knots, phase = splines.shift(problem.spline, carry.knots, carry.phase, steps)
    return Carry(knots, jnp.full_like(carry.std, std), jnp.asarray(ctrl, carry.ctrl.dtype), phase)


def mended(problem: Problem, carry: Carry, std: float) -> Carry:
    """The same memory with every number finite and within limits, by the ladder above."""
    low, high = problem.limits
    ctrl = jnp.clip(jnp.where(jnp.isfinite(carry.ctrl), carry.ctrl, rest(problem)), low, high)
    knots = jnp.clip(jnp.where(jnp.isfinite(carry.knots), carry.knots, ctrl), low, high)
    std_now = jnp.where(jnp.isfinite(carry.std), jnp.clip(carry.std, 0, 2), std)
    phase = jnp.where(jnp.isfinite(carry.phase), jnp.clip(carry.phase, 0, problem.spline.spacing), 0)
    return Carry(knots, std_now, ctrl, phase)


def rest(problem: Problem) -> jax.Array:
    """The control nearest to zero, `[nu]`."""
    low, high = problem.limits
    return jnp.clip(jnp.zeros_like(low), low, high)


def to_controls(problem: Problem, knots: jax.Array, carry: Carry) -> jax.Array:
    """Controls `[H, nu, N]` of knots `[K, nu, N]` within all limits, from where `carry` stands."""
    change = None if problem.rate is None else jnp.asarray(problem.rate, knots.dtype) * problem.model.dt
    return splines.controls(problem.spline, knots, problem.limits, carry.phase, carry.ctrl, change)


def to_unit(problem: Problem, knots: jax.Array) -> jax.Array:
    """Knots `[K, nu]` as numbers in [-1, 1], where every planner searches."""
    low, high = problem.limits
    return jnp.clip((knots - (low + high) / 2) / ((high - low) / 2), -1, 1)


def from_unit(problem: Problem, unit: jax.Array) -> jax.Array:
    """Knots `[K, nu, N]` or `[K, nu]` of numbers in [-1, 1]."""
    low, high = problem.limits
    middle, half = (low + high) / 2, (high - low) / 2
    if unit.ndim == 3:
        middle, half = middle[:, None], half[:, None]
    return jnp.clip(middle + half * unit, *(low, high) if unit.ndim == 2 else (low[:, None], high[:, None]))
