"""The chart of the ground: how its friction differs from place to place, the same for every contact that stands on it.

    μ_c⁺ = μ_c e^{φ(p_c)}           c: a contact with what cannot move, p_c = (x, y) where it is
    φ                               a number for every square cell of a grid; 0 beyond the grid

One number per place, not per body: where the contacts of a body stand on different grounds the body turns by itself.
`hybridwm/learning/charting.py` finds φ. `xp` is numpy or jax.numpy.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Ground(NamedTuple):
    """φ on a grid."""

    low: Array  # [2] m, where its first cell begins
    side: Array  # [] m, of a cell
    level: Array  # [nx, ny] φ


def cell(ground: Ground, places: Any, *, xp: Any = jnp) -> Any:
    """[k, W] which cell of the flattened grid places [k, 3, W] are in, −1 where in none."""
    i, j = (xp.floor((places[:, axis] - ground.low[axis]) / ground.side).astype(int) for axis in (0, 1))
    nx, ny = ground.level.shape
    return xp.where((i >= 0) & (i < nx) & (j >= 0) & (j < ny), i * ny + j, -1)


def factor(ground: Ground, places: Any, *, xp: Any = jnp) -> Any:
    """e^φ [k, W] at places [k, 3, W]."""
    index = cell(ground, places, xp=xp)
    return xp.where(index < 0, 1.0, xp.exp(ground.level).ravel()[index])
