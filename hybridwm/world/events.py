"""Events: bonds that break and whatever else a scene declares. They happen once, with a chance that the loads decide.

    ΔΛ_e  = Λ_e(now) − Λ_e(before) ≥ 0             hazard of this step (hazard.py), from the engine's own loads
    p_e   = 1 − e^{−ΔΛ_e}                          chance that e happens now, given that it has not
    e happens when the hazard used up passes its luck:   luck ~ Exp(1) to sample, ln 2 for the most likely world

What is forced to hold uses up no luck: Exp(1) has no memory, so the rest is drawn from the right law. What has happened stays so.
A bond feels its load in its own frame, whose axis points from the anchor to the second body's centre of mass:

    felt = (tension, compression, shear, torsion, bending) ≥ 0        N, N, N, N m, N m

Legend: nb bonds, E events (the bonds first), F features of one declared event, W worlds. Structure first, worlds last.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hybridwm.world import hazard
from hybridwm.world.hazard import HazardParams, Wear
from physics import lanes as ln
from physics.scene import Scene
from physics.stage import fused
from physics.tree import Tree, forward
from physics.types import Info, Params, State

Array = jax.Array
FELT = ("tension", "compression", "shear", "torsion", "bending")
OF_FORCE = np.array([0, 0, 0, 1, 1])  # which of a bond's two strengths each compares with
_SITE = 6  # MuJoCo's object type


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happens once and changes θ: friction drops, a thread strips, a suction cup lets go."""

    name: str
    features: Callable[..., Array]
    """features(theta, state, info, ctrl) -> [F, W], from the state before the step and the step's own report."""
    rising: tuple[bool, ...]
    """[F] True: the more, the likelier. False: it may count either way. At least one must rise."""
    effect: Callable[[Params, Array], Params]
    """effect(theta, happened [W] of 0 and 1) -> theta."""
    limits: tuple[float, ...] | None = None
    """[rising features] > 0: untrained, the event happens when the first of them passes its limit; None: never."""


@dataclass(frozen=True, eq=False)
class EventSpec:
    """What can happen in a scene: static."""

    scene: Scene
    tree: Tree
    axis: np.ndarray  # [nb, 3] of each bond, in its second body
    declared: tuple[Event, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All events [E]: the bonds, then the declared ones."""
        return (*[bond.name for bond in self.scene.bonds], *[event.name for event in self.declared])


class EventParams(NamedTuple):
    """ψ of all events; None where nothing was learned."""

    bonds: HazardParams | None
    declared: tuple[HazardParams | None, ...]


class EventMemory(NamedTuple):
    """What events remember."""

    bonds: Wear
    declared: tuple[Wear, ...]
    used: Array  # [E, W] Λ so far
    luck: Array  # [E, W] hazard left until it happens
    happened: Array  # [E, W] 0 or 1


def event_spec(scene: Scene, declared: tuple[Event, ...] = ()) -> EventSpec:
    """The bonds of a scene and the events declared beside them."""
    names = [bond.name for bond in scene.bonds]
    for event in declared:
        if event.name in names:
            raise ValueError(f"event {event.name!r} is declared twice: names of bonds and events must differ")
        if not any(event.rising):
            raise ValueError(f"event {event.name!r}: rising={event.rising}; at least one feature must be rising")
        if event.limits is not None and (len(event.limits) != sum(event.rising) or min(event.limits) <= 0):
            raise ValueError(f"event {event.name!r}: give {sum(event.rising)} positive limits, one per rising feature")
        names.append(event.name)
    axes = np.array([_axis(scene, bond) for bond in scene.bonds]).reshape(-1, 3)
    return EventSpec(scene, Tree(scene.model), axes, tuple(declared))


def _axis(scene: Scene, bond: Any) -> np.ndarray:
    """From the anchor to the centre of mass, in the frame of the second body."""
    model, eq = scene.model, bond.eq_id
    if model.eq_objtype[eq] == _SITE:
        anchor = model.site_pos[model.eq_obj2id[eq]]
    else:
        anchor = model.eq_data[eq, :3] if bond.kind == "weld" else model.eq_data[eq, 3:6]
    arm = model.body_ipos[bond.body2] - anchor
    length = np.linalg.norm(arm)
    return arm / length if length > 1e-6 else np.array([0.0, 0.0, 1.0])


def nominal_bonds(spec: EventSpec) -> HazardParams:
    """Untrained: the strengths that the scene gives, and never where it gives none."""
    return hazard.nominal_hazard(np.full((len(spec.scene.bonds), len(FELT)), np.inf), len(hazard.CHANNELS_S))


def nominal_event(event: Event) -> HazardParams:
    """Untrained: the first limit that the declaration gives."""
    rising = sum(event.rising)
    return hazard.nominal_hazard(np.array([event.limits or [np.inf] * rising], float), rising)._replace(
        strength=np.zeros((1, rising, 1))
    )


def start(spec: EventSpec, worlds: tuple[int, ...], dtype: Any, key: Array | None = None) -> EventMemory:
    """Before anything happened. With a key luck is drawn (`sample`), without one it is the median (`threshold`)."""
    shape = (len(spec.names), *worlds)
    luck = jnp.full(shape, np.log(2), dtype) if key is None else jax.random.exponential(key, shape, dtype)
    return EventMemory(
        bonds=hazard.untouched(len(spec.scene.bonds), len(hazard.CHANNELS_S), worlds, dtype),
        declared=tuple(hazard.untouched(1, sum(event.rising), worlds, dtype) for event in spec.declared),
        used=jnp.zeros(shape, dtype),
        luck=luck,
        happened=jnp.zeros(shape, dtype),
    )


def watch(
    spec: EventSpec,
    params: EventParams | None,
    memory: EventMemory,
    before: State,
    info: Info,
    ctrl: Array,
    dt: float,
    *,
    theta: Params,
    forced: Any = None,
) -> tuple[EventMemory, Array, Array]:
    """(memory, p [E, W], fired [E, W] of 0 and 1) after a step from `before` that reported `info`."""
    params = EventParams(None, (None,) * len(spec.declared)) if params is None else params
    bonds, declared, used = memory.bonds, list[Wear](), list[Array]()
    if spec.scene.bonds:
        limits = jnp.asarray(theta.bond_strength)[:, OF_FORCE]
        learned = params.bonds or nominal_bonds(spec)
        bonds, total = hazard.advance(learned, bonds, felt(spec, before, info.bond_load), dt, limits=limits)
        used.append(total)
    for event, own, wear in zip(spec.declared, params.declared, memory.declared, strict=True):
        rising, context = sides(event, event.features(theta, before, info, ctrl))
        wear, total = hazard.advance(own or nominal_event(event), wear, rising[None], dt, context=context[None])
        declared.append(wear)
        used.append(total)
    told = memory._replace(bonds=bonds, declared=tuple(declared), used=jnp.concatenate(used))
    return _happen(told, memory.used, before.intact, forced)


def _happen(memory: EventMemory, used: Array, intact: Array, forced: Any) -> tuple[EventMemory, Array, Array]:
    """Spend the luck that this step costs; `used`: Λ before it."""
    able = (1 - memory.happened).at[: len(intact)].multiply(intact)
    spent = able * jnp.maximum(memory.used - used, 0)
    rest = memory.luck - spent
    fires = rest <= 0
    if forced is not None:
        rest = jnp.where(forced == 0, memory.luck, rest)
        fires = jnp.where(forced < 0, fires, forced > 0)
    fired = able * fires
    memory = memory._replace(luck=rest, happened=jnp.maximum(memory.happened, fired))
    return memory, -jnp.expm1(-spent), fired


def jump(spec: EventSpec, theta: Params, memory: EventMemory) -> Params:
    """θ after the declared events that have happened."""
    first = len(spec.scene.bonds)
    for i, event in enumerate(spec.declared):
        theta = event.effect(theta, memory.happened[first + i])
    return theta


def felt(spec: EventSpec, before: State, load: Array) -> Array:
    """[nb, 5, W] the bonds' loads [nb, 6, W] of a step, in their own frames, see `FELT`."""
    model, bonds = spec.scene.model, spec.scene.bonds

    def components(qpos: Any, load: Any) -> Any:
        pose = forward(spec.tree, tuple(ln.static(r) for r in model.body_ipos), qpos)
        axes = [ln.matvec(pose.rot[b.body2], ln.static(n)) for b, n in zip(bonds, spec.axis, strict=True)]
        return [_parts(n, load[i][:3], load[i][3:]) for i, n in enumerate(axes)]

    found = fused(components, ln.lanes(before.qpos), ln.table(load))
    return jnp.stack([ln.stack(parts, load[0, 0]) for parts in found])


def _parts(axis: Any, force: Any, torque: Any) -> Any:
    """One bond's felt loads as lanes."""
    along, twist = ln.dot(axis, force), ln.dot(axis, torque)
    shear = ln.norm(ln.vsub(force, ln.scale(along, axis)))
    bending = ln.norm(ln.vsub(torque, ln.scale(twist, axis)))
    return jnp.maximum(-along, 0), jnp.maximum(along, 0), shear, jnp.abs(twist), bending


def sides(event: Event, features: Array) -> tuple[Array, Array]:
    """The features [F, W] that rise and those that need not."""
    rising = np.array(event.rising)
    return features[np.flatnonzero(rising)], features[np.flatnonzero(~rising)]
