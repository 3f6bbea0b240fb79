"""The planner over bolts: many short searches side by side, each by CEM over knots of straight lines.

    d      what is left to turn, rad: (F* − F)/k, and before the joint is snug F*/k and the way there
    ref    d⁺ = max(d − h v(d), 0),  v = min(v₀ + d/t₀, v_max), slow from where the joint may close (the filter's own doubt)
    haste  (|v_b| − v(d) − v₁)₊
    cost   Σ_h |d − ref_h|/a + s min(|d|, a)/a [ref = 0] + o max(−d, 0)/a + w haste + 1e-3 u²,  the last state counted five times
    never  P(strip) > 1 %

A bolt does not turn back by itself, so what is too far costs more than what is missing. `planners.cem` does this for one bolt;
here W bolts with N samples each are one rollout of N W worlds.
Legend: W bolts, last; N samples, K knots, H commands.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.bolt.model import Bolted, Params, Turning
from experiments.bolt.rack import CONTROL_S
from planners import linear
from planners.knots import weights

Array = jax.Array
LEAST_STD, MOST_STD, ELITES = 0.002, 0.5, 6
FINEST = 0.004
"""The noise falls from sample to sample to this share: a bolt at rest needs a push that breaks it loose, the last one a hair."""
DELTA, PENALTY = 0.01, 100.0


class Plans(NamedTuple):
    """How the search is done."""

    horizon: int = 16
    knots: int = 8  # of the noise
    samples: int = 80
    iterations: int = 4
    pushes: int = 20  # of the samples, in the first iteration


class Pace(NamedTuple):
    """How fast a bolt may be turned. There is time; the filter needs it, and so does stopping."""

    last: float = 0.5  # rad/s, v₀: slower than this a bolt sticks and slips
    ease_s: float = 0.25  # t₀
    closing: float = 2.0  # rad/s from where the joint may close
    free: float = 8.0  # rad/s before
    unit: float = 0.1  # rad, a: what counts as far
    sharp: float = 5.0  # s: what counts as near
    over: float = 20.0  # o
    haste: float = 0.2  # s/rad, w
    slack: float = 0.5  # rad/s, v₁


PLANS, PACE = Plans(), Pace()


class Goal(NamedTuple):
    """What is asked of each bolt."""

    force: Array  # [W] N, F*
    doubt: Array  # [W] rad: the joint may close so much earlier than thought


def left_to_turn(params: Params, state: Turning, goal: Goal) -> Array:
    """d [W] in rad; below 0 where the bolt went too far."""
    return (goal.force - state.force) * jnp.exp(-params.law.clamp) + jnp.maximum(state.snug - state.qpos[1], 0)


def speed(params: Params, d: Array, goal: Goal, pace: Pace) -> Array:
    """v(d) [W] in rad/s."""
    most = jnp.where(d > goal.force * jnp.exp(-params.law.clamp) + goal.doubt, pace.free, pace.closing)
    return jnp.minimum(pace.last + jnp.abs(d) / pace.ease_s, most)


def reference(params: Params, state: Turning, goal: Goal, pace: Pace, horizon: int) -> Array:
    """[H, W] what should be left after each command."""

    def move(d: Array, _: None) -> tuple[Array, Array]:
        after = jnp.maximum(jnp.maximum(d, 0) - CONTROL_S * speed(params, d, goal, pace), 0)
        return after, after

    return jax.lax.scan(move, left_to_turn(params, state, goal), None, length=horizon)[1]


def price(d: Array, wanted: Array, hasty: Array, ctrl: Array, pace: Pace) -> Array:
    """Cost of an instant [W]."""
    near = jnp.where(wanted > 0, 0.0, pace.sharp * jnp.minimum(jnp.abs(d), 0.1 * pace.unit))
    apart = jnp.abs(d - wanted) + near + pace.over * jnp.maximum(-d, 0)
    return apart / pace.unit + pace.haste * jnp.maximum(hasty - pace.slack, 0) + 1e-3 * jnp.square(ctrl)


def proposals(key: Array, plans: Plans, going: Array) -> Array:
    """[H, pushes, W] commands: wind up to about the torque at which the bolt last turned, hold, and let go."""
    level, until, rest = jax.random.uniform(key, (3, plans.pushes, going.shape[0]))
    here = jnp.arange(plans.horizon)[:, None, None]
    push = going * (0.95 + 0.25 * level)
    return jnp.where(here < 2 + until * (plans.horizon - 4), push, going * rest)


def search(bolted: Bolted, plans: Plans, pace: Pace, *, events: bool) -> Callable[..., tuple[Array, Array]]:
    """plan(params, key, state, goal, going [W], start [H, W]) -> (commands [H, W], P(strip) [W])."""
    n = plans.samples
    spread = weights(linear(plans.horizon, plans.knots), 0.0)

    def costs(params: Params, state: Turning, goal: Goal, wanted: Array, ctrls: Array) -> tuple[Array, Array]:
        wide, asked = jax.tree.map(lambda x: jnp.tile(x, n), (state, goal))

        def advance(carry: Any, given: Any) -> Any:
            state, cost, hold, _ = carry
            ctrl, want = given
            after, info = bolted.step(params, state, ctrl[None])
            if info.event_probability is not None:
                hold = hold + jnp.log1p(-jnp.clip(info.event_probability[0], 0, 1 - 1e-6))
            d = left_to_turn(params, after, asked)
            hasty = jnp.abs(after.qvel[1]) - speed(params, d, asked, pace)
            now = price(d, jnp.tile(want, n), hasty, ctrl, pace)
            return (after, cost + now, hold, now), None

        zero = jnp.zeros_like(asked.force)
        given = ctrls.reshape(plans.horizon, -1), wanted
        (_, cost, hold, last), _ = jax.lax.scan(advance, (wide, zero, zero, zero), given)
        risk = -jnp.expm1(hold)
        cost = cost + 4 * last + (PENALTY * jnp.maximum(risk - DELTA, 0) if events else 0)
        return jnp.where(jnp.isfinite(cost), cost, 1e9).reshape(n, -1), risk.reshape(n, -1)

    def plan(params: Params, key: Array, state: Turning, goal: Goal, going: Array, start: Array) -> tuple[Array, Array]:
        worlds, (one, two) = goal.force.shape[0], jax.random.split(key)
        wanted = reference(params, state, goal, pace, plans.horizon)
        noise = jax.random.normal(one, (plans.knots, plans.iterations, n, worlds))
        noise = jnp.tensordot(spread, noise * jnp.geomspace(1.0, FINEST, n)[:, None], 1)
        pushes = proposals(two, plans, going)

        def improve(now: Any, given: Any) -> tuple[Any, None]:
            mean, std, best, _ = now
            noise, first = given
            z = jnp.clip(mean[:, None] + std[:, None] * noise, -1, 1).at[:, 0].set(mean).at[:, 1].set(best)
            z = z.at[:, n - plans.pushes :].set(jnp.where(first, pushes, z[:, n - plans.pushes :]))
            cost, risk = costs(params, state, goal, wanted, z)
            order = jnp.argsort(cost, 0)[:ELITES]
            elite = jnp.take_along_axis(z, order[None], 1)
            std = jnp.clip(elite.std(1), LEAST_STD, MOST_STD)
            return (elite.mean(1), std, elite[:, 0], jnp.take_along_axis(risk, order[:1], 0)[0]), None

        begin = (start, jnp.full_like(start, MOST_STD), start, jnp.zeros_like(goal.force))
        given = jnp.moveaxis(noise, 1, 0), jnp.arange(plans.iterations) == 0
        (_, _, best, risk), _ = jax.lax.scan(improve, begin, given)
        return best, risk

    return plan
