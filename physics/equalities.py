"""Rows of welds and connects, two-sided and quadratic, so they join A and b of the convex problem.

    connect   r = p₁ − p₂                                   J = J_p₁ − J_p₂
    weld      r = (p₁ − p₂, s vec(q₂⁻¹ q₁))                 J = (J_p₁ − J_p₂, ½ s vec(q₂⁻¹ ⊗ (ω₁ − ω₂) ⊗ q₁))

with p, q the anchors' positions and orientations. f = −D (J q̈ − a_ref); D = 0 once the bond is broken. An equality holds in
curved motion too: MuJoCo takes the drift J̇ q̇ off the reference,

    a_ref = −β J q̇ − κ i r − J̇ q̇
    J̇ q̇   = p̈₁ − p̈₂,   ½ s vec(q₂⁻¹ ⊗ (ω̇₁ − ω̇₂ + ½ ω ⊗ ω₁ − ½ ω₂ ⊗ ω) ⊗ q₁)    at q̈ = 0, with ω = ω₁ − ω₂
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco

from physics import bonds, dynamics
from physics import lanes as ln
from physics.constraints import Axes, Constants, Structure, impedance, stiffness
from physics.tree import Pose

Array = jax.Array


class Rows(NamedTuple):
    """One weld or connect."""

    trees: tuple[int, ...]
    sides: tuple[Array, ...]  # per tree J [m, n, W]
    d: Array  # [m, W]
    aref: Array  # [m, W]
    q1: Any
    q2: Any
    scale: float


def bond_rows(
    structure: Structure, constants: Constants, state: Any, pose: Pose, axes: list[Axes], drift: list[Any], like: Array
) -> list[Rows]:
    """Rows of every equality of the model, in its order."""
    slot = {eq: i for i, eq in enumerate(structure.ids)}
    return [
        _rows(structure, constants, state, pose, axes, drift[e], e, state.intact[slot[e]] if e in slot else None, like)
        for e in structure.equalities
    ]


def drifts(structure: Structure, pose: Pose, qvel: Any) -> list[Any]:
    """J̇ q̇ of every equality of the model: lanes, 3 of a connect, 6 of a weld."""
    if not structure.equalities:
        return []
    motions = dynamics.accelerations(structure.tree, pose, qvel)
    return [_drift(structure.model, pose, motions, e) for e in structure.equalities]


def _drift(m: mujoco.MjModel, pose: Pose, motions: Any, e: int) -> Any:
    (one, two), points, q1, q2 = _ends(m, pose, e)
    pulls, spins, turns = [], [], []
    for b, point in zip((one, two), points, strict=True):
        (w, v), (dw, dv) = motions[0][b], motions[1][b]
        arm = ln.vsub(point, pose.ref[b])
        moving = ln.vadd(v, ln.cross(w, arm))
        pulls.append(ln.vadd(ln.vadd(dv, ln.cross(dw, arm)), ln.cross(w, moving)))
        spins.append(w), turns.append(dw)
    apart = ln.vsub(*pulls)
    if m.eq_type[e] == mujoco.mjtEq.mjEQ_CONNECT:
        return apart
    w: Any = (0.0, *ln.vsub(*spins))
    curl = ln.vsub(ln.quat_mul(w, (0.0, *spins[0])), ln.quat_mul((0.0, *spins[1]), w))
    turn: Any = ln.vadd((0.0, *ln.vsub(*turns)), ln.scale(0.5, curl))
    swing = ln.quat_mul(ln.quat_mul(ln.quat_conj(q2), turn), q1)[1:]
    return (*apart, *ln.scale(0.5 * float(m.eq_data[e][10]), swing))


def bond_loads(structure: Structure, rows: list[Rows], qacc: Array, like: Array) -> Array:
    """Force and torque each breakable bond exerts on its second body [nb, 6, W]."""
    if not structure.ids:
        return jnp.zeros((0, 6, *like.shape), like.dtype)
    out = []
    for eq in structure.ids:
        r = rows[structure.equalities.index(eq)]
        f = -r.d * (_times(structure, r, qacc) - r.aref)
        force = [-f[i] for i in range(3)]
        weld = r.d.shape[0] == 6
        torque = bonds.weld_torque([f[3], f[4], f[5]], r.q1, r.q2, r.scale) if weld else [0.0, 0.0, 0.0]
        out.append(ln.stack([*force, *torque], like))
    return jnp.stack(out)


def _times(structure: Structure, r: Rows, x: Array) -> Array:
    total: Any = 0.0
    for side, t in zip(r.sides, r.trees, strict=True):
        start = structure.spans[t][0]
        for s in range(side.shape[1]):
            total = total + side[:, s] * x[start + s]
    return total


def _anchors(m: mujoco.MjModel, e: int) -> Any:
    """Local position and orientation of the equality on its two bodies, whether given by bodies or by sites."""
    data = m.eq_data[e]
    unit = (1.0, 0.0, 0.0, 0.0)
    if m.eq_objtype[e] == mujoco.mjtObj.mjOBJ_SITE:
        sites = (int(m.eq_obj1id[e]), int(m.eq_obj2id[e]))
        return tuple((int(m.site_bodyid[s]), ln.static(m.site_pos[s]), ln.static(m.site_quat[s])) for s in sites)
    bodies = (int(m.eq_obj1id[e]), int(m.eq_obj2id[e]))
    if m.eq_type[e] == mujoco.mjtEq.mjEQ_CONNECT:
        return (bodies[0], ln.static(data[:3]), unit), (bodies[1], ln.static(data[3:6]), unit)
    return (bodies[0], ln.static(data[3:6]), ln.static(data[6:10])), (bodies[1], ln.static(data[:3]), unit)


def _ends(m: mujoco.MjModel, pose: Pose, e: int) -> Any:
    """The two bodies, their anchors in the world, and the orientations that a weld holds equal."""
    ends = _anchors(m, e)
    points = [ln.vadd(pose.pos[b], ln.matvec(pose.rot[b], p)) for b, p, _ in ends]
    return [b for b, _, _ in ends], points, *(ln.quat_mul(pose.quat[b], q) for b, _, q in ends)


def _rows(
    structure: Structure, constants: Constants, state: Any, pose: Pose, axes: list[Axes], drift: Any, e: int, intact: Any, like: Array
) -> Rows:
    m = structure.model
    weld = m.eq_type[e] == mujoco.mjtEq.mjEQ_WELD
    bodies, points, q1, q2 = _ends(m, pose, e)
    scale = float(m.eq_data[e][10]) if weld else 0.0
    back = ln.quat_conj(q2)
    r = list(ln.vsub(points[0], points[1]))
    twist: Any = ()
    if weld:
        r += list(ln.scale(scale, ln.quat_mul(back, q1)[1:]))
        twist = tuple(ln.scale(0.5 * scale, ln.quat_mul(ln.quat_mul(back, (0.0, *unit)), q1)[1:]) for unit in ln.EYE)
    sides: dict[int, Any] = {}
    for body, point, sign in zip(bodies, points, (1.0, -1.0), strict=True):
        t = structure.tree_of_body(body)
        if t is not None:
            rows = sign * _jacobian(structure, axes[t], body, t, ln.stack(point, like), twist)
            sides[t] = sides[t] + rows if t in sides else rows
    solimp, solref = ln.static(m.eq_solimp[e]), ln.static(m.eq_solref[e])
    imp = impedance(solimp, ln.norm(r))
    kappa, beta = stiffness(solref, solimp, float(m.opt.timestep))
    weight = constants.body_invweight[bodies[0]] + constants.body_invweight[bodies[1]]
    d = [1 / jnp.maximum((1 - imp) / imp * weight[0 if i < 3 else 1], 1e-15) for i in range(len(r))]
    on = intact if intact is not None else float(m.eq_active0[e])
    found = Rows(tuple(sides), tuple(sides.values()), ln.stack(d, like) * on, like, q1, q2, scale)
    pull = ln.stack([ln.add(kappa * imp * x, y) for x, y in zip(r, drift, strict=True)], like)
    return found._replace(aref=-beta * _times(structure, found, state.qvel) - pull)


def _jacobian(structure: Structure, ax: Axes, body: int, t: int, point: Array, twist: Any) -> Array:
    """[3 or 6, n, W] rows on the dofs of a tree for one body."""
    arm = point - ax.ref
    turn = [ax.angular[:, (i + 1) % 3] * arm[(i + 2) % 3] - ax.angular[:, (i + 2) % 3] * arm[(i + 1) % 3] for i in range(3)]
    rows = [ax.linear[:, i] + turn[i] for i in range(3)]
    for i in range(3 if twist else 0):
        rows.append(sum(twist[k][i] * ax.angular[:, k] for k in range(3)))
    return structure.own(body, t, jnp.stack(rows))
