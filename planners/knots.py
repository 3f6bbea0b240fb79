"""Controls as splines: a few knots decide a whole control sequence.

    u_t = clip( sum_k B[t, k] z_k, ctrl_min, ctrl_max ),   |u_t - u_{t-1}| <= rate dt

B is fixed by the kind of curve and by the phase: how many steps the present is past the first knot. Moving on
by one step only moves the phase, until a whole knot has passed and is dropped; so a warm start is the very same curve
(for `cubic`, up to the slopes at its two ends), held at its end. Legend: H horizon, K knots, nu controls, N samples.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Spline(NamedTuple):
    """Static description of a curve; build it with `hold`, `linear` or `cubic`."""

    horizon: int
    """H, in steps."""
    knots: int
    """K, the number of knots."""
    kind: str

    @property
    def spacing(self) -> float:
        """Steps from knot to knot."""
        return self.horizon / self.knots if self.kind == "hold" else (self.horizon - 1) / (self.knots - 1)


def hold(horizon: int, count: int | None = None) -> Spline:
    """Zero-order hold: every knot is kept until the next. Without `count`, one knot per step."""
    return _checked(Spline(horizon, horizon if count is None else count, "hold"), 1)


def linear(horizon: int, count: int) -> Spline:
    """Straight lines between knots; the first and last knot are the first and last control."""
    return _checked(Spline(horizon, count, "linear"), 2)


def cubic(horizon: int, count: int) -> Spline:
    """Smooth curve through the knots (Hermite, with slopes from the neighbours); clipped where it overshoots."""
    return _checked(Spline(horizon, count, "cubic"), 2)


def _checked(spline: Spline, least: int) -> Spline:
    if not least <= spline.knots <= spline.horizon:
        raise ValueError(f"a {spline.kind} spline over {spline.horizon} steps needs between {least} and "
                         f"{spline.horizon} knots, got {spline.knots}")  # fmt: skip
    return spline


def weights(spline: Spline, phase: jax.Array | float) -> jax.Array:
    """B `[H, K]` at a phase in [0, spacing)."""
    at = (jnp.arange(spline.horizon) + jnp.asarray(phase, float)) / spline.spacing  # in knots
    units = jnp.eye(spline.knots)
    if spline.kind == "hold":
        return units[jnp.clip(jnp.floor(at + 1e-4).astype(jnp.int32), 0, spline.knots - 1)]
    at = jnp.clip(at, 0, spline.knots - 1)[:, None]
    if spline.kind == "linear":
        return jnp.maximum(1 - jnp.abs(at - jnp.arange(spline.knots)), 0)
    slopes = jnp.asarray(np.gradient(np.eye(spline.knots), axis=0), units.dtype)
    left = jnp.clip(jnp.floor(at[:, 0]).astype(jnp.int32), 0, spline.knots - 2)
    s = at - left[:, None]
    return (
        (2 * s**3 - 3 * s**2 + 1) * units[left]
        + (s**3 - 2 * s**2 + s) * slopes[left]
        + (3 * s**2 - 2 * s**3) * units[left + 1]
        + (s**3 - s**2) * slopes[left + 1]
    )


def controls(
    spline: Spline,
    knots: jax.Array,
    limits: tuple[jax.Array, jax.Array],
    phase: jax.Array | float = 0.0,
    ctrl: jax.Array | None = None,
    change: jax.Array | float | None = None,
) -> jax.Array:
    """Control sequence `[H, nu, N]` of knots `[K, nu, N]` (or `[H, nu]` of `[K, nu]`), within the limits exactly.

    With `change` (`[nu]`, largest change per step) no control differs more than that from the one before it;
    the first is compared with `ctrl` `[nu]`, the control in use now.
    """
    low, high = (_beside(limit, knots) for limit in limits)
    if spline.kind == "hold" and spline.knots == spline.horizon:
        ctrls = knots
    else:
        rows = weights(spline, phase).astype(knots.dtype)
        ctrls = jnp.tensordot(rows, knots, axes=1, precision=jax.lax.Precision.HIGHEST)
    ctrls = jnp.clip(ctrls, low, high)
    if change is None or ctrl is None:
        return ctrls
    # A hair less than allowed, so that the difference of two rounded numbers still keeps the limit.
    hair = 4 * jnp.finfo(knots.dtype).eps * jnp.maximum(jnp.abs(low), jnp.abs(high))
    reach = jnp.maximum(_beside(jnp.broadcast_to(jnp.asarray(change, knots.dtype), limits[0].shape), knots) - hair, 0)

    def follow(last: jax.Array, wish: jax.Array) -> tuple[jax.Array, jax.Array]:
        now = jnp.clip(jnp.clip(wish, last - reach, last + reach), low, high)
        return now, now

    start = jnp.broadcast_to(jnp.clip(_beside(ctrl, knots), low, high), ctrls.shape[1:])
    return jax.lax.scan(follow, start, ctrls)[1]


def _beside(limit: jax.Array, knots: jax.Array) -> jax.Array:
    """`[nu]` shaped to meet `[K, nu]` or `[K, nu, N]`."""
    return limit if knots.ndim == 2 else limit[:, None]


def shift(spline: Spline, knots: jax.Array, phase: jax.Array, steps: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """(knots `[K, nu]`, phase) of the same curve `steps` steps later; past its end the last control is held."""
    ahead = phase + steps
    passed = jnp.floor(ahead / spline.spacing + 1e-4)
    index = jnp.minimum(jnp.arange(spline.knots) + passed.astype(jnp.int32), spline.knots - 1)
    return knots[index], jnp.maximum(ahead - passed * spline.spacing, 0).astype(phase.dtype)


def at_time(ctrls: np.ndarray, elapsed: float, kind: str) -> np.ndarray:
    """Control `[nu]` of the sequence `[H, nu]` at `elapsed` steps (any fraction) after its start."""
    last = len(ctrls) - 1
    elapsed = min(max(elapsed, 0.0), float(last))
    left = int(elapsed)
    if kind == "hold" or left == last:
        return ctrls[left]
    part = elapsed - left
    return (1 - part) * ctrls[left] + part * ctrls[left + 1]
