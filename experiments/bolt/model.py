"""The bolt as a world model: engine ∘ residual ∘ strip, five engine steps of 2 ms to one command.

    y⁺    = u_late + (y − u_late) e^{−h/τ}                       what the motor makes of the command of one step ago
    F     = k ramp(q_b − q_snug) + g ΔF_φ                        clamp force
    T     ≤ T₀ + F r μ₀ (1 + σ e^{−(v/v_s)²}) e^{z + g s_φ}       thread friction; z: of *this* bolt
    w     = (−τ − rub_d, τ − p F − rub_b)                        τ: the wound-up driver
    x⁺    = Φ(x, y, w; θ)                                        the engine: Brax dynamics, semi-implicit
    Λ     = max over time of L, the filtered strain              P(stripped by now) = σ(ln(Λ/S)/w)

Friction holds still what it can: rub = clip(M v/h + force, ±bound), exact for a diagonal mass matrix. φ is small, zero at first,
fitted on lab data, and asked once to a command, half a command ahead; q_snug and z differ from bolt to bolt and are part of the
state, so that the filter finds them as the bolt turns.
Legend: W worlds, last; lanes of scalars [W].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import physics
from experiments.bolt.rack import CONTROL_S, PITCH, RADIUS, TORQUE, WORK, rack_xml
from hybridwm.world.network import Network, structure
from physics import fastening
from planners import Model as PlanModel
from planners import PlanInfo

Array = jax.Array
STEP_S, EVERY = 0.002, 5
HARMONICS, HIDDEN = 12, (24,)
FORCE, SPEED, ANGLE = 1e4, 5.0, 1.5  # N, rad/s, rad: usual sizes
FEATURES = 2 * HARMONICS + 4
LARGEST_FORCE, LARGEST_LOG, LARGEST_RUB = 3e3, 0.5, 3.0  # bounds of what φ may say
REACH = 0.25  # how far outside its data φ is believed at all, in usual sizes


class Turning(NamedTuple):
    """One instant of W drivers on bolts."""

    qpos: Array  # [2, W] rad: driver, bolt
    qvel: Array  # [2, W] rad/s
    motor: Array  # [W] torque of the motor, as a share
    pending: Array  # [W] the command that has not arrived yet
    work: Array  # [W] sliding work under load since the start, over E
    strained: Array  # [W] L
    peak: Array  # [W] Λ
    intact: Array  # [W] 1 while the thread holds
    snug: Array  # [W] rad
    grip: Array  # [W] z
    trust: Array  # [W] how far the residual is believed: 1, unless the filter is surprised
    force: Array  # [W] N, F


class Law(NamedTuple):
    """θ: what is alike for all bolts. Logarithms where the value is positive."""

    driver: Any  # ln kg m²
    bolt: Any  # ln kg m²
    damping: Any  # ln N m s/rad
    gain: Any  # ln factor on the motor's torque
    lag: Any  # ln s
    stiffness: Any  # ln N m/rad
    windup: Any  # ln N m s/rad
    gap: Any  # rad
    clamp: Any  # ln N/rad
    friction: Any  # ln μ₀
    drag: Any  # ln N m
    driver_drag: Any  # ln N m
    sticking: Any  # σ
    sticking_speed: Any  # ln rad/s
    strength: Any  # [2] ln N, ln N m
    spread: Any  # ln w


class Params(NamedTuple):
    """Everything that fitting finds; without weights this is physics alone."""

    law: Law
    weights: Any = None  # of `Network`
    low: Any = None  # [FEATURES] the training support
    high: Any = None


NOMINAL = Law(
    driver=np.log(1.2e-2), bolt=np.log(1e-3), damping=np.log(0.8), gain=0.0, lag=np.log(1e-3), stiffness=np.log(240.0),
    windup=np.log(0.2), gap=0.03, clamp=np.log(11.7e3), friction=np.log(0.14), drag=np.log(0.2), driver_drag=np.log(0.1),
    sticking=0.0, sticking_speed=np.log(0.1), strength=np.log([22e3, 50.0]), spread=np.log(0.02),
)  # fmt: skip
"""What the data sheets say. The motor is taken to follow at once."""

GRAPH = structure(FEATURES, HIDDEN, 3)


def scene() -> physics.Scene:
    """One driver on one bolt."""
    return physics.load_scene(rack_xml(1, STEP_S, driver=1e-2, bolt=1e-3, damping=1.0))


def fresh_weights(seed: int) -> Any:
    """Weights of a network that says nothing yet."""
    from flax import nnx

    return nnx.split(Network(FEATURES, HIDDEN, 3, rngs=nnx.Rngs(seed)))[1]


def features(angle: Array, speed: Array, snug: Array, work: Array, force: Array) -> Array:
    """What φ sees [FEATURES, W]: where on the turn, how fast, how far, how worn. Harmonics by addition of angles."""
    c, s = jnp.cos(angle), jnp.sin(angle)
    waves, ck, sk = [], c, s
    for _ in range(HARMONICS):
        waves += [ck, sk]
        ck, sk = ck * c - sk * s, sk * c + ck * s
    return jnp.stack([*waves, speed / SPEED, (angle - snug) / ANGLE, work, force / FORCE])


class Said(NamedTuple):
    """What φ says of an instant, trust included."""

    log_friction: Array
    force: Array  # N
    rub: Array  # N m on the driver


def said(params: Params, state: Turning, ahead_s: float = 0.0) -> Said:
    """s, ΔF and the driver's own, bounded; nothing without weights."""
    if params.weights is None:
        none = jnp.zeros_like(state.motor)
        return Said(none, none, none)
    from flax import nnx

    angle = state.qpos[1] + ahead_s * state.qvel[1]
    plain = jnp.exp(params.law.clamp) * jnp.maximum(angle - state.snug, 0)
    z = features(angle, state.qvel[1], state.snug, state.work, plain)
    out = state.trust * jnp.tanh(nnx.merge(GRAPH, params.weights)(z))
    if params.low is not None:
        beyond = jnp.maximum(params.low[:, None] - z, z - params.high[:, None])[2 * HARMONICS :]
        out = out * jnp.square(1 - jnp.square(jnp.clip(jnp.max(beyond, 0) / REACH, 0, 1)))
    near = jnp.exp(-jnp.square((angle - state.snug) / 0.3))
    return Said(LARGEST_LOG * out[0], LARGEST_FORCE * near * out[1], LARGEST_RUB * out[2])


def clamp_force(params: Params, state: Turning) -> Array:
    """F in N [W]."""
    plain = jnp.exp(params.law.clamp) * jnp.maximum(state.qpos[1] - state.snug, 0)
    return jnp.maximum(plain + said(params, state).force, 0) * left(state)


def left(state: Turning) -> Array:
    """Share of the clamp force that the thread carries."""
    return jnp.where(state.intact > 0, 1.0, fastening.REMNANT)


def chance(params: Params, peak: Array) -> Array:
    """ln P(whole) [W] at a largest filtered strain Λ."""
    return -jax.nn.softplus(jnp.log(jnp.maximum(peak, 1e-3)) * jnp.exp(-params.law.spread))


class Bolted(NamedTuple):
    """Pure functions over W worlds, last."""

    step: Callable[..., tuple[Turning, PlanInfo]]
    """step(params, state, ctrl [1, W], forced=None): one command of 10 ms."""
    start: Callable[..., Turning]
    """start(params, worlds): at rest, whole, not wound up."""
    force: Callable[..., Array]
    """force(params, state) -> F [W]."""
    model: PlanModel


SURE = 0.97
"""Chance at which the model lets a thread strip."""


def held(inertia: Array, speed: Array, force: Array, bound: Array, damping: Any = 0.0) -> Array:
    """The friction against a hinge that is pushed by `force` (damping included): what stops it, at most `bound`."""
    bound = jnp.maximum(bound, 0)
    return jnp.clip((inertia + STEP_S * damping) * speed / STEP_S + force, -bound, bound)


class Fixed(NamedTuple):
    """What stays as it is during a command."""

    theta: Any
    driver: Array
    bolt: Array
    damping: Array
    torque: Array
    follow: Array
    stiffness: Array
    windup: Array
    clamp: Array
    drag: Array
    driver_drag: Array
    sticking_speed: Array
    strength: Array
    rubbing: Array  # [W] torque of the thread over the clamp force, m


def fixed(law: Law, theta: Any, state: Turning, told: Said) -> Fixed:
    """The law's numbers, out of their logarithms once."""
    names = (
        "driver",
        "bolt",
        "damping",
        "stiffness",
        "windup",
        "clamp",
        "drag",
        "driver_drag",
        "sticking_speed",
        "strength",
    )
    plain = {name: jnp.exp(jnp.asarray(getattr(law, name), float)) for name in names}
    rubbing = RADIUS * jnp.exp(law.friction + state.grip + told.log_friction)
    follow = jnp.exp(-STEP_S / jnp.exp(law.lag))
    return Fixed(theta=theta, torque=TORQUE * jnp.exp(law.gain), follow=follow, rubbing=rubbing, **plain)


def aged(state: Turning, force: Array, thread: Array, c: Fixed) -> Turning:
    """What the thread has carried after another engine step."""
    rho = fastening.strain(force, PITCH * force + thread, c.strength, xp=jnp)
    strained = state.strained + (rho - state.strained) * (1 - np.exp(-STEP_S / fastening.FILTER_S))
    return state._replace(strained=strained, peak=jnp.maximum(state.peak, strained))


def happened(params: Params, state: Turning, before: Array, forced: Any) -> tuple[Turning, PlanInfo]:
    """The thread strips where the model is sure of it, or where it is told to."""
    hold = chance(params, state.peak)
    hazard = jnp.where(state.intact > 0, -jnp.expm1(jnp.minimum(hold - chance(params, before), 0)), 0)
    fires = hold < np.log(1 - SURE)
    if forced is not None:
        fires = jnp.where(forced[0] < 0, fires, forced[0] > 0)
    fired = (state.intact > 0) & fires
    force = state.force * jnp.where(fired, fastening.REMNANT, 1.0)
    state = state._replace(intact=jnp.where(fired, 0.0, state.intact), force=force)
    return state, PlanInfo(event_probability=hazard[None], fired=fired[None])


def bolted(*, events: bool = True) -> Bolted:
    """The model; without `events` no thread ever strips."""
    engine = physics.brax_engine(scene())
    nominal = physics.nominal(engine.scene)

    def theta(law: Law) -> Any:
        return engine.prepare(
            nominal._replace(
                dof_armature=jnp.exp(jnp.stack([jnp.asarray(law.driver, float), jnp.asarray(law.bolt, float)])),
                dof_damping=jnp.stack([jnp.exp(jnp.asarray(law.damping, float)), jnp.zeros(())]),
                actuator_gain=jnp.exp(jnp.asarray(law.gain, float))[None],
            )
        )

    def substep(params: Params, told: Said, constants: Any, body: physics.State, state: Turning) -> Any:
        law, c = params.law, constants
        motor = state.pending + (state.motor - state.pending) * c.follow
        force = jnp.maximum(c.clamp * jnp.maximum(state.qpos[1] - state.snug, 0) + told.force, 0) * left(state)
        sticking = 1 + law.sticking * jnp.exp(-jnp.square(state.qvel[1] / c.sticking_speed))
        thread = force * sticking * c.rubbing
        twist, rate = state.qpos[0] - state.qpos[1], state.qvel[0] - state.qvel[1]
        torque = fastening.windup(c.stiffness, law.gap, c.windup, twist, rate, xp=jnp)
        push = torque - PITCH * force
        drive = c.torque * motor - torque - c.damping * state.qvel[0]
        rub = held(c.driver, state.qvel[0], drive, c.driver_drag + told.rub, c.damping)
        w = jnp.stack([-torque - rub, push - held(c.bolt, state.qvel[1], push, c.drag + thread)])
        after, _ = engine.step(c.theta, body, motor[None], force=w)
        state = state._replace(qpos=after.qpos, qvel=after.qvel, motor=motor)
        return after, aged(state, force, thread, c) if events else state

    def step(params: Params, state: Turning, ctrl: Array, *, forced: Any = None) -> tuple[Turning, PlanInfo]:
        before, told = state.peak, said(params, state, 0.5 * CONTROL_S)
        constants = fixed(params.law, theta(params.law), state, told)
        zero = jnp.zeros((0, *state.motor.shape), state.motor.dtype)
        body = physics.State(state.qpos, state.qvel, zero, zero, zero, jnp.zeros_like(state.qvel), state.motor * 0)

        def once(carry: Any, _: None) -> Any:
            return substep(params, told, constants, *carry), None

        (_, state), _ = jax.lax.scan(once, (body, state), None, length=EVERY)
        moved = jnp.abs(state.qvel[1]) * CONTROL_S
        state = state._replace(pending=jnp.broadcast_to(ctrl[0], state.pending.shape), force=clamp_force(params, state))
        state = state._replace(work=state.work + state.force * moved / WORK)
        return happened(params, state, before, forced) if events else (state, PlanInfo())

    def start(params: Params, worlds: int) -> Turning:
        zero = jnp.zeros(worlds)
        return Turning(jnp.zeros((2, worlds)), jnp.zeros((2, worlds)), zero, zero, zero, zero, zero, zero + 1,
                       zero, zero, zero + 1, zero)  # fmt: skip

    model = PlanModel(step, np.array([-1.0]), np.array([1.0]), CONTROL_S, events=("strip",) if events else ())
    return Bolted(step, start, clamp_force, model)
