"""Box on box: MuJoCo C's contact set, branch-free, on worlds.

Box 1 and box 2 have half sizes s₁, s₂; R = R₁ᵀR₂ turns box 2 into box 1's frame, c is its centre there.

    which axis   of 15 directions n (three face normals each, nine crossings e_i × R e_j) the one along which the
                 boxes are most apart, |n·c| − r₁(n) − r₂(n); beyond the margin along any: no contact. A crossing
                 must beat the best face (within 8° of its normal by 5 % of its depth).
    face         the face of the other box that looks most against n is cut to the rectangle |x| ≤ X, |y| ≤ Y of
                 the winning face; each corner of the rest is a contact of depth z, halfway between the surfaces.
    crossing     one contact, in the middle of the nearest points of the two edges.

The winning pair of axes is first brought to the front by cyclic shifts of both frames: each case is written once.

A quadrilateral cut by the slab |x| ≤ X has up to six sides: what is left of its four, and one on each line x = ±X.
Cut by |y| ≤ Y it gains one on each line y = ±Y. Every corner of the result begins exactly one of these eight sides:
eight slots.

Rounding decides where neither result is better: whether faces that touch exactly are in contact; where two sides at
an angle φ of less than 1e-6 cross, known to 1e-16/φ of the box only (noise can add a corner amid a side); which of two
corners closer than 1e-7 of the face (1e-5 in float32) is kept. And where boxes at an angle of less than 1e-9 overlap
by less than 1e-8 of their size, MuJoCo tries several pairs of edges for a crossing and this code one.

Loops stand where a list would do: XLA's CPU backend computes what is shared anew for every result, but what a loop
yields once.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from physics import lanes as ln
from physics.lanes import Array, Lane, Mat, Vec

IDLE = 1e3  # m, the distance of a slot without contact
_SLOTS = 8
_EDGE_BIAS = 1e-6  # share of its depth that a crossing must be better by
_ALIAS_COSINE, _ALIAS_SHARE = 0.99, 0.05
_Box = tuple[Vec, Mat, Vec]  # pose in the world, half sizes
# signs (u, v) of the corner where a side begins, and of the next
_SIDES = ((1, 1, -1, 1), (-1, 1, -1, -1), (-1, -1, 1, -1), (1, -1, 1, 1))


class Manifold(NamedTuple):
    """Contact slots of a pair of geoms; k slots, W worlds."""

    distance: Array  # [k, W] m, negative inside; IDLE in a slot without contact
    position: Array  # [k, 3, W] m, between the two surfaces
    normal: Array  # [3, W] or [k, 3, W] unit, from the first geom to the second


class _Rounding(NamedTuple):
    """What is noise, as MuJoCo sets it for each precision."""

    apart: float  # slack of the separation, times the sum of the half sizes
    parallel: float  # sin² of an angle below which two edges are parallel
    same: float  # squared distance, relative to the face, below which two corners are one


# at double precision or not
_ROUNDING = {True: _Rounding(1e-13, 1e-16, 1e-14), False: _Rounding(1e-6, 1e-7, 1e-10)}


class _Fit(NamedTuple):
    """The pair seen from the reference box, with the winning axis (or edge) of each box first."""

    basis: Mat  # columns: the reference box's axes in the world
    origin: Vec  # m, its centre
    size: Vec  # m
    other_size: Vec  # m
    other_rot: Mat  # columns: the other box's axes
    other_pos: Vec  # m


def box_box(pos1: Vec, rot1: Mat, size1: Vec, pos2: Vec, rot2: Mat, size2: Vec, margin: float) -> Manifold:
    """Up to eight contacts of two boxes: poses in the world, half sizes (m), contacts with distance ≤ margin (m)."""
    every = [x for v in (pos1, size1, pos2, size2, *rot1, *rot2) for x in v]
    noise = _ROUNDING[jnp.result_type(*every) == jnp.float64]
    one, two = (pos1, rot1, size1), (pos2, rot2, size2)
    like = jnp.zeros(jnp.broadcast_shapes(*map(jnp.shape, every)), jnp.result_type(*every))
    best, widest = _best_axis(one, two, like, noise)
    fit = _seen_from_reference(best, one, two)
    edge_distance, edge_point, edge_normal = _edge(fit)
    side = jnp.where(fit.other_pos[0] >= 0, 1.0, -1.0)
    outward = (jnp.where(best.second, -side, side), 0.0, 0.0)
    normal = _where(best.crossing, edge_normal, outward)
    slots = _slots(fit, side, (best.crossing, edge_distance, edge_point), like)
    slack = margin + noise.apart * ln.total((*size1, *size2))
    slots = slots._replace(
        exists=slots.exists & (widest <= slack) & (slots.z <= jnp.where(best.crossing, slack, margin))
    )
    keep = _distinct(slots, noise.same * ln.dot(fit.size[1:], fit.size[1:]))
    return Manifold(jnp.where(keep, slots.z, IDLE), jnp.stack(slots.world, 1), jnp.stack(ln.matvec(fit.basis, normal)))


class _Axis(NamedTuple):
    """The direction along which the boxes are most apart."""

    gap: Array  # m
    second: Array  # a face of box 2 (box 1 is the reference otherwise)
    crossing: Array  # two edges
    row: Array  # the face's axis in the reference box, or its edge
    column: Array  # the axis of the other box that looks most against the face, or its edge


def _best_axis(one: _Box, two: _Box, like: Array, noise: _Rounding) -> tuple[_Axis, Array]:
    """The winner of the 15 directions, and the largest gap of all."""
    (pos1, rot1, size1), (pos2, rot2, size2) = jax.lax.stop_gradient((one, two))
    rot = ln.matmul(ln.transpose(rot1), rot2)
    pos21 = ln.matvec(ln.transpose(rot1), ln.vsub(pos2, pos1))
    pos12 = ln.matvec(ln.transpose(rot2), ln.vsub(pos1, pos2))
    face, normal = _best_face(rot, pos21, pos12, size1, size2, like)
    deeper = face.gap + _ALIAS_SHARE * abs(face.gap) + 1e-15

    def turn(i: Array, carry: tuple[_Axis, Array]) -> tuple[_Axis, Array]:
        best, widest = carry
        rows = _shift_rows(i, rot)
        pos, size, seen = (_shift(i, v) for v in (pos21, size1, normal))
        for j in range(3):
            gap, (a, b), skew = _crossing(rows, pos, size, size2, j, noise)
            better = skew & (gap - _EDGE_BIAS * abs(gap) > best.gap) & (gap > face.gap)
            alias = (abs(a * seen[1] + b * seen[2]) > _ALIAS_COSINE) & (gap < deeper)
            row, column = jnp.where(alias, face.row, i), jnp.where(alias, face.column, j)
            found = _Axis(gap, alias & face.second, ~alias, row, column)
            best = _Axis(*(jnp.where(better, x, y) for x, y in zip(found, best, strict=True)))
            widest = jnp.where(skew, jnp.maximum(widest, gap), widest)
        return best, widest

    return jax.lax.fori_loop(0, 3, turn, (face, face.gap))


def _best_face(rot: Mat, pos21: Vec, pos12: Vec, size1: Vec, size2: Vec, like: Array) -> tuple[_Axis, Vec]:
    """The best of the six faces, and its normal in box 1's frame."""
    size = tuple(tuple(abs(x) for x in row) for row in rot)
    gaps = [
        ln.sub(ln.sub(abs(c), s), ln.dot(seen, other))
        for centre, own, other, m in ((pos21, size1, size2, size), (pos12, size2, size1, ln.transpose(size)))
        for c, s, seen in zip(centre, own, m, strict=True)
    ]
    gap, code = gaps[0] + like, jnp.zeros(like.shape, jnp.int32)
    for k in range(1, 6):
        gap, code = jnp.where(gaps[k] > gap, gaps[k], gap), jnp.where(gaps[k] > gap, k, code)
    second = code >= 3
    a, b, c = (_pick(code, (*column, *row)) for column, row in zip(ln.transpose(size), size, strict=True))
    column = jnp.where(c > jnp.maximum(a, b), 2, jnp.where(b > a, 1, 0))
    normal = tuple(_pick(code, (*e, *row)) for e, row in zip(ln.EYE, rot, strict=True))
    return _Axis(gap, second, code < 0, code - 3 * second, column), normal


def _crossing(
    rot: Mat, pos: Vec, size1: Vec, size2: Vec, j: int, noise: _Rounding
) -> tuple[Lane, tuple[Lane, Lane], Lane]:
    """Gap along e_0 × (column j), that unit direction (0, a, b), and whether the two edges are not parallel."""
    a, b = -rot[2][j], rot[1][j]
    squared = a * a + b * b
    skew = squared >= noise.parallel
    inverse = jax.lax.rsqrt(jnp.where(skew, squared, 1.0))
    a, b = a * inverse, b * inverse
    reach = abs(a) * size1[1] + abs(b) * size1[2]
    for k in ((j + 1) % 3, (j + 2) % 3):
        reach = reach + abs(a * rot[1][k] + b * rot[2][k]) * size2[k]
    return abs(a * pos[1] + b * pos[2]) - reach, (a, b), skew


def _where(flag: Lane, a: Sequence[Lane], b: Sequence[Lane]) -> Any:
    return tuple(jnp.where(flag, x, y) for x, y in zip(a, b, strict=True))


def _pick(index: Lane, options: Sequence[Lane]) -> Lane:
    out = options[-1]
    for k in reversed(range(len(options) - 1)):
        out = jnp.where(index == k, options[k], out)
    return out


def _shift(index: Lane, v: Sequence[Any]) -> Any:
    """The vector turned so that entry `index` comes first."""
    a, b, c = v
    return (_pick(index, (a, b, c)), _pick(index, (b, c, a)), _pick(index, (c, a, b)))


def _shift_rows(index: Lane, m: Sequence[Vec]) -> Any:
    """The matrix with row `index` first, the others following in turn."""
    return ln.transpose([_shift(index, column) for column in ln.transpose(m)])


def _seen_from_reference(best: _Axis, one: _Box, two: _Box) -> _Fit:
    """Reference and other box by which of them the winner belongs to, and their axes by which of them it names."""
    swap = lambda a, b: _where(best.second, b, a)  # noqa: E731
    (pos1, rot1, size1), (pos2, rot2, size2) = one, two
    axes = ln.transpose([_shift(best.row, swap(x, y)) for x, y in zip(rot1, rot2, strict=True)])
    others = ln.transpose([_shift(best.column, swap(y, x)) for x, y in zip(rot1, rot2, strict=True)])
    origin, other = swap(pos1, pos2), swap(pos2, pos1)
    return _Fit(
        ln.transpose(axes),
        origin,
        _shift(best.row, swap(size1, size2)),
        _shift(best.column, swap(size2, size1)),
        ln.matmul(axes, ln.transpose(others)),
        ln.matvec(axes, ln.vsub(other, origin)),
    )


class _Slots(NamedTuple):
    """The eight slots; inside the loop over them, one."""

    exists: Array
    x: Array  # m, in the plane of the reference face
    y: Array
    z: Array  # m, above it: the distance
    world: Vec  # m, the contact's position


class _Line(NamedTuple):
    """The side of the cut face that lies on one line of the rectangle: where the sides leave and where they return."""

    there: Array
    start: tuple[Lane, Lane]
    end: tuple[Lane, Lane]


def _distinct(slots: _Slots, reach: Lane) -> Array:
    """Which slots are contacts: of corners in the same place the first."""
    exists, x, y, _, _ = slots
    index = jnp.arange(_SLOTS).reshape((_SLOTS,) + (1,) * (x.ndim - 1))
    repeated = jnp.zeros_like(exists)
    for k in range(_SLOTS - 1):
        dx, dy = x - x[k], y - y[k]
        repeated |= (dx * dx + dy * dy < reach) & exists[k] & (index > k)
    return exists & ~repeated


def _slots(fit: _Fit, side: Array, edge: tuple[Array, Array, Vec], like: Array) -> _Slots:
    """A turn of a loop each: four sides of the other face, two on x = ±X, two on y = ±Y; a crossing uses the first."""
    crossing, edge_distance, edge_point = edge
    corner = _opposed_face(fit, side)
    empty = _Line(like > 0, (like, like), (like, like))

    def turn(lines: tuple[_Line, ...], xs: tuple[Array, Array]) -> tuple[tuple[_Line, ...], _Slots]:
        k, (u, v, next_u, next_v) = xs
        lines, (x, y, z), exists = _turn(lines, k, corner(u, v), corner(next_u, next_v), fit.size)
        exists, z = jnp.where(crossing, k == 0, exists), jnp.where(crossing, edge_distance, z)
        face_point = (side * (fit.size[0] + 0.5 * z), x, y)
        point = _where(crossing, edge_point, face_point)
        return lines, _Slots(exists, x, y, z, ln.vadd(fit.origin, ln.matvec(fit.basis, point)))

    signs = jnp.asarray(_SIDES + ((0, 0, 0, 0),) * 4, like.dtype)
    return jax.lax.scan(turn, (empty,) * 4, (jnp.arange(_SLOTS), signs))[1]


def _turn(lines: tuple[_Line, ...], k: Array, p: Vec, q: Vec, size: Vec) -> tuple[tuple[_Line, ...], Vec, Array]:
    """Where side k of the result begins (k < 4: p → q, uncut), whether it exists, and the lines it extends."""
    right, left, upper, lower = lines
    _, half_x, half_y = size
    cut = _slab(p, q, half_x)
    right, left = _extended(right, cut, 1.0, k < 4), _extended(left, cut, -1.0, k < 4)
    start, end, exists = cut.start, cut.end, cut.inside
    for n, line, x in ((4, right, half_x), (5, left, -half_x)):
        start = _where(k == n, (x, *line.start), start)
        end = _where(k == n, (x, *line.end), end)
        exists = jnp.where(k == n, line.there, exists)
    cut = _slab((start[1], start[0], start[2]), (end[1], end[0], end[2]), half_y)
    exists = exists & cut.inside
    upper, lower = (_extended(line, cut, s, exists & (k < 6)) for line, s in ((upper, 1.0), (lower, -1.0)))
    y, x, z = cut.start
    for n, line, limit in ((6, upper, half_y), (7, lower, -half_y)):
        y, x, z = _where(k == n, (limit, *line.start), (y, x, z))
        exists = jnp.where(k == n, line.there, exists)
    return (right, left, upper, lower), (x, y, z), exists


def _opposed_face(fit: _Fit, side: Array) -> Callable[[Lane, Lane], Vec]:
    """The other box's face as a function of its signs u, v: x, y, and the height z above the reference face."""
    flip = jnp.where(side * fit.other_rot[0][0] > 0, -1.0, 1.0) * fit.other_size[0]
    middle = [c + flip * row[0] for c, row in zip(fit.other_pos, fit.other_rot, strict=True)]
    arm_u = [fit.other_size[1] * row[1] for row in fit.other_rot]
    arm_v = [fit.other_size[2] * row[2] for row in fit.other_rot]
    middle[0], arm_u[0], arm_v[0] = side * middle[0] - fit.size[0], side * arm_u[0], side * arm_v[0]

    def corner(u: Lane, v: Lane) -> Vec:
        z, x, y = (m + u * a + v * b for m, a, b in zip(middle, arm_u, arm_v, strict=True))
        return x, y, z

    return corner


class _Cut(NamedTuple):
    """A side p → q after a slab: what is left of it, and on which line (sign, 0: none) it begins and ends."""

    start: Vec
    end: Vec
    inside: Array
    enters: Array
    leaves: Array


def _slab(p: Vec, q: Vec, limit: Lane) -> _Cut:
    """What is left of a side where its first coordinate is within ±limit."""
    sign_p, sign_q = jnp.where(p[0] >= 0, 1.0, -1.0), jnp.where(q[0] >= 0, 1.0, -1.0)
    beyond_p, beyond_q = abs(p[0]) > limit, abs(q[0]) > limit
    inside = ~(beyond_p & beyond_q & (sign_p == sign_q))
    at_start = _crossed(sign_p * p[0] - limit, sign_p * q[0] - limit, beyond_p & inside)
    at_end = _crossed(sign_q * p[0] - limit, sign_q * q[0] - limit, beyond_q & inside)
    start = [a + at_start * (b - a) for a, b in zip(p[1:], q[1:], strict=True)]
    end = _where(beyond_q, [a + at_end * (b - a) for a, b in zip(p[1:], q[1:], strict=True)], q[1:])
    return _Cut(
        (jnp.clip(p[0], -limit, limit), start[0], start[1]),
        (jnp.clip(q[0], -limit, limit), end[0], end[1]),
        inside,
        jnp.where(beyond_p & inside, sign_p, 0.0),
        jnp.where(beyond_q & inside, sign_q, 0.0),
    )


def _crossed(dp: Array, dq: Array, crosses: Array) -> Array:
    """The share of the way from p to q at which the distance to a line changes its sign."""
    return jnp.where(crosses, dp, 0.0) / jnp.where(crosses, dp - dq, 1.0)


def _extended(line: _Line, cut: _Cut, sign: float, counts: Array) -> _Line:
    """The line with the ends that this side gives it."""
    leaves, enters = counts & (cut.leaves == sign), counts & (cut.enters == sign)
    start = _where(leaves, cut.end[1:], line.start)
    end = _where(enters, cut.start[1:], line.end)
    return _Line(line.there | leaves, start, end)


def _edge(fit: _Fit) -> tuple[Array, Vec, Vec]:
    """Edges along both first axes: signed distance, contact point and normal in the reference frame."""
    rot, pos = fit.other_rot, fit.other_pos
    n, _ = ln.unit((0.0, -rot[2][0], rot[1][0]), (0.0, 1.0, 0.0))
    side = jnp.where(ln.dot(n, pos) < 0, -1.0, 1.0)
    n = ln.scale(side, n)
    seen = ln.matvec(ln.transpose(rot), n)
    corner1 = (0.0, *(jnp.where(x >= 0, s, -s) for x, s in zip(n[1:], fit.size[1:], strict=True)))
    corner2 = (0.0, *(jnp.where(x >= 0, -s, s) for x, s in zip(seen[1:], fit.other_size[1:], strict=True)))
    corner2 = ln.vadd(ln.matvec(rot, corner2), pos)
    direction = tuple(row[0] for row in rot)
    apart = ln.vsub(corner2, corner1)
    cosine, along1, along2 = direction[0], apart[0], ln.dot(direction, apart)
    det = 1.0 - cosine * cosine
    skew = det >= 1e-15
    s = jnp.where(skew, along1 - cosine * along2, 0.0) / jnp.where(skew, det, 1.0)
    s = jnp.clip(s, -fit.size[0], fit.size[0])
    t = jnp.clip(cosine * s - along2, -fit.other_size[0], fit.other_size[0])
    s = jnp.clip(along1 + cosine * t, -fit.size[0], fit.size[0])
    point1 = (s, corner1[1], corner1[2])
    point2 = ln.vadd(corner2, ln.scale(t, direction))
    return ln.dot(ln.vsub(point2, point1), n), ln.scale(0.5, ln.vadd(point1, point2)), n
