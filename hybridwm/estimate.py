"""Where the world is, from noisy, rounded, late sensors: an unscented Kalman filter over any step function.

    X_i   = x̄ ⊕ columns of ±√(n+1) P^½, and x̄ itself              2n+1 points; weights ½/(n+1) and 1/(n+1), all positive
    predict     X_i⁺ = f(X_i, u)          x̄, P = mean, spread of X⁺  + Q
    update      Y_i  = s(X_i, u)          S = spread of Y + R,   K = C S⁻¹,   x̄ ← x̄ ⊕ K ν,   P ← P − K S Kᵀ,   ν = y − Ȳ
    late        a reading is D steps old: the belief lives D steps ago, and is carried to now with the commands given since
    sum         K beliefs side by side, narrow along one coordinate, weighed by what each expected: p(y) ∝ e^{−ε/2} |S|^−½
    mismatch    ε = νᵀ S⁻¹ ν ~ χ²_m while the model is right; a running mean that chance would not explain lowers trust

The state is any tree with the worlds last, of what the step moves and of what only slowly changes: θ of *this* bolt or glass is
part of x, so it is learned while the controller runs, with its variance (`adapting`). ⊕ and ⊖ are those of a `Space`, so poses
keep their unit quaternions. P^½ is a Cholesky factor written out by hand (no LAPACK); pivots that are lost to rounding count as
nothing. Lengths in the tangent space are in units of `scale`, so that float32 carries P however different the units are.
Legend: n tangent coordinates, m readings, nu controls, D steps of delay, W worlds (last), T = 2n+1 points.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physics import smallmat

Array = jax.Array
_LEAST_LOG = -80.0
"""Of an alternative's weight: none is ruled out for good by one odd reading, but those that are not finite are."""
_LEAST = 1e-7
"""Share of a variance below which a pivot counts as lost."""


class Space(NamedTuple):
    """What differences between states are: plus(x, d `[n, W]`) -> x and minus(x, y) -> d with y ⊕ d = x."""

    size: int
    plus: Callable[[Any, Array], Any]
    minus: Callable[[Any, Any], Array]


class Belief(NamedTuple):
    """What is thought of W worlds: a state, and the covariance of its tangent coordinates in units of `scale`."""

    mean: Any
    cov: Array
    """`[n, n, W]`."""


class Innovation(NamedTuple):
    """How a reading differed from what was expected."""

    error: Array
    """`[m, W]` ν."""
    squared: Array
    """`[W]` ε = νᵀ S⁻¹ ν."""
    log_likelihood: Array
    """`[W]` −(ε + ln |S|)/2."""


class Filter(NamedTuple):
    """Pure functions, worlds last. A belief is a `Belief`, or what a sum of filters holds."""

    init: Callable[..., Any]
    """init(mean, std `[n]` or `[n, W]`) -> Belief; std in the units of the state."""
    predict: Callable[..., Any]
    """predict(params, belief, ctrl `[nu, W]`) -> Belief one step later."""
    update: Callable[..., tuple[Any, Innovation]]
    """update(params, belief, reading `[m, W]`, ctrl) -> (Belief, Innovation)."""
    std: Callable[[Any], Array]
    """std(belief) -> `[n, W]` in the units of the state; also of the `Belief` that a tracker tells."""
    space: Space
    unit: Array
    """`[n]` of the tangent coordinates in covariances."""
    whole: Callable[[Any], Belief] = lambda belief: belief
    """whole(belief) -> one `Belief` with the mean and spread of all that is held."""


class Tracking(NamedTuple):
    """A belief about D steps ago, and the commands given since, oldest first."""

    belief: Any
    """`Belief`, or what the filter holds instead."""
    past: Array
    """`[D, nu, W]`."""


class Tracker(NamedTuple):
    """A filter whose readings come late: `see` before a command is chosen, `act` after it."""

    init: Callable[..., Tracking]
    """init(mean, std) -> Tracking."""
    see: Callable[..., tuple[Tracking, Belief, Innovation]]
    """see(params, tracking, reading) -> (tracking, belief about *now*, innovation)."""
    act: Callable[..., Tracking]
    """act(params, tracking, ctrl `[nu, W]`) -> Tracking."""


def vector_space(size: int) -> Space:
    """States that are one array `[n, W]`."""
    return Space(size, lambda x, d: x + d, lambda x, y: x - y)


def joint_space(*parts: Space) -> Space:
    """States that are a tuple of states, one of each space."""
    ends = np.cumsum([0, *(part.size for part in parts)])

    def plus(x: Any, d: Array) -> Any:
        return tuple(p.plus(a, d[i:j]) for p, a, i, j in zip(parts, x, ends[:-1], ends[1:], strict=True))

    def minus(x: Any, y: Any) -> Array:
        return jnp.concatenate([p.minus(a, b) for p, a, b in zip(parts, x, y, strict=True)])

    return Space(int(ends[-1]), plus, minus)


def adapting(step: Callable, sense: Callable, replace: Callable[[Any, Array], Any]) -> tuple[Callable, Callable]:
    """(step, sense) over the state (x, z): z `[p, W]` stands still by itself, and the model runs with replace(params, z)."""

    def joint_step(params: Any, state: Any, ctrl: Array) -> Any:
        x, z = state
        return step(replace(params, z), x, ctrl), z

    def joint_sense(params: Any, state: Any, ctrl: Array) -> Array:
        x, z = state
        return sense(replace(params, z), x, ctrl)

    return joint_step, joint_sense


def unscented(
    step: Callable, sense: Callable, *, space: Space, process_std: Any, noise_std: Any, scale: Any = None
) -> Filter:
    """The filter for step(params, x, ctrl) -> x⁺ and sense(params, x, ctrl) -> readings `[m, W]`.

    process_std `[n]`: of what a step does beyond the model; noise_std `[m]`: of the readings, rounding included. Either may be a
    function (params, x, ctrl) -> `[n, W]` or `[m, W]` where it depends on the state. scale `[n]`: of the tangent coordinates;
    process_std where none is given and all are above 0.
    """
    n = space.size
    unit = _units(scale, process_std, n)[:, None]

    def points(belief: Belief) -> tuple[Any, int]:
        """The 2n+1 states, side by side in the worlds axis, point by point."""
        worlds = belief.cov.shape[-1]
        step_ = jnp.sqrt(n + 1.0) * root(belief.cov) * unit[:, None]
        d = jnp.concatenate([jnp.zeros((n, 1, worlds), step_.dtype), step_, -step_], 1).reshape(n, -1)
        wide = jax.tree.map(lambda x: jnp.tile(x, 2 * n + 1), belief.mean)
        return space.plus(wide, d), worlds

    def predict(params: Any, belief: Belief, ctrl: Array) -> Belief:
        x, worlds = points(belief)
        u = jnp.tile(jnp.asarray(ctrl), 2 * n + 1)
        after = step(params, x, u)
        centre = jax.tree.map(lambda leaf: leaf[..., :worlds], after)
        d = _split(space.minus(after, jax.tree.map(lambda leaf: jnp.tile(leaf, 2 * n + 1), centre)), worlds)
        shift = _mean(d)
        mean, d = space.plus(centre, shift), (d - shift[:, None]) / unit[:, None]
        q = jnp.square(_std(process_std, params, belief.mean, ctrl) / unit)
        return Belief(mean, _spread(d, d) + _diagonal(q, worlds))

    def update(params: Any, belief: Belief, reading: Array, ctrl: Array) -> tuple[Belief, Innovation]:
        x, worlds = points(belief)
        y = _split(sense(params, x, jnp.tile(jnp.asarray(ctrl), 2 * n + 1)), worlds)
        wide = jax.tree.map(lambda leaf: jnp.tile(leaf, 2 * n + 1), belief.mean)
        d = _split(space.minus(x, wide), worlds) / unit[:, None]
        noise = _std(noise_std, params, belief.mean, ctrl)
        middle = _mean(y)
        dy = (y - middle[:, None]) / noise[:, None]
        error = reading - middle
        factor = smallmat.cholesky(_spread(dy, dy) + _diagonal(jnp.ones_like(noise), worlds))
        cross = _spread(dy, d)  # [m, n, W]
        wide_factor = smallmat.Factor(factor.columns[:, :, None], factor.inverse[:, None])
        gain = smallmat.solve(wide_factor, cross)  # S⁻¹ Cᵀ, [m, n, W]
        told = error / noise
        move = jnp.sum(gain * told[:, None], 0) * unit
        cov = belief.cov - jnp.sum(gain[:, :, None] * cross[:, None], 0)
        squared = jnp.sum(told * smallmat.solve(factor, told), 0)
        log_root = jnp.sum(jnp.log(jnp.broadcast_to(noise, error.shape)) - jnp.log(factor.inverse), 0)  # ln |S|^½
        innovation = Innovation(error, squared, -squared / 2 - log_root)
        return Belief(space.plus(belief.mean, move), (cov + jnp.swapaxes(cov, 0, 1)) / 2), innovation

    def init(mean: Any, std: Any) -> Belief:
        worlds = jax.tree.leaves(mean)[0].shape[-1]
        spread = jnp.asarray(std, jnp.result_type(float)).reshape(n, -1)
        mean = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf, float)), mean)
        return Belief(mean, _diagonal(jnp.square(spread / unit), worlds))

    def std(belief: Belief) -> Array:
        return jnp.sqrt(jnp.stack([jnp.maximum(belief.cov[i, i], 0) for i in range(n)])) * unit

    return Filter(init, predict, update, std, space, jnp.asarray(unit[:, 0]))


class Alternatives(NamedTuple):
    """What is thought of W worlds, K times: worlds lie K by K in a belief of K W."""

    belief: Belief
    log_weight: Array
    """`[K, W]`."""


def gaussian_sum(filter_: Filter, *, axis: int, count: int, width: float = 2.2) -> Filter:
    """The filter K = `count` times, from narrow beginnings spread over ± `width` standard deviations of coordinate `axis`.

    For a coordinate that tells nothing until something is reached, as where a joint closes: a broad Gaussian is pushed along by
    what has not happened yet and grows sure of it, where narrow ones are ruled out one by one. The sum begins with nearly the
    spread of one (0.96 of it with 13 to ± 2.2). An innovation's `squared` is that of the alternatives which the reading leaves.
    """
    if count < 2 or not 0 <= axis < filter_.space.size:
        raise ValueError(
            f"count={count}, axis={axis}: give at least 2, and one of the {filter_.space.size} coordinates"
        )
    narrow = 0.75 * 2 * width / (count - 1)
    if not 0 < narrow < 1:
        raise ValueError(f"count={count}, width={width:g}: too few to be narrower than the whole, or no width above 0")
    places = np.linspace(-width, width, count)
    log_prior = -np.square(places) / (2 * (1 - narrow**2))
    log_prior -= np.log(np.exp(log_prior).sum())

    def apart(x: Array) -> Array:
        return x.reshape(*x.shape[:-1], count, -1)

    def wide(x: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.tile(leaf, count), x)

    def init(mean: Any, std: Any) -> Alternatives:
        n, worlds = filter_.space.size, jax.tree.leaves(mean)[0].shape[-1]
        std = jnp.broadcast_to(jnp.asarray(std, jnp.result_type(float)).reshape(n, -1), (n, worlds))
        moved = jnp.zeros((n, count, worlds)).at[axis].set(jnp.asarray(places)[:, None] * std[axis])
        mean = filter_.space.plus(wide(mean), moved.reshape(n, -1))
        belief = filter_.init(mean, wide(std.at[axis].multiply(narrow)))
        return Alternatives(belief, jnp.repeat(jnp.asarray(log_prior, std.dtype)[:, None], worlds, 1))

    def predict(params: Any, held: Alternatives, ctrl: Array) -> Alternatives:
        return held._replace(belief=filter_.predict(params, held.belief, wide(jnp.asarray(ctrl))))

    def update(params: Any, held: Alternatives, reading: Array, ctrl: Array) -> tuple[Alternatives, Innovation]:
        belief, each = filter_.update(params, held.belief, wide(reading), wide(jnp.asarray(ctrl)))
        likely = apart(each.log_likelihood)
        sound = jnp.isfinite(likely)
        joint = held.log_weight + jnp.where(sound, likely, -jnp.inf)
        together = jax.nn.logsumexp(joint, 0)
        before = jax.nn.softmax(jnp.where(sound, held.log_weight, -jnp.inf), 0)
        after = jnp.exp(joint - together)
        mean = lambda share, x: jnp.sum(jnp.where(share > 0, share * apart(x), 0), -2)  # noqa: E731
        innovation = Innovation(mean(before, each.error), mean(after, each.squared), together)
        log_weight = jnp.where(sound, jnp.maximum(joint - together, _LEAST_LOG), -jnp.inf)
        return Alternatives(belief, log_weight), innovation

    def whole(held: Alternatives) -> Belief:
        share, best = jax.nn.softmax(held.log_weight, 0), jnp.argmax(held.log_weight, 0)
        centre = jax.tree.map(lambda leaf: apart(leaf)[..., best, jnp.arange(len(best))], held.belief.mean)
        far = apart(filter_.space.minus(held.belief.mean, wide(centre))) / filter_.unit[:, None, None]  # [n, K, W]
        far = jnp.where(share > 0, far, 0)
        shift = jnp.sum(share * far, 1)
        off = far - shift[:, None]
        cov = jnp.sum(jnp.where(share > 0, share * (apart(held.belief.cov) + off[:, None] * off[None]), 0), 2)
        return Belief(filter_.space.plus(centre, shift * filter_.unit[:, None]), cov)

    def std(held: Any) -> Array:
        return filter_.std(whole(held) if isinstance(held, Alternatives) else held)

    return filter_._replace(init=init, predict=predict, update=update, std=std, whole=whole)


def delayed(filter_: Filter, *, delay: int, nu: int) -> Tracker:
    """The filter with readings that are `delay` whole steps old. Before the first command, commands were zero."""
    if delay < 0 or delay != int(delay):
        raise ValueError(f"delay={delay!r}: give a whole number of steps, at least 0")

    def init(mean: Any, std: Any) -> Tracking:
        worlds = jax.tree.leaves(mean)[0].shape[-1]
        return Tracking(filter_.init(mean, std), jnp.zeros((delay, nu, worlds), jnp.result_type(float)))

    def see(params: Any, tracking: Tracking, reading: Array) -> tuple[Tracking, Belief, Innovation]:
        held = tracking.past[0] if delay else jnp.zeros((nu, reading.shape[-1]), reading.dtype)
        belief, innovation = filter_.update(params, tracking.belief, reading, held)
        now = belief
        for ctrl in tracking.past:
            now = filter_.predict(params, now, ctrl)
        return tracking._replace(belief=belief), filter_.whole(now), innovation

    def act(params: Any, tracking: Tracking, ctrl: Array) -> Tracking:
        line = jnp.concatenate([tracking.past, jnp.asarray(ctrl, tracking.past.dtype)[None]])
        return Tracking(filter_.predict(params, tracking.belief, line[0]), line[1:])

    return Tracker(init, see, act)


class Mismatch(NamedTuple):
    """A running mean of ε."""

    mean: Array
    """`[W]`."""
    weight: Array
    """`[]` how much of the mean is readings, up to 1."""


def fresh_mismatch(worlds: int) -> Mismatch:
    """Before the first reading."""
    return Mismatch(jnp.zeros(worlds), jnp.zeros(()))


def watch(
    mismatch: Mismatch, innovation: Innovation, *, memory: float = 20.0, doubt: float = 2.33, lost: float = 6.0
) -> tuple[Mismatch, Array]:
    """(mismatch, trust `[W]`): 1 while chance explains the last `memory` readings, 0 where it surely does not.

    The mean of about 2·memory readings times their number is χ² with that many times m degrees of freedom; z is how many standard
    deviations that is too much (Wilson & Hilferty). Trust falls from 1 at z = doubt (1 % by chance) to 0 at z = lost.
    """
    m, rate = innovation.error.shape[0], 1 / memory
    weight = mismatch.weight + rate * (1 - mismatch.weight)
    mean = mismatch.mean + rate / weight * (innovation.squared - mismatch.mean)
    freedom = m * (2 / rate - 1) * weight
    z = (jnp.cbrt(mean / m) - (1 - 2 / (9 * freedom))) / jnp.sqrt(2 / (9 * freedom))
    return Mismatch(mean, weight), jnp.clip((lost - z) / (lost - doubt), 0, 1)


def root(cov: Array) -> Array:
    """L `[n, n, W]`, lower, with L Lᵀ = P; a direction that is certain, or lost to rounding, gets nothing."""
    n, zero = cov.shape[0], jnp.zeros_like(cov[0, 0])
    low: list[list[Array]] = []
    for i in range(n):
        row: list[Array] = []
        for j in range(i):
            rest = cov[i, j] - sum((row[k] * low[j][k] for k in range(j)), zero)
            pivot = low[j][j]
            row.append(jnp.where(pivot > 0, rest / jnp.where(pivot > 0, pivot, 1), 0))
        left = cov[i, i] - sum((x * x for x in row), zero)
        sound = left > _LEAST * cov[i, i]
        row.append(jnp.where(sound, jnp.sqrt(jnp.where(sound, left, 1)), 0))
        low.append(row)
    return jnp.stack([jnp.stack([*row, *[zero] * (n - i - 1)]) for i, row in enumerate(low)])


def _units(scale: Any, process_std: Any, n: int) -> np.ndarray:
    given = process_std if scale is None else scale
    if callable(given):
        raise ValueError("process_std is a function: give scale, the size of each tangent coordinate")
    unit = np.broadcast_to(np.asarray(given, float), (n,))
    if not (np.isfinite(unit).all() and (unit > 0).all()):
        raise ValueError(f"scale is {unit.tolist()}: give {n} numbers above 0, the size of each tangent coordinate")
    return unit.astype(jnp.result_type(float))


def _std(std: Any, params: Any, x: Any, ctrl: Any) -> Array:
    """`[n, W]` or `[n, 1]`."""
    found = jnp.asarray(std(params, x, ctrl) if callable(std) else std, jnp.result_type(float))
    return found if found.ndim == 2 else found[:, None]


def _split(d: Array, worlds: int) -> Array:
    """`[k, T W]` -> `[k, T, W]`."""
    return d.reshape(d.shape[0], -1, worlds)


def _mean(d: Array) -> Array:
    """Weighted mean over the points: `[k, T, W]` -> `[k, W]`."""
    n = (d.shape[1] - 1) // 2
    return (d[:, 0] + 0.5 * jnp.sum(d[:, 1:], 1)) / (n + 1)


def _spread(a: Array, b: Array) -> Array:
    """Weighted Σ a bᵀ over the points: `[k, T, W]`, `[l, T, W]` -> `[k, l, W]`."""
    n = (a.shape[1] - 1) // 2
    weights = np.full((a.shape[1], 1), 0.5 / (n + 1), a.dtype)
    weights[0] = 1 / (n + 1)
    return jnp.stack([jnp.sum(weights * row * b, 1) for row in a])


def _diagonal(values: Array, worlds: int) -> Array:
    """`[k, W]` or `[k, 1]` -> `[k, k, W]`."""
    k = values.shape[0]
    return jnp.eye(k, dtype=values.dtype)[..., None] * jnp.broadcast_to(values, (k, worlds))[:, None]
