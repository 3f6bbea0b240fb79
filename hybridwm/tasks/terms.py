"""Quantities of a state, by name: what costs, goals and limits of a task are made of. Samples last.

    error = value − target                     of lengths, speeds, readings
    error = 2 sin((angle − target) / 2)        of headings and of hinges without limits, where a turn changes nothing
    error = 2 vec(q_target* ⊗ q)               of orientations: 2 sin(θ/2) long, θ the angle between the two

so every squared error is smooth, also at zero. Legend: N samples, k components, P frames, nu controls.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hybridwm.reading import nearest
from hybridwm.tasks.task import Numbers, Quantity
from physics import Scene, nominal, sensors
from physics.frames import Frames, frames

Array = jax.Array
_NEEDS = {
    "position": ("body", "site"), "height": ("body", "site"), "orientation": ("body", "site"),
    "heading": ("body", "site"), "tilt": ("body", "site"), "velocity": ("body", "site"), "spin": ("body", "site"),
    "distance": ("body", "site"), "joint": ("joint",), "joint_speed": ("joint",), "sensor": ("sensor",), "effort": (),
}  # fmt: skip
_VECTORS = ("position", "velocity", "spin")
_RESTING = ("velocity", "spin", "joint_speed", "effort", "tilt")
"""Their target is zero if none is given."""
_UNITS = {
    "position": "m", "height": "m", "orientation": "rad", "heading": "rad", "tilt": "rad", "velocity": "m/s",
    "spin": "rad/s", "distance": "m", "joint_speed": "", "sensor": "", "effort": "",
}  # fmt: skip


class Look(NamedTuple):
    """A state and what was computed from it once for all quantities."""

    state: Any
    frames: Frames | None
    readings: Any
    ctrl: Any


class Measure(NamedTuple):
    """One quantity, bound to a scene."""

    label: str
    unit: str
    size: int
    """k."""
    value: Callable[[Look], Array]
    """value(look) -> `[k, N]`."""
    error: Callable[[Array, Array], Array]
    """error(value, target `[k, 1]`) -> `[k', N]`."""
    chord: bool
    """Whether an error is the chord of an angle."""

    def off(self, look: Look, target: Any) -> Array:
        """How far from the target, `[N]`, in `unit`."""
        error = self.error(self.value(look), target)
        length = _length(error)
        return 2 * jnp.arcsin(jnp.clip(length / 2, 0, 1)) if self.chord else length


class Gauge(NamedTuple):
    """All measures of a task on one scene; frames and readings are computed once for all of them."""

    measures: tuple[Measure, ...]
    look: Callable[..., Look]
    """look(state, ctrl=None) -> Look."""


def gauge(scene: Scene, quantities: Sequence[Quantity]) -> Gauge:
    """Bind quantities to a scene; an unknown name is refused with the nearest one."""
    points = _points(quantities)
    places = frames(scene, points) if points else None
    read = sensors(scene) if any(quantity.sensor for quantity in quantities) else None
    theta = nominal(scene)

    def look(state: Any, ctrl: Any = None) -> Look:
        return Look(state, places and places(theta, state), read and read(theta, state), ctrl)

    return Gauge(tuple(_measure(scene, quantity, points) for quantity in quantities), look)


def target_of(quantity: Quantity, measure: Measure, target: Numbers | None) -> np.ndarray:
    """The target `[k]`, checked."""
    if target is None:
        if quantity.of not in _RESTING:
            raise ValueError(f"{measure.label}: give a target of {measure.size} number{'s' * (measure.size > 1)}")
        return np.zeros(measure.size)
    given = np.atleast_1d(np.asarray(target, float))
    if given.shape != (measure.size,):
        raise ValueError(f"{measure.label}: the target has {given.size} numbers, it needs {measure.size}")
    if quantity.of == "orientation":
        if not np.linalg.norm(given) > 1e-6:
            raise ValueError(f"{measure.label}: the target is no quaternion (w x y z), its length is zero")
        given = given / np.linalg.norm(given)
    return given


def _points(quantities: Sequence[Quantity]) -> list[tuple[str, str]]:
    found = [
        (kind, name)
        for quantity in quantities
        for kind, name in (
            ("body", quantity.body), ("site", quantity.site), ("body", quantity.to_body), ("site", quantity.to_site)
        )
        if name is not None
    ]  # fmt: skip
    return list(dict.fromkeys(found))


def _measure(scene: Scene, quantity: Quantity, points: list[tuple[str, str]]) -> Measure:
    _check_words(quantity)
    kind, label = quantity.of, quantity.label
    if kind in ("joint", "joint_speed"):
        return _of_joint(scene, quantity)
    if kind == "sensor":
        return _of_sensor(scene, quantity)
    if kind == "effort":
        return _of_effort(scene, quantity)
    index = points.index(("body", quantity.body) if quantity.body else ("site", str(quantity.site)))
    size, value = _of_frame(quantity, index, points)
    chord = kind in ("orientation", "heading")
    error = {"orientation": _turned, "heading": _around}.get(kind, _minus)
    return Measure(label, _UNITS[kind], size, value, error, chord)


def _check_words(quantity: Quantity) -> None:
    needs, said = _NEEDS[quantity.of], f"{quantity.of!r}"
    given = [word for word in ("body", "site", "joint", "sensor", "actuator") if getattr(quantity, word) is not None]
    allowed = needs or ("actuator",)
    if extra := [word for word in given if word not in allowed]:
        raise ValueError(f"{said} is measured of {' or '.join(allowed)}, not of {extra[0]}")
    if needs and len(given) != 1:
        raise ValueError(f"{said} needs exactly one of: {', '.join(needs)}")
    if (quantity.of == "distance") != (quantity.to_body is not None or quantity.to_site is not None):
        raise ValueError("'to_body' or 'to_site' goes with 'distance', and 'distance' needs one of them")
    if quantity.to_body is not None and quantity.to_site is not None:
        raise ValueError("'distance' leads to one thing: give to_body or to_site")
    if quantity.axes is not None:
        if quantity.of not in _VECTORS:
            raise ValueError(f"'axes' goes with {', '.join(_VECTORS)}, not with {said}")
        if not quantity.axes or set(quantity.axes) - set("xyz") or len(set(quantity.axes)) < len(quantity.axes):
            raise ValueError(f"axes {quantity.axes!r}: give some of x, y and z, each once")


def _of_frame(quantity: Quantity, index: int, points: list[tuple[str, str]]) -> tuple[int, Callable[[Look], Array]]:
    axes = ["xyz".index(axis) for axis in quantity.axes or "xyz"]
    part = {"position": "pos", "velocity": "linear", "spin": "angular"}.get(quantity.of)
    if part is not None:
        return len(axes), lambda look: jnp.stack([getattr(look.frames, part)[index, axis] for axis in axes])
    if quantity.of == "distance":
        to = points.index(("body", quantity.to_body) if quantity.to_body else ("site", str(quantity.to_site)))
        return 1, lambda look: _length(_frames(look).pos[index] - _frames(look).pos[to])[None]
    size, read = {
        "height": (1, lambda found: found.pos[index, 2:]),
        "orientation": (4, lambda found: found.quat[index]),
        "heading": (1, lambda found: _heading(found.quat[index])[None]),
        "tilt": (1, lambda found: 2 * jnp.arcsin(jnp.clip(_length(found.quat[index, 1:3]), 0, 1))[None]),
    }[quantity.of]
    return size, lambda look: read(_frames(look))


def _frames(look: Look) -> Frames:
    assert look.frames is not None
    return look.frames


def _of_joint(scene: Scene, quantity: Quantity) -> Measure:
    joint = joint_named(scene, str(quantity.joint))
    if quantity.of == "joint_speed":
        return Measure(quantity.label, joint.speed_unit, joint.nv,
                       lambda look: look.state.qvel[joint.dof : joint.dof + joint.nv], _minus, False)  # fmt: skip
    if joint.nq > 1:
        raise ValueError(f"joint {joint.name!r} is free or a ball: use position and orientation of its body")
    return Measure(quantity.label, joint.unit, 1, lambda look: look.state.qpos[joint.adr : joint.adr + 1],
                   _around if joint.turns else _minus, joint.turns)  # fmt: skip


def _of_sensor(scene: Scene, quantity: Quantity) -> Measure:
    name = str(quantity.sensor)
    if name not in scene.sensors:
        raise ValueError(f"sensor {name!r}: not in scene {scene.name!r}; {nearest(name, scene.sensors)}")
    index, model = scene.sensors.index(name), scene.model
    first, size = int(model.sensor_adr[index]), int(model.sensor_dim[index])
    return Measure(quantity.label, "", size, lambda look: look.readings[first : first + size], _minus, False)


def _of_effort(scene: Scene, quantity: Quantity) -> Measure:
    model = scene.model
    names = [model.actuator(i).name for i in range(model.nu)]
    if quantity.actuator is not None and quantity.actuator not in names:
        name = quantity.actuator
        raise ValueError(f"actuator {name!r}: not in scene {scene.name!r}; {nearest(name, names)}")
    chosen = np.arange(model.nu) if quantity.actuator is None else np.array([names.index(quantity.actuator)])
    largest = np.abs(model.actuator_ctrlrange[chosen]).max(axis=1)

    def value(look: Look) -> Array:
        return look.ctrl[chosen] / jnp.asarray(largest, look.ctrl.dtype)[:, None]

    return Measure(quantity.label, "", len(chosen), value, _minus, False)


class Joint(NamedTuple):
    """Where a joint stands in qpos and qvel."""

    name: str
    adr: int
    nq: int
    dof: int
    nv: int
    turns: bool
    """A hinge without limits: a full turn changes nothing."""
    unit: str
    speed_unit: str


def joints(scene: Scene) -> tuple[Joint, ...]:
    """All joints of a scene, in the order of qpos."""
    model, found = scene.model, []
    for i in range(model.njnt):
        nq, nv, angle = ((7, 6, False), (4, 3, True), (1, 1, False), (1, 1, True))[int(model.jnt_type[i])]
        turns = nq == 1 and angle and not model.jnt_limited[i]
        units = ("rad", "rad/s") if angle else ("m", "m/s")
        adr, dof = int(model.jnt_qposadr[i]), int(model.jnt_dofadr[i])
        found.append(Joint(model.joint(i).name or f"joint{i}", adr, nq, dof, nv, turns, *units))
    return tuple(found)


def joint_named(scene: Scene, name: str) -> Joint:
    """The joint with this name."""
    known = {joint.name: joint for joint in joints(scene)}
    if name not in known:
        raise ValueError(f"joint {name!r}: not in scene {scene.name!r}; {nearest(name, known)}")
    return known[name]


def _minus(value: Array, target: Array) -> Array:
    return value - target


def _around(value: Array, target: Array) -> Array:
    return 2 * jnp.sin((value - target) / 2)


def _turned(value: Array, target: Array) -> Array:
    w, x, y, z = value
    a, b, c, d = target
    return 2 * jnp.stack([a * x - b * w - c * z + d * y, a * y + b * z - c * w - d * x, a * z - b * y + c * x - d * w])


def _heading(quat: Array) -> Array:
    w, x, y, z = quat
    return jnp.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def _length(vector: Array) -> Array:
    """|v| over the first axis, with slope 0 at 0."""
    squared = jnp.sum(vector * vector, axis=0)
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
