"""How hazards are learned: from when things happened, and from all the time in which they did not.

    happened in step b    log [σ(y_+) − σ(y_−)] = log σ(y_+) + log σ(−y_−) + log(1 − e^{y_− − y_+})
                          y_− before the first, y_+ after the last step that the log's timing allows (one row either way)
    did not (censored)    log σ(−y_end)
    prior                 −½ Σ ((ψ − ψ₀)/s)²,  with ψ₀ the untrained hazard moved to where the breaks are

σ(y) is the chance that it has happened by then (hazard.py). The fit is by L-BFGS on all episodes at once, from several starts; the
best on validation is kept. Calibration then turns y into c y + d, fitted on episodes along which the model ran by itself.
Legend: N events, I felt loads, K channels, T steps, R episodes. Within this module worlds are (T, R).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from hybridwm.learning.loads import SLACK, Loads, replay, some
from hybridwm.logs.recordings import Dataset
from hybridwm.world import events, hazard
from hybridwm.world.events import EventParams
from hybridwm.world.hazard import HazardParams
from hybridwm.world.model import WorldModel, WorldParams
from physics.rollout import gradient_options

Array = jax.Array
_FLOOR = 1e-6  # what the log may be wrong about, as a chance
_PRIOR_STD = HazardParams(
    reference=None, strength=0.5, delay=1.0, rate=1.5, slope=2.0, exponent=0.5, life=3.0, weights=0.3
)  # fmt: skip


class Histories(NamedTuple):
    """What N events went through in R episodes, and when they happened."""

    felt: Array  # [N, I, T, R]
    context: Array | None  # [N, C, T, R]; None: loads, whose rate is the context
    limits: Array | None  # [N, I] strengths by θ, infinite where none is known
    earliest: Array  # [N, R] steps after which it had surely not yet happened
    latest: Array  # [N, R] steps after which it had; the episode's length where it never did
    happened: Array  # [N, R] 1, 0, or −1: says nothing (it had happened before the episode)


def path(params: HazardParams, given: Histories, dt: float) -> tuple[Array, Array]:
    """(severity z, damage per second), each [N, T, R]."""
    load = (
        hazard.shares(params, given.felt, given.limits)
        if given.context is None
        else hazard.relative(params, given.felt)
    )
    stay = hazard.keep(params, dt)[..., None]

    def follow(before: Array, now: Array) -> tuple[Array, tuple[Array, Array]]:
        after = now + (before - now) * stay
        return after, (before, after)

    each = jnp.moveaxis(load, 2, 0)
    _, both = lax.scan(follow, jnp.zeros_like(each[0]), each, unroll=4)
    before, after = (jnp.moveaxis(x, 0, 2) for x in both)
    z = hazard.judge(params, before, after, given.context, dt)
    return z, hazard.harm(params, z)


def scores(params: HazardParams, given: Histories, dt: float, *steps: Array) -> list[Array]:
    """y [N, R] after so many steps [N, R] each."""
    z, harm = path(params, given, dt)
    clock = jnp.arange(z.shape[1])[:, None]

    def at(count: Array) -> Array:
        past = clock < count[:, None]
        worst = jnp.max(jnp.where(past, z, hazard.LOWEST), 1)
        return hazard.score(params, worst, dt * jnp.sum(jnp.where(past, harm, 0), 1))

    return [at(count) for count in steps]


def log_likelihood(given: Histories, before: Array, after: Array) -> Array:
    """[N, R] from y before the first and after the last step in which each event can have happened."""
    gap = jnp.maximum(after - before, 0)
    rise = jnp.log(-jnp.expm1(-gap) + _FLOOR)
    broke = jax.nn.log_sigmoid(after) + jax.nn.log_sigmoid(-before) + rise
    return jnp.where(given.happened > 0, broke, jnp.where(given.happened < 0, 0.0, jax.nn.log_sigmoid(-after)))


def loss(params: HazardParams, given: Histories, dt: float) -> Array:
    """−Σ log likelihood, before the prior."""
    return -jnp.sum(log_likelihood(given, *scores(params, given, dt, given.earliest, given.latest)))


def placed(untrained: HazardParams, given: Histories, dt: float) -> HazardParams:
    """The untrained hazard with its strength moved to the loads at which things happened, and above those they survived."""
    z, _ = path(untrained, given, dt)
    past = jnp.arange(z.shape[1])[:, None] < given.latest[:, None]
    most = np.asarray(jnp.max(jnp.where(past, z, hazard.LOWEST), 1))
    happened = np.asarray(given.happened) > 0
    move = [
        np.median(row[on]) if on.any() else max(0.0, row.max() + 0.2) for row, on in zip(most, happened, strict=True)
    ]
    return untrained._replace(strength=untrained.strength + jnp.asarray(move, z.dtype)[:, None, None])


def fit(
    untrained: HazardParams, training: Histories, validation: Histories, dt: float, *, key: Array,
    starts: int = 3, steps: int = 150,
) -> HazardParams:  # fmt: skip
    """ψ of the best of several starts; `untrained` has finite references and life."""
    anchor = placed(untrained, training, dt)
    begun = [_begun(anchor, training, k) for k in jax.random.split(key, starts)]
    cost = partial(_objective, training=training, reference=anchor.reference, dt=dt)
    descend = jax.jit(lambda p: minimise(lambda q: cost(q, p), p, steps), compiler_options=gradient_options())
    judge = jax.jit(lambda p: loss(p, validation, dt))
    found = [descend(p._replace(reference=None))._replace(reference=anchor.reference) for p in begun]
    return min(found, key=lambda p: float(jnp.nan_to_num(judge(p), nan=jnp.inf)))


def _begun(anchor: HazardParams, given: Histories, key: Array) -> HazardParams:
    context = anchor.delay.shape[1] if given.context is None else given.context.shape[1]
    weights = hazard.severity_weights(key, len(anchor.slope), anchor.delay.shape[1], context)
    return jax.tree.map(lambda x: jnp.asarray(x, float), anchor._replace(weights=weights))


def _objective(params: HazardParams, prior: HazardParams, *, training: Histories, reference: Any, dt: float) -> Array:
    penalty = 0.0
    for name in params._fields[1:]:
        there = zip(jax.tree.leaves(getattr(params, name)), jax.tree.leaves(getattr(prior, name)), strict=True)
        penalty += sum(jnp.sum(jnp.square((x - x0) / getattr(_PRIOR_STD, name))) for x, x0 in there)
    return loss(params._replace(reference=reference), training, dt) + 0.5 * penalty


def minimise(cost: Callable[[Any], Array], start: Any, steps: int) -> Any:
    """L-BFGS; the best point that was seen."""
    rule = optax.lbfgs()
    look = optax.value_and_grad_from_state(cost)

    def step(carry: Any, _: Any) -> tuple[Any, None]:
        here, memory, best, least = carry
        value, slope = look(here, state=memory)
        best = jax.tree.map(lambda a, b: jnp.where(value < least, a, b), here, best)
        move, memory = rule.update(slope, memory, here, value=value, grad=slope, value_fn=cost)
        return (optax.apply_updates(here, move), memory, best, jnp.minimum(value, least)), None

    (_, _, best, _), _ = lax.scan(step, (start, rule.init(start), start, jnp.asarray(jnp.inf)), None, length=steps)
    return best


def calibrate(params: HazardParams, validation: Histories, dt: float, *, steps: int = 40) -> HazardParams:
    """c and d of y ← c y + d, by the same likelihood on other episodes: as slope, and as a common factor on the strengths."""
    prior_std = jnp.array([1.0, 0.05])

    def moved(change: Array) -> HazardParams:
        """change [2, N]: ln c, and the relative shift of the strength."""
        strength = params.strength + change[1][:, None, None]
        return params._replace(slope=params.slope + change[0], strength=strength)

    def cost(change: Array) -> Array:
        return loss(moved(change), validation, dt) + 0.5 * jnp.sum(jnp.square(change / prior_std[:, None]))

    return moved(
        jax.jit(lambda x: minimise(cost, x, steps), compiler_options=gradient_options())(
            jnp.zeros((2, len(params.slope)))
        )
    )


def histories(given: Loads, limits: Array) -> Histories:
    """The bonds' histories out of replayed loads; limits [nb, 5] by θ."""
    happened = np.where(given.broke < 0, -1, given.broke < given.length).astype(int)
    row, end = given.substeps, np.broadcast_to(given.length, given.broke.shape)
    earliest = np.where(happened > 0, np.maximum(given.broke - SLACK * row, 0), 0)
    latest = np.where(happened > 0, np.minimum(given.broke + (1 + SLACK) * row, end), end)
    felt = jnp.asarray(np.moveaxis(given.bonds, 0, 2), float)
    return Histories(felt, None, limits, jnp.asarray(earliest), jnp.asarray(latest), jnp.asarray(happened))


def learn_events(
    model: WorldModel, params: WorldParams, training: Dataset, validation: Dataset, *, seed: int = 0, past: int = 0,
    starts: int = 1, steps: int = 80,
) -> WorldParams:  # fmt: skip
    """`params` with hazards of the bonds, fitted to when they broke; as they were where no bond ever broke.

    Fitted along short rollouts that keep near the log, calibrated along rollouts of a second, as predictions are.
    """
    engine_dt = float(model.engine.scene.model.opt.timestep)
    limits = jnp.asarray(params.theta.bond_strength, float)[:, events.OF_FORCE]
    ask = partial(replay, model, params._replace(events=None), past=past)
    both = ask(training._replace(recordings=(*training.recordings, *validation.recordings)))  # one program for both
    parts = np.split(np.arange(len(both.length)), [len(training.recordings)])
    seen, held_out = (histories(some(both, index), limits) for index in parts)
    if not bool((seen.happened > 0).any()):
        return params
    begun = untrained(model, seen)
    found = fit(begun, seen, held_out, engine_dt, key=jax.random.key(seed), starts=starts, steps=steps)
    second = max(1, round(1.0 / validation.dt))
    found = calibrate(found, histories(ask(validation, every=second), limits), engine_dt)
    declared = params.events.declared if params.events else (None,) * len(model.spec.declared)
    return params._replace(events=EventParams(found, declared))


def untrained(model: WorldModel, seen: Histories) -> HazardParams:
    """Finite everywhere: where no strength is known, the largest force and torque that were felt stand for it."""
    felt = np.asarray(seen.felt)
    force, torque = (np.linalg.norm(felt[:, part], axis=1).max((1, 2)) + 1e-6 for part in (slice(0, 3), slice(3, 5)))
    reference = np.stack([force, torque], 1)[:, events.OF_FORCE]
    channels = np.log(np.array(hazard.CHANNELS_S) - hazard.SHORTEST_S + 0.002)
    nominal = events.nominal_bonds(model.spec)
    return nominal._replace(
        reference=reference,
        delay=np.broadcast_to(channels, nominal.delay.shape),
        life=np.full(len(reference), np.log(100.0)),
    )
