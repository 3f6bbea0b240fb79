"""Where a task begins: coordinates and speeds by joint name, over the scene's home.

A free body that an intact weld ties to something that was moved goes along with it, as one rigid piece:

    p₂ = p₁ + R₁ R₁ₕᵀ (p₂ₕ − p₁ₕ)      q₂ = q₁ q₁ₕ* q₂ₕ      v₂ = v₁ + ω₁ × (p₂ − p₁)      ω₂ = ω₁       (h: at home)
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from hybridwm.tasks.task import Start
from hybridwm.tasks.terms import Joint, joint_named, joints
from physics import Scene, nominal
from physics.frames import frames


class _Body:
    """Just enough of a state for `frames`."""

    def __init__(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        self.qpos, self.qvel = jnp.asarray(qpos, float), jnp.asarray(qvel, float)


class _Seen(NamedTuple):
    """`Frames` as numpy."""

    pos: np.ndarray
    quat: np.ndarray
    linear: np.ndarray
    angular: np.ndarray


def start_of(scene: Scene, start: Start) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(qpos `[nq]`, qvel `[nv]`, intact `[nb]`)."""
    qpos, qvel = scene.home()
    for name, value in start.joints.items():
        joint = joint_named(scene, name)
        qpos[joint.adr : joint.adr + joint.nq] = _numbers(value, joint.nq, f"start.joints.{name}")
        if joint.nq > 1:
            _make_unit(qpos[joint.adr + joint.nq - 4 : joint.adr + joint.nq], name)
    for name, value in start.speeds.items():
        joint = joint_named(scene, name)
        qvel[joint.dof : joint.dof + joint.nv] = _numbers(value, joint.nv, f"start.speeds.{name}")
    intact = np.array([float(bond.intact) for bond in scene.bonds])
    for name in start.broken:
        intact[scene.bonds.index(scene.bond(name))] = 0.0
    if named := {*start.joints, *start.speeds}:
        carry_along(scene, qpos, qvel, intact, given=named)
    return qpos, qvel, intact


def _numbers(value: Any, count: int, where: str) -> np.ndarray:
    array = np.atleast_1d(np.asarray(value, float))
    if array.shape != (count,):
        raise ValueError(f"{where} has {array.size} numbers, it needs {count}")
    return array


def _make_unit(quat: np.ndarray, name: str) -> None:
    length = float(np.linalg.norm(quat))
    if not length > 1e-6:
        raise ValueError(f"start.joints.{name}: the quaternion (w x y z) has length zero")
    quat /= length


def carry_along(
    scene: Scene, qpos: np.ndarray, qvel: np.ndarray, intact: np.ndarray, *, given: set[str] | None = None
) -> None:
    """Move, in place, every free body that hangs on what moved by an intact weld, unless its joint is in `given`."""
    free = {int(scene.model.jnt_bodyid[i]): joint for i, joint in enumerate(joints(scene)) if joint.nq == 7}
    settled = {body for body in range(scene.model.nbody) if body not in free or free[body].name in (given or set())}
    welds = [bond for bond, holds in zip(scene.bonds, intact, strict=True) if holds and bond.kind == "weld"]
    ties = [tie for weld in welds for tie in ((weld.body1, weld.body2), (weld.body2, weld.body1))]
    while step := next(((a, b) for a, b in ties if a in settled and b not in settled), None):
        _attach(scene, qpos, qvel, step, free[step[1]])
        settled.add(step[1])


def _attach(scene: Scene, qpos: np.ndarray, qvel: np.ndarray, pair: tuple[int, int], joint: Joint) -> None:
    read = frames(scene, [("body", scene.model.body(body).name) for body in pair])
    home, now = (_read(read, scene, *at) for at in (scene.home(), (qpos, qvel)))
    turn = _product(now.quat[0], _conjugate(home.quat[0]))
    arm = _rotated(turn, home.pos[1] - home.pos[0])
    qpos[joint.adr : joint.adr + 3] = now.pos[0] + arm
    qpos[joint.adr + 3 : joint.adr + 7] = quat = _product(turn, home.quat[1])
    qvel[joint.dof : joint.dof + 3] = now.linear[0] + np.cross(now.angular[0], arm)
    qvel[joint.dof + 3 : joint.dof + 6] = _rotated(_conjugate(quat), now.angular[0])


def _read(read: Any, scene: Scene, qpos: np.ndarray, qvel: np.ndarray) -> _Seen:
    return _Seen(*(np.asarray(part, float) for part in read(nominal(scene), _Body(qpos, qvel))))


def _product(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    vector = p[0] * q[1:] + q[0] * p[1:] + np.cross(p[1:], q[1:])
    return np.array([p[0] * q[0] - p[1:] @ q[1:], *vector])


def _conjugate(q: np.ndarray) -> np.ndarray:
    return q * np.array([1, -1, -1, -1])


def _rotated(q: np.ndarray, v: np.ndarray) -> np.ndarray:
    return v + 2 * np.cross(q[1:], np.cross(q[1:], v) + q[0] * v)
