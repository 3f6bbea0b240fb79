"""The constraint solve: a convex problem in the acceleration x, by Newton to convergence.

    x* = argmin ½ xᵀA x − bᵀx + Σ s(B x + u₀)            A = M + Σ_equality JᵀDJ,  b = τ + JᵀD a_ref
    F(x) = A x − b − Bᵀf(Bx + u₀) = 0                    f = −s′
    H    = A + Bᵀ C B,  p = −H⁻¹F,  x ← x + α p          α: root of the directional derivative (convex, so it is bracketed)

Worlds are last, dofs are grouped by kinematic tree: A is block-diagonal but for bonds, contacts couple the two trees they touch.
The loop ends when every world has converged; a world that has converged takes no further step.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from physics import smallmat
from physics.cones import Cone, Grip, Triple
from physics.stage import fused

Array = jax.Array


class Contacts(NamedTuple):
    """k contacts between the same two bodies."""

    sides: tuple[Array, ...]  # per tree: B [k, 3, n, W]
    offset: Array  # [k, 3, W] u₀
    grip: Grip


class Singles(NamedTuple):
    """Rows on single dofs, u = sign·x[dof] + u₀: first limits, f = −D u where u < 0, then dry friction, |f| ≤ bound."""

    offset: Array  # [l, W]
    d: Array  # [l, W] inverse regularisation, 0 when far from the limit
    bound: Array  # [f, W] of the last f rows


class Problem(NamedTuple):
    """What varies between solves."""

    a: Array  # [nv, nv, W]
    b: Array  # [nv, W]
    contacts: tuple[Contacts, ...]
    singles: Singles


class Layout(NamedTuple):
    """What does not: hashable, closed over."""

    trees: tuple[tuple[int, int], ...]  # dofs [start, stop) of each kinematic tree
    sides: tuple[tuple[int, ...], ...]  # per contact group: the tree of each side
    cones: tuple[Cone, ...]  # per contact group
    singles: tuple[tuple[int, float], ...]  # (dof, sign)
    iterations: int
    tolerance: float


class Point(NamedTuple):
    """Where the iteration stands."""

    x: Array  # [nv, W]
    ax: Array  # [nv, W] A x
    u: tuple[Array, ...]  # per group [k, 3, W]
    us: Array  # [l, W]
    cb: tuple[Any, ...]  # per group and side C B as three arrays [k, n, W]: kept here so that each is computed once
    gradient: Array  # [nv, W] F
    error: Array  # [W] |F| over the size of its terms
    rounds: Array  # [] iterations


def newton(layout: Layout, problem: Problem, start: Array) -> tuple[Array, Array, Array]:
    """x* [nv, W], iterations [], relative residual [W]."""
    point = _newton(layout, problem, start)
    return point.x, point.rounds, point.error


def curvature(layout: Layout, problem: Problem, x: Array) -> Array:
    """H [nv, nv, W] at x; its lower triangle."""
    u, us = _stretch(layout, problem, x)
    curved = [
        tuple(fused(partial(_bent, cone), _split(ui[:, :, None]), _wide(c.grip), _split(side)) for side in c.sides)
        for ui, c, cone in zip(u, problem.contacts, layout.cones, strict=True)
    ]
    return _hessian(layout, problem, tuple(curved), us)


def _wide(grip: Grip) -> Grip:
    return Grip(*(y[:, None] for y in grip))


def _bent(cone: Cone, u: Triple, grip: Grip, side: Triple) -> tuple[Any, ...]:
    """The rows of C B for one side, as one stage: else they are computed anew for every entry of H."""
    _, h = cone(u, grip)
    rows = ((h.nn, h.n1, h.n2), (h.n1, h.t11, h.t12), (h.n2, h.t12, h.t22))
    return tuple(sum(c * b for c, b in zip(row, side, strict=True)) for row in rows)


def assemble(layout: Layout, blocks: list[Array], tau: Array, rows: list[Any]) -> tuple[Array, Array]:
    """A and b from the mass matrix by trees, the smooth forces, and the two-sided rows (sides, trees, d, aref)."""
    tiles: dict[tuple[int, int], Any] = {(t, t): block for t, block in enumerate(blocks)}
    parts: list[Any] = [tau[i:j] for i, j in layout.trees]
    for r in rows:
        for side, t in zip(r.sides, r.trees, strict=True):
            weighted = r.d[:, None] * side
            parts[t] = parts[t] + sum(weighted[k] * r.aref[k] for k in range(side.shape[0]))
            for other, s in zip(r.sides, r.trees, strict=True):
                if s <= t:
                    tile = tiles.get((t, s), 0.0)
                    tiles[t, s] = tile + sum(weighted[k][:, None] * other[k][None] for k in range(side.shape[0]))
    return _join_tiles(layout, tiles, tau), jnp.concatenate(parts)


def contact_forces(layout: Layout, problem: Problem, x: Array) -> tuple[Array, ...]:
    """Per group f [k, 3, W] at the solution."""
    u, _ = _stretch(layout, problem, x)
    return tuple(
        jnp.stack(cone(_split(ui), c.grip)[0], 1) for ui, c, cone in zip(u, problem.contacts, layout.cones, strict=True)
    )


def _newton(layout: Layout, problem: Problem, start: Array) -> Point:
    def unfinished(point: Point) -> Array:
        return (point.rounds < layout.iterations) & jnp.any(point.error > layout.tolerance)

    def step(point: Point) -> Point:
        factor = smallmat.cholesky(_hessian(layout, problem, point.cb, point.us))
        p = -smallmat.solve(factor, point.gradient)
        p = jnp.where(point.error > layout.tolerance, p, 0)
        ap = smallmat.matvec(problem.a, p)
        v, vs = _along(layout, problem, p)
        alpha = _line_search(layout, problem, point, p, ap, v, vs)
        x, ax = point.x + alpha * p, point.ax + alpha * ap
        u = tuple(ui + alpha * vi for ui, vi in zip(point.u, v, strict=True))
        return _evaluate(layout, problem, x, ax, u, point.us + alpha * vs, point.rounds + 1)

    u, us = _stretch(layout, problem, start)
    ax = smallmat.matvec(problem.a, start)
    return lax.while_loop(unfinished, step, _evaluate(layout, problem, start, ax, u, us, jnp.zeros((), jnp.int32)))


def _evaluate(layout: Layout, problem: Problem, x: Array, ax: Array, u: Any, us: Array, count: Array) -> Point:
    gradient = _unpulled(layout, problem, u, us, ax - problem.b)
    size = jnp.sum(2 * jnp.abs(ax) + 2 * jnp.abs(problem.b) + jnp.abs(gradient), 0)
    error = 2 * jnp.sum(jnp.abs(gradient), 0) / jnp.maximum(size, jnp.finfo(x.dtype).tiny * 1e6)
    return Point(x, ax, u, us, _curved(layout, problem, u), gradient, error, count)


def _split(u: Array) -> Triple:
    return u[:, 0], u[:, 1], u[:, 2]


def _along(layout: Layout, problem: Problem, p: Array) -> tuple[tuple[Array, ...], Array]:
    """B p and the single dofs' share of p."""
    parts = [p[i:j] for i, j in layout.trees]
    v = []
    for contacts, trees in zip(problem.contacts, layout.sides, strict=True):
        terms = [
            side[:, :, s] * parts[t][s]
            for side, t in zip(contacts.sides, trees, strict=True)
            for s in range(side.shape[2])
        ]
        v.append(sum(terms[1:], terms[0]))
    rows = [sign * p[dof] for dof, sign in layout.singles]
    return tuple(v), jnp.stack(rows) if rows else jnp.zeros_like(problem.singles.offset)


def _stretch(layout: Layout, problem: Problem, x: Array) -> tuple[tuple[Array, ...], Array]:
    v, vs = _along(layout, problem, x)
    return tuple(vi + c.offset for vi, c in zip(v, problem.contacts, strict=True)), vs + problem.singles.offset


def _single_force(problem: Problem, us: Array) -> tuple[Array, Array]:
    d, bound = problem.singles.d, problem.singles.bound
    first = len(d) - len(bound)
    stiff = jnp.where(us < 0, d, 0)
    if not len(bound):
        return -stiff * us, stiff
    sticking = jnp.where(jnp.abs(d * us)[first:] < bound, d[first:], 0)
    force = jnp.concatenate([-(stiff * us)[:first], jnp.clip(-(d * us)[first:], -bound, bound)])
    return force, jnp.concatenate([stiff[:first], sticking])


def _unpulled(layout: Layout, problem: Problem, u: Any, us: Array, rest: Array) -> Array:
    """rest − Bᵀ f [nv, W], written tree by tree into one array: a concatenation of sums would not vectorise."""
    parts: list[Any] = [None for _ in layout.trees]
    for ui, c, cone, trees in zip(u, problem.contacts, layout.cones, layout.sides, strict=True):
        force, _ = cone(_split(ui), c.grip)
        for side, t in zip(c.sides, trees, strict=True):
            for k in range(side.shape[0]):
                pull = sum(side[k, a] * force[a][k] for a in range(3))
                parts[t] = pull if parts[t] is None else parts[t] + pull
    for (i, j), part in zip(layout.trees, parts, strict=True):
        if part is not None:
            rest = lax.dynamic_update_slice_in_dim(rest, rest[i:j] - part, i, 0)
    if layout.singles:
        fs, _ = _single_force(problem, us)
        for i, (dof, sign) in enumerate(layout.singles):
            rest = lax.dynamic_update_slice_in_dim(rest, (rest[dof] - sign * fs[i])[None], dof, 0)
    return rest


def _curved(layout: Layout, problem: Problem, u: Any) -> tuple[Any, ...]:
    """C B of every group and side."""
    out = []
    for ui, c, cone in zip(u, problem.contacts, layout.cones, strict=True):
        _, h = cone(_split(ui), c.grip)
        rows = ((h.nn, h.n1, h.n2), (h.n1, h.t11, h.t12), (h.n2, h.t12, h.t22))
        out.append(
            tuple(tuple(sum(row[e][:, None] * side[:, e] for e in range(3)) for row in rows) for side in c.sides)
        )
    return tuple(out)


def _hessian(layout: Layout, problem: Problem, curved: tuple[Any, ...], us: Array) -> Array:
    """Lower triangle of H = A + Bᵀ C B [nv, nv, W], tile by tile."""
    tiles: dict[tuple[int, int], Any] = {}
    for cb, c, trees in zip(curved, problem.contacts, layout.sides, strict=True):
        for rows, t in zip(cb, trees, strict=True):
            for other, s in zip(c.sides, trees, strict=True):
                if s > t:
                    continue
                tile = tiles.get((t, s), 0.0)
                for k in range(other.shape[0]):
                    for a in range(3):
                        tile = tile + rows[a][k][:, None] * other[k, a][None]
                tiles[t, s] = tile
    hessian = problem.a
    for (t, s), tile in tiles.items():
        (i, j), (k, m) = layout.trees[t], layout.trees[s]
        start = (i, k) + (0,) * (hessian.ndim - 2)
        hessian = lax.dynamic_update_slice(hessian, hessian[i:j, k:m] + tile, start)
    if layout.singles:
        _, stiff = _single_force(problem, us)
        for i, (dof, _) in enumerate(layout.singles):
            start = (dof, dof) + (0,) * (hessian.ndim - 2)
            hessian = lax.dynamic_update_slice(hessian, (hessian[dof, dof] + stiff[i])[None, None], start)
    return hessian


def _join_tiles(layout: Layout, tiles: dict[tuple[int, int], Any], like: Array) -> Array:
    """Lower tiles -> the full symmetric matrix."""
    if len(layout.trees) == 1:
        return tiles[0, 0]
    rows = []
    for t, (i, j) in enumerate(layout.trees):
        row = []
        for s, (k, m) in enumerate(layout.trees):
            if (t, s) in tiles:
                row.append(tiles[t, s])
            elif (s, t) in tiles:
                row.append(jnp.swapaxes(tiles[s, t], 0, 1))
            else:
                row.append(jnp.zeros((j - i, m - k, *like.shape[1:]), like.dtype))
        rows.append(jnp.concatenate(row, 1))
    return jnp.concatenate(rows, 0)


def _line_search(layout: Layout, problem: Problem, point: Point, p: Array, ap: Array, v: Any, vs: Array) -> Array:
    """α with φ′(α) ≈ 0 for φ(α) = cost(x + α p): Newton on φ′, kept inside a bracket; most steps end at α = 1."""
    flat = jnp.sum(p * (point.ax - problem.b), 0)
    curve = jnp.sum(p * ap, 0)

    def slope(alpha: Array) -> tuple[Array, Array]:
        first, second = flat + alpha * curve, curve
        for ui, vi, c, cone in zip(point.u, v, problem.contacts, layout.cones, strict=True):
            f, h = cone(_split(ui + alpha * vi), c.grip)
            a, b, d = _split(vi)
            first = first - jnp.sum(f[0] * a + f[1] * b + f[2] * d, 0)
            quadratic = h.nn * a * a + h.t11 * b * b + h.t22 * d * d + 2 * (h.n1 * a * b + h.n2 * a * d + h.t12 * b * d)
            second = second + jnp.sum(quadratic, 0)
        if layout.singles:
            fs, hs = _single_force(problem, point.us + alpha * vs)
            first, second = first - jnp.sum(fs * vs, 0), second + jnp.sum(hs * vs * vs, 0)
        return first, second

    steepest = jnp.abs(jnp.sum(p * point.gradient, 0))
    good = 0.01 * steepest + jnp.finfo(p.dtype).tiny

    def refine(carry: Any) -> Any:
        alpha, low, high, first, second, count = carry
        low, high = jnp.where(first < 0, alpha, low), jnp.where(first > 0, alpha, high)
        newton = alpha - first / jnp.maximum(second, jnp.finfo(p.dtype).tiny)
        middle = jnp.where(jnp.isinf(high), 2 * alpha, 0.5 * (low + high))
        inside = (newton > low) & (newton < high)
        alpha = jnp.where(jnp.abs(first) > good, jnp.where(inside, newton, middle), alpha)
        return (alpha, low, high, *slope(alpha), count + 1)

    def unfinished(carry: Any) -> Array:
        return (carry[5] < 12) & jnp.any(jnp.abs(carry[3]) > good)

    one = jnp.ones_like(flat)
    start = (one, jnp.zeros_like(one), jnp.full_like(one, jnp.inf), *slope(one), jnp.zeros((), jnp.int32))
    return lax.while_loop(unfinished, refine, start)[0]
