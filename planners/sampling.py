"""Sampling: draw candidates around a mean, score them, move the mean. One loop; the algorithms are update rules.

    z_n = clip(mean + std * noise_n, -1, 1),   z_0 = mean          candidates, as shares of half the control range
    J_n = J(z_n), infinite where the sample was lost;   z_1 = best so far

    predictive sampling    mean <- z_argmin J                               (Howell et al. 2022, 2212.00541)
    CEM                    mean, std <- those of the elites                 (Rubinstein 1999; coloured: 2008.06389)
    MPPI                   mean <- sum_n w_n z_n,  w = softmax(-J / t)      (Williams et al. 2016, 1509.01149)
    annealed MPPI          the same, with noise that shrinks from iteration to iteration and towards the present
                                                                            (diffusion-style: 2409.15610)

The temperature t is a share of (median J - min J), so no rule depends on the unit of the cost. Lost samples never enter
a sum: they are replaced before it, so what they hold cannot matter. Legend: K knots, N samples, nu controls.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planners import warmstart
from planners.problem import Plan, Planner, PlanParams, Problem, check_problem
from planners.risk import masked_mean
from planners.rollout import Forcing, Score, no_score, score
from planners.verdict import settle
from planners.warmstart import Carry


class Rule(NamedTuple):
    """An update rule.

    spread(i, std `[K, nu]`) -> `[K, nu]`: how far to search in iteration i.
    update(mean, std, z `[K, nu, N]`, cost `[N]`, valid `[N]`) -> (mean, std); called only where a sample is valid.
    colour `[K, K]` turns white noise into noise that is correlated along the knots; None keeps it white.
    """

    spread: Callable[[jax.Array, jax.Array], jax.Array]
    update: Callable[..., tuple[jax.Array, jax.Array]]
    colour: np.ndarray | None = None
    finest: float = 1.0
    """The noise falls from sample to sample to this share of itself: coarse and fine in one batch. Half of the samples
    stay coarse (finest ** (n / N)² is 0.3 in the middle for 0.01), to find the right valley; the finest let a pole stand
    still."""


class Search(NamedTuple):
    """The state of the loop."""

    mean: jax.Array
    std: jax.Array
    best: jax.Array
    """`[K, nu]`, the best candidate so far."""
    score: Score
    """Its score; of infinite cost as long as there is none."""
    valid: jax.Array
    """`[]` int32, samples that counted so far."""


Polish = Callable[..., tuple[jax.Array, Score]]


def explore(
    problem: Problem,
    rule: Rule,
    samples: int,
    iterations: int,
    params: PlanParams,
    key: jax.Array,
    state: Any,
    carry: Carry,
    *,
    forcing: Forcing | None = None,
    polish: Polish | None = None,
) -> Search:
    """The loop. polish(params, state, carry, z `[K, nu, N]`, score) -> (z, score) of further candidates."""

    def iterate(search: Search, inputs: tuple[jax.Array, jax.Array]) -> tuple[Search, None]:
        index, noise = inputs
        z = search.mean[..., None] + rule.spread(index, search.std)[..., None] * noise
        z = jnp.clip(z.at[..., 0].set(search.mean).at[..., 1].set(search.best), -1, 1)
        ctrls = warmstart.to_controls(problem, warmstart.from_unit(problem, z), carry)
        scores, _ = score(problem, params, state, ctrls, forcing)
        counted = jnp.sum(scores.valid, dtype=jnp.int32)
        if polish is not None:
            more, further = polish(params, state, carry, z, scores)
            z = jnp.concatenate([z, more], axis=-1)
            scores = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=-1), scores, further)
        return _learn(rule, search, z, scores, counted), None

    mean = warmstart.to_unit(problem, carry.knots)
    start = Search(mean, carry.std, mean, no_score(problem, mean.dtype), jnp.int32(0))
    noise = _noise(rule, key, (iterations, *mean.shape, samples))
    return jax.lax.scan(iterate, start, (jnp.arange(iterations), noise))[0]


def _noise(rule: Rule, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`[iterations, K, nu, N]`; all at once, since a random generator takes long to compile."""
    depth = np.linspace(0, 1, shape[-1]) ** 2
    noise = jax.random.normal(key, shape) * jnp.asarray(rule.finest**depth, float)
    if rule.colour is None:
        return noise
    colour = jnp.asarray(rule.colour, noise.dtype)
    return jnp.einsum("kl,il...->ik...", colour, noise, precision=jax.lax.Precision.HIGHEST)


def _learn(rule: Rule, search: Search, z: jax.Array, scores: Score, counted: jax.Array) -> Search:
    """The search after one batch of scored candidates; unchanged if all of them were lost."""
    some = jnp.any(scores.valid)
    mean, std = rule.update(search.mean, search.std, z, scores.cost, scores.valid)
    first = jnp.argmin(scores.cost)
    better = scores.cost[first] < search.score.cost
    return Search(
        mean=jnp.where(some, jnp.clip(mean, -1, 1), search.mean),
        std=jnp.where(some, std, search.std),
        best=jnp.where(better, z[..., first], search.best),
        score=jax.tree.map(lambda new, old: jnp.where(better, new[..., first], old), scores, search.score),
        valid=search.valid + counted,
    )


def sampling_planner(
    problem: Problem,
    rule: Rule,
    *,
    samples: int,
    iterations: int,
    std: float,
    polish: Polish | None = None,
) -> Planner:
    """The planner of one update rule; the named planners below choose the rule."""
    check_problem(problem)
    if samples < 2 or iterations < 1:
        raise ValueError(f"need at least 2 samples and 1 iteration, got {samples} and {iterations}")
    if not 0 < std <= 2:
        raise ValueError(f"std is a share of half the control range and must lie in (0, 2], got {std}")

    def plan(params: PlanParams, key: jax.Array, state: Any, carry: Carry) -> tuple[Plan, Carry]:
        carry = warmstart.mended(problem, carry, std)
        search = explore(problem, rule, samples, iterations, params, key, state, carry, polish=polish)
        found = warmstart.from_unit(problem, jnp.stack([search.best, search.mean], axis=-1))
        result, _ = settle(problem, params, state, carry, found, search.valid, samples * iterations)
        return result, carry._replace(knots=result.knots, std=search.std)

    return Planner(partial(warmstart.fresh, problem, std), plan, partial(_advance, problem, std))


def _advance(problem: Problem, std: float, carry: Carry, ctrl: jax.Array, steps: jax.Array | int) -> Carry:
    return warmstart.advance(problem, carry, std, ctrl, steps)


def predictive_sampling(
    problem: Problem,
    *,
    samples: int = 128,
    iterations: int = 4,
    std: float = 0.5,
    shrink: float = 1.0,
    finest: float = 0.01,
) -> Planner:
    """Keep the best sample. `shrink` multiplies the noise from one iteration to the next."""

    def update(mean: jax.Array, std: jax.Array, z: jax.Array, cost: jax.Array, valid: jax.Array) -> Any:
        return z[..., jnp.argmin(cost)], std * shrink

    rule = Rule(as_it_is, update, finest=finest)
    return sampling_planner(problem, rule, samples=samples, iterations=iterations, std=std)


def cem(
    problem: Problem,
    *,
    samples: int = 128,
    iterations: int = 4,
    elites: int = 12,
    std: float = 0.5,
    std_min: float = 0.02,
    keep: float = 0.0,
    colour: float = 1.0,
    finest: float = 0.01,
) -> Planner:
    """Cross-entropy method. Noise of power 1 / frequency ** colour along the knots: 0 white, 1 pink, 2 red.

    keep: share of the old mean and std that stays in an update; more of it searches longer.
    """
    rule = cem_rule(elites, std_min, coloured(problem.spline.knots, colour), keep, finest)
    return sampling_planner(problem, rule, samples=samples, iterations=iterations, std=std)


def mppi(
    problem: Problem,
    *,
    samples: int = 128,
    iterations: int = 4,
    std: float = 0.5,
    temperature: float = 0.1,
    shrink: float = 1.0,
    colour: float = 1.0,
    finest: float = 0.01,
) -> Planner:
    """Model-predictive path integral control. `shrink` multiplies the noise from one iteration to the next."""
    rule = Rule(as_it_is, path_integral(temperature, shrink), coloured(problem.spline.knots, colour), finest)
    return sampling_planner(problem, rule, samples=samples, iterations=iterations, std=std)


def annealed_mppi(
    problem: Problem,
    *,
    samples: int = 128,
    iterations: int = 6,
    std: float = 0.6,
    temperature: float = 0.1,
    cooling: float = 0.1,
    depth: float = 0.5,
) -> Planner:
    """MPPI whose noise ends at `cooling` times where it began; the first knot gets `depth` times the last one's."""
    count = problem.spline.knots
    along = depth ** (1 - np.arange(count) / max(count - 1, 1))

    def spread(index: jax.Array, std: jax.Array) -> jax.Array:
        progress = index / max(iterations - 1, 1)
        return std * jnp.asarray(along, std.dtype)[:, None] * jnp.asarray(cooling, std.dtype) ** progress

    rule = Rule(spread, path_integral(temperature, 1.0))
    return sampling_planner(problem, rule, samples=samples, iterations=iterations, std=std)


def as_it_is(index: jax.Array, std: jax.Array) -> jax.Array:
    """The spread of rules that keep their standard deviation in `std` itself."""
    return std


def cem_rule(
    elites: int, std_min: float, colour: np.ndarray | None = None, keep: float = 0.0, finest: float = 1.0
) -> Rule:
    """Mean and standard deviation of the elites; lost samples are never elite."""
    if elites < 2:
        raise ValueError(f"CEM needs at least 2 elites, got {elites}")

    def update(mean: jax.Array, std: jax.Array, z: jax.Array, cost: jax.Array, valid: jax.Array) -> Any:
        order = jnp.argsort(cost, stable=True)[:elites]
        chosen, counts = z[..., order], valid[order]
        centre = masked_mean(chosen, counts)
        width = jnp.sqrt(masked_mean((chosen - centre[..., None]) ** 2, counts))
        return keep * mean + (1 - keep) * centre, jnp.maximum(keep * std + (1 - keep) * width, std_min)

    return Rule(as_it_is, update, colour, finest)


def path_integral(temperature: float, shrink: float) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The update of MPPI; `shrink` multiplies std."""
    if not temperature > 0:
        raise ValueError(f"the temperature must be positive, got {temperature}")

    def update(mean: jax.Array, std: jax.Array, z: jax.Array, cost: jax.Array, valid: jax.Array) -> Any:
        ranked = jnp.sort(cost)
        excess = jnp.where(valid, cost - ranked[0], 0)
        scale = temperature * (ranked[(jnp.sum(valid) - 1) // 2] - ranked[0])
        weight = jnp.where(valid, jnp.exp(-excess / jnp.maximum(scale, 1e-30)), 0)
        return jnp.sum(weight * z, axis=-1) / jnp.maximum(jnp.sum(weight), 1e-30), std * shrink

    return update


def coloured(count: int, power: float) -> np.ndarray | None:
    """Matrix `[K, K]` that turns white noise into stationary noise of spectrum 1 / f ** power and unit variance."""
    if power == 0 or count < 2:
        return None
    lags = 2 * count  # twice as long as needed, so that the two ends are not tied together
    frequency = np.maximum(np.fft.rfftfreq(lags), 1 / lags)
    kernel = np.fft.irfft(frequency ** (-power / 2), lags)
    cyclic = np.stack([np.roll(kernel, shift) for shift in range(lags)])
    covariance = (cyclic @ cyclic.T)[:count, :count]
    return np.linalg.cholesky(covariance / covariance[0, 0])
