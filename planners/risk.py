"""Risk: many samples of one future become one number.

    mean     E[J]
    worst    max J
    CVaR_a   E[J | J among its worst share a]

The members of an ensemble, or the draws of random events, stand in the last axis of the state: `[..., M]`. Candidates
and members fold into one sample axis, `[..., N M]`, candidate by candidate, and what they give folds back to `[N, M]`.
A member that was lost (NaN) has weight zero; a candidate all of whose members were lost is lost.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Risk(NamedTuple):
    """combine(values `[N, M]`, valid `[N, M]`) -> `[N]`, over `members` samples of each candidate's future.

    draws: the model draws its events at random, so chances are counted from what fired, not taken from the hazard.
    """

    combine: Callable[[jax.Array, jax.Array], jax.Array]
    members: int = 1
    draws: bool = False


def mean(members: int = 1, *, draws: bool = False) -> Risk:
    """Average over the valid members."""
    return Risk(masked_mean, _checked(members), draws)


def worst(members: int = 1, *, draws: bool = False) -> Risk:
    """The largest value among the valid members."""
    return Risk(masked_max, _checked(members), draws)


def cvar(members: int, share: float, *, draws: bool = False) -> Risk:
    """Average over the worst `share` of the valid members; share 1 is the mean, share -> 0 the worst."""
    if not 0 < share <= 1:
        raise ValueError(f"the share of CVaR must lie in (0, 1], got {share}")

    def combine(values: jax.Array, valid: jax.Array) -> jax.Array:
        ranked = -jnp.sort(jnp.where(valid, -values, jnp.inf), axis=-1)
        tail = jnp.maximum(share * jnp.sum(valid, axis=-1, keepdims=True), 1e-6)
        weight = jnp.clip(tail - jnp.arange(values.shape[-1]), 0, 1) / tail
        return jnp.sum(jnp.where(weight > 0, ranked, 0) * weight, axis=-1)

    return Risk(combine, _checked(members), draws)


def _checked(members: int) -> int:
    if members < 1:
        raise ValueError(f"the number of members must be at least 1, got {members}")
    return members


def masked_mean(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean over the last axis of the valid entries, 0 where there is none; blind to what the others hold.

    Times the reciprocal, since compilers replace a division by that in some programs and not in others.
    """
    share = 1 / jnp.maximum(jnp.sum(valid, axis=-1), 1).astype(values.dtype)
    return jnp.sum(jnp.where(valid, values, 0), axis=-1) * share


def masked_max(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Largest valid entry of the last axis; -inf where there is none."""
    return jnp.max(jnp.where(valid, values, -jnp.inf), axis=-1)


def spread_out(state: Any, members: int, count: int) -> Any:
    """The state of one world (`[...]`, or `[..., M]` with several members) as `count` candidates: `[..., N M]`."""

    def leaf(value: jax.Array) -> jax.Array:
        belief = jnp.asarray(value)[..., None, :] if members > 1 else jnp.asarray(value)[..., None, None]
        wide = jnp.broadcast_to(belief, (*belief.shape[:-2], count, members))
        return wide.reshape(*belief.shape[:-2], count * members)

    return jax.tree.map(leaf, state)


def pick(tree: Any, members: int, index: jax.Array) -> Any:
    """The one candidate `index` of leaves `[..., N M]`: `[...]`, or `[..., M]` with several members."""

    def leaf(value: jax.Array) -> jax.Array:
        folded = value.reshape(*value.shape[:-1], value.shape[-1] // members, members)
        one = jnp.take(folded, index, axis=-2)
        return one if members > 1 else one[..., 0]

    return jax.tree.map(leaf, tree)
