"""Turning many bolts at once: estimate, plan, command, a hundred times a second; all of it one compiled step.

    see    readings -> what is thought of each bolt now: poses, motor, q_snug, friction (hybridwm.estimate)
    plan   z: knots of straight lines;  draw, roll out, keep the elites (CEM), every bolt by itself and all side by side:
           `planners.cem` for one bolt, here for W at once, N samples each, as one rollout of N W worlds
    cost   |e| + 10 min(|e|, 1 %) + 30 max(e − 3e-4, 0) + 0.03 max(|v| − v₀ − |e|/t₀, 0) + 1e-3 u²,   e = (F − F*)/F*, and the angle still to go before the joint is snug;
           a bolt does not turn back by itself, so what is too far costs more than what is missing
    never  P(strip) > 1 %

Legend: W bolts, last.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.bolt.fit import Belonging
from experiments.bolt.model import ANGLE, Bolted, Params, Turning
from experiments.bolt.rack import ANGLE_STD, ANGLE_STEP, CONTROL_S, EFFORT_STD, EFFORT_STEP, SENSOR_DELAY
from hybridwm.estimate import Space, Tracking, delayed, fresh_mismatch, unscented, watch
from planners import Cost, Problem, linear
from planners.knots import weights

Array = jax.Array
TANGENT = 7  # driver, bolt, their speeds, motor, snug, grip
SCALE = (1e-2, 1e-2, 0.3, 0.3, 1e-2, 1e-2, 3e-2)


NEAR = 0.01
SLOWEST, GOING = 0.4, 3.5
"""v₀ in rad/s and 1/t₀: how fast a bolt may turn when so much is still missing. There is time; the filter needs it, and so does stopping."""


class Plans(NamedTuple):
    """How the search is done."""

    horizon: int = 16
    knots: int = 8
    samples: int = 48
    iterations: int = 4


class Ways(NamedTuple):
    """How much a model may be wrong in a step: standard deviations that the filter adds."""

    speed: float = 0.15  # rad/s
    motor: float = 2e-3
    grip: float = 0.02  # of ln friction, per root rad turned
    usual: float = 3.0  # ε in a run that nothing is wrong with, over what chance would give


class Memory(NamedTuple):
    """What a controller remembers."""

    tracking: Tracking
    mismatch: Any
    trust: Array  # [W]
    plan: Array  # [K, W] knots
    key: Array


class Told(NamedTuple):
    """What a controller thinks, for the record."""

    force: Array  # [W] N
    force_std: Array  # [W] N
    grip: Array  # [W]
    snug: Array  # [W]
    trust: Array  # [W]
    squared: Array  # [W]
    risk: Array  # [W] P(strip) of the plan in use
    work: Array  # [W]


class Controller(NamedTuple):
    """Pure functions; `act` is compiled by whoever runs it."""

    begin: Callable[..., Memory]
    """begin(params, targets [W], key)."""
    act: Callable[..., tuple[Memory, Array, Told]]
    """act(params, memory, reading [m, W], targets [W]) -> (memory, ctrl [W], told)."""


def _plus(x: Turning, d: Array) -> Turning:
    return x._replace(qpos=x.qpos + d[:2], qvel=x.qvel + d[2:4], motor=x.motor + d[4], snug=x.snug + d[5], grip=x.grip + d[6])


def _minus(x: Turning, y: Turning) -> Array:
    return jnp.concatenate([x.qpos - y.qpos, x.qvel - y.qvel, jnp.stack([x.motor - y.motor, x.snug - y.snug, x.grip - y.grip])])


SPACE = Space(TANGENT, _plus, _minus)


def sensing(sensors: bool, bolted: Bolted) -> tuple[Callable, Any, int]:
    """(sense, noise, delay): angle of the driver and current of the motor, late; or all there is to know, at once."""
    if sensors:
        rounding = [step / 12**0.5 for step in (ANGLE_STEP, EFFORT_STEP)]
        noise = [(a * a + b * b) ** 0.5 for a, b in zip((ANGLE_STD, EFFORT_STD), rounding, strict=True)]
        return lambda params, x, ctrl: jnp.stack([x.qpos[0], x.motor]), tuple(noise), SENSOR_DELAY

    def all_of(params: Params, x: Turning, ctrl: Array) -> Array:
        return jnp.concatenate([x.qpos, x.qvel, jnp.stack([x.motor, bolted.force(params, x)])])

    def noise_of(params: Params, x: Turning, ctrl: Array) -> Array:
        """The load cell says where the joint is snug, but only once it has closed."""
        closing = jnp.exp(-jnp.square(jnp.maximum(x.qpos[1] - x.snug, 0) / 0.1))
        one = jnp.ones_like(x.motor)
        return jnp.stack([1e-4 * one, 1e-4 * one, 5e-3 * one, 5e-3 * one, 1e-3 * one, 3.0 + 500 * closing])

    return all_of, noise_of, 0


def tracker(bolted: Bolted, *, sensors: bool, ways: Ways) -> tuple[Any, Any]:
    """(filter, tracker) of this model."""
    sense, noise, delay = sensing(sensors, bolted)

    def process(params: Params, x: Turning, ctrl: Array) -> Array:
        turned = jnp.sqrt(jnp.abs(x.qvel[1]) * CONTROL_S + 1e-6)
        one = jnp.ones_like(x.motor)
        return jnp.stack([5e-4 * one, 5e-4 * one, ways.speed * one, ways.speed * one, ways.motor * one,
                          1e-5 * one, ways.grip * turned])  # fmt: skip

    def step(params: Params, x: Turning, ctrl: Array) -> Turning:
        return bolted.step(params, x, ctrl)[0]

    filter_ = unscented(step, sense, space=SPACE, process_std=process, noise_std=noise, scale=SCALE)
    return filter_, delayed(filter_, delay=delay, nu=1)


def problem(bolted: Bolted, plans: Plans, *, forbidden: bool) -> Problem:
    """Reach the clamp force soon, and no more than that."""

    def running(goal: Any, state: Turning, ctrl: Array) -> Array:
        e = (state.force - goal) / goal + jnp.minimum(state.qpos[1] - state.snug, 0) / ANGLE
        hasty = jnp.maximum(jnp.abs(state.qvel[1]) - SLOWEST - GOING * jnp.abs(e), 0)
        near = 10 * jnp.minimum(jnp.abs(e), NEAR)
        return jnp.abs(e) + near + 30 * jnp.maximum(e - 3e-4, 0) + 0.03 * hasty + 1e-3 * jnp.square(ctrl[0])

    def terminal(goal: Any, state: Turning) -> Array:
        zero = jnp.zeros((1, *state.motor.shape))
        return 5 * running(goal, state, zero)

    return Problem(
        bolted.model, Cost(running, terminal), linear(plans.horizon, plans.knots),
        forbidden=("strip",) if forbidden else (), delta=0.01, penalty=10.0,
    )  # fmt: skip


LEAST_STD, MOST_STD, ELITES = 0.002, 0.5, 6
FINEST = 0.004
"""The noise falls from sample to sample to this share: a bolt at rest needs a push that breaks it loose, the last one a hair."""


def search(bolted: Bolted, plans: Plans, *, events: bool) -> Callable[..., tuple[Array, Array, Array]]:
    """plan(params, key, state, targets, knots [K, W]) -> (knots moved on by a step, ctrl [W], P(strip) [W])."""
    asked = problem(bolted, plans, forbidden=events)
    spline, n = asked.spline, plans.samples
    rows, later = weights(spline, 0.0), weights(spline, 1.0)
    places = jnp.round(jnp.linspace(0, plans.horizon - 1, plans.knots)).astype(int)

    def costs(params: Params, state: Turning, targets: Array, knots: Array) -> tuple[Array, Array]:
        worlds = targets.shape[0]
        ctrls = jnp.clip(jnp.tensordot(rows, knots.reshape(plans.knots, -1), 1), -1, 1)
        wide, goal = jax.tree.map(lambda x: jnp.tile(x, n), state), jnp.tile(targets, n)

        def advance(carry: Any, ctrl: Array) -> Any:
            state, cost, hold = carry
            after, info = bolted.step(params, state, ctrl[None])
            cost = cost + asked.cost.running(goal, state, ctrl[None])
            if info.event_probability is not None:
                hold = hold + jnp.log1p(-jnp.clip(info.event_probability[0], 0, 1 - 1e-6))
            return (after, cost, hold), None

        zero = jnp.zeros_like(goal)
        (last, cost, hold), _ = jax.lax.scan(advance, (wide, zero, zero), ctrls)
        risk = -jnp.expm1(hold)
        cost = cost + asked.cost.terminal(goal, last) + (asked.penalty * jnp.maximum(risk - asked.delta, 0) if events else 0)
        return jnp.where(jnp.isfinite(cost), cost, 1e9).reshape(n, worlds), risk.reshape(n, worlds)

    def plan(params: Params, key: Array, state: Turning, targets: Array, start: Array) -> tuple[Array, Array, Array]:
        noise = jax.random.normal(key, (plans.iterations, plans.knots, n, targets.shape[0]))
        noise = noise * jnp.geomspace(1.0, FINEST, n)[:, None]

        def improve(now: Any, noise: Array) -> tuple[Any, None]:
            mean, std, best, _ = now
            z = jnp.clip(mean[:, None] + std[:, None] * noise, -1, 1).at[:, 0].set(mean).at[:, 1].set(best)
            cost, risk = costs(params, state, targets, z)
            order = jnp.argsort(cost, 0)[:ELITES]
            elite = jnp.take_along_axis(z, order[None], 1)
            mean = elite.mean(1)
            std = jnp.clip(elite.std(1), LEAST_STD, MOST_STD)
            return (mean, std, elite[:, 0], jnp.take_along_axis(risk, order[:1], 0)[0]), None

        first = (start, jnp.full_like(start, MOST_STD), start, jnp.zeros_like(targets))
        (_, _, best, risk), _ = jax.lax.scan(improve, first, noise)
        ctrl = jnp.clip(best[0], -1, 1)
        moved = jnp.tensordot(later, best, 1)[places]
        return moved, ctrl, risk

    return plan


def mpc(
    bolted: Bolted, known: Belonging, *, sensors: bool, ways: Ways = Ways(), plans: Plans = Plans(), events: bool = True,
    believe: bool = True,
) -> Controller:  # fmt: skip
    """The receding horizon over the filter's mean. believe: whether a surprised filter lowers trust in the residual."""
    _, late = tracker(bolted, sensors=sensors, ways=ways)
    find = search(bolted, plans, events=events)

    def begin(params: Params, targets: Array, key: Array) -> Memory:
        worlds = targets.shape[0]
        state = bolted.start(params, worlds)
        state = state._replace(snug=state.snug + known.snug, grip=state.grip + known.grip)
        std = [1e-3, 0.01, 1e-2, 1e-2, 1e-3, known.snug_std, known.grip_std]
        knots = jnp.zeros((plans.knots, worlds))
        return Memory(late.init(state, std), fresh_mismatch(worlds), jnp.ones(worlds), knots, key)

    def act(params: Params, memory: Memory, reading: Array, targets: Array) -> tuple[Memory, Array, Told]:
        tracking, now, innovation = late.see(params, memory.tracking, reading)
        usual = innovation._replace(squared=innovation.squared / ways.usual)
        mismatch, trust = watch(memory.mismatch, usual)
        trust = trust if believe else jnp.ones_like(trust)
        key, use = jax.random.split(memory.key)
        state = now.mean._replace(trust=trust)
        state = state._replace(force=bolted.force(params, state))
        carry, ctrl, risk = find(params, use, state, targets, memory.plan)
        believed = tracking.belief.mean._replace(trust=trust)
        tracking = late.act(params, tracking._replace(belief=tracking.belief._replace(mean=believed)), ctrl[None])
        told = Told(state.force, force_std(params, now.cov), state.grip, state.snug, trust, innovation.squared,
                    risk, state.work)  # fmt: skip
        return Memory(tracking, mismatch, trust, carry, key), ctrl, told

    return Controller(begin, act)


def force_std(params: Params, cov: Array) -> Array:
    """Standard deviation of the clamp force [W] in N, from that of the bolt's angle and of q_snug."""
    a, b = SCALE[1], SCALE[5]
    apart = cov[1, 1] * a * a + cov[5, 5] * b * b - 2 * cov[1, 5] * a * b
    return jnp.exp(params.law.clamp) * jnp.sqrt(jnp.maximum(apart, 0))
