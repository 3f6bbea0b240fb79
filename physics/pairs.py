"""Which geoms may touch, and with what: MuJoCo's collision filters and mixing rules, settled before the first step.

A pair (i, j) of geoms may touch when

    it is listed in <contact><pair>, then with the pair's own parameters, or
    bodies:  not rigidly joined, not parent and child (unless the parent is fixed in the world), not excluded, and
    masks:   contype_i & conaffinity_j  |  contype_j & conaffinity_i  is not zero.

Mixing: the geom with the higher `priority` decides; between equals condim and friction are the larger of the two, and
with m = solmix_i / (solmix_i + solmix_j)  solimp = m·solimp_i + (1−m)·solimp_j, solref likewise; solref in the direct
form (−stiffness, −damping) takes the smaller, number by number. Margins and gaps add up.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import mujoco
import numpy as np

_MIN_MIX = 1e-15  # MuJoCo's mjMINVAL: a solmix below it counts as zero
_MIN_FRICTION = 1e-5  # MuJoCo's mjMINMU: no friction coefficient of a contact is smaller


class GeomPair(NamedTuple):
    """Two geoms that may touch; type(geom1) <= type(geom2) in MuJoCo's order (plane, sphere, capsule, box)."""

    geom1: int
    geom2: int
    condim: int
    friction: tuple[float, ...]  # [5] slide, slide, spin, roll, roll
    solref: tuple[float, ...]  # [2]
    solreffriction: tuple[float, ...]  # [2] zeros: as solref
    solimp: tuple[float, ...]  # [5]
    margin: float
    gap: float
    explicit: int  # row in the model's <pair> list, −1 where the filters let the pair through


def geom_pairs(model: mujoco.MjModel) -> tuple[GeomPair, ...]:
    """Every pair of geoms that may touch: explicit ones first, then by body."""
    explicit = tuple(_explicit(model, row) for row in range(model.npair) if _apart(model, row))
    listed = {frozenset(pair[:2]) for pair in explicit}
    found = (_ordered(model, i, j) for b1, b2 in _body_pairs(model) for i, j in _geoms(model, b1, b2))
    return explicit + tuple(_mixed(model, i, j) for i, j in found if frozenset((i, j)) not in listed)


def pair_name(model: mujoco.MjModel, pair: GeomPair) -> str:
    """The two geoms by name (by body where a geom has no name), for messages and tables."""
    return " – ".join(geom_name(model, geom) for geom in pair[:2])


def geom_name(model: mujoco.MjModel, geom: int) -> str:
    """Name of a geom, or `type of BODY` where it has none."""
    kind = mujoco.mjtGeom(model.geom_type[geom]).name.removeprefix("mjGEOM_").lower()
    return model.geom(geom).name or f"{kind} of {model.body(model.geom_bodyid[geom]).name or 'an unnamed body'}"


def _body_pairs(model: mujoco.MjModel) -> list[tuple[int, int]]:
    weld = model.body_weldid
    parent = weld[model.body_parentid[weld]]  # [nbody] the rigid group that carries this one
    moves = model.body_dofnum[weld] > 0
    excluded = {(int(s) >> 16, int(s) & 0xFFFF) for s in model.exclude_signature}
    parents_collide = bool(model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_FILTERPARENT)

    def may(a: int, b: int) -> bool:
        if weld[a] == weld[b] or not (moves[a] or moves[b]) or {(a, b), (b, a)} & excluded:
            return False
        related = weld[a] and weld[b] and (weld[a] == parent[b] or weld[b] == parent[a])
        return bool(parents_collide or not related)

    return [pair for pair in itertools.combinations(range(model.nbody), 2) if may(*pair)]


def _geoms(model: mujoco.MjModel, b1: int, b2: int) -> list[tuple[int, int]]:
    """Geom pairs of two bodies whose contact masks meet."""
    spans = (range(model.body_geomadr[b], model.body_geomadr[b] + model.body_geomnum[b]) for b in (b1, b2))
    con, aff = model.geom_contype, model.geom_conaffinity
    flat = {int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_HFIELD)}  # no collision among these
    return [
        (i, j)
        for i, j in itertools.product(*spans)
        if (con[i] & aff[j] or con[j] & aff[i]) and not {int(model.geom_type[i]), int(model.geom_type[j])} <= flat
    ]


def _ordered(model: mujoco.MjModel, i: int, j: int) -> tuple[int, int]:
    return (j, i) if model.geom_type[i] > model.geom_type[j] else (i, j)


def _apart(model: mujoco.MjModel, row: int) -> bool:
    """Whether a listed pair is of two bodies that can move against each other."""
    one, two = model.body_weldid[model.geom_bodyid[[model.pair_geom1[row], model.pair_geom2[row]]]]
    return bool(one != two)


def _explicit(model: mujoco.MjModel, row: int) -> GeomPair:
    return GeomPair(
        *_ordered(model, int(model.pair_geom1[row]), int(model.pair_geom2[row])),
        condim=int(model.pair_dim[row]),
        friction=_floats(np.maximum(model.pair_friction[row], _MIN_FRICTION)),
        solref=_floats(model.pair_solref[row]),
        solreffriction=_floats(model.pair_solreffriction[row]),
        solimp=_floats(model.pair_solimp[row]),
        margin=float(model.pair_margin[row]),
        gap=float(model.pair_gap[row]),
        explicit=row,
    )


def _mixed(model: mujoco.MjModel, i: int, j: int) -> GeomPair:
    rank = model.geom_priority[i] - model.geom_priority[j]
    both, mix = (i, j), _mix(*model.geom_solmix[[i, j]])
    if rank:  # the geom with the higher priority alone
        both, mix = ((i, i) if rank > 0 else (j, j)), 1.0
    a, b = both
    friction = np.maximum(model.geom_friction[a], model.geom_friction[b])[[0, 0, 1, 2, 2]]
    ref_a, ref_b = model.geom_solref[a], model.geom_solref[b]
    standard = ref_a[0] > 0 and ref_b[0] > 0
    return GeomPair(
        i,
        j,
        condim=int(max(model.geom_condim[a], model.geom_condim[b])),
        friction=_floats(np.maximum(friction, _MIN_FRICTION)),
        solref=_floats(mix * ref_a + (1 - mix) * ref_b if standard else np.minimum(ref_a, ref_b)),
        solreffriction=(0.0, 0.0),
        solimp=_floats(mix * model.geom_solimp[a] + (1 - mix) * model.geom_solimp[b]),
        margin=float(model.geom_margin[i] + model.geom_margin[j]),
        gap=float(model.geom_gap[i] + model.geom_gap[j]),
        explicit=-1,
    )


def _mix(m1: np.floating, m2: np.floating) -> float:
    """Weight of the first geom's solver parameters."""
    if m1 < _MIN_MIX and m2 < _MIN_MIX:
        return 0.5
    return 0.0 if m1 < _MIN_MIX else 1.0 if m2 < _MIN_MIX else float(m1 / (m1 + m2))


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
