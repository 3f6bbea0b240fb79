"""Turns of the measured bodies: quaternions wxyz [4, W], worlds last."""

from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def turned(quat: Array, v: Any) -> Array:
    """Vectors v [3, ...] turned by quat [4, W]."""
    w, u = quat[0], quat[1:]
    t = 2 * jnp.cross(u, v, axis=0)
    return v + w * t + jnp.cross(u, t, axis=0)


def product(a: Array, b: Array) -> Array:
    """Quaternion product [4, W]."""
    w = a[0] * b[0] - jnp.sum(a[1:] * b[1:], 0)
    return jnp.concatenate([w[None], a[0] * b[1:] + b[0] * a[1:] + jnp.cross(a[1:], b[1:], axis=0)])


def back(quat: Array) -> Array:
    """The turn that undoes `quat`."""
    return jnp.concatenate([quat[:1], -quat[1:]])


def hinge_turn(angle: Array) -> Array:
    """Quaternion of a turn about y, [4, W]."""
    zero = 0 * angle
    return jnp.stack([jnp.cos(angle / 2), zero, jnp.sin(angle / 2), zero])
