"""h_ψ: what a load does to a bond, step by step, and how likely it has given way by now.

    ρ_k = √ Σ_i (ℓ_i / a_ki)²                      share of the strength that the bond carries, in channel k
    L_k ← ρ_k + (L_k − ρ_k) e^{−h/τ_k}             filtered: τ_k L_k is the impulse of the last τ_k ≥ 10 ms, in shares
    c_k = ln(1 + |ΔL_k| / (h r_k))                 loading rate
    z   = max_j ( Σ_k π_jk ln L_k − v_j·c − b_j )  severity: how near to breaking, 0 at the strength; π ≥ 0, Σ_k π_jk = 1
    Z   ← max(Z, z)                                the worst so far
    D   ← D + h e^{m z} / T                        Miner's damage: at z = 0 the bond lives for T
    y   = β max(Z, ln D / m)                       Λ = ln(1 + e^y): the hazard used up, P(broken by now) = σ(y)

max is smooth. y rises in every load, impulse and damage, and never falls in time; the rate may count either way. The strength is
known up to a relative spread 1/β: as sharp as the data say. A bond has one channel: breaks are few, and each number learned from
them has to pay; τ grows from a load's to an impulse's. Declared events: L_k are their own features, k-th minus 1 for ln L_k.
Legend: N events side by side, K channels, as many units j, C context features, W worlds. Structure first, worlds last.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Array = jax.Array
SHORTEST_S = 0.01  # an impact's peak depends on the time step; what is filtered over 10 ms hardly does
CHANNELS_S = (0.03,)
SPREAD = 0.02  # relative, of a strength that only the scene tells
LOWEST = -9.0  # severity of nothing at all
_SHARP = 50.0
_LEAST = 1e-4


class Wear(NamedTuple):
    """What events remember."""

    filtered: Array  # [N, K, W] L
    worst: Array  # [N, W] Z
    damage: Array  # [N, W] D


class HazardParams(NamedTuple):
    """ψ of N events of one kind."""

    reference: Any  # [N, I] strengths where θ gives none: of declared events, the limits
    strength: Any  # [N, K, I] ln a over the strength that θ or `reference` gives
    delay: Any  # [N, K] ln(τ − 10 ms), in ln s
    rate: Any  # [N, K] ln r, in ln 1/s
    slope: Any  # [N] ln β
    exponent: Any  # [N] ln m
    life: Any  # [N] ln T, in ln s
    weights: Any  # of `Severity`, every leaf [N, ...]; None: the first channel alone


class Severity(nnx.Module):
    """z of rising features r and context c: a maximum over positive mixtures, each shifted by the context."""

    def __init__(self, rising: int, context: int, *, rngs: nnx.Rngs) -> None:
        self.mixture = nnx.Param(nnx.initializers.normal(0.5)(rngs.params(), (rising, rising)))
        self.shift = nnx.Param(jnp.arange(rising) / rising)
        self.straight = nnx.Param(jnp.zeros((rising, context)))

    def __call__(self, r: Array, c: Array) -> Array:
        """r [N, K, W], c [N, C, W] -> z [N, W]; the parameters have the events in front."""
        mixed = times(jax.nn.softmax(self.mixture[...], -1), r)
        if c.shape[1]:
            mixed = mixed - times(self.straight[...], c)
        return jax.nn.logsumexp(_SHARP * (mixed - beside(self.shift[...], r, 2)), axis=1) / _SHARP


def nominal_hazard(reference: np.ndarray, channels: int) -> HazardParams:
    """Breaks when the first channel reaches the strength; no damage. Where the strength is infinite: never."""
    n, inputs = reference.shape
    tau = np.resize(CHANNELS_S, channels) - SHORTEST_S
    return HazardParams(
        reference=reference,
        strength=np.zeros((n, channels, inputs)),
        delay=np.zeros((n, channels)) + np.log(np.maximum(tau, 1e-9)),
        rate=np.zeros((n, channels)) + np.log(10.0),
        slope=np.full(n, -np.log(SPREAD)),
        exponent=np.full(n, np.log(8.0)),
        life=np.full(n, np.inf),
        weights=None,
    )


def severity_weights(key: Array, events: int, rising: int, context: int) -> Any:
    """Fresh weights of N severities, every leaf [N, ...]."""

    def one(key: Array) -> Any:
        return nnx.split(Severity(rising, context, rngs=nnx.Rngs(key)))[1]

    return jax.vmap(one)(jax.random.split(key, events))


def untouched(events: int, channels: int, worlds: tuple[int, ...], dtype: Any) -> Wear:
    """The memory at the start."""
    none = jnp.zeros((events, *worlds), dtype)
    return Wear(jnp.zeros((events, channels, *worlds), dtype), none + LOWEST, none)


def shares(params: HazardParams, felt: Array, limits: Any = None) -> Array:
    """ρ [N, K, W] of felt [N, I, W], against limits [N, I] or [N, I, W] where those are finite, else `reference`."""
    base = beside(params.reference, felt, 2)
    if limits is not None:
        known = jnp.asarray(limits, felt.dtype)
        known = known if known.ndim == felt.ndim else beside(known, felt, 2)
        base = jnp.where(jnp.isfinite(known), known, base)
    weight = jnp.exp(-2 * jnp.asarray(params.strength, felt.dtype))
    return jnp.sqrt(times(weight, jnp.square(felt / base)) + 1e-12)


def keep(params: HazardParams, dt: float) -> Array:
    """e^{−h/τ} [N, K]."""
    return jnp.exp(-dt / (SHORTEST_S + jnp.exp(params.delay)))


def judge(params: HazardParams, before: Array, after: Array, context: Array | None, dt: float) -> Array:
    """z [N, W] from the channels [N, K, W] before and after a step; context None: loads, and their rate is the context."""
    rising = jnp.log(after + _LEAST) if context is None else after - 1
    if params.weights is None:
        return jnp.maximum(rising[:, 0], LOWEST)
    if context is None:
        context = jnp.log1p(jnp.abs(after - before) / dt * beside(jnp.exp(-params.rate), after, 2))
    severity = nnx.eval_shape(lambda: Severity(rising.shape[1], context.shape[1], rngs=nnx.Rngs(0)))
    return jnp.maximum(nnx.merge(nnx.split(severity)[0], params.weights)(rising, context), LOWEST)


def harm(params: HazardParams, z: Array) -> Array:
    """Damage per second [N, W] at severity z."""
    return jnp.exp(jnp.minimum(jnp.exp(beside(params.exponent, z, 1)) * z, 40.0) - beside(params.life, z, 1))


def score(params: HazardParams, worst: Array, damage: Array) -> Array:
    """y [N, W]."""
    slope, exponent = (jnp.exp(beside(x, worst, 1)) for x in (params.slope, params.exponent))
    return jnp.logaddexp(slope * worst, slope / exponent * jnp.log(damage + 1e-30))


def advance(
    params: HazardParams, wear: Wear, felt: Array, dt: float, *, limits: Any = None, context: Array | None = None
) -> tuple[Wear, Array]:
    """One step under felt [N, I, W]: (what is remembered, Λ [N, W])."""
    load = shares(params, felt, limits) if context is None else relative(params, felt)
    filtered = load + (wear.filtered - load) * beside(keep(params, dt), load, 2)
    z = judge(params, wear.filtered, filtered, context, dt)
    wear = Wear(filtered, jnp.maximum(wear.worst, z), wear.damage + dt * harm(params, z))
    return wear, jax.nn.softplus(score(params, wear.worst, wear.damage))


def relative(params: HazardParams, felt: Array) -> Array:
    """Features over their limits [N, K, W]."""
    return felt / beside(params.reference, felt, 2) * jnp.exp(-beside(params.strength[:, 0], felt, 2))


def times(a: Array, x: Array) -> Array:
    """[N, out, in] on [N, in, W]: [N, out, W].

    Over one axis of worlds a sum, which fuses with its neighbours; over two, as in training, a product, whose gradient is one too.
    """
    if x.ndim > 3:
        return jnp.einsum("noi,nitr->notr", a, x)
    a = a.reshape(a.shape + (1,) * (x.ndim - 2))
    return sum((a[:, :, i] * x[:, None, i] for i in range(1, a.shape[2])), a[:, :, 0] * x[:, None, 0])


def beside(a: Any, x: Array, structure: int) -> Array:
    """a as an array of x's type with axes of one for the worlds of x, which has `structure` axes before them."""
    a = jnp.asarray(a, x.dtype)
    return a.reshape(a.shape + (1,) * (x.ndim - structure))
