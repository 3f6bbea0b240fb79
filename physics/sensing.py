"""What a scene's sensors read in a state: the ideal values, worlds last, in the order and units of MuJoCo's sensordata.

jointpos q     jointvel q̇     actuatorpos gear·q     actuatorvel gear·q̇     subtreecom Σ m c / Σ m

of a frame (p, q, R; v, ω), and in a reference frame (p₀, q₀, R₀; v₀, ω₀) where the MJCF names one:
framepos       p             R₀ᵀ(p − p₀)
framequat      q             q₀⁻¹ q
frame[xyz]axis R e           R₀ᵀ R e
framelinvel    v             R₀ᵀ(v − v₀ − ω₀ × (p − p₀))
frameangvel    ω             R₀ᵀ(ω − ω₀)
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from physics import dynamics
from physics import lanes as ln
from physics.stage import fused
from physics.tree import Pose, Tree, forward, static_mat
from physics.types import Params, State

Array = jax.Array
Read = Callable[["_Instant", int], Any]  # (instant, sensor) -> lanes


def sensors(scene: Any) -> Callable[[Params, State], Array]:
    """(params, state) -> readings [nsensordata, W]."""
    tree = Tree(scene.model)
    for i in range(scene.model.nsensor):
        _refuse_camera(scene.model, i)

    def read(params: Params, state: State) -> Array:
        like = state.qpos[0] * 0
        if not scene.model.nsensor:
            return jnp.zeros((0, *like.shape), like.dtype)
        theta: Params = getattr(params, "params", params)
        ipos = tuple(map(ln.lanes, ln.rows(theta.body_ipos)))
        given = ipos, ln.lanes(theta.body_mass), ln.lanes(state.qpos), ln.lanes(state.qvel)
        return ln.stack(fused(partial(_read, tree), *given), like)

    return read


class _Instant(NamedTuple):
    """All that sensors look at."""

    tree: Tree
    mass: Any
    qpos: Any
    qvel: Any
    pose: Pose
    motion: Any  # [B] spatial velocities about each tree's O


class _Frame(NamedTuple):
    """Where a body, geom or site is, and how it moves."""

    pos: Any
    quat: Any
    rot: Any
    linear: Any
    angular: Any


def _read(tree: Tree, ipos: Any, mass: Any, qpos: Any, qvel: Any) -> list[Any]:
    pose = forward(tree, ipos, qpos)
    now = _Instant(tree, mass, qpos, qvel, pose, dynamics.velocities(tree, pose, qvel))
    kinds = (mujoco.mjtSensor(kind) for kind in tree.model.sensor_type)
    return [x for i, kind in enumerate(kinds) for x in _READERS[kind](now, i)]


def _joint(now: _Instant, i: int) -> Any:
    return (now.qpos[now.tree.model.jnt_qposadr[now.tree.model.sensor_objid[i]]],)


def _joint_rate(now: _Instant, i: int) -> Any:
    return (now.qvel[now.tree.model.jnt_dofadr[now.tree.model.sensor_objid[i]]],)


def _actuator(now: _Instant, i: int) -> Any:
    joint, gear = _transmission(now.tree.model, i)
    return (ln.mul(gear, now.qpos[now.tree.model.jnt_qposadr[joint]]),)


def _actuator_rate(now: _Instant, i: int) -> Any:
    joint, gear = _transmission(now.tree.model, i)
    return (ln.mul(gear, now.qvel[now.tree.model.jnt_dofadr[joint]]),)


def _transmission(m: mujoco.MjModel, i: int) -> tuple[int, float]:
    actuator = m.sensor_objid[i]
    return int(m.actuator_trnid[actuator, 0]), float(m.actuator_gear[actuator, 0])


def _subtree(now: _Instant, i: int) -> Any:
    top, total, first = int(now.tree.model.sensor_objid[i]), 0.0, ln.ZERO
    for b in range(1, now.tree.model.nbody):
        if top in (b, 0) or _carries(now.tree, top, b):
            total = ln.add(total, now.mass[b])
            first = ln.vadd(first, ln.scale(now.mass[b], now.pose.com[b]))
    return tuple(x / total for x in first)


def _carries(tree: Tree, top: int, body: int) -> bool:
    while body not in (0, top):
        body = tree.parent[body]
    return body == top


def _position(now: _Instant, i: int) -> Any:
    frame, base = _ends(now, i)
    return frame.pos if base is None else _into(base, ln.vsub(frame.pos, base.pos))


def _orientation(now: _Instant, i: int) -> Any:
    frame, base = _ends(now, i)
    return frame.quat if base is None else ln.quat_mul(ln.quat_conj(base.quat), frame.quat)


def _axis(now: _Instant, i: int, *, k: int) -> Any:
    frame, base = _ends(now, i)
    axis = ln.column(frame.rot, k)
    return axis if base is None else _into(base, axis)


def _velocity(now: _Instant, i: int) -> Any:
    frame, base = _ends(now, i)
    if base is None:
        return frame.linear
    carried = ln.vadd(base.linear, ln.cross(base.angular, ln.vsub(frame.pos, base.pos)))
    return _into(base, ln.vsub(frame.linear, carried))


def _spin(now: _Instant, i: int) -> Any:
    frame, base = _ends(now, i)
    return frame.angular if base is None else _into(base, ln.vsub(frame.angular, base.angular))


def _into(base: _Frame, v: Any) -> Any:
    return ln.matvec(ln.transpose(base.rot), v)


def _ends(now: _Instant, i: int) -> tuple[_Frame, _Frame | None]:
    """The frame of a sensor, and its reference frame if it has one."""
    m = now.tree.model
    base = _frame(now, int(m.sensor_reftype[i]), int(m.sensor_refid[i])) if m.sensor_refid[i] >= 0 else None
    return _frame(now, int(m.sensor_objtype[i]), int(m.sensor_objid[i])), base


def _frame(now: _Instant, kind: int, index: int) -> _Frame:
    m, pose = now.tree.model, now.pose
    if kind in (mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_XBODY):
        inertial = kind == mujoco.mjtObj.mjOBJ_BODY
        body, turn = index, m.body_iquat[index] if inertial else np.array([1.0, 0.0, 0.0, 0.0])
        pos = pose.com[body] if inertial else pose.pos[body]
    else:
        owner, offset, turns = _ATTACHED[mujoco.mjtObj(kind)]
        body, turn = int(getattr(m, owner)[index]), getattr(m, turns)[index]
        pos = ln.vadd(pose.pos[body], ln.matvec(pose.rot[body], ln.static(getattr(m, offset)[index])))
    angular, at_ref = now.motion[body]
    linear = ln.vadd(at_ref, ln.cross(angular, ln.vsub(pos, pose.ref[body])))
    quat, rot = ln.quat_mul(pose.quat[body], ln.static(turn)), ln.matmul(pose.rot[body], static_mat(turn))
    return _Frame(pos, quat, rot, linear, angular)


def _refuse_camera(m: mujoco.MjModel, i: int) -> None:
    for kind, index in ((m.sensor_objtype[i], 0), (m.sensor_reftype[i], m.sensor_refid[i])):
        if kind == mujoco.mjtObj.mjOBJ_CAMERA and index >= 0:
            raise ValueError(f"sensor {m.sensor(i).name or i!r}: frames of cameras are not read; use a site there")


_ATTACHED = {
    mujoco.mjtObj.mjOBJ_GEOM: ("geom_bodyid", "geom_pos", "geom_quat"),
    mujoco.mjtObj.mjOBJ_SITE: ("site_bodyid", "site_pos", "site_quat"),
}
_READERS: dict[mujoco.mjtSensor, Read] = {
    mujoco.mjtSensor.mjSENS_JOINTPOS: _joint,
    mujoco.mjtSensor.mjSENS_JOINTVEL: _joint_rate,
    mujoco.mjtSensor.mjSENS_ACTUATORPOS: _actuator,
    mujoco.mjtSensor.mjSENS_ACTUATORVEL: _actuator_rate,
    mujoco.mjtSensor.mjSENS_SUBTREECOM: _subtree,
    mujoco.mjtSensor.mjSENS_FRAMEPOS: _position,
    mujoco.mjtSensor.mjSENS_FRAMEQUAT: _orientation,
    mujoco.mjtSensor.mjSENS_FRAMEXAXIS: partial(_axis, k=0),
    mujoco.mjtSensor.mjSENS_FRAMEYAXIS: partial(_axis, k=1),
    mujoco.mjtSensor.mjSENS_FRAMEZAXIS: partial(_axis, k=2),
    mujoco.mjtSensor.mjSENS_FRAMELINVEL: _velocity,
    mujoco.mjtSensor.mjSENS_FRAMEANGVEL: _spin,
}
