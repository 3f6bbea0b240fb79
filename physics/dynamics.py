"""Dynamics of the tree on lanes: mass matrix, bias force, and the forces that need no constraint.

    v_b = v_parent + Σ S q̇                     spatial velocity about O
    a_b = a_parent + Σ Ṡ q̇,   a_world = −g     acceleration at q̈ = 0
    f_b = I a + v ×* I v,  c = Sᵀ Σ f          bias: gravity, Coriolis and centrifugal forces (recursive Newton–Euler)
    M_ij = S_i · I_subtree(j) S_j              composite rigid bodies; plus armature on the diagonal

    τ = −c − k (q − q_spring) − d q̇ + actuators + wrench

An inertia is (m, h = m(c − O), J about O as xx yy zz xy xz yz). Brax's `mass.matrix` and `dynamics.forward` compute the same.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import mujoco
import numpy as np

from physics import lanes as ln
from physics.lanes import Lane, Vec
from physics.tree import BALL, FREE, Pose, Tree, static_mat


class Inertia(NamedTuple):
    """Rigid body inertia about O."""

    mass: Lane
    first: Vec  # m (c − O)
    second: tuple[Lane, ...]  # xx yy zz xy xz yz


def inertias(tree: Tree, pose: Pose, mass: Any, moments: Any) -> list[Inertia]:
    """Each body's inertia about its tree's O, in world axes; what cannot move has none."""
    out: list[Inertia] = [Inertia(0.0, ln.ZERO, (0.0,) * 6)] * tree.model.nbody
    for b in tree.moving:
        frame = ln.matmul(pose.rot[b], static_mat(tree.model.body_iquat[b]))
        scaled = tuple(tuple(ln.mul(moments[b][k], row[k]) for k in range(3)) for row in frame)
        j = tuple(ln.dot(scaled[a], frame[c]) for a, c in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)))
        d = ln.ZERO if tree.root[b] == b else ln.vsub(pose.com[b], pose.ref[b])
        h = ln.scale(mass[b], d)
        hd = ln.dot(h, d)
        shift = tuple(ln.sub(hd, ln.mul(h[a], d[a])) for a in range(3)) + tuple(
            ln.mul(-1.0, ln.mul(h[a], d[c])) for a, c in ((0, 1), (0, 2), (1, 2))
        )
        out[b] = Inertia(mass[b], h, ln.vadd(j, shift))
    return out


def momentum(inertia: Inertia, motion: tuple[Vec, Vec]) -> tuple[Vec, Vec]:
    """I v = (J ω + h × v, m v + ω × h)."""
    w, v = motion
    xx, yy, zz, xy, xz, yz = inertia.second
    jw = (ln.dot((xx, xy, xz), w), ln.dot((xy, yy, yz), w), ln.dot((xz, yz, zz), w))
    return ln.vadd(jw, ln.cross(inertia.first, v)), ln.vadd(ln.scale(inertia.mass, v), ln.cross(w, inertia.first))


def mass_matrix(tree: Tree, pose: Pose, bodies: list[Inertia], armature: Any) -> list[list[Lane]]:
    """Lower triangle of M [nv][nv]; entries across trees are the float 0."""
    m = tree.model
    composite = list(bodies)
    for b in reversed(tree.moving):
        p = tree.parent[b]
        if p in tree.moving:
            one, two = composite[p], composite[b]
            composite[p] = Inertia(
                ln.add(one.mass, two.mass), ln.vadd(one.first, two.first), ln.vadd(one.second, two.second)
            )
    rows: list[list[Lane]] = [[0.0] * m.nv for _ in range(m.nv)]
    for dof in range(m.nv):
        body = int(m.dof_bodyid[dof])
        n, f = momentum(composite[body], pose.axis[dof])
        for other in tree.chain[body]:
            if other <= dof:
                w, v = pose.axis[other]
                rows[dof][other] = ln.add(ln.dot(w, n), ln.dot(v, f))
        rows[dof][dof] = ln.add(rows[dof][dof], armature[dof])
    return rows


def velocities(tree: Tree, pose: Pose, qvel: Any) -> list[tuple[Vec, Vec]]:
    """Spatial velocity of each body about its tree's O."""
    out: list[tuple[Vec, Vec]] = [(ln.ZERO, ln.ZERO)] * tree.model.nbody
    for b in tree.moving:
        out[b] = _carry(out[tree.parent[b]], pose, tree.dofs[b], qvel)
    return out


def accelerations(
    tree: Tree, pose: Pose, qvel: Any, gravity: Vec = ln.ZERO, qacc: Any = None
) -> tuple[list[Any], list[Any]]:
    """Spatial velocities, and accelerations under q̈ (0 if not given) against the fall with `gravity`: v, a [B] about O."""
    v: list[Any] = [(ln.ZERO, ln.ZERO)] * tree.model.nbody
    a: list[Any] = [(ln.ZERO, ln.scale(-1.0, gravity))] * tree.model.nbody
    for b in tree.moving:
        v[b], a[b] = _accelerate(tree, pose, b, v[tree.parent[b]], a[tree.parent[b]], qvel)
        if qacc is not None:
            a[b] = _carry(a[b], pose, tree.dofs[b], qacc)
    return v, a


def bias(
    tree: Tree, pose: Pose, bodies: list[Inertia], qvel: Any, gravity: Vec, *, qacc: Any = None, push: Any = None
) -> list[Lane]:
    """c + M q̈ [nv]: what the dofs must push to have q̈ (0 if not given); `push`: forces on the bodies, (torque about O, force)."""
    m = tree.model
    v, a = accelerations(tree, pose, qvel, gravity, qacc)
    f: list[Any] = [(ln.ZERO, ln.ZERO)] * m.nbody
    for b in tree.moving:
        n, p = momentum(bodies[b], v[b])
        w, u = v[b]
        gyro = (ln.vadd(ln.cross(w, n), ln.cross(u, p)), ln.cross(w, p))
        f[b] = _plus(momentum(bodies[b], a[b]), gyro)
        if push is not None and push[b] is not None:
            f[b] = (ln.vsub(f[b][0], push[b][0]), ln.vsub(f[b][1], push[b][1]))
    for b in reversed(tree.moving):
        if tree.parent[b] in tree.moving:
            f[tree.parent[b]] = _plus(f[tree.parent[b]], f[b])
    owner = [int(b) for b in m.dof_bodyid]
    return [
        ln.add(ln.dot(pose.axis[d][0], f[owner[d]][0]), ln.dot(pose.axis[d][1], f[owner[d]][1])) for d in range(m.nv)
    ]


def _accelerate(tree: Tree, pose: Pose, b: int, v: Any, a: Any, qvel: Any) -> tuple[Any, Any]:
    """Through the joints of body b: v grows by S q̇, a by Ṡ q̇, where a joint's axes ride on what carries them."""
    for j in tree.joints[b]:
        kind, dof = tree.model.jnt_type[j], int(tree.model.jnt_dofadr[j])
        if kind == FREE:
            v = _carry(v, pose, range(dof, dof + 3), qvel)  # world axes: Ṡ = 0
            dof += 3
        turning = range(dof, dof + (3 if kind in (FREE, BALL) else 1))
        step = _carry((ln.ZERO, ln.ZERO), pose, turning, qvel)
        a = _plus(a, _cross(v, step))
        v = _plus(v, step)
    return v, a


def _carry(v: Any, pose: Pose, dofs: Any, qvel: Any) -> Any:
    for d in dofs:
        w, u = pose.axis[d]
        v = _plus(v, (ln.scale(qvel[d], w), ln.scale(qvel[d], u)))
    return v


def _cross(v: Any, s: Any) -> Any:
    return ln.cross(v[0], s[0]), ln.vadd(ln.cross(v[0], s[1]), ln.cross(v[1], s[0]))


def _plus(a: Any, b: Any) -> Any:
    return ln.vadd(a[0], b[0]), ln.vadd(a[1], b[1])


def applied(tree: Tree, pose: Pose, given: Any) -> tuple[Any, list[Lane]]:
    """Forces of springs, dampers, actuators, force and wrench [nv], and the activations one step later [na]."""
    tau: Any
    tau, late = actuation(tree, given.qpos, given.qvel, given.act, given.ctrl, given.params.actuator_gain)
    tau = ln.vadd(tau, passive(tree, given.qpos, given.qvel, given.params.dof_damping))
    if given.force is not None:
        tau = ln.vadd(tau, given.force)
    if given.wrench is not None:
        tau = ln.vadd(tau, body_force(tree, pose, given.wrench))
    return tau, late


def passive(tree: Tree, qpos: Any, qvel: Any, damping: Any) -> list[Lane]:
    """Springs and dampers of the joints [nv]."""
    m = tree.model
    out: list[Lane] = [ln.mul(-1.0, ln.mul(damping[d], qvel[d])) for d in range(m.nv)]
    for j in np.flatnonzero(m.jnt_stiffness):
        adr, dof = int(m.jnt_qposadr[j]), int(m.jnt_dofadr[j])
        out[dof] = ln.sub(out[dof], ln.mul(float(m.jnt_stiffness[j]), ln.sub(qpos[adr], float(m.qpos_spring[adr]))))
    return out


def body_force(tree: Tree, pose: Pose, wrench: Any) -> list[Lane]:
    """Generalized force of a force and torque on each body's centre of mass; wrench: [B][6] lanes, world axes."""
    out: list[Lane] = [0.0] * tree.model.nv
    for b in tree.moving:
        f, n = tuple(wrench[b][:3]), tuple(wrench[b][3:])
        about = ln.vadd(n, ln.cross(ln.vsub(pose.com[b], pose.ref[b]), f))
        for d in tree.chain[b]:
            w, v = pose.axis[d]
            out[d] = ln.add(out[d], ln.add(ln.dot(w, about), ln.dot(v, f)))
    return out


def actuation(tree: Tree, qpos: Any, qvel: Any, act: Any, ctrl: Any, gain: Any) -> tuple[list[Lane], list[Lane]]:
    """Joint forces of the actuators [nv], and the activations one step later [na]."""
    m = tree.model
    force: list[Lane] = [0.0] * m.nv
    late: list[Lane] = list(act)
    for i in range(m.nu):
        j = int(m.actuator_trnid[i, 0])
        adr, dof, gear = int(m.jnt_qposadr[j]), int(m.jnt_dofadr[j]), float(m.actuator_gear[i, 0])
        u = _limit(ctrl[i], m.actuator_ctrllimited[i], m.actuator_ctrlrange[i])
        if m.actuator_actadr[i] >= 0:
            k = int(m.actuator_actadr[i])
            u, late[k] = act[k], _activate(m, i, act[k], u)
        length, speed = ln.mul(gear, qpos[adr]), ln.mul(gear, qvel[dof])
        slope = _affine(m.actuator_gainprm[i], m.actuator_gaintype[i] != mujoco.mjtGain.mjGAIN_FIXED, length, speed)
        offset: Lane = 0.0
        if m.actuator_biastype[i] != mujoco.mjtBias.mjBIAS_NONE:
            offset = _affine(m.actuator_biasprm[i], True, length, speed)
        f = ln.mul(gain[i], ln.add(ln.mul(slope, u), offset))
        f = _limit(f, m.actuator_forcelimited[i], m.actuator_forcerange[i])
        force[dof] = ln.add(force[dof], ln.mul(gear, f))
    for j in np.flatnonzero(m.jnt_actfrclimited):
        dof = int(m.jnt_dofadr[j])
        force[dof] = _limit(force[dof], True, m.jnt_actfrcrange[j])
    return force, late


def _affine(p: np.ndarray, affine: bool, length: Lane, speed: Lane) -> Lane:
    if not affine:
        return float(p[0])
    return ln.add(float(p[0]), ln.add(ln.mul(float(p[1]), length), ln.mul(float(p[2]), speed)))


def _activate(m: mujoco.MjModel, i: int, act: Lane, u: Lane) -> Lane:
    """Activation after one step: integrator, filter (Euler), or exact filter."""
    h, kind, tau = float(m.opt.timestep), m.actuator_dyntype[i], max(float(m.actuator_dynprm[i, 0]), 1e-15)
    if kind == mujoco.mjtDyn.mjDYN_INTEGRATOR:
        late = act + h * u
    elif kind == mujoco.mjtDyn.mjDYN_FILTER:
        late = act + (u - act) * (h / tau)
    else:
        late = act + (u - act) * (1.0 - float(np.exp(-h / tau)))
    return _limit(late, m.actuator_actlimited[i], m.actuator_actrange[i])


def _limit(x: Lane, limited: Any, span: np.ndarray) -> Lane:
    return jnp.clip(x, float(span[0]), float(span[1])) if limited else x
