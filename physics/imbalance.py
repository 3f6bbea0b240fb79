"""F(x) as a function of what the problem was made from: the forces that q̈ = x leaves unbalanced.

    F_d = S_d · Σ (I a(x) + v ×* I v − contact and bond forces)  + armature_d x_d − τ_d − limits_d − friction_d

At the solution F = 0, so F is never computed to step; its derivatives with respect to state, control and θ are those of the
step (implicit.py), together with those of the damping's G. One pass up and down the tree with the contact forces as forces on
bodies: no Jacobian is formed. Each of the three stages is one program, whatever the number of contacts:

    how the bodies of each group move against each other  →  [k, W] the force of its k contacts  →  F
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from physics import constraints, damping, dynamics, equalities
from physics import lanes as ln
from physics.constraints import Touch
from physics.lanes import Lane, Vec
from physics.stage import fused
from physics.structure import Group, Structure
from physics.tree import Pose, Tree, forward
from physics.types import Params

Array = jax.Array


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
    spots: Any = ()  # per group


class Spots(NamedTuple):
    """The k contacts of a group: arrays [k, W], or numbers where all have the same."""

    distance: Any
    position: Vec
    frame: Any
    mu: tuple[Any, Any]
    pair: Any


class View(NamedTuple):
    """How body 2 of a group moves against body 1: (angular, linear) about a point."""

    velocity: tuple[Vec, Vec]
    acceleration: tuple[Vec, Vec]  # S x
    origin: Vec


def spots(structure: Structure, touches: list[Touch], contacts: list[Any]) -> list[Spots]:
    """The contacts of every group, with the numbers among them (`contacts`: those found on lanes, by geom pair)."""
    found = dict(zip(structure.scene.pairs, contacts, strict=True))
    return [
        _spots(group, t, [found[p] for p in group.pairs]) for group, t in zip(structure.groups, touches, strict=True)
    ]


def _spots(group: Group, touch: Touch, contacts: list[Any]) -> Spots:
    known = [c.frame for pair in contacts for c in pair] if all(contacts) and group.keep == group.slots else []

    def entry(i: int, j: int) -> Any:
        values = {frame[i][j] if isinstance(frame[i][j], float) else None for frame in known}
        return values.pop() if len(values) == 1 and None not in values else touch.frame[:, i, j]

    frame = tuple(tuple(entry(i, j) for j in range(3)) for i in range(3))
    position = tuple(touch.position[:, i] for i in range(3))
    pair = touch.pair if len(group.pairs) > 1 else 0
    return Spots(touch.distance, position, frame, (touch.mu[:, 0], touch.mu[:, 1]), pair)  # type: ignore[arg-type]


def imbalance(structure: Structure, given: Inputs, x: Array, y: Array | None) -> tuple[Array, Array | None]:
    """F(x) [nv, W] and, where joints are damped, G(y) = M (y − x) + h D y [nv, W]."""
    moves, lean = ln.lanes(x), given._replace(spots=())
    drop = None if y is None else ln.lanes(y - x)
    pushes = _contact_forces(structure, moves, given) if structure.groups else []
    force, late = fused(partial(_unbalanced, structure), moves, drop, lean, pushes)
    if y is None:
        return ln.stack(force, x[0]), None
    return ln.stack(force, x[0]), ln.stack(late, x[0]) + damping.rate(structure, given.params.dof_damping, y) * y


def _contact_forces(structure: Structure, x: Any, given: Inputs) -> list[Any]:
    """Per group the (torque about the view's origin, force) on its second body."""
    views = fused(partial(_views, structure), given.params.body_ipos, given.qpos, given.qvel, x)
    out = []
    for group, spot, view in zip(structure.groups, given.spots, views, strict=True):
        b1, b2 = group.bodies
        weight = given.body_invweight[b1][0] + given.body_invweight[b2][0]
        shift = given.apart[group.bond] if group.bond >= 0 else 0.0
        each = fused(partial(_force, structure, group), spot, view, weight, shift, _solrefs(given.params, group))
        out.append(jax.tree.map(lambda y: jnp.sum(y, 0), each))
    return out


def _solrefs(params: Any, group: Group) -> Params:
    """θ with nothing in it but the solref of the group's geoms."""
    mine = {geom for pair in group.pairs for geom in (pair.geom1, pair.geom2)}
    rows = tuple(row if g in mine else None for g, row in enumerate(ln.rows(params.geom_solref)))
    return Params(*[None] * len(Params._fields))._replace(geom_solref=rows)


def _views(structure: Structure, body_ipos: Any, qpos: Any, qvel: Any, x: Any) -> list[View]:
    tree = structure.tree
    pose = forward(tree, body_ipos, qpos)
    velocity, acceleration = (dynamics.velocities(tree, pose, y) for y in (qvel, x))
    return [
        View(*(_against(tree, pose, g, y) for y in (velocity, acceleration)), _origin(tree, pose, g))  # type: ignore[arg-type]
        for g in structure.groups
    ]


def _origin(tree: Tree, pose: Pose, group: Group) -> Vec:
    """A point of body 2, or of body 1 where body 2 cannot move."""
    b1, b2 = group.bodies
    return pose.ref[b2 if tree.chain[b2] else b1]


def _against(tree: Tree, pose: Pose, group: Group, twist: Any) -> tuple[Vec, Vec]:
    """Motion of body 2 less that of body 1, about the group's origin."""
    origin, total = _origin(tree, pose, group), (ln.ZERO, ln.ZERO)
    for b, move in zip(group.bodies, (ln.vsub, ln.vadd), strict=True):
        if tree.chain[b]:
            w, u = twist[b]
            if pose.ref[b] is not origin:
                u = ln.vadd(u, ln.cross(w, ln.vsub(origin, pose.ref[b])))
            total = move(total[0], w), move(total[1], u)
    return total


def _force(
    structure: Structure, group: Group, spot: Spots, view: View, weight: Any, shift: Any, params: Params
) -> tuple[Vec, Vec]:
    """What each contact does to the second body: (torque about the view's origin, force)."""
    r = spot.distance + shift - constraints.margin_of(group, spot.pair)
    imp, kappa, beta = constraints.softness(structure, params, group, spot.pair, r)
    arm = ln.vsub(spot.position, view.origin)
    w, u = (ln.vadd(a, ln.scale(beta, v)) for a, v in zip(view.acceleration, view.velocity, strict=True))
    slip = ln.matvec(spot.frame, ln.vadd(u, ln.cross(w, arm)))
    grip = constraints.grip_of(structure, group.condim, weight, spot.mu, imp, r)
    f, _ = structure.cone(group)((slip[0] + kappa * imp * r, slip[1] + 0 * r, slip[2] + 0 * r), grip)
    force = ln.matvec(ln.transpose(spot.frame), f)
    return ln.cross(arm, force), force


def _unbalanced(structure: Structure, x: Any, drop: Any, given: Inputs, pushes: Any) -> tuple[Any, Any]:
    """F [nv] with the contacts' forces given, and M times `drop` [nv]."""
    tree, params = structure.tree, given.params
    pose = forward(tree, params.body_ipos, given.qpos)
    bodies = dynamics.inertias(tree, pose, params.body_mass, params.body_inertia)
    push: list[Any] = [None] * structure.model.nbody
    for group, (torque, force) in zip(structure.groups, pushes, strict=True):
        for b, sign in zip(group.bodies, (-1.0, 1.0), strict=True):
            _push(tree, push, pose, b, _origin(tree, pose, group), ln.scale(sign, force), ln.scale(sign, torque))
    if structure.equalities:
        moving = [dynamics.velocities(tree, pose, y) for y in (given.qvel, x)]
        bonds = equalities.holds(structure, given.body_invweight, pose, given.qvel)
        for e, bond in zip(structure.equalities, bonds, strict=True):
            _hold(structure, given, e, bond, pose, moving, push)
    out = dynamics.bias(tree, pose, bodies, given.qvel, params.gravity, qacc=x, push=push)
    tau, _ = dynamics.applied(tree, pose, given)
    tau = ln.vadd(tau, _singles(structure, given, x))
    force = ln.vsub(ln.vadd(out, _times(params.dof_armature, x)), tau)
    if drop is None:
        return force, ()
    still = dynamics.bias(tree, pose, bodies, (0.0,) * structure.model.nv, ln.ZERO, qacc=drop)
    return force, ln.vadd(still, _times(params.dof_armature, drop))


def _times(a: Any, x: Any) -> Any:
    return tuple(ln.mul(p, q) for p, q in zip(a, x, strict=True))


def _push(tree: Tree, push: list[Any], pose: Pose, body: int, point: Vec, force: Vec, torque: Vec) -> None:
    """Add a force at a point and a torque to those on a body."""
    if tree.chain[body]:
        n, f = push[body] or (ln.ZERO, ln.ZERO)
        if point is not pose.ref[body]:
            torque = ln.vadd(torque, ln.cross(ln.vsub(point, pose.ref[body]), force))
        push[body] = (ln.vadd(n, torque), ln.vadd(f, force))


def _slip(tree: Tree, bodies: tuple[int, int], points: Any, pose: Pose, twist: Any) -> Vec:
    """Velocity of point 2 on body 2 less that of point 1 on body 1."""
    out: Vec = ln.ZERO
    for b, p, move in zip(bodies, points, (ln.vsub, ln.vadd), strict=True):
        if tree.chain[b]:
            w, u = twist[b]
            out = move(out, ln.vadd(u, ln.cross(w, ln.vsub(p, pose.ref[b]))))
    return out


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


def _singles(structure: Structure, given: Inputs, x: Any) -> list[Lane]:
    """Joint force of the limits and of dry friction [nv]."""
    out: list[Lane] = [0.0] * structure.model.nv
    limits = constraints.limit_terms(structure, given.dof_invweight, given.qpos, given.qvel)
    for (dof, sign), (offset, d) in zip(structure.layout.singles, limits, strict=False):
        u = sign * x[dof] + offset
        out[dof] = out[dof] - sign * jnp.where(u < 0, d, 0) * u
    friction = constraints.friction_terms(structure, given.dof_invweight, given.params.dof_frictionloss, given.qvel)
    for dof, (offset, d, bound) in zip(structure.rubbing, friction, strict=True):
        out[dof] = out[dof] + jnp.clip(-d * (x[dof] + offset), -bound, bound)
    return out
