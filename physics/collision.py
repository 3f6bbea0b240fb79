"""Narrow phase: the contacts between two geoms, as MuJoCo C finds them, on lanes.

A contact is (distance, midpoint, frame); the normal points from the first geom to the second. Each pair of kinds fills a fixed
number of slots: a sphere 1, a capsule on anything long or flat 2, a box on a plane 4, two boxes 8. A slot whose distance is
beyond the margin makes no constraint.

A box on a plane: of two opposite corners at most one faces the plane, so four slots hold every corner MuJoCo keeps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco

from physics import lanes as ln
from physics.boxbox import IDLE, Manifold, box_box
from physics.capsulebox import ball_box, capsule_box
from physics.lanes import Lane, Mat, Vec

PLANE, SPHERE, CAPSULE, BOX = (
    int(getattr(mujoco.mjtGeom, f"mjGEOM_{k}")) for k in ("PLANE", "SPHERE", "CAPSULE", "BOX")
)
X: Vec = (1.0, 0.0, 0.0)
_PARALLEL = 1e-8  # sin² of the angle below which MuJoCo takes two capsules as parallel


class Geom(NamedTuple):
    """A geom in the world: kind-specific size (radius; radius and half length; half sides)."""

    pos: Vec
    rot: Mat
    size: Vec


class Contact(NamedTuple):
    """One slot."""

    distance: Lane  # m, negative inside
    position: Vec  # m, between the two surfaces
    frame: Mat  # rows: normal, tangent, tangent


def frame_of(normal: Vec, hint: Vec | None = None) -> Mat:
    """Right-handed frame with this normal; the first tangent follows the hint, or world y (z where the normal is near y)."""
    if hint is None:
        if all(isinstance(x, float) for x in normal):
            return _frame(normal, (0.0, 1.0, 0.0) if abs(normal[1]) < 0.5 else (0.0, 0.0, 1.0))
        flat = jnp.abs(normal[1]) < 0.5
        hint = (0.0, jnp.where(flat, 1.0, 0.0), jnp.where(flat, 0.0, 1.0))
    return _frame(normal, hint)


def _frame(normal: Vec, hint: Vec) -> Mat:
    y = ln.vsub(hint, ln.scale(ln.dot(normal, hint), normal))
    if all(isinstance(c, float) for c in y):
        size = sum(c * c for c in y) ** 0.5
        y = tuple(c / size for c in y)
    else:
        y, _ = ln.unit(y, X)
    return normal, y, ln.cross(normal, y)


def plane_sphere(plane: Geom, ball: Geom, margin: float) -> list[Contact]:
    """The nearest point of the ball."""
    normal = ln.column(plane.rot, 2)
    return [_plane_ball(plane, normal, frame_of(normal), ball.pos, ball.size[0])]


def _plane_ball(plane: Geom, normal: Vec, frame: Mat, center: Vec, radius: Lane) -> Contact:
    distance = ln.sub(ln.dot(normal, ln.vsub(center, plane.pos)), radius)
    return Contact(distance, ln.vsub(center, ln.scale(radius + 0.5 * distance, normal)), frame)


def plane_capsule(plane: Geom, capsule: Geom, margin: float) -> list[Contact]:
    """Both ends; the first tangent follows the axis."""
    normal, axis = ln.column(plane.rot, 2), ln.column(capsule.rot, 2)
    frame = frame_of(normal, axis)
    ends = (ln.vadd(capsule.pos, ln.scale(s * capsule.size[1], axis)) for s in (1.0, -1.0))
    return [_plane_ball(plane, normal, frame, end, capsule.size[0]) for end in ends]


def plane_box(plane: Geom, box: Geom, margin: float) -> list[Contact]:
    """The four corners that face the plane."""
    normal = ln.column(plane.rot, 2)
    frame = frame_of(normal)
    height = ln.dot(normal, ln.vsub(box.pos, plane.pos))
    arms = [ln.scale(box.size[i], ln.column(box.rot, i)) for i in range(3)]
    lifts = [ln.dot(normal, arm) for arm in arms]
    out = []
    for sy, sz in ((1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)):
        lift = ln.add(lifts[0], ln.add(ln.mul(sy, lifts[1]), ln.mul(sz, lifts[2])))
        corner = ln.vadd(arms[0], ln.vadd(ln.scale(sy, arms[1]), ln.scale(sz, arms[2])))
        down = jnp.where(lift > 0, -1.0, 1.0)
        distance = height - jnp.abs(lift)
        point = ln.vadd(box.pos, ln.scale(down, corner))
        out.append(Contact(distance, ln.vsub(point, ln.scale(0.5 * distance, normal)), frame))
    return out


def sphere_sphere(one: Geom, two: Geom, margin: float) -> list[Contact]:
    """Along the line of centres."""
    return [_balls(one.pos, one.size[0], two.pos, two.size[0])]


def _balls(p1: Vec, r1: Lane, p2: Vec, r2: Lane) -> Contact:
    normal, gap = ln.unit(ln.vsub(p2, p1), X)
    distance = gap - r1 - r2
    return Contact(distance, ln.vadd(p1, ln.scale(r1 + 0.5 * distance, normal)), frame_of(normal))


def sphere_capsule(ball: Geom, capsule: Geom, margin: float) -> list[Contact]:
    """The ball and the nearest ball inside the capsule."""
    axis, half = ln.column(capsule.rot, 2), capsule.size[1]
    along = jnp.clip(ln.dot(axis, ln.vsub(ball.pos, capsule.pos)), -half, half)
    return [_balls(ball.pos, ball.size[0], ln.vadd(capsule.pos, ln.scale(along, axis)), capsule.size[0])]


def capsule_capsule(one: Geom, two: Geom, margin: float) -> list[Contact]:
    """At the closest points p₁ + x a, p₂ + y b of the two axes; where these are parallel, at both ends of what they share."""
    a, b = (ln.scale(g.size[1], ln.column(g.rot, 2)) for g in (one, two))
    apart, across = ln.vsub(one.pos, two.pos), ln.cross(a, b)
    aa, ab, bb, u, v = ln.dot(a, a), ln.dot(a, b), ln.dot(b, b), -ln.dot(a, apart), ln.dot(b, apart)
    squared = ln.dot(across, across)
    skew = squared >= _PARALLEL * aa * bb
    x = jnp.clip(ln.dot(ln.cross(b, apart), across) / jnp.where(skew, squared, 1.0), -1.0, 1.0)
    y = jnp.clip((v + ab * x) / bb, -1.0, 1.0)
    x = jnp.clip((u + ab * y) / aa, -1.0, 1.0)
    ends = [_end(jnp.where(ab > 0, side, -side), aa, ab, bb, u, v) for side in (-1.0, 1.0)]
    points = ((jnp.where(skew, x, ends[0][0]), jnp.where(skew, y, ends[0][1])), ends[1])
    first, second = (
        _balls(ln.vadd(one.pos, ln.scale(x, a)), one.size[0], ln.vadd(two.pos, ln.scale(y, b)), two.size[0])
        for x, y in points
    )
    return [first, second._replace(distance=jnp.where(skew, IDLE, second.distance))]


def _end(y: Lane, aa: Lane, ab: Lane, bb: Lane, u: Lane, v: Lane) -> tuple[Lane, Lane]:
    """x, y of the end y = ±1 of the second axis and the point of the first beside it; of the first's own end if beyond."""
    x = (u + ab * y) / aa
    end = jnp.clip(x, -1.0, 1.0)
    return end, jnp.where(jnp.abs(x) > 1, jnp.clip((v + ab * end) / bb, -1.0, 1.0), y)


def sphere_box(ball: Geom, box: Geom, margin: float) -> list[Contact]:
    """Outside: towards the nearest point of the box. Inside: out through the nearest face."""
    centre = ln.matvec(ln.transpose(box.rot), ln.vsub(ball.pos, box.pos))
    distance, point, normal = ball_box(centre, ball.size[0], box.size)
    world = ln.matvec(box.rot, normal)
    return [Contact(distance, ln.vadd(box.pos, ln.matvec(box.rot, point)), frame_of(world))]


Collide = Callable[[Geom, Geom, float], list[Contact]]
NARROW: dict[tuple[int, int], Collide] = {
    (PLANE, SPHERE): plane_sphere,
    (PLANE, CAPSULE): plane_capsule,
    (PLANE, BOX): plane_box,
    (SPHERE, SPHERE): sphere_sphere,
    (SPHERE, CAPSULE): sphere_capsule,
    (SPHERE, BOX): sphere_box,
    (CAPSULE, CAPSULE): capsule_capsule,
}


def geom_poses(model: mujoco.MjModel, pose: Any, size: Any) -> list[Geom]:
    """Every geom in the world; static where its body does not move."""
    from physics.tree import static_mat

    out = []
    for g in range(model.ngeom):
        b = int(model.geom_bodyid[g])
        pos = ln.vadd(pose.pos[b], ln.matvec(pose.rot[b], ln.static(model.geom_pos[g])))
        out.append(Geom(pos, ln.matmul(pose.rot[b], static_mat(model.geom_quat[g])), tuple(size[g])))
    return out


SLOTS: dict[tuple[int, int], int] = {
    (PLANE, SPHERE): 1,
    (PLANE, CAPSULE): 2,
    (PLANE, BOX): 4,
    (SPHERE, SPHERE): 1,
    (SPHERE, CAPSULE): 1,
    (SPHERE, BOX): 1,
    (CAPSULE, CAPSULE): 2,
    (CAPSULE, BOX): 2,
    (BOX, BOX): 8,
}


def simple(model: mujoco.MjModel, pairs: tuple[Any, ...], geoms: list[Geom]) -> list[list[Contact] | None]:
    """Contacts of every pair whose narrow phase works on lanes."""
    return [narrow(model, pair, geoms) if on_lanes(model, pair) else None for pair in pairs]


def on_lanes(model: mujoco.MjModel, pair: Any) -> bool:
    """Whether the narrow phase of the pair works on lanes (`narrow`), not on arrays (`manifolds`)."""
    return _kinds(model, pair) in NARROW


def narrow(model: mujoco.MjModel, pair: Any, geoms: list[Geom]) -> list[Contact]:
    """The contacts of one pair."""
    return NARROW[_kinds(model, pair)](geoms[pair.geom1], geoms[pair.geom2], pair.margin)


def _kinds(model: mujoco.MjModel, pair: Any) -> tuple[int, int]:
    return int(model.geom_type[pair.geom1]), int(model.geom_type[pair.geom2])


def manifolds(
    model: mujoco.MjModel, pairs: tuple[Any, ...], contacts: list[Any], geoms: list[Geom], like: Any
) -> dict[Any, Any]:
    """Per geom pair its slots as arrays: distance [k, W], position [k, 3, W], frame [k, 3, 3, W]."""
    out = {pair: _arrays(found, like) for pair, found in zip(pairs, contacts, strict=True) if found is not None}
    alike: dict[Any, list[Any]] = {}
    for pair in pairs:
        if not on_lanes(model, pair):
            alike.setdefault((_kinds(model, pair), pair.margin), []).append(pair)
    for (kinds, margin), same in alike.items():
        out.update(zip(same, _together(ON_ARRAYS[kinds], same, geoms, margin, like), strict=True))
    return out


def _together(
    collide: Callable[..., Manifold], pairs: list[Any], geoms: list[Geom], margin: float, like: Any
) -> list[Any]:
    """All pairs of two kinds at once: the pairs are an axis before the worlds."""

    def side_by_side(*x: Lane) -> Any:
        return jnp.stack([jnp.broadcast_to(y, like.shape).astype(like.dtype) for y in x])

    one, two = (jax.tree.map(side_by_side, *[geoms[p[i]] for p in pairs]) for i in (0, 1))
    again = jax.checkpoint(collide, prevent_cse=False, static_argnums=2)  # for derivatives: nothing of it is kept
    found = again(one, two, margin)
    slots = found.distance.shape[0]
    normals = found.normal if found.normal.ndim == found.position.ndim else found.normal[None]
    frame = jnp.stack([jnp.stack(row) for row in frame_of(tuple(jnp.moveaxis(normals, 1, 0)))])  # [3, 3, 1 or k, P, W]
    frame = jnp.broadcast_to(jnp.moveaxis(frame, 2, 0), (slots, 3, 3, *frame.shape[3:]))
    return [(found.distance[:, i], found.position[:, :, i], frame[:, :, :, i]) for i in range(len(pairs))]


def _box_box(one: Geom, two: Geom, margin: float) -> Manifold:
    return box_box(*one, *two, margin)


def _capsule_box(one: Geom, two: Geom, margin: float) -> Manifold:
    return capsule_box(one.pos, one.rot, one.size[0], one.size[1], *two, margin)


ON_ARRAYS: dict[tuple[int, int], Callable[..., Manifold]] = {(BOX, BOX): _box_box, (CAPSULE, BOX): _capsule_box}


def _arrays(contacts: list[Contact], like: Any) -> Any:
    distance = ln.stack([c.distance for c in contacts], like)
    position = jnp.stack([ln.stack(c.position, like) for c in contacts])
    frame = jnp.stack([jnp.stack([ln.stack(row, like) for row in c.frame]) for c in contacts])
    return distance, position, frame
