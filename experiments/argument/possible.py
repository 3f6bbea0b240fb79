"""Which states cannot be: bonds half broken, a weld pulled apart that holds, bodies in one another.

    half      0.02 < intact < 0.98
    stretch   |points of the weld apart| or its turn, while it holds, beyond twice what reality's states keep in 99.9 %
    depth     overlap by MuJoCo C's narrow phase, likewise

Legend: H steps, W windows, nb bonds.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import physics
from hybridwm.learning.projection import Projection
from hybridwm.logs.recordings import Windows
from physics.overlap import overlap

HALF, HOLDS, QUANTILE, TWICE = 0.02, 0.5, 0.999, 2.0
EVERY = 5
"""Overlaps are looked for in every so many steps."""


class Measures(NamedTuple):
    """Of states, [H, W] each."""

    intact: np.ndarray
    apart: np.ndarray  # m, NaN where nothing holds
    turn: np.ndarray  # rad, likewise
    depth: np.ndarray  # m, [H / EVERY, W]


class Limits(NamedTuple):
    """Beyond these a state is impossible."""

    apart: float
    turn: float
    depth: float


def measurer(engine: physics.Engine) -> Any:
    """(qpos [H, nq, W], intact [H, 1, W]) -> Measures, for a scene with one weld."""
    gap = jax.jit(jax.vmap(Projection(engine).gap))

    def look(qpos: np.ndarray, intact: np.ndarray) -> Measures:
        apart = np.asarray(gap(jnp.asarray(np.nan_to_num(qpos, nan=1e6), float)), float)
        held = intact[:, 0] >= HOLDS
        size = [np.where(held, np.linalg.norm(x, axis=1), np.nan) for x in (apart[:, :3], 2 * apart[:, 3:])]
        depth = np.stack([overlap(engine.scene, q) for q in qpos[EVERY - 1 :: EVERY]])
        return Measures(intact[:, 0], size[0], size[1], depth)

    return look


def limits(look: Any, cut: Windows) -> Limits:
    """From reality's own states."""
    seen = look(cut.qpos[1:], cut.intact[1:])
    return Limits(*(TWICE * float(np.nanquantile(x, QUANTILE)) for x in seen[1:]))


def impossible(seen: Measures, limit: Limits) -> dict[str, np.ndarray]:
    """By kind, and `any`, whether each looked-at state cannot be: [H / EVERY, W]."""
    rows = slice(EVERY - 1, None, EVERY)
    half = (seen.intact > HALF) & (seen.intact < 1 - HALF)
    pulled = (np.nan_to_num(seen.apart) > limit.apart) | (np.nan_to_num(seen.turn) > limit.turn)
    kinds = {"half broken": half[rows], "pulled apart": pulled[rows], "in one another": seen.depth > limit.depth}
    return kinds | {"any": np.any(list(kinds.values()), axis=0)}
