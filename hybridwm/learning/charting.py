"""θ and the chart of the ground (world/ground.py), found together from single rows of the logs.

    v⁺(z + δ, φ + ψ) ≈ v⁺ + R_z δ + Σ_c R_c ψ(p_c)              R_z, R_c: central differences of the engine over one row
    min Σ_row,dof |missed − R_z δ − Σ_c R_c ψ(p_c)| / σ  +  λ Σ_neighbours |φ_i − φ_j|  +  ρ Σ_cells |φ_i|  +  ½ |z / s|²

λ, ρ: in units of what one contact of one row says, so that no stray row draws a cell of its own.
c: the contacts with what cannot move, p_c the cell where each is in mid-row. Contacts of all rows teach the same φ. Moduli, not
squares: a row in which a contact made or broke is no line, and may be missed; a ground of few patches has few edges; and what θ
can say, one friction for most of the ground, is left to θ. Minimised by weighted least squares with weights 1 / |·|, then R is
computed again where it led: a few rounds. Where rows are exact, so is the answer; σ is what rows typically miss now, per dof.
Differences, since one program that steps is compiled in a quarter of the time of one that differentiates, and is run often.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hybridwm.learning.training import Batch
from hybridwm.learning.unknowns import Place, Unknown, locate, replaced
from hybridwm.world.ground import Ground, cell, factor
from hybridwm.world.model import WorldModel, WorldParams

Array = jax.Array
CELLS = 48  # along the longer side of the ground that was touched
ROUNDS, INNER, CHUNK = 6, 15, 4096
EDGE, LEVEL = 5.0, 1.0  # λ, ρ, in what one contact of one row typically says about φ: |R_c| / σ
NEAR = 0.1, 0.005  # what counts as no error, in σ; and as no difference, in φ
STEP = 0.02  # of a difference: in what is known of z beforehand, and of a contact's friction


class Rows(NamedTuple):
    """How N rows answer, at one (z, φ)."""

    missed: np.ndarray  # [nv, N]
    theta: np.ndarray  # [nv, p, N] R_z
    slots: np.ndarray  # [nv, k, N] R_c
    places: np.ndarray  # [k, 3, N] of the contacts in mid-row
    touching: np.ndarray  # [k, N]


def charted(model: WorldModel, params: WorldParams, unknowns: Sequence[Unknown], rows: Batch) -> WorldParams:
    """The parameters with θ and the ground as single rows (one-row windows) say, from the θ they come with."""
    slots = _slots(model)
    places = [locate(model.engine.scene, params, unknown) for unknown in unknowns if unknown.leaf != "lag_s"]
    if not slots.any():
        raise ValueError("nothing in the scene can touch what does not move: there is no ground to chart")
    run = jax.jit(partial(_reached, model, places, slots))
    z, bounds = np.zeros(len(places)), np.array([place.bounds for place in places]).reshape(-1, 2).T
    rows = jax.tree.map(jnp.asarray, rows)
    steps = STEP * np.concatenate([_known(places), np.ones(slots.sum())])
    found = _gathered(run, params, z, _flat(), rows, steps)
    ground = _grid(found)
    for number in range(ROUNDS):
        if number:
            found = _gathered(run, params, z, ground, rows, steps)
        z, level = _solved(found, places, z, ground)
        z = np.clip(z, *bounds)
        ground = ground._replace(level=jnp.asarray(level, ground.level.dtype))
    return replaced(params, places, z)._replace(ground=ground)


def _slots(model: WorldModel) -> np.ndarray:
    """[nc] which contact slots are with what cannot move."""
    still = np.asarray(model.engine.scene.model.body_weldid) == 0
    return np.array([still[list(pair)].any() for pair in model.engine.contact_bodies], bool)


def _flat() -> Ground:
    """A ground that is the same everywhere."""
    dtype = jnp.result_type(float)
    return Ground(jnp.zeros(2, dtype), jnp.ones((), dtype), jnp.zeros((1, 1), dtype))


def _known(places: list[Place]) -> np.ndarray:
    """Standard deviations of z before anything is seen."""
    return np.array([place.unknown.prior_std for place in places])


def _grid(found: Rows) -> Ground:
    """Square cells over the ground that contacts touched."""
    there = np.moveaxis(found.places[:, :2], 1, -1)[found.touching]
    if not len(there):
        raise ValueError("nothing touched the ground in the logs: there is nothing to chart")
    low, high = there.min(0), there.max(0)
    side = max(float((high - low).max()) / CELLS, 1e-6)
    count = np.maximum(np.ceil((high - low) / side), 1).astype(int)
    dtype = jnp.result_type(float)
    return Ground(jnp.asarray(low, dtype), jnp.asarray(side, dtype), jnp.zeros(tuple(count.tolist()), dtype))


def _gathered(run: Any, params: WorldParams, z: np.ndarray, ground: Ground, rows: Batch, steps: np.ndarray) -> Rows:
    """All rows, so many at a time; the last chunk is filled up. steps: of the differences in (z, every contact's friction)."""
    count, p, wide = rows.qpos.shape[-1], len(z), _padded(ground)
    width, parts = min(CHUNK, count), []
    for first in range(0, count, width):
        index = np.arange(first, first + width) % count
        part, keep = jax.tree.map(lambda x: x[..., index], rows), min(width, count - first)  # noqa: B023

        def reached(shift: np.ndarray) -> Any:
            at = jnp.asarray(np.concatenate([z, np.zeros(len(shift) - p)]) + shift, rows.qpos.dtype)
            return [np.asarray(x)[..., :keep] for x in run(params, at[:p], at[p:], wide, part)]  # noqa: B023

        shifts = np.diag(steps)
        change = [(reached(s)[0] - reached(-s)[0]) / (2 * s.max()) for s in shifts]
        speed, where, touching = reached(0 * steps)
        change = np.stack(change, 1).reshape(len(speed), len(steps), keep)
        parts.append((np.asarray(part.qvel[1])[..., :keep] - speed, change[:, :p], change[:, p:], where, touching))
    return Rows(*(np.concatenate(x, -1) for x in zip(*parts, strict=True)))


def _padded(ground: Ground) -> Ground:
    """The same with as many cells as any grid may have, so that one program serves all."""
    room = [(0, CELLS + 1 - n) for n in ground.level.shape]
    return ground._replace(level=jnp.pad(ground.level, room))


def _reached(
    model: WorldModel, places: list[Place], slots: np.ndarray, params: WorldParams, z: Array, c: Array, ground: Ground,
    rows: Batch,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """(v⁺ [nv, N], where contacts are in mid-row [k, 3, N], whether they touch [k, N]); contact i's friction times 1 + c_i."""
    held = jnp.zeros((len(model.spec.names), rows.qpos.shape[-1]), jnp.int8)
    here = replaced(params, places, z)
    here = here._replace(theta=model.engine.prepare(here.theta))
    grip = lambda at: factor(ground, at) * (1 + c)[:, None]  # noqa: E731

    def one(state: Any, ctrl: Array) -> Any:
        state, info = model.step(here, state, ctrl, forced=held, grip=grip)
        return state, (info.engine.contact_position, info.engine.contact_distance)

    begin = model.init(here, rows.qpos[0], rows.qvel[0], intact=rows.intact, past=rows.past)
    state, (where, distance) = lax.scan(one, begin, rows.ctrl)
    middle = len(rows.ctrl) // 2
    return state.qvel, where[middle][slots], distance[middle][slots] < 0


def _solved(found: Rows, places: list[Place], z: np.ndarray, ground: Ground) -> tuple[np.ndarray, np.ndarray]:
    """z and φ after one round."""
    from scipy import linalg, sparse

    p, level = len(z), np.asarray(ground.level, float)
    a, missed = _equations(found, ground, p)
    told = _weight(a, p)
    size = _known(places)
    rough = _edges(level.shape, p)
    x = start = np.concatenate([z, level.ravel()])
    for _ in range(INNER):
        e, d = missed - a @ (x - start), rough @ x
        data = sparse.diags(1 / np.hypot(e, NEAR[0]))
        curve = a.T @ data @ a + EDGE * told * (rough.T @ sparse.diags(1 / np.hypot(d, NEAR[1])) @ rough)
        prior = np.concatenate([size**-2.0, LEVEL * told / np.hypot(x[p:], NEAR[1])])
        right = a.T @ (data @ (missed + a @ start))
        x = linalg.solve(curve.toarray() + np.diag(prior), right, assume_a="pos")
    return x[:p], x[p:].reshape(level.shape)


def _equations(found: Rows, ground: Ground, p: int) -> tuple[Any, np.ndarray]:
    """A [nv N, p + cells] and what was missed [nv N], both in σ; rows that are not finite say nothing."""
    from scipy import sparse

    good = np.logical_and.reduce([np.isfinite(x).reshape(-1, x.shape[-1]).all(0) for x in found[:3]])
    missed, theta, slots, where = (x[..., good] for x in (found.missed, found.theta, found.slots, found.places))
    nv, count = missed.shape
    error = np.abs(missed)
    sigma = np.maximum(np.median(error, 1), 0.3 * np.sqrt(np.mean(error**2, 1)))
    sigma = np.maximum(sigma, 0.02 * sigma.max() + 1e-9)
    index = np.asarray(cell(ground, jnp.asarray(where)))  # [k, N]
    rows = np.arange(nv * count).reshape(nv, 1, count)
    parts = []
    for value, column in ((theta, np.arange(p)[:, None]), (slots, np.where(index < 0, -1, p + index))):
        value, row, column = np.broadcast_arrays(value / sigma[:, None, None], rows, column)
        used = (column >= 0) & (value != 0)
        parts.append((value[used], row[used], column[used]))
    value, row, column = (np.concatenate(x) for x in zip(*parts, strict=True))
    a = sparse.coo_matrix((value, (row, column)), (nv * count, p + ground.level.size)).tocsr()
    return a, (missed / sigma[:, None]).ravel()


def _weight(a: Any, p: int) -> float:
    """What a row says about a cell, where it says anything: the mean of |R_c| / σ."""
    value = np.abs(a.tocoo().data[a.tocoo().col >= p])
    return float(value.mean()) if len(value) else 1.0


def _edges(shape: tuple[int, ...], p: int) -> Any:
    """Differences of neighbouring cells, as a sparse matrix [edges, p + cells]."""
    from scipy import sparse

    number = p + np.arange(np.prod(shape)).reshape(shape)
    one = np.concatenate([number[1:].ravel(), number[:, 1:].ravel()])
    two = np.concatenate([number[:-1].ravel(), number[:, :-1].ravel()])
    row, ones = np.arange(len(one)), np.ones(len(one))
    full = (np.concatenate([ones, -ones]), (np.concatenate([row, row]), np.concatenate([one, two])))
    return sparse.coo_matrix(full, (len(one), p + number.size)).tocsr()
