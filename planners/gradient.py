"""Gradient shooting: follow dJ/dz through the model, from several starts at once.

    z <- clip(z - a_i m / (sqrt(v) + eps), -1, 1)          Adam on unit knots, the step a_i falling to zero (cosine)

The mixture is CEM whose elites take a few gradient steps before the
mean moves; there a wrong gradient only makes poor candidates, so it needs no guard.
Legend: K knots, N starts, nu controls.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from planners import warmstart
from planners.guard import guarded, unit_gradient, unit_score
from planners.problem import Planner, PlanParams, Problem
from planners.rollout import Score
from planners.sampling import cem_rule, coloured, sampling_planner
from planners.warmstart import Carry


class _Adam(NamedTuple):
    z: jax.Array
    first: jax.Array
    second: jax.Array
    best: jax.Array
    best_cost: jax.Array
    valid: jax.Array


def adam(
    problem: Problem,
    *,
    starts: int = 4,
    iterations: int = 30,
    step: float = 0.1,
    std: float = 0.3,
    tolerance: float = 0.25,
    samples: int = 64,
) -> Planner:
    """Adam from the warm start and `starts - 1` perturbed ones (by `std`).

    tolerance: relative error of a directional derivative above which `samples` per round are drawn instead.
    """
    if starts < 1 or iterations < 1:
        raise ValueError(f"need at least 1 start and 1 iteration, got {starts} and {iterations}")

    def climb(params: PlanParams, key: jax.Array, state: Any, carry: Carry) -> tuple[jax.Array, jax.Array, jax.Array]:
        mean = warmstart.to_unit(problem, carry.knots)
        noise = std * jax.random.normal(key, (*mean.shape, starts))
        z = jnp.clip(mean[..., None] + noise.at[..., 0].set(0), -1, 1)
        best, valid = _descend(problem, params, state, carry, z, iterations, step)
        return best, valid, jnp.int32(starts * (iterations + 1))

    rounds = max(iterations // 4, 1)
    return guarded(problem, climb, std=std, tolerance=tolerance, samples=samples, rounds=rounds)


def mixture(
    problem: Problem,
    *,
    samples: int = 128,
    iterations: int = 4,
    elites: int = 6,
    std: float = 0.5,
    std_min: float = 0.02,
    colour: float = 1.0,
    polished: int = 6,
    steps: int = 3,
    step: float = 0.01,
    finest: float = 0.01,
) -> Planner:
    """CEM whose best `polished` samples take `steps` gradient steps and join the elites."""

    def polish(params: PlanParams, state: Any, carry: Carry, z: jax.Array, scores: Score) -> tuple[jax.Array, Score]:
        chosen = z[..., jnp.argsort(scores.cost, stable=True)[:polished]]
        for count in range(steps):
            grad, _ = unit_gradient(problem, params, state, carry, chosen)
            largest = jnp.max(jnp.abs(grad), axis=(0, 1))
            chosen = jnp.clip(chosen - step * 0.5**count * grad / jnp.maximum(largest, 1e-30), -1, 1)
        return chosen, unit_score(problem, params, state, carry, chosen)

    rule = cem_rule(elites, std_min, coloured(problem.spline.knots, colour), finest=finest)
    return sampling_planner(problem, rule, samples=samples, iterations=iterations, std=std, polish=polish)


def _descend(
    problem: Problem, params: PlanParams, state: Any, carry: Carry, z: jax.Array, iterations: int, step: float
) -> tuple[jax.Array, jax.Array]:
    """(best knots met on the way `[K, nu]`, number of valid samples) of Adam from starts `[K, nu, N]`."""

    def keep_best(now: _Adam, scores: Score) -> _Adam:
        first = jnp.argmin(scores.cost)
        better = scores.cost[first] < now.best_cost
        return now._replace(
            best=jnp.where(better, now.z[..., first], now.best),
            best_cost=jnp.where(better, scores.cost[first], now.best_cost),
            valid=now.valid + jnp.sum(scores.valid, dtype=jnp.int32),
        )

    def iterate(now: _Adam, index: jax.Array) -> tuple[_Adam, None]:
        grad, scores = unit_gradient(problem, params, state, carry, now.z)
        now = keep_best(now, scores)
        first, second = 0.9 * now.first + 0.1 * grad, 0.95 * now.second + 0.05 * grad**2
        ahead = (first / (1 - 0.9 ** (index + 1))) / (jnp.sqrt(second / (1 - 0.95 ** (index + 1))) + 1e-12)
        rate = step * (0.5 + 0.5 * jnp.cos(jnp.pi * index / iterations))
        return now._replace(z=jnp.clip(now.z - rate * ahead, -1, 1), first=first, second=second), None

    nothing = jnp.zeros_like(z)
    start = _Adam(z, nothing, nothing, z[..., 0], jnp.asarray(jnp.inf, z.dtype), jnp.int32(0))
    last, _ = jax.lax.scan(iterate, start, jnp.arange(iterations, dtype=z.dtype))
    last = keep_best(last, unit_score(problem, params, state, carry, last.z))
    return last.best, last.valid
