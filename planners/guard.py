"""The guard of every planner that differentiates: use the gradient only while it is right.

    |dJ/dz . d - (J(z + r d) - J(z - r d)) / 2 r|  <=  tolerance max(both)

for d along the gradient and along a random direction. Where this fails, or a sample is lost, the call falls back to
sampling (MPPI) and its plan is DEGRADED at best. Legend: K knots, N samples, nu controls.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from planners import warmstart
from planners.problem import Plan, Planner, PlanParams, Problem, check_problem
from planners.rollout import Score, score
from planners.sampling import Rule, as_it_is, coloured, explore, path_integral
from planners.verdict import settle
from planners.warmstart import Carry

Climb = Callable[[PlanParams, jax.Array, Any, Carry], tuple[jax.Array, jax.Array, jax.Array]]
"""(params, key, state, carry) -> (best unit knots `[K, nu]`, samples that counted, samples that were tried)."""


def guarded(problem: Problem, climb: Climb, *, std: float, tolerance: float, samples: int, rounds: int) -> Planner:
    """`climb` while the gradient is right, else `rounds` of MPPI with `samples` each, spread by `std`."""
    check_problem(problem)
    rule = Rule(as_it_is, path_integral(0.1, 0.9), coloured(problem.spline.knots, 1.0))

    def sample(params: PlanParams, key: jax.Array, state: Any, carry: Carry) -> tuple[jax.Array, jax.Array, jax.Array]:
        search = explore(problem, rule, samples, rounds, params, key, state, carry)
        return search.best, search.valid, jnp.int32(samples * rounds)

    def plan(params: PlanParams, key: jax.Array, state: Any, carry: Carry) -> tuple[Plan, Carry]:
        carry = warmstart.mended(problem, carry, std)
        check_key, key = jax.random.split(key)
        trusted = gradient_agrees(problem, params, check_key, state, carry, tolerance)
        unit, valid, tried = jax.lax.cond(trusted, climb, sample, params, key, state, carry)
        found = warmstart.from_unit(problem, unit)[..., None]
        result, _ = settle(problem, params, state, carry, found, valid, tried, doubt=~trusted)
        return result, carry._replace(knots=result.knots)

    def advance(carry: Carry, ctrl: jax.Array, steps: jax.Array | int) -> Carry:
        return warmstart.advance(problem, carry, std, ctrl, steps)

    return Planner(partial(warmstart.fresh, problem, std), plan, advance)


def unit_score(problem: Problem, params: PlanParams, state: Any, carry: Carry, z: jax.Array) -> Score:
    """Scores of unit knots `[K, nu, N]`."""
    ctrls = warmstart.to_controls(problem, warmstart.from_unit(problem, z), carry)
    return score(problem, params, state, ctrls)[0]


def unit_gradient(
    problem: Problem, params: PlanParams, state: Any, carry: Carry, z: jax.Array
) -> tuple[jax.Array, Score]:
    """dJ/dz `[K, nu, N]`, zero for samples that were lost or whose gradient is not finite; and their scores."""

    def total(z: jax.Array) -> tuple[jax.Array, Score]:
        scores = unit_score(problem, params, state, carry, z)
        return jnp.sum(jnp.where(scores.valid, scores.raw, 0)), scores

    grad, scores = jax.grad(total, has_aux=True)(z)
    usable = scores.valid & jnp.all(jnp.isfinite(grad), axis=(0, 1))
    return jnp.where(usable, grad, 0), scores


def gradient_agrees(
    problem: Problem,
    params: PlanParams,
    key: jax.Array,
    state: Any,
    carry: Carry,
    tolerance: float = 0.25,
    reach: float = 1e-2,
) -> jax.Array:
    """Whether dJ/dz at the warm start agrees with central differences, `reach` to either side, in two directions.

    The point is drawn in from the bounds so that both sides exist. Rounding of J is forgiven.
    """
    z = jnp.clip(warmstart.to_unit(problem, carry.knots), -1 + 2 * reach, 1 - 2 * reach)
    grad = unit_gradient(problem, params, state, carry, z[..., None])[0][..., 0]
    noise = jax.random.normal(key, z.shape)
    ways = jnp.stack([grad / jnp.maximum(jnp.max(jnp.abs(grad)), 1e-30), noise / jnp.max(jnp.abs(noise))], axis=-1)
    sides = jnp.concatenate([z[..., None] + reach * ways, z[..., None] - reach * ways], axis=-1)
    scores = unit_score(problem, params, state, carry, sides)
    measured = (scores.raw[:2] - scores.raw[2:]) / (2 * reach)
    promised = jnp.sum(grad[..., None] * ways, axis=(0, 1))
    rounding = 32 * jnp.finfo(z.dtype).eps * jnp.max(jnp.abs(scores.raw)) / reach
    allowed = tolerance * jnp.maximum(jnp.abs(measured), jnp.abs(promised)) + rounding
    return jnp.all(scores.valid) & jnp.all(jnp.abs(measured - promised) <= allowed)
