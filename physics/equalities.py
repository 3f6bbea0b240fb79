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
from physics.constraints import Axes, impedance, stiffness
from physics.lanes import Quat, Vec
from physics.structure import Structure
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


class Hold(NamedTuple):
    """One weld or connect in one instant, as lanes: f = −D (J q̈ + β J q̇ + pull)."""

    bodies: tuple[int, int]
    points: Any  # the two anchors
    twist: Any  # rows k: what a relative spin along axis k does to the orientation error; () for a connect
    d: Any
    beta: Any
    pull: Any  # κ i r
    q1: Any
    q2: Any
    scale: float


def bond_rows(structure: Structure, state: Any, bonded: list[Hold], axes: list[Axes], like: Array) -> list[Rows]:
    """Rows of every equality of the model, in its order."""
    slot = {eq: i for i, eq in enumerate(structure.ids)}
    on = [state.intact[slot[e]] if e in slot else float(structure.model.eq_active0[e]) for e in structure.equalities]
    return [_rows(structure, state, bond, axes, active, like) for bond, active in zip(bonded, on, strict=True)]


def holds(structure: Structure, weights: Any, pose: Pose, qvel: Any) -> list[Hold]:
    """What holds at every equality of the model; weights: [B][2] inverse weights of the bodies."""
    if not structure.equalities:
        return []
    motions = dynamics.accelerations(structure.tree, pose, qvel)
    return [_hold(structure.model, weights, pose, motions, e) for e in structure.equalities]


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
    ends: tuple[tuple[int, Vec, Quat], ...] = _anchors(m, e)
    points = [ln.vadd(pose.pos[b], ln.matvec(pose.rot[b], p)) for b, p, _ in ends]
    return tuple(b for b, _, _ in ends), points, *[ln.quat_mul(pose.quat[b], q) for b, _, q in ends]


def _hold(m: mujoco.MjModel, weights: Any, pose: Pose, motions: Any, e: int) -> Hold:
    weld = m.eq_type[e] == mujoco.mjtEq.mjEQ_WELD
    bodies, points, q1, q2 = _ends(m, pose, e)
    scale = float(m.eq_data[e][10]) if weld else 0.0
    back = ln.quat_conj(q2)
    r = list(ln.vsub(points[0], points[1]))
    twist: Any = ()
    if weld:
        r += list(ln.scale(scale, ln.quat_mul(back, q1)[1:]))
        twist = tuple(ln.scale(0.5 * scale, ln.quat_mul(ln.quat_mul(back, (0.0, *unit)), q1)[1:]) for unit in ln.EYE)
    solimp, solref = ln.static(m.eq_solimp[e]), ln.static(m.eq_solref[e])
    imp = impedance(solimp, ln.norm(r))
    kappa, beta = stiffness(solref, solimp, float(m.opt.timestep))
    weight = [weights[bodies[0]][i] + weights[bodies[1]][i] for i in range(2)]
    d = [1 / jnp.maximum((1 - imp) / imp * weight[0 if i < 3 else 1], 1e-15) for i in range(len(r))]
    drift = _drift(pose, motions, scale, bodies, points, q1, q2)
    pull = [ln.add(kappa * imp * x, y) for x, y in zip(r, drift, strict=False)]
    return Hold(bodies, points, twist, d, beta, pull, q1, q2, scale)


def _drift(pose: Pose, motions: Any, scale: float, bodies: Any, points: Any, q1: Any, q2: Any) -> Any:
    """J̇ q̇ (the rotations' part is of use to welds only)."""
    pulls, spins, turns = [], [], []
    for b, point in zip(bodies, points, strict=True):
        (w, v), (dw, dv) = motions[0][b], motions[1][b]
        arm = ln.vsub(point, pose.ref[b])
        moving = ln.vadd(v, ln.cross(w, arm))
        pulls.append(ln.vadd(ln.vadd(dv, ln.cross(dw, arm)), ln.cross(w, moving)))
        spins.append(w)
        turns.append(dw)
    w: Any = (0.0, *ln.vsub(*spins))
    curl = ln.vsub(ln.quat_mul(w, (0.0, *spins[0])), ln.quat_mul((0.0, *spins[1]), w))
    turn: Any = ln.vadd((0.0, *ln.vsub(*turns)), ln.scale(0.5, curl))
    swing = ln.quat_mul(ln.quat_mul(ln.quat_conj(q2), turn), q1)[1:]
    return (*ln.vsub(*pulls), *ln.scale(0.5 * scale, swing))


def _rows(structure: Structure, state: Any, bond: Hold, axes: list[Axes], on: Any, like: Array) -> Rows:
    sides: dict[int, Any] = {}
    for body, point, sign in zip(bond.bodies, bond.points, (1.0, -1.0), strict=True):
        t = structure.tree_of_body(body)
        if t is not None:
            rows = sign * _jacobian(structure, axes[t], body, t, ln.stack(point, like), bond.twist)
            sides[t] = sides[t] + rows if t in sides else rows
    found = Rows(tuple(sides), tuple(sides.values()), ln.stack(bond.d, like) * on, like, bond.q1, bond.q2, bond.scale)
    return found._replace(aref=-bond.beta * _times(structure, found, state.qvel) - ln.stack(bond.pull, like))


def _jacobian(structure: Structure, ax: Axes, body: int, t: int, point: Array, twist: Any) -> Array:
    """[3 or 6, n, W] rows on the dofs of a tree for one body."""
    arm = point - ax.ref
    turn = [
        ax.angular[:, (i + 1) % 3] * arm[(i + 2) % 3] - ax.angular[:, (i + 2) % 3] * arm[(i + 1) % 3] for i in range(3)
    ]
    rows = [ax.linear[:, i] + turn[i] for i in range(3)]
    for i in range(3 if twist else 0):
        rows.append(ln.total([twist[k][i] * ax.angular[:, k] for k in range(3)]))
    return structure.own(body, t, jnp.stack(rows))
