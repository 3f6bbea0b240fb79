"""From logs of the rig to models: θ with each bolt's own numbers, then the residual, then the strength of the thread.

    loss    Σ over windows of 80 ms of ψ((x̂ − x)/size), ψ the pseudo-Huber loss, x = (poses, velocities, motor, clamp force)
            through the model's own steps; ln of each bolt's friction and its q_snug are found along with θ, under a prior
    strip   P(stripped in the row) = P(whole at Λ before) − P(whole at Λ after); whole to the end: P(whole at the largest Λ)

The motor's torque stays as its data sheet has it: without it all torques and inertias could be scaled together.
Windows with a break are left out of the first; every bolt counts once in the second.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.bolt.lab import Logs
from experiments.bolt.model import NOMINAL, Bolted, Law, Params, Turning, features, fresh_weights, said
from experiments.bolt.rack import FRICTION_SPREAD, PITCH, RADIUS
from experiments.bolt.tracking import Belonging
from physics import fastening

Array = jax.Array
ROWS = 8
SIZES = {"qpos": 3e-3, "qvel": 0.2, "motor": 5e-3, "force": 60.0}  # rad, rad/s, share, N
HELD_OUT, JUDGED = 0.2, 1024  # share of the windows; the most that are looked at


class Own(NamedTuple):
    """What differs from bolt to bolt."""

    snug: Any  # [B]
    grip: Any  # [B]


class Fit(NamedTuple):
    """One model as fitted."""

    params: Params
    own: Own
    loss: float  # on held-out windows
    history: list[float]


def at_rows(logs: Logs, rows: Any, bolts: Any, own: Own) -> Turning:
    """The states at such rows of such bolts, as logged."""
    snug, grip = own.snug[bolts], own.grip[bolts]
    pending = jnp.where(rows > 0, logs.ctrl[jnp.maximum(rows - 1, 0), bolts], 0.0)
    zero = jnp.zeros_like(snug)
    pick = lambda x: jnp.asarray(x)[rows, :, bolts].T  # noqa: E731
    return Turning(
        qpos=pick(logs.qpos), qvel=pick(logs.qvel), motor=logs.motor[rows, bolts], pending=pending,
        work=logs.work[rows, bolts], strained=zero, peak=zero,
        intact=(rows < logs.stripped[bolts]).astype(snug.dtype), snug=snug, grip=grip,
        trust=zero + 1, force=logs.force[rows, bolts],
    )  # fmt: skip


def begin(logs: Logs) -> Own:
    """The bolts as the load cell first shows them."""
    first = np.argmax(logs.force > 100.0, 0)
    snug = logs.qpos[first, 1, np.arange(len(first))] - 0.02
    return Own(jnp.asarray(snug, jnp.float32), jnp.zeros(len(first)))


def windows(logs: Logs, rows: int = ROWS, every: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """(first row, bolt) of every window in which nothing strips."""
    first = np.arange(0, len(logs.ctrl) - rows, every)
    first, bolt = (x.ravel() for x in np.meshgrid(first, np.arange(logs.ctrl.shape[1]), indexing="ij"))
    sound = first + rows < logs.stripped[bolt]
    return first[sound], bolt[sound]


def window_loss(
    bolted: Bolted, params: Params, logs: Logs, own: Own, first: Array, bolt: Array, rows: int = ROWS
) -> Array:
    """[windows]."""
    state = at_rows(logs, first, bolt, own)

    def advance(state: Turning, k: Array) -> tuple[Turning, Array]:
        state, _ = bolted.step(params, state, logs.ctrl[first + k, bolt][None])
        at = first + k + 1
        parts = [
            (state.qpos - logs.qpos[at, :, bolt].T) / SIZES["qpos"],
            (state.qvel - logs.qvel[at, :, bolt].T) / SIZES["qvel"],
            (state.motor - logs.motor[at, bolt])[None] / SIZES["motor"],
            (state.force - logs.force[at, bolt])[None] / SIZES["force"],
        ]
        apart = jnp.concatenate(parts)
        return state, jnp.sum(jnp.sqrt(1 + jnp.square(apart)) - 1, 0)

    return jnp.mean(jax.lax.scan(advance, state, jnp.arange(rows))[1], 0)


def descend(
    bolted: Bolted, start: Params, own: Own, logs: Logs, *, updates: int, rate: float, seed: int,
    batch: int = 128, watch: Callable[[int], None] = lambda n: None,
) -> Fit:  # fmt: skip
    """Adam on everything that `start` holds, and on each bolt's own; the best on held-out windows is kept."""
    logs = Logs(*(jnp.asarray(x, jnp.int32 if np.asarray(x).dtype.kind == "i" else jnp.float32) for x in logs))
    first, bolt = windows(logs)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(first))
    cut = max(1, int(HELD_OUT * len(order)))
    judge, train = order[:cut][:JUDGED], order[cut:]
    frozen = {"low": start.low, "high": start.high}
    schedule = optax.cosine_decay_schedule(1.0, updates, 0.02)
    rates = (
        Params(jax.tree.map(lambda _: 1.0, start.law)._replace(gain=0.0), jax.tree.map(lambda _: 0.5, start.weights)),
        Own(1.0, 3.0),
    )
    rule = optax.chain(optax.clip_by_global_norm(10.0), optax.scale_by_adam(b2=0.99))

    def loss(found: Any, logs: Logs, first: Array, bolt: Array) -> Array:
        params, own = found
        params = params._replace(**frozen)
        prior = jnp.mean(jnp.square(own.grip / (2 * FRICTION_SPREAD)))
        return jnp.mean(window_loss(bolted, params, logs, own, first, bolt)) + 0.01 * prior

    @jax.jit
    def update(found: Any, logs: Logs, memory: Any, count: Array, first: Array, bolt: Array) -> Any:
        value, slope = jax.value_and_grad(loss)(found, logs, first, bolt)
        slope = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0), slope)
        step, memory = rule.update(slope, memory, found)
        step = jax.tree.map(lambda s, r: -rate * r * schedule(count) * s, step, rates)
        return optax.apply_updates(found, step), memory, value

    judged = jax.jit(loss)
    found = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (start._replace(low=None, high=None), own))
    memory, best, history = rule.init(found), (np.inf, found), []
    for n in range(updates):
        pick = rng.choice(train, batch)
        found, memory, _ = update(found, logs, memory, n, first[pick], bolt[pick])
        if n % 100 == 99 or n == updates - 1:
            history.append(float(judged(found, logs, first[judge], bolt[judge])))
            if history[-1] < best[0]:
                best = history[-1], found
            watch(n + 1)
    params, own = best[1]
    return Fit(params._replace(**frozen), own, best[0], history)


def identified(bolted: Bolted, logs: Logs, *, updates: int, seed: int, watch: Any = lambda n: None) -> Fit:
    """θ and each bolt's own."""
    law = NOMINAL._replace(lag=np.log(8e-3), sticking=0.02)
    return descend(bolted, Params(law), begin(logs), logs, updates=updates, rate=0.02, seed=seed, watch=watch)


def hybrid(bolted: Bolted, plain: Fit, logs: Logs, *, updates: int, seed: int, watch: Any = lambda n: None) -> Fit:
    """The residual on top of the identified physics, which may move on with it."""
    start = plain.params._replace(weights=fresh_weights(seed))
    found = descend(bolted, start, plain.own, logs, updates=updates, rate=5e-3, seed=seed, watch=watch)
    return found._replace(params=supported(found.params, found.own, logs))


def supported(params: Params, own: Own, logs: Logs) -> Params:
    """The parameters with the box of features that the logs fill."""
    whole = np.arange(len(logs.force))[:, None] < logs.stripped
    angle, speed = logs.qpos[:, 1], logs.qvel[:, 1]
    snug = np.asarray(own.snug)
    plain = float(np.exp(params.law.clamp)) * np.maximum(angle - snug, 0)
    z = np.asarray(features(*(jnp.asarray(x[whole], jnp.float32) for x in
                              (angle, speed, np.broadcast_to(snug, angle.shape), logs.work, plain))))  # fmt: skip
    return params._replace(low=jnp.asarray(z.min(1)), high=jnp.asarray(z.max(1)))


def population(own: Own) -> Belonging:
    """Mean and spread of the bolts."""
    snug, grip = np.asarray(own.snug), np.asarray(own.grip)
    return Belonging(float(snug.mean()), float(snug.std()), float(grip.mean()), float(grip.std()))


def strains(bolted: Bolted, params: Params, own: Own, logs: Logs) -> tuple[np.ndarray, np.ndarray]:
    """(clamp force N, thread torque N m) [H, W] that the model expects at the end of each row, if the thread holds."""
    count = logs.ctrl.shape[1]

    def one(row: Array, params: Params, own: Own, logs: Logs) -> tuple[Array, Array]:
        state = at_rows(logs, jnp.full(count, row), jnp.arange(count), own)
        state, _ = bolted.step(params, state._replace(intact=jnp.ones(count)), logs.ctrl[row][None])
        force = state.force
        grip = params.law.friction + state.grip + said(params, state).log_friction
        return force, PITCH * force + force * RADIUS * jnp.exp(grip)

    logs = Logs(*(jnp.asarray(x) for x in logs))
    every = jax.jit(lambda *given: jax.lax.map(lambda row: one(row, *given), jnp.arange(len(logs.ctrl))))
    return tuple(np.asarray(x) for x in every(params, own, logs))  # type: ignore[return-value]


def strengths(bolted: Bolted, found: Fit, logs: Logs, *, updates: int = 700) -> Params:
    """The parameters with the strength of the thread, from what stripped and what did not."""
    force, torque = (jnp.asarray(x, jnp.float32) for x in strains(bolted, found.params, found.own, logs))
    rows, stripped = len(force), jnp.asarray(logs.stripped)
    keep = float(np.exp(-0.01 / fastening.FILTER_S))
    here = jnp.arange(rows)[:, None]

    def likelihood(z: Any, force: Array, torque: Array, stripped: Array) -> Array:
        strength, spread = z
        rho = jnp.where(
            here < stripped, fastening.strain(jnp.maximum(force, 1.0), torque, jnp.exp(strength), xp=jnp), 0
        )

        def follow(filtered: Any, now: Any) -> Any:
            filtered = now + (filtered - now) * keep
            return filtered, filtered

        strained = jax.lax.scan(follow, jnp.zeros(rho.shape[1]), rho)[1]
        peak = jax.lax.cummax(strained, axis=0)
        log_whole = -jax.nn.softplus(jnp.log(jnp.maximum(peak, 1e-3)) * jnp.exp(-spread))
        last = jnp.clip(stripped - 1, 0, rows - 1)
        after = jnp.take_along_axis(log_whole, last[None], 0)[0]
        before = jnp.take_along_axis(log_whole, jnp.maximum(last - 1, 0)[None], 0)[0]
        broke = before + jnp.log(-jnp.expm1(jnp.minimum(after - before, -1e-6)) + 1e-9)
        return -jnp.mean(jnp.where(stripped <= rows, broke, log_whole[-1]))

    rule = optax.adam(0.02)
    z = (jnp.asarray(NOMINAL.strength, jnp.float32), jnp.asarray(np.log(0.08), jnp.float32))

    @jax.jit
    def climb(z: Any, *given: Array) -> Any:
        def update(carry: Any, _: None) -> tuple[Any, None]:
            z, memory = carry
            step, memory = rule.update(jax.grad(likelihood)(z, *given), memory)
            z: Any = optax.apply_updates(z, step)
            return ((z[0], jnp.clip(z[1], np.log(0.004), 0.0)), memory), None

        return jax.lax.scan(update, (z, rule.init(z)), None, length=updates)[0][0]

    strength, spread = climb(z, force, torque, stripped)
    law: Law = found.params.law._replace(strength=strength, spread=spread)
    return found.params._replace(law=law)
