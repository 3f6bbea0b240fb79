"""Capsule on box: MuJoCo C's one or two contacts, branch-free, on worlds.

In the box's frame the capsule is the segment c + t h, t ∈ [−1, 1], swollen by its radius; the box has half sizes s.

    nearest      the point of the segment nearest to the box: an end above a face, or nearest to one of the twelve edges
    second       where the segment leaves that face or edge region, if it runs along the box rather than into it:
                     above a face    the other end, or where it passes the face's rim
                     on an edge      if it crosses to one side only, until the flatter face or the edge ends
                     at a corner     if one direction is odd among the three, along the edge or the face it runs on
    contacts     balls of the capsule's radius at both points, each against the box

Which point is nearest and where the second lies follow MuJoCo's rules, ties in its order; a second point may be the
first once more. Where two points are equally near but for rounding, rounding decides.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from physics import lanes as ln
from physics.boxbox import IDLE, Manifold
from physics.lanes import Array, Lane, Mat, Vec

_MIN = 1e-15  # MuJoCo's mjMINVAL
_FAR = 1e6  # share of the half segment that is never reached


class _Near(NamedTuple):
    """The nearest point so far."""

    squared: Array  # m², distance of the segment's point
    along: Array  # t of that point
    code: Array  # −1, −2: the lower, the upper end above a face; 0 to 11: edge 4j + corner
    beside: Array  # −1 to 1 along the edge
    end: Array  # −1, 1: the edge's lower, upper end is nearest, 0: a point between


def capsule_box(
    pos1: Vec, rot1: Mat, radius: Lane, half_length: Lane, pos2: Vec, rot2: Mat, size2: Vec, margin: float
) -> Manifold:
    """Up to two contacts: poses in the world, sizes in m (the box: half), contacts with distance ≤ margin (m)."""
    every = [*pos1, *pos2, *size2, radius, half_length, *(x for row in (*rot1, *rot2) for x in row)]
    like = jnp.zeros(jnp.broadcast_shapes(*map(jnp.shape, every)), jnp.result_type(*every))
    to_box = ln.transpose(rot2)
    centre = ln.matvec(to_box, ln.vsub(pos1, pos2))
    axis = ln.matvec(to_box, ln.column(rot1, 2))
    half = ln.scale(half_length, axis)
    reach = margin + 2 * (radius + half_length + size2[0] + size2[1] + size2[2])
    near, face = _nearest(centre, half, half_length, size2, reach + like)
    found, (again, second) = near.squared < reach, _second(near, face, centre, axis, half, size2)

    def ball(_: None, along: Array) -> tuple[None, Any]:
        here = ln.vadd(centre, ln.scale(along, half))
        distance, point, normal = ball_box(here, radius, size2)
        return None, (distance, ln.vadd(pos2, ln.matvec(rot2, point)), ln.matvec(rot2, normal))

    along = jnp.stack([near.along, near.along + second])
    _, (distance, position, normal) = jax.lax.scan(ball, None, along)
    used = jnp.stack([found, found & again]) & (distance <= margin)
    return Manifold(jnp.where(used, distance, IDLE), jnp.stack(position, 1), jnp.stack(normal, 1))


def _nearest(centre: Vec, half: Vec, half_length: Lane, size: Vec, reach: Array) -> tuple[_Near, Array]:
    """The nearest point, and the face that an end is above (−1: inside the box)."""
    zero, code = jnp.zeros_like(reach), jnp.zeros(reach.shape, jnp.int32)
    near, face = _Near(reach, zero, code, zero, zero), code
    for number, t in ((-1, -1.0), (-2, 1.0)):
        point = ln.vadd(centre, ln.scale(t, half))
        outside = [jnp.abs(p) > s for p, s in zip(point, size, strict=True)]
        rest = [p - jnp.clip(p, -s, s) for p, s in zip(point, size, strict=True)]
        squared = ln.dot(rest, rest)
        above = jnp.where(outside[2], 2, jnp.where(outside[1], 1, jnp.where(outside[0], 0, -1)))
        single = ~((outside[0] & outside[1]) | (outside[0] & outside[2]) | (outside[1] & outside[2]))
        better = single & (squared < near.squared)
        near = _better(better, _Near(squared, zero + t, code + number, zero, zero), near)
        face = jnp.where(better, above, face)

    def turn(j: Array, near: _Near) -> _Near:
        c, h, s = (_edge_first(j, v) for v in (centre, half, size))
        for n, (low, high) in enumerate(((-1, -1), (1, -1), (-1, 1), (1, 1))):
            start = (-c[0], low * s[1] - c[1], high * s[2] - c[2])
            near = _edge(start, h, s[0], half_length, 4 * j + n, near)
        return near

    return jax.lax.fori_loop(0, 3, turn, near), face


def _edge(start: Vec, half: Vec, side: Lane, half_length: Lane, code: Array, near: _Near) -> _Near:
    """The nearest points of the segment and an edge along the first axis; `start`: from its middle to the edge's."""
    a, b, c = side * side, -side * half[0], half_length * half_length
    u, v = -side * start[0], ln.dot(half, start)
    det = a * c - b * b
    tie = _MIN if near.squared.dtype == jnp.float64 else 1e-6 * c  # closer than this is as near
    skew = abs(det) >= (_MIN if near.squared.dtype == jnp.float64 else 1e-6 * a * c)
    inverse = 1 / jnp.where(skew, det, 1.0)
    x1, x2 = (c * u - b * v) * inverse, (a * v - b * u) * inverse
    end = _side(x1)
    x1, x2 = jnp.where(end != 0, end, x1), jnp.where(end != 0, (v - end * b) / c, x2)
    tip = _side(x2)
    again = (u - tip * b) / a
    end = jnp.where((tip != 0) & (_side(again) != 0), _side(again), end)
    x1, x2 = jnp.where(tip != 0, jnp.clip(again, -1, 1), x1), jnp.where(tip != 0, tip, x2)
    rest = (start[0] - x2 * half[0] + side * x1, start[1] - x2 * half[1], start[2] - x2 * half[2])
    squared = ln.dot(rest, rest)
    found = _Near(squared, x2, code, x1, end)
    return _better(skew & (squared < near.squared - tie), found, near)


def _side(x: Array) -> Array:
    """±1 beyond [−1, 1], 0 within."""
    return jnp.where(x > 1, 1.0, jnp.where(x < -1, -1.0, 0.0)).astype(x.dtype)


def _better(better: Array, found: _Near, near: _Near) -> _Near:
    return _Near(*(jnp.where(better, x, y) for x, y in zip(found, near, strict=True)))


def _second(near: _Near, face: Array, centre: Vec, axis: Vec, half: Vec, size: Vec) -> tuple[Array, Array]:
    """Whether there is a second point, and the way to it along the segment (0 where the segment ends at the first)."""
    slope = [jnp.abs(h) for h in half]
    span = [_over(2 * s, h) for s, h in zip(size, slope, strict=True)]  # of t over the whole box
    edge, corner = near.code // 4, near.code % 4
    low, high = corner % 2 == 1, corner >= 2
    upper = near.end > 0
    corners = (jnp.where(edge == 0, upper, low), jnp.where(edge == 1, upper, jnp.where(edge == 0, low, high)))
    corners = (*corners, jnp.where(edge == 2, upper, high))
    away = [(h > 0) ^ c for h, c in zip(half, corners, strict=True)]
    at_corner = _from_corner(near, away, axis, span)
    on_edge = _from_edge(near, edge, away, axis, half, span, size)
    above = _from_face(near, face, centre, half, size)
    choose = lambda f, c, e: jnp.where(near.code < 0, f, jnp.where(near.end != 0, c, e))  # noqa: E731
    return choose(above[0], at_corner[0], on_edge[0]), choose(above[1], at_corner[1], on_edge[1])


def _from_corner(near: _Near, away: Sequence[Array], axis: Vec, span: Sequence[Array]) -> tuple[Array, Array]:
    """Along the edge or the face whose direction is odd among the three; none where the three agree."""
    x, y, z = away
    odd = jnp.where(y == z, 0, jnp.where(x == z, 1, 2))
    sign = jnp.where(_at(odd, away), 1.0, -1.0)
    steep = _at(odd, [a * a for a in axis]) > 0.5
    along_edge = jnp.minimum(1 - sign * near.along, _at(odd, span))
    others = (jnp.minimum(span[1], span[2]), jnp.minimum(span[2], span[0]), jnp.minimum(span[0], span[1]))
    along_face = jnp.minimum(1 + sign * near.along, _at(odd, others))
    return (x != y) | (y != z), sign * jnp.where(steep, along_edge, -along_face)


def _from_edge(
    near: _Near, edge: Array, away: Sequence[Array], axis: Vec, half: Vec, span: Sequence[Array], size: Vec
) -> tuple[Array, Array]:
    """Across the face that the segment is flatter to; none where it passes over the edge."""
    turned = lambda v: _shift(edge, v)  # noqa: E731
    (_, one, two), (_, a1, a2), (_, span1, span2) = turned(away), turned([jnp.abs(a) for a in axis]), turned(span)
    swapped = a1 > a2
    leaves, limit = jnp.where(swapped, one, two), jnp.where(swapped, span1, span2)
    sign = jnp.where(leaves, 1.0, -1.0)
    ahead = jnp.where((turned(half)[0] > 0) == leaves, 1 - near.beside, 1 + near.beside)
    along = _over(turned(size)[0] * ahead, jnp.abs(turned(half)[0]))
    reach = jnp.minimum(jnp.minimum(1 - sign * near.along, limit), along)
    return one ^ two, sign * reach


def _from_face(near: _Near, face: Array, centre: Vec, half: Vec, size: Vec) -> tuple[Array, Array]:
    """Towards the other end, until it passes the face's rim."""
    sign = jnp.where(near.code == -1, 1.0, -1.0)
    reach = jnp.full_like(near.along, 2.0)
    for k in range(3):
        start = centre[k] - sign * half[k]
        for rim in (size[k], -size[k]):
            t = sign * _over(rim - start, half[k])
            reach = jnp.where((face != k) & (t > 0) & (t < reach), t, reach)
    return face >= 0, sign * reach


def _over(a: Lane, b: Lane) -> Array:
    """a / b, and farther than anything where b is 0."""
    zero = jnp.asarray(b) == 0
    return jnp.where(zero, _FAR, a / jnp.where(zero, 1.0, b))


def _at(index: Array, v: Sequence[Lane]) -> Any:
    return jnp.where(index == 0, v[0], jnp.where(index == 1, v[1], v[2]))


def _shift(index: Array, v: Sequence[Lane]) -> Any:
    """Entry `index` first, the others following in turn."""
    return _at(index, v), _at(index, (v[1], v[2], v[0])), _at(index, (v[2], v[0], v[1]))


def _edge_first(index: Array, v: Sequence[Lane]) -> Any:
    """Entry `index` first, the others in their order."""
    return _at(index, v), jnp.where(index == 0, v[1], v[0]), jnp.where(index == 2, v[1], v[2])


def ball_box(centre: Vec, radius: Lane, size: Vec) -> tuple[Array, Vec, Vec]:
    """Distance, contact point, normal (from the ball) in the box's frame; from inside, through the nearest face."""
    nearest = [jnp.clip(c, -s, s) for c, s in zip(centre, size, strict=True)]
    outer, gap = ln.unit(ln.vsub(nearest, centre), (1.0, 0.0, 0.0))
    inside = gap <= _MIN
    depth = [s - jnp.abs(c) for c, s in zip(centre, size, strict=True)]
    face = jnp.where((depth[2] < depth[0]) & (depth[2] < depth[1]), 2, jnp.where(depth[1] < depth[0], 1, 0))
    closest = _at(face, depth)
    inner = [jnp.where(face == k, jnp.where(c > 0, -1.0, 1.0), 0.0) for k, c in enumerate(centre)]
    normal: Any = tuple(jnp.where(inside, i, o) for i, o in zip(inner, outer, strict=True))
    way = jnp.where(inside, -closest, gap)
    return way - radius, ln.vadd(centre, ln.scale(0.5 * (radius + way), normal)), normal
