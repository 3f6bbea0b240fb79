"""The physics alone as a planner's model: an engine, its bonds as events, several engine steps to one control.

    ρ = √((|F|/F₀)² + (|T|/T₀)²)                      share of its strength that a bond carries now
    L̇ = (ρ − L)/τ,     Λ = max over time of L           filtered load, and the most there has been
    P(broken by now) = σ(ln Λ / w)                      the strength is known up to a relative spread w
    hazard of a step = 1 − (1 − P)/(1 − P before)       so the chance over a horizon depends on the peak alone

Left to itself a bond breaks once P passes `SURE`: what the model says breaks, breaks. At the median a break would take the
load away, and with it all hope of a chance above one half. Legend: E = nb bonds, N samples (worlds, last axis), nu controls.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physics import Engine, Scene, State, nominal
from planners import Model, PlanInfo

FILTER_S = 0.01
"""τ: an impact's peak load depends on the time step, a load filtered over 10 ms hardly does."""
SPREAD = 0.02
"""w: a chance of 5 % stands for a load of 94 % of the strength."""
SURE = 0.97
"""Chance at which the model lets a bond break."""
_LEAST = 1e-3


class Planned(NamedTuple):
    """A `physics.State` and what the break rule remembers; flat, so that costs read `state.qpos`."""

    qpos: Any
    qvel: Any
    act: Any
    intact: Any
    apart: Any
    warmstart: Any
    time: Any
    load: Any
    """`[E, N]`, L: the filtered share of each bond's strength."""
    peak: Any
    """`[E, N]`, Λ."""

    @property
    def body(self) -> State:
        """The part that the engine steps."""
        return State(*self[: len(State._fields)])


class PlanModel(NamedTuple):
    """What plans are made on: physics alone, or a world model; everything downstream knows only this."""

    model: Model
    init: Callable[..., Any]
    """init(params, qpos, qvel, *, intact=None, act=None) -> state, for one world or many."""
    params: Any
    """Goes into `PlanParams.model`."""
    chance: Callable[[Any], jax.Array]
    """chance(state) -> `[E, N]`: that each event has happened by now."""


Make = Callable[[Scene, int], PlanModel]
"""(scene, every) -> model, `every` engine steps to one control."""


def nominal_model(
    engine: Engine, *, every: int = 1, breaks: bool = True, params: Any = None, spread: float = SPREAD
) -> PlanModel:
    """Plan on the physics as given (or with θ = `params`): `every` engine steps to one control.

    breaks: bonds with a nominal strength are events; without, no bond ever breaks.
    """
    scene: Scene = engine.scene
    theta = engine.prepare(nominal(scene) if params is None else params)
    mortal = breaks and any(bond.strength for bond in scene.bonds)
    step = partial(_mortal_step, engine, spread) if mortal else partial(_plain_step, engine)
    events = tuple(bond.name for bond in scene.bonds) if mortal else ()
    model = as_model(scene, step, every=every, events=events)
    return PlanModel(model, partial(_init, engine), theta, partial(_chance, spread))


def _chance(spread: float, state: Planned) -> jax.Array:
    return jnp.where(state.intact > 0, -jnp.expm1(_log_hold(state.peak, spread)), 1)


def as_model(scene: Scene, step: Callable[..., Any], *, every: int, events: tuple[str, ...] = ()) -> Model:
    """A step of the scene's own length as a planner's model that takes a control every `every` steps."""
    low, high = control_range(scene)
    return Model(repeated(step, every), low, high, every * float(scene.model.opt.timestep), events)


def control_range(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """(ctrl_min, ctrl_max), each `[nu]`; a scene whose motors have no limits, or that has none, cannot be planned."""
    model = scene.model
    if not model.nu:
        raise ValueError(f"scene {scene.name!r} has no actuators: there is nothing to plan")
    for i in range(model.nu):
        if not model.actuator_ctrllimited[i]:
            raise ValueError(f"actuator {model.actuator(i).name or i!r} has no ctrlrange: a planner needs limits")
    low, high = model.actuator_ctrlrange.T
    return low.copy(), high.copy()


def repeated(step: Callable[..., Any], every: int) -> Callable[..., Any]:
    """`every` steps under one control as one; a forced event happens in the first of them."""
    if every == 1:
        return step

    def steps(params: Any, state: Any, ctrl: jax.Array, **forced: Any) -> tuple[Any, Any]:
        def once(state: Any, _: None) -> tuple[Any, Any]:
            state, info = step(params, state, ctrl, **forced)
            return state, info and PlanInfo(*(getattr(info, name, None) for name in PlanInfo._fields))

        state, infos = jax.lax.scan(once, state, None, length=every)
        return state, infos and _together(infos)

    return steps


def _together(infos: PlanInfo) -> PlanInfo:
    """What several steps (first axis) tell as one."""
    told = {
        "event_probability": lambda hazard: 1 - jnp.prod(1 - hazard, axis=0),
        "fired": partial(jnp.any, axis=0),
        "spread": partial(jnp.max, axis=0),
        "trust": partial(jnp.min, axis=0),
        "valid": partial(jnp.all, axis=0),
    }
    return PlanInfo(**{name: None if part is None else told[name](part) for name, part in infos._asdict().items()})


def _init(engine: Engine, params: Any, qpos: Any, qvel: Any, **bonds: Any) -> Planned:
    body = engine.init(params, qpos, qvel, **bonds)
    return Planned(*body, jnp.zeros_like(body.intact), jnp.zeros_like(body.intact))


def _plain_step(engine: Engine, params: Any, state: Planned, ctrl: jax.Array) -> tuple[Planned, None]:
    body, _ = engine.step(params, state.body, ctrl)
    return Planned(*body, state.load, state.peak), None


def _mortal_step(
    engine: Engine, spread: float, params: Any, state: Planned, ctrl: jax.Array, forced: Any = None
) -> tuple[Planned, PlanInfo]:
    body, info = engine.step(params, state.body, ctrl)
    share = strength_share(getattr(params, "params", params).bond_strength, info.bond_load)
    keep = float(np.exp(-float(engine.scene.model.opt.timestep) / FILTER_S))
    load = (share + keep * (state.load - share)) * state.intact
    peak = jnp.maximum(state.peak, load)
    hazard = -jnp.expm1(_log_hold(peak, spread) - _log_hold(state.peak, spread)) * state.intact
    breaks = peak >= (SURE / (1 - SURE)) ** spread
    if forced is not None:
        breaks = jnp.where(forced < 0, breaks, forced > 0)
    fired = breaks & (state.intact > 0)
    after = Planned(*body._replace(intact=jnp.where(fired, 0, body.intact)), load, peak)
    return after, PlanInfo(event_probability=hazard)  # without `fired`: the likeliest moment counts, not the surest


def strength_share(strength: Any, load: jax.Array) -> jax.Array:
    """ρ `[E, N]` of strengths `[E, 2]` (or `[E, 2, N]`) and loads `[E, 6, N]`."""
    squares = jnp.square(load)
    limits = jnp.asarray(strength, load.dtype)
    limits = limits.reshape(*limits.shape, *(1,) * (load.ndim - limits.ndim))
    squared = jnp.sum(squares[:, :3], axis=1) / limits[:, 0] ** 2 + jnp.sum(squares[:, 3:], axis=1) / limits[:, 1] ** 2
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)


def _log_hold(peak: jax.Array, spread: float) -> jax.Array:
    """ln (1 − P(broken))."""
    return -jax.nn.softplus(jnp.log(jnp.maximum(peak, _LEAST)) / spread)
