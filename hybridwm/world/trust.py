"""g: how far the residual may be believed here. 1 on the data it was fitted to, 0 far away, smooth between.

    e = √ Σ_i (distance of z_i outside [low_i, high_i])²          how far outside the box of the training features
    u = e / reach + max(0, spread / limit − 1)                    … or how far the members disagree more than they did on the data
    g = (1 − u²)²  for u < 1,   0 beyond

low and high are the extremes of the training features; `reach` and `limit` are set on validation data (fit.py).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class TrustParams(NamedTuple):
    """The training support, in normalised features."""

    low: Array  # [F]
    high: Array  # [F]
    reach: Array  # [] in standard deviations of the features
    limit: Array  # [] spread of the members in σ


def everywhere(features: int) -> TrustParams:
    """No limits: g = 1 everywhere."""
    wide, one = jnp.full(features, jnp.inf, jnp.result_type(float)), jnp.ones((), jnp.result_type(float))
    return TrustParams(-wide, wide, one, jnp.inf * one)


def support(z: Array, *, reach: float, limit: float) -> TrustParams:
    """The box of training features z [F, samples]."""
    return TrustParams(jnp.min(z, 1), jnp.max(z, 1), jnp.asarray(reach, z.dtype), jnp.asarray(limit, z.dtype))


def trust(params: TrustParams, z: Array, spread: Array) -> Array:
    """g [W] at features z [F, W] where the members disagree by spread [W]."""
    shape = (-1, *[1] * (z.ndim - 1))
    outside = jnp.maximum(jnp.maximum(params.low.reshape(shape) - z, z - params.high.reshape(shape)), 0)
    far = jnp.sqrt(jnp.sum(outside * outside, 0) + 1e-20)
    u = far / params.reach + jnp.maximum(spread / params.limit - 1, 0)
    return jnp.square(1 - jnp.square(jnp.minimum(u, 1)))
