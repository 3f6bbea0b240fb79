"""Neither gravity nor the board is quite square to the cameras' frame: from that frame into the board's, and back.

    n ∝ (s, 1)      the board's normal; its slope s and the horizontal pull of gravity are unknowns along and across the throw
    turn            n -> ẑ

The engine and the networks work in the board's frame, where the board is z = 0. Small enough for first order: below 1°.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.toss.things import Thing
from experiments.toss.turning import back, product, turned

Array = jax.Array


class Tilt(NamedTuple):
    """What leads from the cameras' frame into the board's."""

    turn: Array  # [4, W] quaternion
    gravity: Array  # [3, W] m/s² in the board's frame


def tilt_of(thing: Thing, phi: Array, heading: Array) -> Tilt:
    """Of throws that head for `heading` [2, W], from φ [P, W]."""
    values = thing.values(phi)
    found = {u.name: v for u, v in zip(thing.unknowns, values, strict=True)}
    side = jnp.stack([-heading[1], heading[0]])
    pull = found["pull_along"] * heading + found["pull_across"] * side
    slope = found["slope_along"] * heading + found["slope_across"] * side
    half = jnp.stack([slope[1], -slope[0], 0 * slope[0]]) / 2
    turn = jnp.concatenate([jnp.sqrt(1 - jnp.sum(half**2, 0))[None], half])
    return Tilt(turn, turned(turn, jnp.concatenate([pull, -found["gravity"][None]])))


def entered(tilt: Tilt, qpos: Array, qvel: Array) -> tuple[Array, Array]:
    """A start in the board's frame; spins are in the body's frame and stay."""
    return _turned(tilt.turn, qpos), jnp.concatenate([turned(tilt.turn, qvel[:3]), qvel[3:]])


def left(tilt: Tilt, qpos: Array) -> Array:
    """Places [H, nq, W] of the board's frame as the cameras see them."""
    return jax.vmap(lambda q: _turned(back(tilt.turn), q))(qpos)


def _turned(turn: Array, qpos: Array) -> Array:
    return jnp.concatenate([turned(turn, qpos[:3]), product(turn, qpos[3:7]), qpos[7:]])
