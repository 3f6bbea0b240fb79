"""From poses to the convex problem: contact, limit and bond rows with MuJoCo's regularisation.

A row with Jacobian J, violation r and weight w (its inverse inertia at the reference pose, from θ) becomes

    a_ref = −β J q̇ − κ i(r) r        i: impedance in (0, 1), a sigmoid of |r|;  κ, β from solref
    R = w (1 − i)/i,   D = 1/R       i → 1 hard, i → 0 soft

    contact    J = frame · (velocity of body 2 − velocity of body 1 at the point)
    limit      J = ±1 on one dof
    friction   J = 1 on one dof, r = 0, and |f| ≤ what θ says
    bond       J = velocity of anchor 1 − velocity of anchor 2, and the rate of the orientation error; always two-sided,
               so its rows join A and b of the problem; D = 0 once it is broken
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physics import collision
from physics import lanes as ln
from physics.cones import Grip
from physics.pairs import GeomPair
from physics.solver import Contacts, Singles
from physics.structure import Group, Structure
from physics.tree import Pose
from physics.types import PARAMS_NDIM

Array = jax.Array
_MIN = 1e-15


class Axes(NamedTuple):
    """Motion axes of one kinematic tree as arrays, and its point O."""

    angular: Array  # [n, 3, W]
    linear: Array  # [n, 3, W]
    ref: Array  # [3, W]


class Touch(NamedTuple):
    """The contacts of one group in one instant."""

    distance: Array  # [k, W]
    position: Array  # [k, 3, W]
    frame: Array  # [k, 3, 3, W]
    mu: Array  # [k, 2, W]
    pair: Array  # [k, W] index into group.pairs


class Constants(NamedTuple):
    """θ and all that follows from it: what a step reads."""

    params: Any
    body_invweight: Array  # [B, 2]
    dof_invweight: Array  # [nv]


def structure_ndim() -> Constants:
    """How many axes of each leaf of the constants are structure."""
    return Constants(PARAMS_NDIM, 2, 1)  # type: ignore[arg-type]


def axes(structure: Structure, pose: Pose, like: Array) -> list[Axes]:
    """Motion axes tree by tree."""
    out = []
    for i, j in structure.spans:
        body = int(structure.model.dof_bodyid[i])
        w = jnp.stack([ln.stack(pose.axis[d][0], like) for d in range(i, j)])
        v = jnp.stack([ln.stack(pose.axis[d][1], like) for d in range(i, j)])
        out.append(Axes(w, v, ln.stack(pose.ref[body], like)))
    return out


def impedance(solimp: Any, r: Any) -> Any:
    """i(r): from solimp's dmin at r = 0 to dmax at |r| = width, bent around the midpoint."""
    low, high = (float(np.clip(x, 1e-4, 0.9999)) for x in solimp[:2])
    width, mid, power = max(solimp[2], _MIN), float(np.clip(solimp[3], 1e-4, 0.9999)), max(1.0, solimp[4])
    if low == high:
        return high
    x = jnp.minimum(jnp.abs(r) / width, 1.0)
    if power == 1.0:
        y = x
    elif power == 2.0:
        y = jnp.where(x < mid, x * x / mid, 1 - (1 - x) * (1 - x) / (1 - mid))
    else:
        safe = jnp.maximum(x, 1e-12), jnp.maximum(1 - x, 1e-12)
        y = jnp.where(x < mid, safe[0] ** power / mid ** (power - 1), 1 - safe[1] ** power / (1 - mid) ** (power - 1))
    return low + y * (high - low)


def stiffness(solref: Any, solimp: Any, dt: float) -> tuple[Any, Any]:
    """κ, β from (time constant, damping ratio), or from (−stiffness, −damping); may be traced."""
    a, b = solref
    high = float(np.clip(solimp[1], 1e-4, 0.9999))
    where = np.where if isinstance(a, float) and isinstance(b, float) else jnp.where
    largest = np.maximum if isinstance(a, float) else jnp.maximum
    time = largest(a, 2 * dt)
    ratio = where(b > 0, b, 1.0)
    kappa = where(a > 0, 1 / (high * high * time * time * ratio * ratio), -a / (high * high))
    beta = where(b > 0, 2 / (high * time), -b / high)
    return kappa, beta


def touches(structure: Structure, constants: Constants, contacts: Any, geoms: Any, like: Array) -> list[Touch]:
    """Narrow phase of every group, deepest first where the budget cuts."""
    params = constants.params
    found = collision.manifolds(structure.model, structure.scene.pairs, contacts, geoms, like)
    out = []
    for group in structure.groups:
        parts, mus, index = [], [], []
        for i, pair in enumerate(group.pairs):
            d, p, f = found[pair]
            parts.append((d, p, f))
            mu = friction_of(structure, params, pair)
            mus.append(jnp.stack([jnp.broadcast_to(jnp.asarray(x, like.dtype), d.shape) for x in mu], 1))
            index.append(jnp.full(d.shape, i, jnp.int32))
        d, p, f = (jnp.concatenate(x) if len(parts) > 1 else x[0] for x in zip(*parts, strict=True))
        touch = Touch(d, p, f, jnp.concatenate(mus), jnp.concatenate(index))
        out.append(_deepest(group, touch) if group.keep < group.slots else touch)
    return out


def gripping(structure: Structure, touches: list[Touch], grip: Callable[[Array], Array]) -> list[Touch]:
    """The friction of contacts with what cannot move times grip(their positions [k, 3, W]) [k, W], all asked at once."""
    mine = [any(structure.tree_of_body(b) is None for b in g.bodies) for g in structure.groups]
    if not any(mine):
        return touches
    factor = grip(jnp.concatenate([t.position for t, own in zip(touches, mine, strict=True) if own]))
    out, at = [], 0
    for touch, own in zip(touches, mine, strict=True):
        if own:
            here = slice(at, at + len(touch.mu))
            touch, at = touch._replace(mu=touch.mu * factor[here, None].astype(touch.mu.dtype)), here.stop
        out.append(touch)
    return out


def _deepest(group: Group, touch: Touch) -> Touch:
    keep, violation = group.keep, touch.distance - margin_of(group, touch.pair)
    order = jnp.argsort(jax.lax.stop_gradient(violation), axis=0)[:keep]

    def take(x: Array) -> Array:
        index = order.reshape(order.shape[:1] + (1,) * (x.ndim - order.ndim) + order.shape[1:])
        return jnp.take_along_axis(x, jnp.broadcast_to(index, (keep, *x.shape[1:])), 0)

    return Touch(*(take(x) for x in touch))


def friction_of(structure: Structure, params: Any, pair: GeomPair) -> tuple[Any, Any]:
    """Sliding friction along the two tangents: the pair's own, or mixed from the geoms of θ."""
    if pair.explicit >= 0:
        return pair.friction[0], pair.friction[1]
    g, p = structure.model.geom_priority, (pair.geom1, pair.geom2)
    f = ln.rows(params.geom_friction)
    one, two = (ln.lanes(f[i])[0] for i in p)
    if g[p[0]] != g[p[1]]:
        mu = one if g[p[0]] > g[p[1]] else two
    else:
        mu = max(one, two) if isinstance(one, float) and isinstance(two, float) else jnp.maximum(one, two)
    mu = max(mu, 1e-5) if isinstance(mu, float) else jnp.maximum(mu, 1e-5)
    return mu, mu


def solref_of(structure: Structure, params: Any, pair: GeomPair) -> tuple[Any, Any]:
    """The pair's own solref, or mixed from the geoms of θ as MuJoCo mixes them."""
    if pair.explicit >= 0:
        return pair.solref[0], pair.solref[1]
    m, (i, j) = structure.model, (pair.geom1, pair.geom2)
    table = ln.rows(params.geom_solref)
    one, two = ln.lanes(table[i]), ln.lanes(table[j])
    if m.geom_priority[i] != m.geom_priority[j]:
        return one if m.geom_priority[i] > m.geom_priority[j] else two
    a, b = float(m.geom_solmix[i]), float(m.geom_solmix[j])
    mix = 0.5 if a < _MIN and b < _MIN else 0.0 if a < _MIN else 1.0 if b < _MIN else a / (a + b)
    standard = bool(m.geom_solref[i, 0] > 0 and m.geom_solref[j, 0] > 0)  # the convention is static, the values are not
    if standard:
        return tuple(ln.add(ln.mul(mix, x), ln.mul(1 - mix, y)) for x, y in zip(one, two, strict=True))  # type: ignore
    return tuple(jnp.minimum(x, y) for x, y in zip(one, two, strict=True))  # type: ignore


def point_jacobian(structure: Structure, axes_: list[Axes], body: int, point: Array, frame: Array) -> Array:
    """Rows of `frame` times the velocity of `point` on `body`: [k, 3, n, W] on the dofs of the body's tree."""
    t = structure.tree_of_body(body)
    assert t is not None
    ax = axes_[t]
    arm = point - ax.ref[None]  # [k, 3, W]
    out: Any = 0.0
    for x in range(3):
        y, z = (x + 1) % 3, (x + 2) % 3
        moment = arm[:, None, y] * frame[:, :, z] - arm[:, None, z] * frame[:, :, y]  # ((p − O) × d)_x  [k, 3, W]
        out = out + frame[:, :, x][:, :, None] * ax.linear[:, x] + moment[:, :, None] * ax.angular[:, x]
    return structure.own(body, t, out)


def contact_rows(
    structure: Structure, constants: Constants, group: Group, touch: Touch, axes_: list[Axes], qvel: Array, shift: Any
) -> Contacts:
    """B, u₀ and the cone of one group's contacts."""
    sides: dict[int, Any] = {}
    for body, sign in zip(group.bodies, (-1.0, 1.0), strict=True):
        t = structure.tree_of_body(body)
        if t is not None:
            rows = point_jacobian(structure, axes_, body, touch.position, touch.frame)
            sides[t] = sides[t] + sign * rows if t in sides else sign * rows
    velocity: Any = 0.0
    for t, rows in sides.items():
        i, _ = structure.spans[t]
        for s in range(rows.shape[2]):
            velocity = velocity + rows[:, :, s] * qvel[i + s]
    r = touch.distance + shift - margin_of(group, touch.pair)
    imp, kappa, beta = softness(structure, constants.params, group, touch.pair, r)
    normal = beta * velocity[:, 0] + kappa * imp * r
    offset = jnp.stack([normal, beta * velocity[:, 1], beta * velocity[:, 2]], 1)
    weight = constants.body_invweight[group.bodies[0], 0] + constants.body_invweight[group.bodies[1], 0]
    grip = grip_of(structure, group.condim, weight, (touch.mu[:, 0], touch.mu[:, 1]), imp, r)
    return Contacts(tuple(sides.values()), offset, grip)


def margin_of(group: Group, pair: Any) -> Any:
    """Gap below which contacts act, in m; `pair` says which geom pair each is of."""
    margins = [p.margin for p in group.pairs]
    if len(set(margins)) == 1:
        return margins[0]
    return sum(jnp.where(pair == i, margin, 0.0) for i, margin in enumerate(margins))


def softness(structure: Structure, params: Any, group: Group, pair: Any, r: Any) -> tuple[Any, Any, Any]:
    """Impedance, κ and β of contacts at violation r; `pair` says which geom pair each is of."""
    dt = float(structure.model.opt.timestep)
    chosen: Any = ()
    for i, p in enumerate(group.pairs):
        values = (impedance(p.solimp, r), *stiffness(solref_of(structure, params, p), p.solimp, dt))
        chosen = (
            values if not chosen else tuple(jnp.where(pair == i, v, c) for v, c in zip(values, chosen, strict=True))
        )
    return chosen


def grip_of(structure: Structure, condim: int, weight: Any, mu: tuple[Any, Any], imp: Any, r: Any) -> Grip:
    """The cone of a contact of two bodies with inverse weight `weight`; lanes or arrays [k, W]."""
    mu1, mu2 = mu
    ratio = float(structure.model.opt.impratio)
    cone = mu1 / ratio**0.5
    soft = (1 - imp) / imp
    if condim == 1 or structure.elliptic:
        d = 1 / jnp.maximum(soft * weight, _MIN)
    else:
        d = 1 / (2 * cone * cone * jnp.maximum(soft * weight * (1 + mu1 * mu1), _MIN))
    d = jnp.where(r < 0, d, 0)
    d1 = d * ratio
    return Grip(d, d1, d1 * (mu2 * mu2) / (mu1 * mu1), mu1, mu2, cone)


def single_rows(structure: Structure, constants: Constants, qpos: Any, qvel: Any, like: Array) -> Singles:
    """Rows for the joints' limits, lower then upper, and for their dry friction."""
    limits = limit_terms(structure, constants.dof_invweight, qpos, qvel)
    friction = friction_terms(structure, constants.dof_invweight, ln.lanes(constants.params.dof_frictionloss), qvel)
    stacked = lambda xs: ln.stack(xs, like) if xs else jnp.zeros((0, *like.shape), like.dtype)  # noqa: E731
    offset, d = ([term[i] for term in (*limits, *friction)] for i in range(2))
    return Singles(stacked(offset), stacked(d), stacked([bound for _, _, bound in friction]))


def limit_terms(structure: Structure, weight: Any, qpos: Any, qvel: Any) -> list[tuple[Any, Any]]:
    """u₀ and D of each limit row."""
    m, dt = structure.model, float(structure.model.opt.timestep)
    out = []
    for j in structure.limited:
        q, dof = qpos[int(m.jnt_qposadr[j])], int(m.jnt_dofadr[j])
        kappa, beta = stiffness(ln.static(m.jnt_solref[j]), ln.static(m.jnt_solimp[j]), dt)
        low, high = (float(x) for x in m.jnt_range[j])
        for sign, room in ((1.0, q - low), (-1.0, high - q)):
            r = room - float(m.jnt_margin[j])
            imp = impedance(ln.static(m.jnt_solimp[j]), r)
            d = jnp.where(r < 0, 1 / jnp.maximum((1 - imp) / imp * weight[dof], _MIN), 0)
            out.append((beta * sign * qvel[dof] + kappa * imp * r, d))
    return out


def friction_terms(structure: Structure, weight: Any, bound: Any, qvel: Any) -> list[tuple[Any, Any, Any]]:
    """u₀, D and the bound of each row of dry friction."""
    m, dt = structure.model, float(structure.model.opt.timestep)
    out = []
    for dof in structure.rubbing:
        solimp = ln.static(m.dof_solimp[dof])
        low, high = (float(np.clip(x, 1e-4, 0.9999)) for x in solimp[:2])
        imp = low if solimp[2] > _MIN else 0.5 * (low + high)
        _, beta = stiffness(ln.static(m.dof_solref[dof]), solimp, dt)
        out.append((beta * qvel[dof], 1 / jnp.maximum((1 - imp) / imp * weight[dof], _MIN), bound[dof]))
    return out
