"""What is thought of each bolt: the filter of `hybridwm.estimate` over a model of bolts, told by its sensors or told everything.

    sensors    angle of the driver and current of the motor; noisy, rounded, two steps late
    truth      poses, speeds, current and clamp force, at once

Legend: W bolts, last.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.bolt.model import Bolted, Params, Turning
from experiments.bolt.rack import ANGLE_STD, ANGLE_STEP, CONTROL_S, EFFORT_STD, EFFORT_STEP, SENSOR_DELAY
from hybridwm.estimate import Space, Tracker, delayed, gaussian_sum, unscented

Array = jax.Array
SCALE = (1e-2, 1e-2, 0.3, 0.3, 1e-2, 1e-2, 3e-2)
"""Usual sizes of the tangent: driver, bolt, their speeds, motor, snug, grip."""
BOLT, SNUG, GRIP = 1, 5, 6


class Ways(NamedTuple):
    """How much a model may be wrong in a step: standard deviations that the filter adds."""

    speed: float = 0.15  # rad/s
    motor: float = 2e-3
    grip: float = 0.02  # of ln friction, per root rad turned
    usual: float = 8.0  # ε in a run that nothing is wrong with, over what chance would give


USUAL, SENSED = Ways(), Ways(grip=0.007, usual=3.0)
"""Told everything; by sensors."""
SEATS = 12
"""Beliefs beside one another, each of another q_snug: sensors tell nothing of it before the joint closes."""


class Belonging(NamedTuple):
    """The distribution of bolts that the logs show: where a filter starts."""

    snug: float
    snug_std: float
    grip: float
    grip_std: float


def _plus(x: Turning, d: Array) -> Turning:
    moved = {"motor": x.motor + d[4], "snug": x.snug + d[SNUG], "grip": x.grip + d[GRIP]}
    return x._replace(qpos=x.qpos + d[:2], qvel=x.qvel + d[2:4], **moved)


def _minus(x: Turning, y: Turning) -> Array:
    rest = jnp.stack([x.motor - y.motor, x.snug - y.snug, x.grip - y.grip])
    return jnp.concatenate([x.qpos - y.qpos, x.qvel - y.qvel, rest])


SPACE = Space(len(SCALE), _plus, _minus)


def sensing(sensors: bool, bolted: Bolted) -> tuple[Callable[..., Array], Any, int]:
    """(sense, noise, delay)."""
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


def tracker(bolted: Bolted, *, sensors: bool, ways: Ways = USUAL) -> Tracker:
    """The filter over this model, with readings as late as they are."""
    sense, noise, delay = sensing(sensors, bolted)

    def process(params: Params, x: Turning, ctrl: Array) -> Array:
        turned = jnp.sqrt(jnp.abs(x.qvel[1]) * CONTROL_S + 1e-6)
        one = jnp.ones_like(x.motor)
        rest = [ways.speed * one, ways.speed * one, ways.motor * one, 1e-5 * one, ways.grip * turned]
        return jnp.stack([5e-4 * one, 5e-4 * one, *rest])

    def step(params: Params, x: Turning, ctrl: Array) -> Turning:
        return bolted.step(params, x, ctrl)[0]

    filter_ = unscented(step, sense, space=SPACE, process_std=process, noise_std=noise, scale=SCALE)
    if sensors:
        filter_ = gaussian_sum(filter_, axis=SNUG, count=SEATS)
    return delayed(filter_, delay=delay, nu=1)


def first(bolted: Bolted, params: Params, known: Belonging, worlds: int) -> tuple[Turning, Array]:
    """(what is thought before the first reading, its standard deviations)."""
    state = bolted.start(params, worlds)
    state = state._replace(snug=state.snug + known.snug, grip=state.grip + known.grip)
    return state, jnp.asarray([1e-3, 0.01, 1e-2, 1e-2, 1e-3, known.snug_std, known.grip_std])


def force_std(params: Params, cov: Array) -> Array:
    """Standard deviation of the clamp force [W] in N, from that of the bolt's angle and of q_snug."""
    a, b = SCALE[BOLT], SCALE[SNUG]
    apart = cov[BOLT, BOLT] * a * a + cov[SNUG, SNUG] * b * b - 2 * cov[BOLT, SNUG] * a * b
    return jnp.exp(params.law.clamp) * jnp.sqrt(jnp.maximum(apart, 0))


def snug_std(cov: Array) -> Array:
    """Standard deviation of q_snug [W] in rad."""
    return SCALE[SNUG] * jnp.sqrt(jnp.maximum(cov[SNUG, SNUG], 0))


def following(bolted: Bolted, *, sensors: bool, ways: Ways = USUAL) -> Callable[..., tuple[Turning, Array]]:
    """follow(params, known, readings [H, m, W], ctrl [H, W]) -> what the filter thinks at each command (leaves [H, ..., W]), and
    the standard deviation of the force [H, W]."""
    late = tracker(bolted, sensors=sensors, ways=ways)

    def follow(params: Any, known: Belonging, readings: Array, ctrl: Array) -> tuple[Turning, Array]:
        def advance(tracking: Any, given: Any) -> Any:
            reading, ctrl = given
            tracking, now, _ = late.see(params, tracking, reading)
            mean = now.mean._replace(force=bolted.force(params, now.mean))
            return late.act(params, tracking, ctrl[None]), (mean, force_std(params, now.cov))

        begin = late.init(*first(bolted, params, known, ctrl.shape[1]))
        return jax.lax.scan(advance, begin, (readings, ctrl))[1]

    return follow
