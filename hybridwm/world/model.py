"""The world model: engine ∘ residual ∘ events as one pure step, for prediction and for planning.

    ū        = motors(u, past)                               what arrives at the joints
    w, s     = r_φ, s_φ(x, ū)          g = trust(x, ū)
    x⁺       = Φ(x, ū, g w; θ e^{g s})                       the engine; w enters before the constraint solve; ground.py: θ's
                                                             friction from place to place
    p_e      = h_ψ(load_e, damage_e, …)                      from the loads of this very step
    intact_e ← 0 where e happens, from the next step on

What is not learned is not there: without a residual, motors and events this is the engine, bit for bit.
Legend: W worlds, M members, nb bonds, E events (the bonds first), D steps of delay. Structure first, worlds last.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hybridwm.world import events, motors
from hybridwm.world.events import EventMemory, EventParams
from hybridwm.world.features import Features
from hybridwm.world.ground import Ground, factor
from hybridwm.world.residual import Correction, Residual, ResidualParams, disagreement, into_world, normalised
from hybridwm.world.trust import TrustParams, everywhere, trust
from physics.types import Engine, Info, State

Array = jax.Array


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What a world model can learn; its static shape."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the residual's hidden layers."""
    members: int = 4
    """Networks in the ensemble."""
    corrections: tuple[str, ...] = ()
    """Entries of θ that may vary with the state: gain, damping, friction (of joints)."""
    force: bool = True
    """Whether the residual adds forces; False: it only corrects θ."""
    place: bool = False
    """Whether absolute position and heading matter (patches on the floor, a thread that wears)."""
    apart: bool = False
    """Whether the residual asks each object by itself, and nothing of its neighbours; alike objects then share what is learned."""
    delay: int = 0
    """Steps by which commands arrive late."""
    hold: int = 1
    """Steps of a rollout for which an answer of the networks is kept before they are asked again; the engine does every step."""

    def __post_init__(self) -> None:
        if self.members < 1 or min(self.hidden, default=0) < 1:
            raise ValueError(
                f"members={self.members}, hidden={self.hidden}: give at least one member and one hidden unit"
            )
        if self.delay < 0 or self.hold < 1:
            raise ValueError(f"delay={self.delay}, hold={self.hold}: give at least 0 and 1 steps")
        if not (self.force or self.corrections):
            raise ValueError("a residual without forces needs corrections: gain, damping or friction")


class WorldParams(NamedTuple):
    """Everything that fitting finds; None where nothing was learned."""

    theta: Any
    """Params, or what engine.prepare made of them."""
    lag_s: Array | None = None
    """[nu] time constants of the motors."""
    residual: ResidualParams | None = None
    trust: TrustParams | None = None
    events: EventParams | None = None
    ground: Ground | None = None


class WorldState(NamedTuple):
    """One instant of W worlds: the engine's state and a memory."""

    qpos: Array
    """[nq, W]."""
    qvel: Array
    """[nv, W]."""
    act: Array
    """[na, W]."""
    intact: Array
    """[nb, W] 1 while a bond holds, 0 for ever after."""
    apart: Array
    """[nb, W] m, see physics/bonds.py."""
    warmstart: Array
    """[nv, W]."""
    time: Array
    """[W] s."""
    past: Array
    """[D, nu, W] commands on their way, newest last."""
    lagged: Array
    """[nu, W] where the motors are."""
    blend: Array
    """[M, W] weight of each member: all alike, or one alone."""
    events: EventMemory | None
    """Filtered loads, damage, chance used up, luck."""


class StepInfo(NamedTuple):
    """What a step tells beside the next state; planners read the middle four."""

    residual: Array
    """[nv, W] N, N m: the force that was added."""
    trust: Array
    """[W]."""
    spread: Array
    """[W] disagreement of the members in σ."""
    event_probability: Array
    """[E, W] chance that each event happens in this step."""
    fired: Array
    """[E, W] whether it did."""
    engine: Info
    """Loads, impulses and the rest of the engine's report."""


class Answer(NamedTuple):
    """What the networks say at one instant, trust included."""

    force: Array  # [nv, W] g w, of free bodies in their own frame
    factor: Array  # [C, W] g s
    trust: Array  # [W]
    spread: Array  # [W]


class WorldModel(NamedTuple):
    """Pure functions over trailing worlds; `step` and `rollout` are what planners and evaluation call."""

    init: Callable[..., WorldState]
    """init(params, qpos, qvel, *, intact, past [D', nu, W], key, member)."""
    step: Callable[..., tuple[WorldState, StepInfo]]
    """step(params, state, ctrl, *, forced=None, grouped=False); grouped: the worlds in M groups, each with its own
    member; correction, grip: these in place of the residual's and the ground's."""
    rollout: Callable[..., tuple[WorldState, Any]]
    """rollout(params, state, ctrls [H, nu, W], *, forced=None, output=None); asks the networks every `hold` steps."""
    features: Callable[..., Array]
    """features(params, state, ctrl) -> [F, W], what the networks would see in this step."""
    engine: Engine
    residual: Residual
    spec: events.EventSpec
    options: ModelOptions


def world_model(
    engine: Engine, options: ModelOptions = ModelOptions(), *, declared: tuple[events.Event, ...] = ()
) -> WorldModel:
    """The world model on an engine; `declared` are events beside the scene's bonds."""
    seen = Features(engine.scene, place=options.place)
    residual = Residual(
        seen, options.hidden, options.members, options.corrections, force=options.force, apart=options.apart
    )
    spec = events.event_spec(engine.scene, declared)
    dt = float(engine.scene.model.opt.timestep)

    def init(
        params: WorldParams, qpos: Any, qvel: Any, *,
        intact: Any = None, past: Any = None, key: Any = None, member: Any = None,
    ) -> WorldState:  # fmt: skip
        return _start(engine, options, spec, params, qpos, qvel, intact, past, key, member)

    def step(
        params: WorldParams, state: WorldState, ctrl: Any, *, forced: Any = None, grouped: bool = False,
        correction: Correction | None = None, grip: Any = None,
    ) -> tuple[WorldState, StepInfo]:  # fmt: skip
        ctrl, calm = jnp.asarray(ctrl, state.qpos.dtype), jnp.zeros_like(state.time)
        said = None if correction is None else Answer(correction.force, correction.factor, calm + 1, calm)
        return _step(engine, residual, spec, dt, params, state, ctrl, forced, grouped, said, grip)

    def rollout(
        params: WorldParams, state: WorldState, ctrls: Any, *,
        forced: Any = None, output: Any = None, grouped: bool = False,
    ) -> Any:  # fmt: skip
        ready, read = params._replace(theta=engine.prepare(params.theta)), output or (lambda state, info: state)

        def once(said: Answer | None, state: WorldState, given: Any) -> Any:
            state, info = _step(engine, residual, spec, dt, ready, state, given[0], given[1], grouped, said)
            return state, read(state, info)

        def held(state: WorldState, given: Any) -> Any:
            _, arrived, lagged = _arrived(ready, state, given[0][0], dt)
            said = _said(residual, ready, state, arrived, lagged, grouped)
            return lax.scan(partial(once, said), state, given)

        given = (jnp.asarray(ctrls, state.qpos.dtype), forced)
        if options.hold == 1 or params.residual is None:
            return lax.scan(partial(once, None), state, given)
        return in_blocks(held, state, given, options.hold)

    def features(params: WorldParams, state: WorldState, ctrl: Any) -> Array:
        _, arrived, lagged = _arrived(params, state, jnp.asarray(ctrl, state.qpos.dtype), dt)
        return residual.features(state.qpos, state.qvel, arrived, lagged, state.act)

    return WorldModel(init, step, rollout, features, engine, residual, spec, options)


def _start(
    engine: Engine, options: ModelOptions, spec: events.EventSpec, params: WorldParams,
    qpos: Any, qvel: Any, intact: Any, past: Any, key: Any, member: Any,
) -> WorldState:  # fmt: skip
    body = engine.init(params.theta, qpos, qvel, intact=intact)
    worlds, nu, dtype = body.time.shape, engine.scene.model.nu, body.qpos.dtype
    before = jnp.zeros((0, nu, *worlds), dtype) if past is None else jnp.asarray(past, dtype)
    room = jnp.zeros((max(options.delay - len(before), 0), nu, *worlds), dtype)
    before = jnp.concatenate([room, before])
    arrived, underway = before[: len(before) - options.delay], before[len(before) - options.delay :]
    lag = jnp.zeros(nu, dtype) if params.lag_s is None else params.lag_s
    even = jnp.full((options.members, *worlds), 1 / options.members, dtype)
    alone = None if member is None else jax.nn.one_hot(member, options.members, axis=0, dtype=dtype)
    return WorldState(
        *body[:7],
        past=underway,
        lagged=motors.settled(lag, float(engine.scene.model.opt.timestep), arrived),
        blend=even
        if alone is None
        else jnp.broadcast_to(
            alone.reshape(options.members, *([1] * (len(worlds) - alone.ndim + 1)), *alone.shape[1:]), even.shape
        ),
        events=events.start(spec, worlds, dtype, key=key) if spec.names else None,
    )


def matched(params: WorldParams, other: WorldParams) -> WorldParams:
    """The parameters with room for all that others have, none of it learned: one compiled program serves both."""
    room = dict[str, Any]()
    if params.lag_s is None and other.lag_s is not None:
        room["lag_s"] = jnp.zeros_like(other.lag_s)
    if params.residual is None and other.residual is not None:
        silent = jax.tree.map(jnp.zeros_like, other.residual.weights)
        room["residual"] = other.residual._replace(weights=silent)
    if params.trust is None and other.trust is not None:
        room["trust"] = everywhere(len(other.trust.low))
    if params.ground is None and other.ground is not None:
        room["ground"] = other.ground._replace(level=jnp.zeros_like(other.ground.level))
    return params._replace(**room)


def body_of(state: WorldState) -> State:
    """The engine's part of the state."""
    return State(*state[:7])


def in_blocks(body: Callable[..., Any], state: Any, given: Any, size: int) -> Any:
    """`lax.scan` of a body that takes `size` steps at once, the last ones fewer: (state, outputs of every step)."""
    total = len(given[0])
    whole = total // size
    cut = jax.tree.map(lambda x: x[: whole * size].reshape(whole, size, *x.shape[1:]), given)
    state, found = lax.scan(body, state, cut)
    found = jax.tree.map(lambda x: x.reshape(whole * size, *x.shape[2:]), found)
    if total == whole * size:
        return state, found
    state, rest = body(state, jax.tree.map(lambda x: x[whole * size :], given))
    return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), found, rest)


def _step(
    engine: Engine, residual: Residual, spec: events.EventSpec, dt: float,
    params: WorldParams, state: WorldState, ctrl: Array, forced: Any, grouped: bool, said: Answer | None,
    grip: Any = None,
) -> tuple[WorldState, StepInfo]:  # fmt: skip
    """One step; `said` stands for what the networks would say."""
    past, arrived, lagged = _arrived(params, state, ctrl, dt)
    theta, calm, force = engine.prepare(params.theta), jnp.zeros_like(state.time), None
    if state.events is not None and spec.declared:
        theta = theta._replace(params=events.jump(spec, theta.params, state.events))
    if said is None and params.residual is not None:
        said = _said(residual, params, state, arrived, lagged, grouped)
    if said is not None:
        force = into_world(residual.features, state.qpos, said.force)
        if residual.targets:
            theta = theta._replace(params=residual.corrected(theta.params, said.factor))
    if grip is None and params.ground is not None:
        grip = partial(factor, params.ground)
    body, info = engine.step(theta, body_of(state), arrived, force=force, **({} if grip is None else {"grip": grip}))
    memory, chance, fired = _watched(spec, params, theta.params, state, info, arrived, dt, forced)
    intact = body.intact * (1 - fired[: body.intact.shape[0]]) if spec.names else body.intact
    told = jnp.zeros_like(body.qvel) if force is None else force
    believed, spread = (calm, calm) if said is None else (said.trust, said.spread)
    after = WorldState(*body._replace(intact=intact), past=past, lagged=lagged, blend=state.blend, events=memory)
    return after, StepInfo(told, believed, spread, chance, fired, info)


def _arrived(params: WorldParams, state: WorldState, ctrl: Array, dt: float) -> tuple[Array, Array, Array]:
    """(commands still on their way, what arrives at the joints, where the motors then are)."""
    line = jnp.concatenate([state.past, ctrl[None]])
    if params.lag_s is None:
        return line[1:], line[0], line[0]
    lagged, arrived = motors.follow(params.lag_s, dt, state.lagged, line[0])
    return line[1:], arrived, lagged


def _said(
    residual: Residual, params: WorldParams, state: WorldState, ctrl: Array, motor: Array, grouped: bool
) -> Answer:
    """Every member's answer, blended and believed as far as trust goes."""
    assert params.residual is not None
    calm = jnp.zeros_like(state.time)
    raw = residual.features(state.qpos, state.qvel, ctrl, motor, state.act)
    if grouped:
        (force, factor), spread = residual.own(params.residual, raw), calm
    else:
        given = residual(params.residual, raw)
        spread = disagreement(params.residual, given)
        force, factor = (jnp.sum(state.blend[:, None] * x, 0) for x in given)
    believed = calm + 1 if params.trust is None else trust(params.trust, normalised(params.residual, raw), spread)
    return Answer(believed * force, believed * factor, believed, spread)


def _watched(
    spec: events.EventSpec, params: WorldParams, theta: Any, state: WorldState, info: Info, ctrl: Array, dt: float,
    forced: Any,
) -> tuple[EventMemory | None, Array, Array]:  # fmt: skip
    """(memory, p [E, W], fired [E, W]) after this step's loads."""
    if state.events is None:
        none = jnp.zeros((0, *state.time.shape), state.qpos.dtype)
        return None, none, none
    return events.watch(spec, params.events, state.events, body_of(state), info, ctrl, dt, theta=theta, forced=forced)
