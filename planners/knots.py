"""Controls as splines: a few knots decide a whole control sequence.

    u_t = clip( sum_k B[t, k] z_k, ctrl_min, ctrl_max ),   |u_t - u_{t-1}| <= rate dt

B is fixed by the horizon, the number of knots and the kind of curve, so a spline is one small matrix.
Legend: H horizon, K knots, nu controls, N samples.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Spline(NamedTuple):
    """B `[H, K]` as nested tuples (static data), the step of each knot, and the kind's name."""

    rows: tuple[tuple[float, ...], ...]
    steps: tuple[int, ...]
    kind: str

    @property
    def horizon(self) -> int:
        """H, in steps."""
        return len(self.rows)

    @property
    def count(self) -> int:
        """K, the number of knots."""
        return len(self.steps)


def hold(horizon: int, count: int | None = None) -> Spline:
    """Zero-order hold: every knot is kept until the next. Without `count`, one knot per step."""
    count = _checked(horizon, horizon if count is None else count, 1)
    owner = np.arange(horizon) * count // horizon
    steps = np.searchsorted(owner, np.arange(count))
    return _spline(np.eye(count)[owner], steps, "hold")


def linear(horizon: int, count: int) -> Spline:
    """Straight lines between knots; the first and last knot are the first and last control."""
    at = _knot_times(horizon, _checked(horizon, count, 2))
    rows = np.stack([np.interp(np.arange(horizon), at, unit) for unit in np.eye(count)], axis=1)
    return _spline(rows, np.rint(at), "linear")


def cubic(horizon: int, count: int) -> Spline:
    """Smooth curve through the knots (Hermite, with slopes from the neighbours); clipped where it overshoots."""
    at = _knot_times(horizon, _checked(horizon, count, 2))
    knots = np.eye(count)
    slopes = np.gradient(knots, at, axis=0)
    left = np.clip(np.searchsorted(at, np.arange(horizon), side="right") - 1, 0, count - 2)
    width = (at[left + 1] - at[left])[:, None]
    s = (np.arange(horizon) - at[left])[:, None] / width
    rows = (
        (2 * s**3 - 3 * s**2 + 1) * knots[left]
        + (s**3 - 2 * s**2 + s) * width * slopes[left]
        + (3 * s**2 - 2 * s**3) * knots[left + 1]
        + (s**3 - s**2) * width * slopes[left + 1]
    )
    return _spline(rows, np.rint(at), "cubic")


def _checked(horizon: int, count: int, least: int) -> int:
    if not least <= count <= horizon:
        raise ValueError(f"a spline over {horizon} steps needs between {least} and {horizon} knots, got {count}")
    return count


def _knot_times(horizon: int, count: int) -> np.ndarray:
    return np.linspace(0.0, horizon - 1.0, count)


def _spline(rows: np.ndarray, steps: np.ndarray, kind: str) -> Spline:
    return Spline(tuple(map(tuple, rows.tolist())), tuple(int(step) for step in steps), kind)


def controls(
    spline: Spline,
    knots: jax.Array,
    limits: tuple[jax.Array, jax.Array],
    ctrl: jax.Array | None = None,
    change: jax.Array | float | None = None,
) -> jax.Array:
    """Control sequence `[H, nu, N]` of knots `[K, nu, N]` (or `[H, nu]` of `[K, nu]`), within the limits exactly.

    With `change` (`[nu]`, largest change per step) no control differs more than that from the one before it;
    the first is compared with `ctrl` `[nu]`, the control in use now.
    """
    low, high = (_beside(limit, knots) for limit in limits)
    if spline.kind == "hold" and spline.count == spline.horizon:
        ctrls = knots
    else:
        rows = jnp.asarray(spline.rows, knots.dtype)
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


def shift(spline: Spline, knots: jax.Array, steps: jax.Array | int) -> jax.Array:
    """Knots `[K, nu]` of the same curve read `steps` steps later; past its end the last control is held."""
    rows = jnp.asarray(spline.rows, knots.dtype)
    at = jnp.clip(jnp.asarray(spline.steps) + steps, 0, spline.horizon - 1)
    moved = jnp.tensordot(rows[at], knots, axes=1, precision=jax.lax.Precision.HIGHEST)
    return jnp.where(jnp.asarray(steps) == 0, knots, moved)


def at_time(ctrls: np.ndarray, elapsed: float, kind: str) -> np.ndarray:
    """Control `[nu]` of the sequence `[H, nu]` at `elapsed` steps (any fraction) after its start."""
    last = len(ctrls) - 1
    elapsed = min(max(elapsed, 0.0), float(last))
    left = int(elapsed)
    if kind == "hold" or left == last:
        return ctrls[left]
    part = elapsed - left
    return (1 - part) * ctrls[left] + part * ctrls[left + 1]
