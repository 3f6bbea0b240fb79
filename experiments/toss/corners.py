"""The corners of a thrown body in the world, and what a network may know of them.

    r_c, v_c      position from the body's centre and velocity of corner c, world frame

Everything a network sees is unchanged by a turn about the vertical, by mirroring, and by the turns of a cube: corners are
sorted by height and only the lowest `KEPT` are shown, each by its height, its speeds along and across the vertical and its
distance from the centre along its own slide. Body axes, place and heading never enter.

Legend: C corners, K kept, W worlds.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.toss.things import Thing
from experiments.toss.turning import hinge_turn, product, turned

Array = jax.Array
KEPT = 4
_TINY = 1e-9


class Corners(NamedTuple):
    """The lowest K corners, the lowest first."""

    height: Array  # [K, W] m above the board
    arm: Array  # [K, 3, W] m from the first body's centre
    vel: Array  # [K, 3, W] m/s


def all_corners(thing: Thing, qpos: Array, qvel: Array, size: Any = 1.0) -> Corners:
    """Every corner of every box, in the order of the boxes; `size` [W] scales the boxes."""
    quat, arms, vels = qpos[3:7], [], []
    omega = turned(quat, qvel[3:6])
    for body, half, centre in thing.boxes:
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
        local = [np.array(centre)[:, None] + (s * half)[:, None] * size + 0 * qpos[:3] for s in signs]
        if body == 1:
            arm = [turned(quat, x) for x in local]
            vel = [qvel[:3] + jnp.cross(omega, a, axis=0) for a in arm]
        else:
            place = turned(quat, jnp.asarray(HINGE)[:, None] + 0 * qpos[:3])
            swing = product(quat, hinge_turn(qpos[7]))
            turn = omega + turned(quat, jnp.stack([0 * qvel[6], qvel[6], 0 * qvel[6]]))
            moved = [turned(swing, x) for x in local]
            arm = [place + x for x in moved]
            vel = [qvel[:3] + jnp.cross(omega, place, axis=0) + jnp.cross(turn, x, axis=0) for x in moved]
        arms, vels = arms + arm, vels + vel
    arm, vel = jnp.stack(arms), jnp.stack(vels)
    return Corners(qpos[2] + arm[:, 2], arm, vel)


HINGE = np.array([-0.035, 0.06, 0.0])
"""m, where the second box of the elbow is hinged, in the frame of the first."""


def lowest(corners: Corners) -> Corners:
    """The K lowest, sorted."""
    order = jnp.argsort(jax.lax.stop_gradient(corners.height), 0)[:KEPT]
    take = lambda x: jnp.take_along_axis(x, order.reshape(order.shape[:1] + (1,) * (x.ndim - 2) + order.shape[1:]), 0)  # noqa: E731
    return Corners(*(take(x) for x in corners))


def features(thing: Thing, qpos: Array, qvel: Array, low: Corners) -> Array:
    """[F, W], each of order one."""
    arm, vel = low.arm / thing.width, low.vel
    slide = jnp.sqrt(jnp.sum(vel[:, :2] ** 2, 1) + _TINY)
    lean = jnp.sum(arm[:, :2] * vel[:, :2], 1) / jnp.maximum(slide, 0.05)
    omega = turned(qpos[3:7], qvel[3:6])
    speed = jnp.sqrt(jnp.sum(qvel[:2] ** 2, 0) + _TINY)
    rolls = jnp.sqrt(jnp.sum(omega[:2] ** 2, 0) + _TINY)
    hinge = [jnp.cos(qpos[7]), jnp.abs(qvel[6]) / 10] if len(qpos) > 7 else []
    return jnp.concatenate(
        [
            jnp.tanh(low.height / 0.01),
            jnp.tanh(low.height / (thing.width / 2)),
            jnp.clip(vel[:, 2], -3, 3),
            jnp.minimum(slide, 3),
            jnp.tanh(slide / 0.1),
            lean,
            jnp.stack([qpos[2] / thing.width, speed, qvel[2], rolls / 10, jnp.abs(omega[2]) / 10, *hinge]),
        ]
    )
