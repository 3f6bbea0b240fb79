"""θ from logs, by gradient through the engine, with its uncertainty and a word on what the logs cannot tell.

    r_w(z, y)  = (x̂(z; x₀ ⊕ y_w) ⊖ x) / σ       every row of window w: the first is y_w/σ, for logs are wrong about starts too
    cost       = ½ Σ_wt κ_wt |r_wt|² + ½ |z/s|²    σ: spread of the residuals of each number of a row, found with z
    κ_wt       = min(1, (3 / max_{u≤t} ‖r_wu‖)²)   ‖·‖: root mean square of a row. After a surprise nothing is believed: past a
                                                  contact made a step too late, errors grow and derivatives lead nowhere
    ⎡A_w  B_w⎤ ⎡δz ⎤     ⎡g_w⎤
    ⎣B_wᵀ C_w⎦ ⎣δy_w⎦ = − ⎣h_w⎦                 Gauss–Newton; y_w belongs to its window alone, so it is eliminated:
    D = Σ A_w − B_w C_w⁻¹ B_wᵀ                  what the data says of z;     (D + s⁻²) δz = −(Σ g_w − B_w C_w⁻¹ h_w + s⁻² z)
    Cov z = (D + s⁻²)⁻¹ (c D + s⁻²) (D + s⁻²)⁻¹   Laplace; c ≥ 1: how much more the windows disagree than σ explains

z are the coordinates of `unknowns.py`, ⊕ and ⊖ those of `tangent.py`. Derivatives are forward-mode through the engine, all
directions at once; a contact can make them wrong for the finite change that matters, so they are compared with differences.
Legend: H steps, W windows, p unknowns, n = 2 nv numbers to a row (pose, velocity).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hybridwm.learning.confounding import confounded
from hybridwm.learning.unknowns import Place, Unknown, locate, replaced
from hybridwm.logs import tangent
from hybridwm.logs.recordings import Windows
from physics import Engine, nominal

Array = jax.Array
SURPRISE = 3.0
_CLIP = 1.345
_CLIPPED = 0.7101645  # mean of min(r², _CLIP²) for a normal r


class Identified(NamedTuple):
    """What the logs say about the unknowns. Values and standard deviations are in the units of the scene."""

    params: Any
    """The parameters given, with the unknowns in place."""
    estimate: dict[str, float]
    std: dict[str, float]
    interval: dict[str, tuple[float, float]]
    """95 %."""
    covariance: np.ndarray
    """[p, p] of z."""
    correlation: np.ndarray
    """[p, p]."""
    confounded: tuple[str, ...]
    """Sentences: what the data cannot tell."""
    warnings: tuple[str, ...]
    history: tuple[dict[str, float], ...]
    """Cost and damping of each iteration."""
    noise_std: np.ndarray
    """[n] σ of pose and velocity."""
    z: np.ndarray
    """[p]."""
    labels: tuple[str, ...]

    @property
    def report(self) -> tuple[str, ...]:
        """Lines to print."""
        rows = [
            f"{name}: {self.estimate[name]:.5g} ± {self.std[name]:.2g}  (95 %: {low:.5g} to {high:.5g})"
            for name, (low, high) in self.interval.items()
        ]
        return (*rows, *self.confounded, *self.warnings)


class Sums(NamedTuple):
    """Normal equations of some windows, after elimination of their starts; float64 numpy."""

    data: np.ndarray  # [p, p] D
    slope: np.ndarray  # [p] reduced gradient
    scatter: np.ndarray  # [p, p] Σ_w of the outer products of each window's reduced gradient
    starts: np.ndarray  # [n, W] −C⁻¹ h: step of the starts at δz = 0
    follow: np.ndarray  # [n, p, W] −C⁻¹ Bᵀ


def identify(
    model: Any,
    windows: Windows,
    unknowns: Sequence[Unknown],
    *,
    params: Any = None,
    every: int = 1,
    noise_std: Any = None,
    free_starts: bool = True,
    iterations: int = 25,
    chunk: int = 4096,
    jacobian: str = "auto",
) -> Identified:
    """Fit the unknowns to windows of logs.

    model: an Engine or a WorldModel; `params` are its parameters (an engine's nominal θ if none). every: engine steps to one row
    of the logs. noise_std [2 nv]: σ; estimated if none, or where it is nan; numbers with σ = inf are not looked at. free_starts:
    the first states are as noisy as the rest and are found too; False takes them as they are. chunk: windows at a time. jacobian:
    forward, differences, or auto: forward unless it is wrong.
    """
    if jacobian not in ("auto", "forward", "differences"):
        raise ValueError(f"jacobian is {jacobian!r}; allowed are auto, forward and differences")
    if not unknowns:
        raise ValueError("no unknowns were given: there is nothing to identify")
    engine: Engine = getattr(model, "engine", model)
    params = nominal(engine.scene) if params is None else params
    places = [locate(engine.scene, params, unknown) for unknown in unknowns]
    fit = _Fit(model, params, places, windows, every, free_starts, chunk)
    fit.differences = jacobian == "differences"
    return _search(fit, noise_std, iterations, jacobian == "auto")


class Look(NamedTuple):
    """What the windows say at one (z, y)."""

    z: np.ndarray  # [p]
    y: np.ndarray  # [n, W] in units of `size`
    errors: np.ndarray  # [H+1, n, W]
    change: np.ndarray  # [D, H+1, n, W]


class _Fit:
    """The windows, and what is computed on them."""

    def __init__(
        self, model: Any, params: Any, places: list[Place], windows: Windows, every: int, free: bool, chunk: int
    ) -> None:
        self.model, self.params, self.places, self.every, self.free = model, params, places, every, free
        self.scene = getattr(model, "engine", model).scene
        self.differences = False
        self.dtype = jnp.result_type(float)
        self.count, self.horizon = windows.qpos.shape[-1], len(windows.ctrl)
        self.numbers = 2 * self.scene.model.nv
        self.chunks = self._cut(windows, min(chunk, self.count))
        self.size = _sizes(self.scene.model, windows)
        self.step = 3e-3 if self.dtype == jnp.float32 else 1e-4
        self._forward = jax.jit(self._by_jvp)
        self._finite = jax.jit(self._by_differences)

    def _cut(self, windows: Windows, width: int) -> list[tuple[np.ndarray, Any]]:
        """(window numbers, arrays): equally wide, the last one filled up with its own windows again."""
        arrays = (windows.qpos, windows.qvel, windows.ctrl, windows.intact[0], windows.past)
        if not all(np.isfinite(x).all() for x in arrays):
            raise ValueError("the windows hold values that are not finite: clean the logs first")
        ids = [np.arange(i, min(i + width, self.count)) for i in range(0, self.count, width)]
        take = lambda x, i: jnp.asarray(np.take(x, np.resize(i, width), -1), self.dtype)  # noqa: E731
        return [(i, tuple(take(x, i) for x in arrays)) for i in ids]

    def _errors(self, z: Array, y: Array, data: Any) -> Array:
        """Prediction ⊖ log [H+1, n, W]; z [p] or [p, W], y [n, W] in units of `size`."""
        qpos, qvel, ctrl, intact, past = data
        model, nv = self.scene.model, self.numbers // 2
        params = replaced(self.params, self.places, z)
        more = (
            {} if self.model is getattr(self.model, "engine", self.model) else {"past": jnp.repeat(past, self.every, 0)}
        )
        y = y * self.size[:, None].astype(self.dtype)
        q, v = tangent.advance(model, qpos[0], y[:nv], xp=jnp), qvel[0] + y[nv:]
        state = self.model.init(params, q, v, intact=intact, **more)
        read = lambda state, info: (state.qpos, state.qvel)  # noqa: E731
        _, (q, v) = self.model.rollout(params, state, jnp.repeat(ctrl, self.every, 0), output=read)
        q, v = q[self.every - 1 :: self.every], v[self.every - 1 :: self.every]
        apart = jax.vmap(partial(tangent.difference, model, xp=jnp))(qpos[1:], q)
        return jnp.concatenate([y[None], jnp.concatenate([apart, v - qvel[1:]], 1)])

    def _directions(self, worlds: int) -> tuple[Array, Array]:
        """One after the other: each unknown, then each number of the starts. [D, p], [D, n, W]."""
        p, n = len(self.places), self.numbers if self.free else 0
        each = jnp.eye(p + n, dtype=self.dtype)
        starts = jnp.pad(each[:, p:], ((0, 0), (0, self.numbers - n)))
        return each[:, :p], jnp.broadcast_to(starts[..., None], (p + n, self.numbers, worlds))

    def _by_jvp(self, z: Array, y: Array, data: Any) -> tuple[Array, Array]:
        """Errors, and their derivatives [D, H+1, n, W]."""
        push = lambda tz, ty: jax.jvp(lambda z, y: self._errors(z, y, data), (z, y), (tz, ty))  # noqa: E731
        return jax.vmap(push, out_axes=(None, 0))(*self._directions(y.shape[-1]))

    def _by_differences(self, z: Array, y: Array, data: Any) -> tuple[Array, Array]:
        """The same by central differences, with the directions as further worlds."""
        dz, dy = (jnp.concatenate([0 * x[:1], x, -x]) * self.step for x in self._directions(y.shape[-1]))
        times, worlds = len(dz), y.shape[-1]
        wide = lambda x: jnp.tile(x, (1,) * (x.ndim - 1) + (times,))  # noqa: E731
        moved = jnp.repeat(z[:, None] + dz.T, worlds, 1)
        begun = wide(y) + jnp.moveaxis(dy, 0, 1).reshape(self.numbers, -1)
        errors = self._errors(moved, begun, jax.tree.map(wide, data))
        errors = jnp.moveaxis(errors.reshape(*errors.shape[:2], times, worlds), 2, 0)
        up, down = jnp.split(errors[1:], 2)
        return errors[0], (up - down) / (2 * self.step)

    def look(self, z: np.ndarray, y: np.ndarray) -> "Look":
        """Errors and derivatives at (z, y)."""
        run, width = self._finite if self.differences else self._forward, self.chunks[0][1][0].shape[-1]
        array = lambda x: jnp.asarray(x, self.dtype)  # noqa: E731
        parts = [
            [np.asarray(x)[..., : len(i)] for x in run(array(z), array(y[:, np.resize(i, width)]), data)]
            for i, data in self.chunks
        ]
        errors, change = (np.concatenate(x, -1) for x in zip(*parts, strict=True))
        return Look(z, y, errors.astype(float), change)

    def sums(self, at: "Look", sigma: np.ndarray, damping: np.ndarray | None) -> Sums:
        """Normal equations, the starts eliminated; a window whose start has not settled (large damping [W]) says little.

        Without damping the starts stay where they are.
        """
        p, width = len(self.places), self.chunks[0][1][0].shape[-1]
        directions = p if damping is None else len(at.change)
        r, change = at.errors / sigma[:, None], at.change[:directions] / sigma[:, None]
        damping = np.zeros(self.count) if damping is None else damping
        cuts, belief = range(0, self.count, width), _belief(r)
        parts = [_reduced(p, *(x[..., i : i + width] for x in (r, change, belief, damping))) for i in cuts]
        data, slope, scatter, starts, follow = zip(*parts, strict=True)
        total = lambda xs: np.sum(np.stack(xs), 0)  # noqa: E731
        return Sums(total(data), total(slope), total(scatter), np.concatenate(starts, -1), np.concatenate(follow, -1))

    def costs(self, at: "Look", sigma: np.ndarray, belief: np.ndarray) -> np.ndarray:
        """½ Σ κ |r|² of each window [W]; infinite where the prediction is not finite."""
        fine = np.isfinite(at.errors).all((0, 1)) & np.isfinite(at.change).all((0, 1, 2))
        with np.errstate(over="ignore", invalid="ignore"):
            costs = 0.5 * np.sum(belief * np.square(at.errors / sigma[:, None]), (0, 1))
        return np.where(fine, costs, np.inf)

    @property
    def prior(self) -> np.ndarray:
        """s⁻² [p, p]."""
        return np.diag([place.unknown.prior_std**-2.0 for place in self.places])


def _belief(r: np.ndarray) -> np.ndarray:
    """κ [H+1, 1, W] of whitened errors [H+1, n, W]."""
    seen = max(int(np.any(r, (0, 2)).sum()), 1)  # numbers of a row that are looked at
    worst = np.maximum.accumulate(np.sqrt(np.sum(np.square(r), 1, keepdims=True) / seen), 0)
    return np.square(SURPRISE / np.maximum(worst, SURPRISE))


def _reduced(p: int, r: np.ndarray, change: np.ndarray, belief: np.ndarray, damping: np.ndarray) -> Any:
    """Sums of some windows from whitened errors [H+1, n, W], derivatives [D, H+1, n, W], κ [H+1, 1, W] and a damping [W]."""
    windows, directions = r.shape[-1], len(change)
    flat = lambda x: np.moveaxis(x.reshape(*x.shape[:-3], -1, windows), -1, 0)  # noqa: E731
    jac = flat(np.sqrt(belief) * change)  # [W, D, N]
    block = jac @ jac.swapaxes(1, 2)  # [W, D, D]
    slope = (jac @ flat(np.sqrt(belief) * r)[..., None])[..., 0]  # [W, D]
    if directions == p:
        none = np.zeros((0, windows))
        return block.sum(0), slope.sum(0), slope.T @ slope, none, np.zeros((0, p, windows))
    inside, mixed = block[:, p:, p:] + 1e-9 * np.eye(directions - p), block[:, :p, p:]
    solve = lambda c: np.linalg.solve(c, np.concatenate([mixed.swapaxes(1, 2), slope[:, p:, None]], -1))  # noqa: E731
    solved, step = solve(inside), solve(inside * (1 + damping[:, None, None] * np.eye(directions - p)))
    settled = 1 / (1 + damping[:, None])
    data = settled[..., None] * (block[:, :p, :p] - mixed @ solved[..., :p])
    own = settled * (slope[:, :p] - (mixed @ solved[..., p:])[..., 0])
    return data.sum(0), own.sum(0), own.T @ own, -step[..., p].T, -np.moveaxis(step[..., :p], 0, -1)


def _sizes(model: Any, windows: Windows) -> np.ndarray:
    """[n] how far each number of a row typically moves within a window; what never moves counts a little."""
    apart = [tangent.difference(model, windows.qpos[0], q) for q in windows.qpos[1:]]
    size = np.sqrt([np.mean(np.square(x), (0, 2)) for x in (np.stack(apart), windows.qvel)])  # [2, nv]
    return np.maximum(size, 0.1 * size.max(1, keepdims=True) + 1e-9).ravel()


def _spread(fit: _Fit, at: Look, given: Any, fitted: bool) -> np.ndarray:
    """σ [n]: root mean square of the errors clipped at _CLIP σ, not below what rounding makes."""
    rows = at.errors if fitted else at.errors[1:]
    squares = np.square(rows)
    least = np.square((1e-4 if fit.dtype == jnp.float32 else 1e-7) * fit.size)
    variance = np.mean(squares, (0, 2)) + least
    for _ in range(50):
        variance = np.mean(np.minimum(squares, _CLIP**2 * variance[:, None]), (0, 2)) / _CLIPPED + least
    found = np.sqrt(variance * len(rows) / max(len(rows) - fitted, 1))  # each window's start took one row
    known = np.full(fit.numbers, np.nan) if given is None else np.asarray(given, float)
    return np.where(np.isnan(known), found, known)


def _search(fit: _Fit, noise_std: Any, iterations: int, check: bool) -> Identified:
    """Levenberg–Marquardt from the nominal values."""
    low, high = np.array([place.bounds for place in fit.places]).T
    at = fit.look(np.clip(np.zeros(len(fit.places)), low, high), np.zeros((fit.numbers, fit.count)))
    if not np.isfinite(at.errors).all():
        raise ValueError("the rollout from the nominal values is not finite: start from parameters that simulate")
    damping, history, warnings = Damping(1e-3, None), [], []
    for _ in range(iterations):
        sigma = _spread(fit, at, noise_std, damping.y is not None)
        found, damping, cost = _descend(fit, at, sigma, damping, (low, high))
        history.append({"cost": cost, "damping": damping.z} | _values(fit, at.z))
        covariance = _posterior(fit, fit.sums(at, sigma, damping.y))
        moved, stuck, at = np.max(np.abs(found.z - at.z) / np.sqrt(np.diag(covariance))), found is at, found
        settled = stuck or (moved < 0.02 and (damping.z < 1e-2 or damping.z > 1e3))
        if fit.free and damping.y is None and (moved < 0.5 or stuck):
            damping = Damping(1e-3, np.full(fit.count, 1e-3))
        elif settled:
            if not check or fit.differences or (worst := _disagreement(fit, at, sigma, covariance)) < 0.2:
                break
            warnings.append(f"derivatives through the engine miss differences by {worst:.0%}: differences were used")
            fit.differences, damping = True, damping._replace(z=1e-3)
            at = fit.look(at.z, at.y)
    else:
        warnings.append(f"not settled after {iterations} iterations: give more, or better starting values")
    return _told(fit, at, damping, tuple(history), warnings, noise_std)


class Damping(NamedTuple):
    """Of the unknowns, and of each window's start [W]; None while the starts are held."""

    z: float
    y: np.ndarray | None


def _descend(fit: _Fit, at: Look, sigma: np.ndarray, damping: Damping, bounds: Any) -> tuple[Look, Damping, float]:
    """The first damped step that lowers the cost; no step at all if none does. Also the cost before it."""
    belief, dy, prior = _belief(at.errors / sigma[:, None]), 0.0, fit.prior
    total = lambda z, costs: float(costs.sum() + 0.5 * z @ prior @ z)  # noqa: E731
    costs = fit.costs(at, sigma, belief)
    before = total(at.z, costs)
    for _ in range(8):
        sums = fit.sums(at, sigma, damping.y)
        curve, slope = sums.data + prior, sums.slope + prior @ at.z
        dz = _inside(curve + damping.z * np.diag(np.diag(curve)), slope, at.z, bounds)
        dz = dz / max(1.0, np.max(np.abs(dz) / [place.unknown.prior_std for place in fit.places]))
        if damping.y is not None:
            dy = sums.starts + np.einsum("npw,p->nw", sums.follow, dz)
        found = fit.look(at.z + dz, at.y + dy)
        if damping.y is not None:
            found, better = _better_starts(fit, found, fit.look(at.z + dz, at.y), sigma, belief)
            damping = damping._replace(y=np.clip(damping.y * np.where(better, 0.2, 5), 1e-6, 1e6))
        if total(found.z, fit.costs(found, sigma, belief)) < before:
            return found, damping._replace(z=max(damping.z / 10, 1e-7)), before
        damping = damping._replace(z=damping.z * 4)
    return at, damping, before


def _better_starts(fit: _Fit, new: Look, old: Look, sigma: np.ndarray, belief: np.ndarray) -> tuple[Look, np.ndarray]:
    """Window by window the start with the lower cost, and where that is the new one [W]."""
    better = fit.costs(new, sigma, belief) < fit.costs(old, sigma, belief)
    return Look(new.z, *(np.where(better, a, b) for a, b in zip(new[1:], old[1:], strict=True))), better


def _inside(curve: np.ndarray, slope: np.ndarray, z: np.ndarray, bounds: Any) -> np.ndarray:
    """The step −curve⁻¹ slope, with unknowns that would leave their bounds held there."""
    low, high = bounds
    free = np.ones(len(z), bool)
    dz = np.zeros(len(z))
    for _ in range(len(z) + 1):
        rest = slope[free] + curve[np.ix_(free, ~free)] @ dz[~free]
        dz[free] = -np.linalg.solve(curve[np.ix_(free, free)], rest)
        out = free & ((z + dz < low) | (z + dz > high))
        if not out.any():
            break
        dz[out], free = np.clip(z + dz, low, high)[out] - z[out], free & ~out
    return dz


def _posterior(fit: _Fit, sums: Sums) -> np.ndarray:
    """Cov z [p, p]: of the data's part c times as wide as σ alone would have it."""
    seen = _seen(fit, sums)
    inverse = np.linalg.inv(seen + fit.prior)
    c = max(1.0, np.trace(inverse @ sums.scatter) / max(np.trace(inverse @ seen), 1e-9))
    return inverse @ (c * seen + fit.prior) @ inverse


def _seen(fit: _Fit, sums: Sums) -> np.ndarray:
    """D [p, p] less what derivatives of finite precision pretend to see."""
    scale = np.sqrt(np.diag(fit.prior))
    values, vectors = np.linalg.eigh(sums.data / np.outer(scale, scale))
    blur = (1e-3 if fit.dtype == jnp.float32 else 1e-6) ** 2 * values[-1]
    return (vectors * np.maximum(values - blur, 0)) @ vectors.T * np.outer(scale, scale)


def _disagreement(fit: _Fit, at: Look, sigma: np.ndarray, covariance: np.ndarray) -> float:
    """Median over windows of how far the derivative along a step of z is from the difference it should be."""
    std = np.sqrt(np.diag(covariance))
    step = np.maximum(0.3 * std, fit.step) * np.where(np.arange(len(std)) % 2, -1, 1)
    finite = (fit.look(at.z + step, at.y).errors - fit.look(at.z - step, at.y).errors) / (2 * sigma[:, None])
    linear = np.einsum("dtnw,d->tnw", at.change[: len(step)], step) / sigma[:, None]
    norm = lambda x: np.sqrt(np.mean(np.square(x), (0, 1)))  # noqa: E731
    return float(np.median(norm(linear - finite) / (norm(finite) + 1e-3 * norm(finite).max() + 1e-12)))


def _values(fit: _Fit, z: np.ndarray) -> dict[str, float]:
    return {place.label: float(place.value(v)) for place, v in zip(fit.places, z, strict=True)}


def _told(fit: _Fit, at: Look, damping: "Damping", history: Any, warnings: list[str], noise_std: Any) -> Identified:
    sigma = _spread(fit, at, noise_std, damping.y is not None)
    sums = fit.sums(at, sigma, damping.y)
    covariance, both = _posterior(fit, sums), list(zip(fit.places, at.z, strict=True))
    std = np.sqrt(np.diag(covariance))
    stuck = [f"{place.label} stands at its bound {place.value(v):.5g}" for place, v in both if v in place.bounds]
    ends = {p.label: p.value(v + s * np.array([-1.96, 1.96])) for (p, v), s in zip(both, std, strict=True)}
    return Identified(
        params=jax.tree.map(np.asarray, replaced(fit.params, fit.places, at.z)),
        estimate=_values(fit, at.z),
        std={place.label: place.value_std(v, s) for (place, v), s in zip(both, std, strict=True)},
        interval={name: (float(min(x)), float(max(x))) for name, x in ends.items()},
        covariance=covariance,
        correlation=covariance / np.outer(std, std),
        confounded=confounded(_seen(fit, sums), covariance, fit.places),
        warnings=(*warnings, *stuck),
        history=history,
        noise_std=sigma,
        z=at.z,
        labels=tuple(place.label for place in fit.places),
    )
