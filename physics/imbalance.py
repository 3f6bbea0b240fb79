"""F(x) as a function of what the problem was made from: the forces that q̈ = x leaves unbalanced.

    F_d = S_d · Σ (I a(x) + v ×* I v − contact and bond forces)  + armature_d x_d − τ_d − limits_d

At the solution F = 0, so F is never computed to step; its derivatives with respect to state, control and θ are those of the
step (dq̈ = −H⁻¹ ∂F). One pass up and down the tree with the contact forces as forces on bodies: no Jacobian is formed.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from physics import collision, constraints, dynamics, equalities
from physics import lanes as ln
from physics.constraints import Group, Structure
from physics.lanes import Lane, Vec
from physics.tree import Pose, Tree, forward


class Inputs(NamedTuple):
    """Everything a step depends on, as lanes."""

    params: Any
    body_invweight: Any  # [B][2]
    dof_invweight: Any  # [nv]
    qpos: Any
    qvel: Any
    act: Any
    ctrl: Any
    force: Any  # [nv] or None
    wrench: Any  # [B][6] or None
    intact: Any  # [nb]
    apart: Any  # [nb]
    touches: Any  # per group: lanes of its contacts where arrays found them, else None


class Spot(NamedTuple):
    """One contact."""

    distance: Lane
    position: Vec
    frame: Any
    mu: tuple[Lane, Lane]
    pair: Any


def imbalance(structure: Structure, x: Any, given: Inputs) -> list[Lane]:
    """F [nv]."""
    tree, params = structure.tree, given.params
    pose = forward(tree, params.body_ipos, given.qpos)
    bodies = dynamics.inertias(tree, pose, params.body_mass, params.body_inertia)
    push: list[Any] = [None] * structure.model.nbody
    moving = [dynamics.velocities(tree, pose, given.qvel), dynamics.velocities(tree, pose, x)]
    geoms = collision.geom_poses(structure.model, pose, params.geom_size)
    for i, group in enumerate(structure.groups):
        for spot in _spots(structure, params, group, geoms, given.touches[i]):
            _touch(structure, given, group, spot, pose, moving, push)
    for e, bond in zip(
        structure.equalities, equalities.holds(structure, given.body_invweight, pose, given.qvel), strict=True
    ):
        _hold(structure, given, e, bond, pose, moving, push)
    out = dynamics.bias(tree, pose, bodies, given.qvel, params.gravity, qacc=x, push=push)
    tau, _ = dynamics.applied(tree, pose, given)
    tau = ln.vadd(tau, _limits(structure, given, x))
    rotor = [ln.mul(a, y) for a, y in zip(params.dof_armature, x, strict=True)]
    return list(ln.vsub(ln.vadd(out, rotor), tau))


def _spots(structure: Structure, params: Any, group: Group, geoms: Any, touch: Any) -> list[Spot]:
    if touch is not None:
        return [Spot(*one) for one in zip(*touch, strict=True)]
    out = []
    for i, pair in enumerate(group.pairs):
        mu = constraints.friction_of(structure, params, pair)
        for c in collision.narrow(structure.model, pair, geoms):
            out.append(Spot(c.distance, c.position, c.frame, mu, i))
    return out


def _slip(tree: Tree, bodies: tuple[int, int], points: Any, pose: Pose, twist: Any) -> Vec:
    """Velocity of point 2 on body 2 less that of point 1 on body 1."""
    out: Vec = ln.ZERO
    for b, p, move in zip(bodies, points, (ln.vsub, ln.vadd), strict=True):
        if tree.chain[b]:
            w, u = twist[b]
            out = move(out, ln.vadd(u, ln.cross(w, ln.vsub(p, pose.ref[b]))))
    return out


def _push(tree: Tree, push: list[Any], pose: Pose, body: int, point: Vec, force: Vec, torque: Vec = ln.ZERO) -> None:
    """Add a force at a point and a torque to those on a body."""
    if tree.chain[body]:
        n, f = push[body] or (ln.ZERO, ln.ZERO)
        about = ln.vadd(torque, ln.cross(ln.vsub(point, pose.ref[body]), force))
        push[body] = (ln.vadd(n, about), ln.vadd(f, force))


def _touch(
    structure: Structure, given: Inputs, group: Group, spot: Spot, pose: Pose, moving: Any, push: list[Any]
) -> None:
    """The force of one contact on its two bodies."""
    b1, b2 = group.bodies
    shift = given.apart[group.bond] if group.bond >= 0 else 0.0
    r = spot.distance + shift - constraints.margin_of(group)
    imp, kappa, beta = constraints.softness(structure, given.params, group, spot.pair, r)
    points = (spot.position, spot.position)
    v, a = (ln.matvec(spot.frame, _slip(structure.tree, group.bodies, points, pose, t)) for t in moving)
    u = [ln.add(y, beta * z) for y, z in zip(a, v, strict=True)]
    u[0] = u[0] + kappa * imp * r
    weight = given.body_invweight[b1][0] + given.body_invweight[b2][0]
    grip = constraints.grip_of(structure, group.condim, weight, spot.mu, imp, r)
    f, _ = structure.cone(group)(tuple(jnp.asarray(y) + 0 * r for y in u), grip)  # type: ignore[arg-type]
    force = ln.matvec(ln.transpose(spot.frame), f)
    _push(structure.tree, push, pose, b2, spot.position, force)
    _push(structure.tree, push, pose, b1, spot.position, ln.scale(-1.0, force))


def _hold(
    structure: Structure, given: Inputs, e: int, bond: equalities.Hold, pose: Pose, moving: Any, push: list[Any]
) -> None:
    """The force of one weld or connect on its two bodies."""
    tree = structure.tree
    b1, b2 = bond.bodies
    v, a = ([ln.mul(-1.0, y) for y in _slip(tree, bond.bodies, bond.points, pose, t)] for t in moving)
    if bond.twist:
        for out, twist in ((v, moving[0]), (a, moving[1])):
            spin = ln.vsub(twist[b1][0] if tree.chain[b1] else ln.ZERO, twist[b2][0] if tree.chain[b2] else ln.ZERO)
            out.extend(ln.total([ln.mul(bond.twist[k][i], spin[k]) for k in range(3)]) for i in range(3))
    on = given.intact[structure.ids.index(e)] if e in structure.ids else float(structure.model.eq_active0[e])
    f = [-d * on * (y + bond.beta * z + pull) for d, y, z, pull in zip(bond.d, a, v, bond.pull, strict=True)]
    torque = ln.matvec(bond.twist, f[3:]) if bond.twist else ln.ZERO
    _push(tree, push, pose, b1, bond.points[0], tuple(f[:3]), torque)  # type: ignore[arg-type]
    _push(tree, push, pose, b2, bond.points[1], ln.scale(-1.0, f[:3]), ln.scale(-1.0, torque))


def _limits(structure: Structure, given: Inputs, x: Any) -> list[Lane]:
    """Joint force of the limits [nv]."""
    out: list[Lane] = [0.0] * structure.model.nv
    rows = constraints.limit_terms(structure, given.dof_invweight, given.qpos, given.qvel)
    for (dof, sign), (offset, d) in zip(structure.layout.limits, rows, strict=True):
        u = sign * x[dof] + offset
        out[dof] = out[dof] - sign * jnp.where(u < 0, d, 0) * u
    return out
