"""The network alone: no engine in it, an ensemble that says where the world is some steps later (after PETS, Chua et al. 2018).

    z    = (features(q, q̇) , ū_now, ū_before …, intact), centred and scaled; ū is the mean command over one stride
    y    = B z + b + σ N_φ(z)          B, b: least squares on the training data; N_φ: a perceptron for what that leaves, in its σ
    q⁺   = q ⊕ y_q,   q̇⁺ = q̇ + y_v      of free bodies in their own frame, as the features are
    s²   = e^{s_φ(z)} in σ²            how sure a member is; a member is a Gaussian
    p_e  = 1 / (1 + e^{−l_e(z)})       a bond that holds breaks within the stride: Bernoulli; or, if it is `soft`,
    i⁺   = i + l_e(z), within 0 and 1  a bond is a number like any other

It is asked like a WorldModel: the same init, step and rollout, trailing worlds. One `step` is a stride of `every` engine steps;
`rollout` takes commands and gives states at every engine step, those within a stride from the cubic through its two ends.
Legend: E = nb bonds, M members, W worlds, D strides of past commands. Structure first, worlds last.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hybridwm.logs import tangent
from hybridwm.world import network
from hybridwm.world.events import EventSpec, event_spec
from hybridwm.world.features import Features
from hybridwm.world.model import StepInfo
from hybridwm.world.physics_model import SURE, PlanModel, control_range, repeated
from hybridwm.world.residual import into_world
from physics.types import Engine
from planners import Model

Array = jax.Array
LOG_VARIANCE = (-8.0, 2.0)
"""Between these a member may say how sure it is, in squares of σ."""
_SUREST = 1 - 1e-6


class RivalParams(NamedTuple):
    """What training finds."""

    theta: Any
    """θ: only for bringing noisy starts onto the bonds."""
    centre: Array  # [F]
    width: Array  # [F]
    linear: Array  # [2 nv, F] B
    constant: Array  # [2 nv] b
    scale: Array  # [2 nv] σ
    odds: Array  # [E] log odds of a break in one stride, before the network speaks
    weights: Any  # ensemble of networks, every leaf [M, ...]


class Chances(NamedTuple):
    """What events remember."""

    used: Array  # [E, W] hazard so far
    luck: Array  # [E, W] hazard left until it happens
    happened: Array  # [E, W] 0 or 1


class RivalState(NamedTuple):
    """One instant of W worlds."""

    qpos: Array  # [nq, W]
    qvel: Array  # [nv, W]
    act: Array  # [0, W]
    intact: Array  # [E, W]
    time: Array  # [W] s
    past: Array  # [D, nu, W] mean commands of the strides before, newest last
    blend: Array  # [M, W] weight of each member: all alike, or one alone
    events: Chances


class Said(NamedTuple):
    """What the members say of one stride."""

    mean: Array  # [M, 2 nv, W] in σ, beyond the linear part
    log_variance: Array  # [M, 2 nv, W] in σ²
    logit: Array  # [M, E, W]


@dataclass(frozen=True, eq=False)
class Rival:
    """Static structure; `init`, `step` and `rollout` are those of a WorldModel."""

    engine: Engine
    """For its scene; nothing is ever stepped with it."""
    every: int
    """Engine steps to one stride."""
    past: int
    """D."""
    hidden: tuple[int, ...]
    members: int
    features: Features
    spec: EventSpec
    graph: Any
    soft: bool = False
    """Whether bonds are numbers that change by degrees."""

    def init(
        self, params: RivalParams, qpos: Any, qvel: Any, *,
        intact: Any = None, past: Any = None, key: Any = None, member: Any = None,
    ) -> RivalState:  # fmt: skip
        """past: [D', nu, W] commands before, one per engine step, newest last."""
        qpos, scene = jnp.asarray(qpos, float), self.engine.scene
        worlds, nb, dtype = qpos.shape[1:], len(self.spec.names), qpos.dtype
        home = jnp.array([float(bond.intact) for bond in scene.bonds], dtype).reshape(nb, *[1] * len(worlds))
        holds = jnp.broadcast_to(home if intact is None else jnp.asarray(intact, dtype), (nb, *worlds))
        shape = (nb, *worlds)
        luck = jnp.full(shape, np.log(2), dtype) if key is None else jax.random.exponential(key, shape, dtype)
        even = jnp.full((self.members, *worlds), 1 / self.members, dtype)
        alone = None if member is None else jax.nn.one_hot(member, self.members, axis=0, dtype=dtype)
        return RivalState(
            qpos=qpos,
            qvel=jnp.asarray(qvel, dtype),
            act=jnp.zeros((0, *worlds), dtype),
            intact=holds,
            time=jnp.zeros(worlds, dtype),
            past=self._strides(past, worlds, dtype),
            blend=even
            if alone is None
            else jnp.broadcast_to(alone.reshape(self.members, *_ahead(alone, worlds)), even.shape),
            events=Chances(jnp.zeros(shape, dtype), luck, 1 - holds),
        )

    def _strides(self, past: Any, worlds: tuple[int, ...], dtype: Any) -> Array:
        """Means of the last D strides of commands; before the first command there was none."""
        nu, room = self.engine.scene.model.nu, self.past * self.every
        before = jnp.zeros((0, nu, *worlds), dtype) if past is None else jnp.asarray(past, dtype)
        before = jnp.concatenate([jnp.zeros((room, nu, *worlds), dtype), before])
        last = before[len(before) - room :]
        return jnp.mean(last.reshape(self.past, self.every, nu, *worlds), 1)

    def inputs(self, qpos: Array, qvel: Array, ctrl: Array, past: Array, intact: Array) -> Array:
        """The features [F, W], not yet centred."""
        seen = self.features(qpos, qvel, ctrl, ctrl[:0], qpos[:0])
        return jnp.concatenate([seen, past.reshape(-1, *ctrl.shape[1:]), intact])

    def said(self, params: RivalParams, raw: Array, *, own: bool = False) -> Said:
        """own: the worlds in M groups, each asking its own member; leaves then lack the first axis."""
        z, ask = normalised(params, raw), network.evaluate_own if own else network.evaluate
        y, out = ask(self.graph, params.weights, z), 2 * self.engine.scene.model.nv
        mean, sure, logit = jnp.split(y, [out, 2 * out], 0 if own else 1)
        low, high = LOG_VARIANCE
        odds = _column(params.odds, z)
        return Said(mean, (low + high) / 2 + (high - low) / 2 * jnp.tanh(sure), logit + odds)

    def step(
        self, params: RivalParams, state: RivalState, ctrl: Any, *, forced: Any = None, grouped: bool = False
    ) -> tuple[RivalState, StepInfo]:
        """One stride under one (mean) command."""
        del grouped
        ctrl = jnp.asarray(ctrl, state.qpos.dtype)
        raw = self.inputs(state.qpos, state.qvel, ctrl, state.past, state.intact)
        found = self.said(params, raw)
        breaking = found.logit if self.soft else jax.nn.sigmoid(found.logit)
        mean, breaks = (jnp.sum(state.blend[:, None] * x, 0) for x in (found.mean, breaking))
        qpos, qvel = self._moved(params, state, raw, mean)
        intact, events, chance, fired = _softened(state, breaks) if self.soft else _broken(state, breaks, forced)
        past = jnp.concatenate([state.past, ctrl[None]])[1:]
        time = state.time + self.every * float(self.engine.scene.model.opt.timestep)
        after = state._replace(qpos=qpos, qvel=qvel, intact=intact, time=time, past=past, events=events)
        calm = jnp.zeros_like(state.time)
        spread = jnp.sqrt(jnp.mean(jnp.var(found.mean, 0), 0) + 1e-20)
        return after, StepInfo(jnp.zeros_like(qvel), calm + 1, spread, chance, fired, None)  # type: ignore[arg-type]

    def _moved(self, params: RivalParams, state: RivalState, raw: Array, mean: Array) -> tuple[Array, Array]:
        change = self.change(params, raw, mean)
        shift, speed = (into_world(self.features, state.qpos, x) for x in jnp.split(change, 2))
        model = self.engine.scene.model
        return tangent.unit(model, tangent.advance(model, state.qpos, shift, xp=jnp), xp=jnp), state.qvel + speed

    def change(self, params: RivalParams, raw: Array, mean: Array) -> Array:
        """y [2 nv, W]."""
        straight = jnp.tensordot(params.linear, normalised(params, raw), 1) + _column(params.constant, mean)
        return straight + _column(params.scale, mean) * mean

    def rollout(
        self, params: RivalParams, state: RivalState, ctrls: Any, *,
        forced: Any = None, output: Any = None, grouped: bool = False,
    ) -> Any:  # fmt: skip
        """ctrls [H, nu, W] and forced [H, E, W] for engine steps; what is read has H rows; the state after the last stride."""
        ctrls, read, k = jnp.asarray(ctrls, state.qpos.dtype), output or (lambda state, info: state), self.every
        horizon, share = len(ctrls), jnp.arange(1, k + 1) / k
        middle = jnp.arange(1, k + 1) == (k + 1) // 2

        def body(state: RivalState, given: Any) -> Any:
            after, info = self.step(params, state, jnp.mean(given[0], 0), forced=_any(given[1]), grouped=grouped)
            within = jax.vmap(lambda s, m: read(*self._between(state, after, info, s, m)))
            return after, within(share, middle)

        state, told = lax.scan(body, state, (_chunks(ctrls, k), _chunks(forced, k)))
        return state, jax.tree.map(lambda x: x.reshape(x.shape[0] * k, *x.shape[2:])[:horizon], told)

    def _between(self, before: RivalState, after: RivalState, info: StepInfo, s: Array, middle: Array) -> Any:
        """(state, info) at share s of a stride; what happens in it happens in its middle."""
        model, h = self.engine.scene.model, self.every * float(self.engine.scene.model.opt.timestep)
        way = tangent.difference(model, before.qpos, after.qpos, xp=jnp)
        at = (s**3 - 2 * s**2 + s) * h * before.qvel + (3 * s**2 - 2 * s**3) * way + (s**3 - s**2) * h * after.qvel
        qpos = jnp.where(s < 1, tangent.advance(model, before.qpos, at, xp=jnp), after.qpos)
        rate = (3 * s**2 - 4 * s + 1) * before.qvel + (6 * s - 6 * s**2) * way / h + (3 * s**2 - 2 * s) * after.qvel
        qvel = jnp.where(s < 1, rate, after.qvel)
        intact = jnp.where(2 * s >= 1, after.intact, before.intact)
        told = info._replace(event_probability=middle * info.event_probability, fired=middle * info.fired)
        return after._replace(qpos=qpos, qvel=qvel, intact=intact, time=before.time + s * h), told


def rival(
    engine: Engine, *,
    every: int = 1, past: int = 4, hidden: tuple[int, ...] = (128, 128), members: int = 5, place: bool = False,
    soft: bool = False,
) -> Rival:  # fmt: skip
    """The network alone for an engine's scene, `every` engine steps to one prediction, `past` strides of commands seen."""
    scene = engine.scene
    if scene.model.na:
        raise ValueError(f"scene {scene.name!r} has {scene.model.na} actuator states; the network alone knows none")
    if min(every, members, *hidden) < 1 or past < 0:
        raise ValueError(f"every={every}, members={members}, hidden={hidden}, past={past}: give at least 1, 1, 1 and 0")
    seen, spec = Features(scene, place=place), event_spec(scene)
    count = len(seen.names) - sum(name.startswith("motor:") for name in seen.names) + past * scene.model.nu
    graph = network.structure(count + len(spec.names), hidden, 4 * scene.model.nv + len(spec.names))
    return Rival(engine, every, past, hidden, members, seen, spec, graph, soft)


def plan_model(model: Rival, params: RivalParams, *, every: int) -> PlanModel:
    """The network alone for a planner, `every` engine steps to one control: a whole number of its strides."""
    if every % model.every:
        raise ValueError(f"{every} engine steps to one control: expected a multiple of the stride, {model.every}")

    def init(params: Any, qpos: Any, qvel: Any, **bonds: Any) -> RivalState:
        bonds.pop("act", None)
        state = model.init(params, qpos, qvel, **bonds)
        sure = jnp.full_like(state.events.luck, -np.log(1 - SURE))
        return state._replace(events=state.events._replace(luck=sure))

    def chance(state: Any) -> Array:
        return jnp.where(state.events.happened > 0, 1, -jnp.expm1(-state.events.used))

    scene = model.engine.scene
    step, dt = repeated(model.step, every // model.every), every * float(scene.model.opt.timestep)
    return PlanModel(Model(step, *control_range(scene), dt, tuple(model.spec.names)), init, params, chance)


def normalised(params: RivalParams, raw: Array) -> Array:
    """z [F, W]."""
    return (raw - _column(params.centre, raw)) / _column(params.width, raw)


def into_body(features: Features, qpos: Array, force: Array) -> Array:
    """The inverse of `into_world`."""
    model, rows = features.scene.model, list(qpos)
    for j in np.flatnonzero(model.jnt_type == 0):
        at = int(model.jnt_qposadr[j])
        rows[at + 4 : at + 7] = [-x for x in rows[at + 4 : at + 7]]
    return into_world(features, jnp.stack(rows), force)


def _happen(state: RivalState, hazard: Array, forced: Any) -> tuple[Chances, Array, Array]:
    spent = state.intact * hazard
    rest = state.events.luck - spent
    fires = rest <= 0
    if forced is not None:
        rest, fires = jnp.where(forced == 0, state.events.luck, rest), jnp.where(forced < 0, fires, forced > 0)
    fired = state.intact * fires
    events = Chances(state.events.used + spent, rest, jnp.maximum(state.events.happened, fired))
    return events, -jnp.expm1(-spent), fired


def _broken(state: RivalState, breaks: Array, forced: Any) -> tuple[Array, Chances, Array, Array]:
    events, chance, fired = _happen(state, -jnp.log1p(-jnp.minimum(breaks, _SUREST)), forced)
    return state.intact * (1 - fired), events, chance, fired


def _softened(state: RivalState, change: Array) -> tuple[Array, Chances, Array, Array]:
    """A bond counts as broken from where less than half of it holds."""
    intact = jnp.clip(state.intact + change, 0, 1)
    fired = jnp.asarray((state.intact >= 0.5) & (intact < 0.5), intact.dtype)
    happened = jnp.maximum(state.events.happened, fired)
    return intact, state.events._replace(happened=happened), jnp.maximum(state.intact - intact, 0), fired


def _chunks(x: Any, k: int) -> Any:
    """[H, ...] as [strides, k, ...]; the last row stands for what is missing."""
    if x is None:
        return None
    short = jnp.concatenate([x, jnp.repeat(x[-1:], -len(x) % k, 0)])
    return short.reshape(len(short) // k, k, *x.shape[1:])


def _any(forced: Any) -> Any:
    """One wish for a stride: what is to happen in it does."""
    return None if forced is None else jnp.max(forced, 0)


def _ahead(alone: Array, worlds: tuple[int, ...]) -> tuple[int, ...]:
    return *alone.shape[1:], *[1] * (len(worlds) - alone.ndim + 1)


def _column(x: Array, like: Array) -> Array:
    return x.reshape(-1, *[1] * (like.ndim - 1))
