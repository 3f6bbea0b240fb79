"""θ from logs, by gradient through the engine, with its uncertainty and a word on what the logs cannot tell.

    e_w(z, y)  = x̂(z; x₀ ⊕ y_w) ⊖ x              every row of window w: the first is y_w, for logs are wrong about starts too
    cost       = ½ Σ_wt κ_wt |e_wt / σ|² + ½ |z/s|²    σ: spread of the errors of each number of a row, found with z

The cost goes down by Gauss–Newton steps with damping (Levenberg–Marquardt). Where the answer of a window to z is not smooth, or
surprises, it counts less or not at all (κ, normal.py). What is left at the end is told as it is: the interval holds the noise, the
disagreement of the episodes, and the step that is still asked for where no step lowers the cost.

z are the coordinates of `unknowns.py`, ⊕ and ⊖ those of `tangent.py`. Derivatives (sensitivity.py) are forward-mode through the
engine, or differences; a contact can make the former wrong for the finite change that matters, so they are compared.
Legend: W windows, p unknowns, n = 2 nv numbers to a row (pose, velocity).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from hybridwm.learning import normal
from hybridwm.learning.confounding import confounded
from hybridwm.learning.sensitivity import Look, Sensitivity
from hybridwm.learning.unknowns import Unknown, locate, replaced
from hybridwm.logs.recordings import Windows
from physics import Engine, nominal


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
    fit = Sensitivity(model, params, places, windows, every, free_starts, chunk)
    fit.differences = jacobian == "differences"
    return _search(fit, noise_std, iterations, jacobian == "auto")


def _search(fit: Sensitivity, noise_std: Any, iterations: int, check: bool) -> Identified:
    """Levenberg–Marquardt from the nominal values."""
    low, high = np.array([place.bounds for place in fit.places]).T
    at = fit.look(np.clip(np.zeros(len(fit.places)), low, high), np.zeros((fit.numbers, fit.count)))
    if not np.isfinite(at.errors).all():
        raise ValueError("the rollout from the nominal values is not finite: start from parameters that simulate")
    damping, history, warnings = Damping(1e-3, None), [], []
    for _ in range(iterations):
        sigma = normal.spread(fit, at, noise_std, damping.y is not None)
        found, damping, cost = _descend(fit, at, sigma, damping, (low, high))
        history.append({"cost": cost, "damping": damping.z} | _values(fit, at.z))
        covariance = _covariance(fit, normal.sums(fit, at, sigma, damping.y))
        moved, stuck, at = np.max(np.abs(found.z - at.z) / np.sqrt(np.diag(covariance))), found is at, found
        settled = stuck or (moved < (0.1 if fit.differences else 0.02) and (damping.z < 1e-2 or damping.z > 1e3))
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
    return _told(fit, at, damping, (low, high), tuple(history), warnings, noise_std)


class Damping(NamedTuple):
    """Of the unknowns, and of each window's start [W]; None while the starts are held."""

    z: float
    y: np.ndarray | None


def _descend(
    fit: Sensitivity, at: Look, sigma: np.ndarray, damping: Damping, bounds: Any
) -> tuple[Look, Damping, float]:
    """The first damped step that lowers the cost; no step at all if none does. Also the cost before it."""
    kappa, dy, prior = normal.belief(at, sigma), 0.0, fit.prior
    total = lambda z, costs: float(costs.sum() + 0.5 * z @ prior @ z)  # noqa: E731
    before = total(at.z, normal.costs(at.errors, sigma, kappa))
    for _ in range(8):
        sums = normal.sums(fit, at, sigma, damping.y)
        curve, slope = sums.data + prior, sums.pull.sum(0) + prior @ at.z
        dz = _inside(curve + damping.z * np.diag(np.diag(curve)), slope, at.z, bounds)
        dz = dz / max(1.0, np.max(np.abs(dz) / fit.prior_std))
        if damping.y is not None:
            dy = sums.starts + np.einsum("npw,p->nw", sums.follow, dz)
        z, y = at.z + dz, at.y + dy
        after = normal.costs(fit.errors(z, y), sigma, kappa)
        if damping.y is not None:
            held = normal.costs(fit.errors(z, at.y), sigma, kappa)
            y, better = np.where(after < held, y, at.y), after < held
            after = np.minimum(after, held)
            damping = damping._replace(y=np.clip(damping.y * np.where(better, 0.2, 5), 1e-6, 1e6))
        if total(z, after) < before:
            found = fit.look(z, y)
            if np.isfinite(found.change).all():
                return found, damping._replace(z=max(damping.z / 10, 1e-7)), before
        damping = damping._replace(z=damping.z * 4)
    return at, damping, before


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


def _covariance(fit: Sensitivity, sums: normal.Sums, left: np.ndarray | None = None) -> np.ndarray:
    return normal.posterior(sums, fit.prior_std, fit.episode, fit.rounding, left)


def _disagreement(fit: Sensitivity, at: Look, sigma: np.ndarray, covariance: np.ndarray) -> float:
    """Median over windows of how far the derivative along a step of z is from the difference it should be."""
    std = np.sqrt(np.diag(covariance))
    step = np.maximum(0.3 * std, fit.steps) * np.where(np.arange(len(std)) % 2, -1, 1)
    finite = (fit.errors(at.z + step, at.y) - fit.errors(at.z - step, at.y)) / (2 * sigma[:, None])
    linear = np.einsum("dtnw,d->tnw", at.change[: len(step)], step) / sigma[:, None]
    norm = lambda x: np.sqrt(np.mean(np.square(x), (0, 1)))  # noqa: E731
    return float(np.median(norm(linear - finite) / (norm(finite) + 1e-3 * norm(finite).max() + 1e-12)))


def _values(fit: Sensitivity, z: np.ndarray) -> dict[str, float]:
    return {place.label: float(place.value(v)) for place, v in zip(fit.places, z, strict=True)}


def _told(
    fit: Sensitivity, at: Look, damping: Damping, bounds: Any, history: Any, warnings: list[str], noise_std: Any
) -> Identified:
    sigma = normal.spread(fit, at, noise_std, damping.y is not None)
    sums, both = normal.sums(fit, at, sigma, damping.y), list(zip(fit.places, at.z, strict=True))
    left = _inside(sums.data + fit.prior, sums.pull.sum(0) + fit.prior @ at.z, at.z, bounds)
    left = np.clip(left, -fit.prior_std, fit.prior_std)  # as far as the prior would go
    covariance = _covariance(fit, sums, left)
    std = np.sqrt(np.diag(covariance))
    if (np.abs(left) > 0.5 * std).any():
        warnings = [*warnings, "the logs ask for a step that lowers no cost: the intervals are as wide as that step"]
    stuck = [f"{place.label} stands at its bound {place.value(v):.5g}" for place, v in both if v in place.bounds]
    ends = {p.label: p.value(v + s * np.array([-1.96, 1.96])) for (p, v), s in zip(both, std, strict=True)}
    return Identified(
        params=jax.tree.map(np.asarray, replaced(fit.params, fit.places, at.z)),
        estimate=_values(fit, at.z),
        std={place.label: place.value_std(v, s) for (place, v), s in zip(both, std, strict=True)},
        interval={name: (float(min(x)), float(max(x))) for name, x in ends.items()},
        covariance=covariance,
        correlation=covariance / np.outer(std, std),
        confounded=confounded(normal.seen(sums.data, fit.prior_std, fit.rounding), covariance, fit.places),
        warnings=(*warnings, *stuck),
        history=history,
        noise_std=sigma,
        z=at.z,
        labels=tuple(place.label for place in fit.places),
    )
