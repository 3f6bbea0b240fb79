"""Kinematics of the tree: from qpos to body poses and the motion axis of every dof, on lanes.

    hinge   R = R_parent R_body exp(axis θ)     S = (a, a × (O − anchor))
    slide   p = … + a (q − q₀)                  S = (0, a)
    free    p, R = qpos                         S = (0, eᵢ) and (R eᵢ, R eᵢ × (O − p))
    ball    R = … q                             S = (R eᵢ, R eᵢ × (O − anchor))

Spatial vectors are (angular, linear) in world axes about O, one point per kinematic tree: the centre of mass of its root,
so that a body far from the world's origin loses no digits. Brax's own forward kinematics does the same by gather and scatter
over links; written on lanes the scene's zeros vanish and the whole is elementwise over the worlds.
"""

from typing import Any, NamedTuple

import mujoco
import numpy as np

from physics import lanes as ln
from physics.lanes import Lane, Mat, Quat, Vec

FREE, BALL, SLIDE, HINGE = (int(getattr(mujoco.mjtJoint, f"mjJNT_{k}")) for k in ("FREE", "BALL", "SLIDE", "HINGE"))


class Pose(NamedTuple):
    """Where each body is, and how each dof moves it."""

    pos: tuple[Vec, ...]  # [B] body frame origin
    rot: tuple[Mat, ...]  # [B] body to world
    quat: tuple[Quat, ...]  # [B]
    com: tuple[Vec, ...]  # [B] centre of mass
    ref: tuple[Vec, ...]  # [B] O of the body's tree
    axis: tuple[tuple[Vec, Vec], ...]  # [nv] S = (angular, linear)


class Tree:
    """Static structure of a model: who carries whom, and which dofs move a body."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model = model
        self.parent = [int(p) for p in model.body_parentid]
        self.root = [int(r) for r in model.body_rootid]
        self.joints = [
            range(model.body_jntadr[b], model.body_jntadr[b] + model.body_jntnum[b]) for b in range(model.nbody)
        ]
        own = [
            tuple(range(model.body_dofadr[b], model.body_dofadr[b] + model.body_dofnum[b])) for b in range(model.nbody)
        ]
        self.dofs = own
        self.chain: list[tuple[int, ...]] = []  # [B] all dofs that move a body, root first
        for b in range(model.nbody):
            self.chain.append((() if b == 0 else self.chain[self.parent[b]]) + own[b])
        self.moving = [b for b in range(1, model.nbody) if self.chain[b]]

    def blocks(self) -> list[tuple[int, ...]]:
        """Dofs grouped by kinematic tree: the mass matrix is zero across groups."""
        groups: dict[int, list[int]] = {}
        for dof in range(self.model.nv):
            groups.setdefault(self.root[int(self.model.dof_bodyid[dof])], []).append(dof)
        return [tuple(g) for g in groups.values()]


def forward(tree: Tree, body_ipos: tuple[Vec, ...], qpos: Any) -> Pose:
    """Poses and motion axes. qpos: lanes [nq]."""
    m = tree.model
    pos: list[Vec] = [ln.ZERO]
    rot: list[Mat] = [ln.EYE]
    quat: list[Quat] = [(1.0, 0.0, 0.0, 0.0)]
    com: list[Vec] = [ln.ZERO]
    ref: list[Vec] = [ln.ZERO]
    raw: list[Any] = [None] * m.nv  # per dof: (kind, axis, anchor)
    for b in range(1, m.nbody):
        p, r, q = _place(tree, b, pos, rot, quat, qpos, raw)
        pos.append(p)
        rot.append(r)
        quat.append(q)
        com.append(ln.vadd(p, ln.matvec(r, body_ipos[b])))
        ref.append(com[b] if tree.root[b] == b else ref[tree.parent[b]])
    axis = tuple(_axis(raw[d], ref[int(m.dof_bodyid[d])]) for d in range(m.nv))
    return Pose(tuple(pos), tuple(rot), tuple(quat), tuple(com), tuple(ref), axis)


def _place(tree: Tree, b: int, pos: list, rot: list, quat: list, qpos: Any, raw: list) -> tuple[Vec, Mat, Quat]:
    m, parent = tree.model, tree.parent[b]
    own = tree.joints[b]
    if len(own) == 1 and m.jnt_type[own[0]] == FREE:
        adr, dof = m.jnt_qposadr[own[0]], m.jnt_dofadr[own[0]]
        p, q = tuple(qpos[adr : adr + 3]), ln.quat_unit(tuple(qpos[adr + 3 : adr + 7]))
        r = ln.quat_mat(q)
        for i in range(3):
            raw[dof + i] = (SLIDE, ln.EYE[i], None)
            raw[dof + 3 + i] = (HINGE, ln.column(r, i), p)
        return p, r, q
    p = ln.vadd(pos[parent], ln.matvec(rot[parent], ln.static(m.body_pos[b])))
    local = ln.static(m.body_quat[b])
    r, q = ln.matmul(rot[parent], static_mat(m.body_quat[b])), ln.quat_mul(quat[parent], local)
    for j in own:
        p, r, q = _joint(m, j, p, r, q, qpos, raw)
    return p, r, q


def _joint(m: mujoco.MjModel, j: int, p: Vec, r: Mat, q: Quat, qpos: Any, raw: list) -> tuple[Vec, Mat, Quat]:
    adr, dof, kind = int(m.jnt_qposadr[j]), int(m.jnt_dofadr[j]), int(m.jnt_type[j])
    offset, local = ln.static(m.jnt_pos[j]), ln.static(m.jnt_axis[j])
    if kind == SLIDE:
        axis = ln.matvec(r, local)
        raw[dof] = (SLIDE, axis, None)
        return ln.vadd(p, ln.scale(ln.sub(qpos[adr], float(m.qpos0[adr])), axis)), r, q
    anchor = ln.vadd(p, ln.matvec(r, offset))
    if kind == HINGE:
        raw[dof] = (HINGE, ln.matvec(r, local), anchor)
        angle = ln.sub(qpos[adr], float(m.qpos0[adr]))
        turn_r, turn_q = _turn(local, angle)
    else:
        turn_q = ln.quat_unit(tuple(qpos[adr : adr + 4]))
        turn_r = ln.quat_mat(turn_q)
    r, q = ln.matmul(r, turn_r), ln.quat_mul(q, turn_q)
    if kind == BALL:
        for i in range(3):
            raw[dof + i] = (HINGE, ln.column(r, i), anchor)
    return ln.vsub(anchor, ln.matvec(r, offset)), r, q


def _turn(axis: Vec, angle: Lane) -> tuple[Mat, Quat]:
    """Rotation about a static unit axis: E cos + aaᵀ(1 − cos) + [a]× sin."""
    cos, sin = ln.cos_sin(angle)
    skew = ((0.0, -axis[2], axis[1]), (axis[2], 0.0, -axis[0]), (-axis[1], axis[0], 0.0))

    def entry(i: int, j: int) -> Lane:
        outer = axis[i] * axis[j]
        keep = (1.0 if i == j else 0.0) - outer
        return ln.add(ln.add(outer, ln.mul(_round(keep), cos)), ln.mul(skew[i][j], sin))

    half = ln.cos_sin(ln.mul(0.5, angle))
    return tuple(tuple(entry(i, j) for j in range(3)) for i in range(3)), (half[0], *ln.scale(half[1], axis))  # type: ignore


def _axis(raw: Any, ref: Vec) -> tuple[Vec, Vec]:
    kind, axis, anchor = raw
    if kind == SLIDE:
        return ln.ZERO, axis
    return axis, ln.cross(axis, ln.vsub(ref, anchor))


def _round(x: float) -> float:
    return 0.0 if abs(x) < 1e-15 else x


def static_mat(quat: np.ndarray) -> Mat:
    """Rotation matrix of a static quaternion, with rounding dust removed so that it folds."""
    mat = np.zeros(9)
    mujoco.mju_quat2Mat(mat, np.asarray(quat, float))
    near = np.round(mat)
    return ln.static(np.where(np.abs(mat - near) < 1e-15, near, mat).reshape(3, 3))
