"""What the hybrid is set against: the same data, the same bolts, the same commands a second.

    threshold    what industry does: turn up the torque, shut off when the motor's current tells the torque T* = c F*
    pid          PI on the torque that the current tells, along a ramp to T* = c F*, held there
    network      an ensemble that foretells the next state alone, in the same filter and the same planner (PETS-like)

c is the best one for the bolts of the rig: the mean of torque over clamp force as they were tightened. A network is told what every
model is told: its state includes q_snug and the bolt's friction, which the filter finds by it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.bolt.control import Controller, Told
from experiments.bolt.fit import Own, at_rows
from experiments.bolt.lab import Logs
from experiments.bolt.model import ANGLE, FORCE, NOMINAL, SPEED, Bolted, Turning
from experiments.bolt.rack import CONTROL_S, TORQUE, WORK
from hybridwm.world.network import ensemble, evaluate, structure
from planners import Model as PlanModel
from planners import PlanInfo

Array = jax.Array
HIDDEN, MEMBERS, INPUTS, OUTPUTS, WAVES = (64, 64), 5, 22, 6, 5
STEPS_SCALE = np.array([0.05, 0.05, 2.0, 2.0, 0.1, FORCE], np.float32)


class TorqueMemory(NamedTuple):
    """What the torque controllers remember."""

    given: Array  # [] commands so far
    filtered: Array  # [W] N m
    summed: Array  # [W]
    off: Array  # [W] bool


def ratio(logs: Logs) -> float:
    """c in m: torque over clamp force while the bolts of the rig were turned on under load."""
    turning = (logs.qvel[:, 1] > 0.1) & (logs.force > 5e3) & (np.arange(len(logs.force))[:, None] < logs.stripped)
    return float(np.median(TORQUE * logs.motor[turning] / logs.force[turning]))


def _quiet(worlds: int, filtered: Array, c: float) -> Told:
    zero = jnp.zeros(worlds)
    return Told(filtered / c, zero, zero, zero, zero + 1, zero, zero, zero)


def _current(reading: Array) -> Array:
    """N m that the motor's current tells: the second of two readings, or the fifth of six."""
    return TORQUE * (reading[1] if reading.shape[0] == 2 else reading[4])


def torque_begin(params: Any, targets: Array, key: Array, known: Any) -> TorqueMemory:
    """Before the first reading."""
    zero = jnp.zeros_like(targets)
    return TorqueMemory(jnp.zeros(()), zero, zero, zero > 0)


def threshold(c: float, *, rise_s: float = 1.2) -> Controller:
    """A ramp of the motor's torque that ends when the filtered current says T*; the motor is then shut off."""

    def act(params: Any, memory: TorqueMemory, reading: Array, targets: Array) -> tuple[TorqueMemory, Array, Told]:
        filtered = memory.filtered + 0.4 * (_current(reading) - memory.filtered)
        off = memory.off | (filtered >= c * targets)
        ramp = 0.08 + jnp.minimum(memory.given * CONTROL_S / rise_s, 1.0) * 0.95
        ctrl = jnp.where(off, 0.0, ramp)
        told = _quiet(targets.shape[0], filtered, c)
        return TorqueMemory(memory.given + 1, filtered, memory.summed, off), ctrl, told

    return Controller(torque_begin, act)


def pid(c: float, *, gain: float = 0.4, integral: float = 6.0, rise_s: float = 1.2) -> Controller:
    """PI with feedforward on the torque told by the current, along a ramp to T*."""

    def act(params: Any, memory: TorqueMemory, reading: Array, targets: Array) -> tuple[TorqueMemory, Array, Told]:
        filtered = memory.filtered + 0.6 * (_current(reading) - memory.filtered)
        want = c * targets * jnp.minimum(memory.given * CONTROL_S / rise_s, 1.0) + 2.0
        want = jnp.minimum(want, c * targets)
        wrong = want - filtered
        summed = jnp.clip(memory.summed + integral * CONTROL_S * wrong, -5, 5)
        ctrl = jnp.clip((want + gain * wrong + summed) / TORQUE, -1, 1)
        return TorqueMemory(memory.given + 1, filtered, summed, memory.off), ctrl, _quiet(targets.shape[0], filtered, c)

    return Controller(torque_begin, act)


def inputs(state: Turning, ctrl: Array) -> Array:
    """What the network sees [INPUTS, W]; the angle on the turn as sines, everything else in usual sizes."""
    angle = state.qpos[1]
    waves = [f(n * angle) for n in (1, 3, 5, 8, 11)[:WAVES] for f in (jnp.sin, jnp.cos)]
    twist, rate = state.qpos[0] - angle, state.qvel[0] - state.qvel[1]
    rest = [
        (angle - state.snug) / ANGLE, jnp.tanh((angle - state.snug) / 0.1), twist / 0.05, rate, state.qvel[1] / SPEED,
        jnp.tanh(state.qvel[1] / 0.2), state.motor, state.pending, ctrl[0], state.work, state.grip, state.force / FORCE,
    ]  # fmt: skip
    return jnp.stack([*waves, *rest])


class NetworkParams(NamedTuple):
    """An ensemble, and the law only for the constants that the filter's record reads."""

    law: Any
    weights: Any
    mean: Any  # [INPUTS]
    std: Any


def network_model(events: bool = True) -> Bolted:
    """The ensemble's mean as a model of 10 ms steps; the thread strips in its head where clamp force has been lost in the logs."""
    graph = structure(INPUTS, HIDDEN, OUTPUTS)

    def step(params: NetworkParams, state: Turning, ctrl: Array, *, forced: Any = None) -> tuple[Turning, PlanInfo]:
        z = (inputs(state, ctrl) - params.mean[:, None]) / params.std[:, None]
        out = jnp.mean(evaluate(graph, params.weights, z), 0) * STEPS_SCALE[:, None]
        qpos, force = state.qpos + out[:2], jnp.maximum(state.force + out[5], 0)
        pending = jnp.broadcast_to(ctrl[0], state.pending.shape)
        work = state.work + force * jnp.abs(state.qvel[1]) * CONTROL_S / WORK
        state = state._replace(qpos=qpos, qvel=state.qvel + out[2:4], motor=state.motor + out[4], pending=pending,
                               work=work, force=force)  # fmt: skip
        return state, PlanInfo()

    def start(params: Any, worlds: int) -> Turning:
        zero = jnp.zeros(worlds)
        return Turning(jnp.zeros((2, worlds)), jnp.zeros((2, worlds)), zero, zero, zero, zero, zero, zero + 1,
                       zero, zero, zero + 1, zero)  # fmt: skip

    model = PlanModel(step, np.array([-1.0]), np.array([1.0]), CONTROL_S)
    return Bolted(step, start, lambda params, state: state.force, model)


def like() -> NetworkParams:
    """The structure of what is fitted."""
    return NetworkParams(NOMINAL, ensemble(jax.random.key(0), MEMBERS, INPUTS, HIDDEN, OUTPUTS), 0, 0)


def fit_network(law: Any, own: Own, logs: Logs, *, updates: int, seed: int) -> NetworkParams:
    """One-step errors of all rows, in units of how much each number usually changes; 5 members, each its own batches."""
    logs = Logs(*(jnp.asarray(x, jnp.int32 if np.asarray(x).dtype.kind == "i" else jnp.float32) for x in logs))
    rows, bolts = (x.ravel() for x in np.meshgrid(*(np.arange(n) for n in logs.ctrl.shape), indexing="ij"))
    graph, rng = structure(INPUTS, HIDDEN, OUTPUTS), np.random.default_rng(seed)

    def batch(rows: Array, bolts: Array) -> tuple[Array, Array]:
        state = at_rows(logs, rows, bolts, own)
        after = at_rows(logs, rows + 1, bolts, own)
        change = jnp.concatenate([after.qpos - state.qpos, after.qvel - state.qvel,
                                  jnp.stack([after.motor - state.motor, after.force - state.force])])  # fmt: skip
        return inputs(state, logs.ctrl[rows, bolts][None]), change / STEPS_SCALE[:, None]

    z, y = jax.jit(batch)(rows, bolts)
    sound = np.asarray(jnp.max(jnp.abs(z), 0) < 30)
    z, y = z[:, sound], y[:, sound]
    mean, std = z.mean(1), z.std(1) + 1e-3
    z, size = (z - mean[:, None]) / std[:, None], jnp.sqrt(jnp.mean(jnp.square(y), 1))[:, None]
    weights = ensemble(jax.random.key(seed), MEMBERS, INPUTS, HIDDEN, OUTPUTS)
    rule = optax.adam(optax.cosine_decay_schedule(2e-3, updates, 0.02))

    def loss(weights: Any, z: Array, y: Array) -> Array:
        apart = (evaluate(graph, weights, z) - y) / size
        return jnp.mean(jnp.sqrt(1 + jnp.square(10 * apart)) - 1)

    @jax.jit
    def update(weights: Any, memory: Any, z: Array, y: Array) -> Any:
        step, memory = rule.update(jax.grad(loss)(weights, z, y), memory)
        return optax.apply_updates(weights, step), memory

    memory = rule.init(weights)
    for _ in range(updates):
        pick = rng.integers(0, z.shape[1], 512)
        weights, memory = update(weights, memory, z[:, pick], y[:, pick])
    return NetworkParams(law, weights, mean, std)
