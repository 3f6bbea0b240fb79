"""When a bar breaks: a learned hazard over load, with strengths that share what is known between materials.

    x = log(F / A)                              load F (N) over section A (mm²)
    z = (x − ℓ_g) / s_g                         g: one material in one direction; ℓ strength, s scatter
    H(z) = e^z + Σ_j e^(b_j + e_j z),  e_j > 0  the learned hazard, summed up to this load; Weibull's law, then flaws
    P(no break below F) = exp(−H)               rises in load for any weights, as every e_j > 0

Partial pooling: the strength relative to what material and direction let one expect, ρ = e^(ℓ − b_a − w_a·fibre − v_fa) with
the base polymer f that the name says, has (ρ^λ − 1) / λ ~ N(0, (τ_a κ_f)²), correlated by r between the two directions of a
material, and log s_g ~ N(c_a, τ_s²). Polymers of few materials keep v near 0 and κ near 1. All of ℓ and s are integrated out
on a grid: bars of one group narrow it, a material never seen keeps the whole spread. A name may also mislead: a material
never seen is with chance ½ as its name says and with ½ just any material, whose stresses at break have a normal law in each
direction. λ, b, w, v, τ, κ, r, c and the hazard's weights maximise the marginal likelihood; draws from its curvature carry
how well they are known (an ensemble). A bar that held up to F enters with P(no break below F).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.flatten_util import ravel_pytree

from experiments.measured.bar_rivals import Law, normal
from experiments.measured.bar_set import FAMILIES, Bars

NODES, REACH, BEND = 61, 2.0, 4.5  # grid of ℓ around a group: points, half width (log), how much denser inside
LOADS = 120  # tried for the largest safe one
SCATTERS = 9  # Gauss-Hermite nodes of log s


class Hazard(nnx.Module):
    """log H(z): a log-sum-exp of rising lines, the first of them z itself."""

    def __init__(self, terms: int = 2) -> None:
        self.height = nnx.Param(jnp.full(terms, -4.0))
        self.steepness = nnx.Param(jnp.linspace(-1.0, 2.0, terms))

    def __call__(self, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """log H and log dH/dz, of the shape of z."""
        slope = jnp.concatenate([jnp.ones(1), 0.05 + jax.nn.softplus(self.steepness[...])])
        lines = jnp.concatenate([jnp.zeros(1), self.height[...]]) + slope * z[..., None]
        total = jax.nn.logsumexp(lines, -1)
        return total, total + jnp.log(jnp.sum(jax.nn.softmax(lines, -1) * slope, -1))


class Pooling(nnx.Module):
    """What the groups share; the two entries are the directions xy and z."""

    def __init__(self) -> None:
        self.hazard = Hazard()
        self.level = nnx.Param(jnp.array([3.9, 3.0]))  # b, log MPa
        self.fibre = nnx.Param(jnp.zeros(2))  # w
        self.family = nnx.Param(jnp.zeros((len(FAMILIES), 2)))  # v
        self.family_spread = nnx.Param(jnp.zeros(len(FAMILIES)))  # log κ
        self.log_spread = nnx.Param(jnp.log(jnp.array([0.25, 0.35])))  # τ
        self.correlation = nnx.Param(jnp.array(0.5))  # artanh r
        self.power = nnx.Param(jnp.array(1.0))  # λ
        self.log_scatter = nnx.Param(jnp.log(jnp.array([0.05, 0.12])))  # c
        self.log_scatter_spread = nnx.Param(jnp.log(jnp.array(0.4)))  # τ_s


class Table(NamedTuple):
    """The bars as the model sees them; `weight` 0 hides a bar."""

    x: jax.Array  # [M, 2, K] log MPa
    broke: jax.Array  # [M, 2, K]
    weight: jax.Array  # [M, 2, K]
    fibre: jax.Array  # [M]
    area_std: jax.Array  # [M, 2]
    family: jax.Array  # [M, families] one of them 1


class Fit(NamedTuple):
    """A fitted model: draws of its weights [draws, n], and the bars that it has seen."""

    weights: np.ndarray
    table: Table
    any_bar: tuple[Law, Law]  # log MPa of bars of any material, per direction


class _Tables(NamedTuple):
    """Log quantities on the grid of one material: ℓ and s, likelihood of the bars, prior of both directions."""

    ell: jax.Array  # [M, 2, NODES]
    scatter: jax.Array  # [2, SCATTERS]
    likelihood: jax.Array  # [M, 2, NODES, SCATTERS]
    prior: jax.Array  # [M, NODES, NODES]


def table(bars: Bars, shown: np.ndarray) -> Table:
    """The bars of which `shown` [M, 2, K] is true, for the model."""
    x = np.where(bars.used, bars.log_load - bars.log_area[..., None], 3.5)
    family = np.eye(len(FAMILIES))[bars.family]
    arrays = (x, bars.broke, shown & bars.used, bars.fibre, bars.area_std, family)
    return Table(*(jnp.asarray(a, jnp.float32) for a in arrays))


def _survival(hazard: Hazard, x: jax.Array, ell: jax.Array, scatter: jax.Array) -> tuple[jax.Array, jax.Array]:
    """log P(no break below x) and the log density in x, [M, 2, NODES, SCATTERS, K]."""
    s = scatter[None, :, None, :, None]
    log_h, log_rate = hazard((x[:, :, None, None, :] - ell[..., None, None]) / s)
    minus_h = -jnp.exp(jnp.minimum(log_h, 25.0))
    return minus_h, minus_h + log_rate - jnp.log(s)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Offsets of ℓ [NODES], dense in the middle, and their widths."""
    even = np.linspace(-1.0, 1.0, NODES)
    return REACH * np.sinh(BEND * even) / np.sinh(BEND), REACH * BEND * np.cosh(BEND * even) / np.sinh(BEND) * (
        even[1] - even[0]
    )


def _tables(pooling: Pooling, bars: Table) -> _Tables:
    offsets, widths = _grid()
    expected = (
        pooling.level[...] + bars.fibre[:, None] * pooling.fibre[...] + bars.family @ pooling.family[...]
    )  # [M, 2]
    seen = bars.weight * bars.broke
    count = seen.sum(-1)
    middle = jnp.where(count > 0, (seen * bars.x).sum(-1) / jnp.maximum(count, 1), expected)
    ell = middle[..., None] + offsets
    nodes, mass = np.polynomial.hermite_e.hermegauss(SCATTERS)
    scatter = jnp.exp(pooling.log_scatter[...][:, None] + jnp.exp(pooling.log_scatter_spread[...]) * nodes)
    held, density = _survival(pooling.hazard, bars.x, ell, scatter)
    log = jnp.where(bars.broke[:, :, None, None, :] > 0, density, held)
    likelihood = (log * bars.weight[:, :, None, None, :]).sum(-1) + np.log(mass / mass.sum())
    return _Tables(ell, scatter, likelihood, _prior(pooling, ell - expected[..., None], bars, widths))


def _prior(pooling: Pooling, gap: jax.Array, bars: Table, widths: np.ndarray) -> jax.Array:
    """Log mass of the strengths of both directions, from log ρ = gap [M, 2, NODES] -> [M, NODES, NODES]."""
    power, r = pooling.power[...] + 1e-3, jnp.tanh(pooling.correlation[...])
    own = pooling.log_spread[...] + (bars.family @ pooling.family_spread[...])[:, None]
    spread = jnp.sqrt(jnp.exp(2 * own) + bars.area_std**2)  # [M, 2]
    d = jnp.expm1(power * gap) / power / spread[..., None]
    one, two = d[:, 0, :, None], d[:, 1, None, :]
    square = (one**2 - 2 * r * one * two + two**2) / (1 - r**2)
    scale = jnp.log(spread).sum(-1)[:, None, None] + 0.5 * jnp.log(1 - r**2) + np.log(2 * np.pi)
    jacobian = power * gap + np.log(widths)
    return -0.5 * square - scale + jacobian[:, 0, :, None] + jacobian[:, 1, None, :]


def _joint(tables: _Tables) -> jax.Array:
    """Log mass of the bars and the two strengths of each material, [M, NODES, NODES]."""
    groups = jax.nn.logsumexp(tables.likelihood, -1)
    return tables.prior + groups[:, 0, :, None] + groups[:, 1, None, :]


def _before(pooling: Pooling) -> jax.Array:
    """Minus the log of the weak priors of what the groups share."""
    terms = (
        (pooling.fibre[...], 0.0, 0.3),
        (pooling.family[...], 0.0, 0.25),
        (pooling.family_spread[...], 0.0, 0.5),
        (pooling.power[...], 1.0, 0.5),
        (pooling.correlation[...], 0.0, 1.0),
        (pooling.log_spread[...], np.log(0.3), 0.5),
        (pooling.log_scatter_spread[...], np.log(0.4), 0.5),
        (pooling.hazard.height[...], -4.0, 2.0),
        (pooling.hazard.steepness[...], np.linspace(-1.0, 2.0, 2), 1.0),
    )
    return sum((0.5 * jnp.sum(((value - mean) / std) ** 2) for value, mean, std in terms), jnp.zeros(()))


def _model(weights: jax.Array) -> Pooling:
    graph, state = nnx.split(Pooling())
    return nnx.merge(graph, ravel_pytree(state)[1](weights))


def _loss(weights: jax.Array, bars: Table) -> jax.Array:
    """Minus the log posterior of the weights."""
    pooling = _model(weights)
    return _before(pooling) - jax.nn.logsumexp(_joint(_tables(pooling, bars)), (1, 2)).sum()


@jax.jit
def _climb(bars: Table, rates: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The best weights after one Adam step per rate, and the curvature there, by central differences."""
    start = ravel_pytree(nnx.split(Pooling())[1])[0]
    adam, slope = optax.scale_by_adam(), jax.grad(_loss)

    def step(carry: tuple[jax.Array, optax.OptState], rate: jax.Array) -> tuple[tuple[jax.Array, optax.OptState], None]:
        weights, state = carry
        move, state = adam.update(slope(weights, bars), state)
        return (weights - rate * jnp.asarray(move), state), None

    (best, _), _ = jax.lax.scan(step, (start, adam.init(start)), rates)
    half = 1e-2 * jnp.eye(len(start))
    return best, jax.lax.map(lambda h: (slope(best + h, bars) - slope(best - h, bars)) / 2e-2, half)


def fit(bars: Bars, shown: np.ndarray, *, seed: int = 0, steps: int = 180, draws: int = 16) -> Fit:
    """Fit to the bars of which `shown` [M, 2, K] is true; `draws` (even) members of the ensemble."""
    seen = table(bars, shown)
    rates = 0.03 * (1 + jnp.cos(jnp.linspace(0.0, jnp.pi, steps)))
    best, curvature = (np.asarray(found, np.float64) for found in _climb(seen, rates))
    size, directions = np.linalg.eigh((curvature + curvature.T) / 2)
    size = np.maximum(size, 1.0)  # a weight that the bars say nothing of keeps about its prior
    half = np.random.default_rng(seed).standard_normal((draws // 2, len(best)))
    noise = np.concatenate([half, -half]) / np.sqrt(size)
    return Fit(best + noise @ directions.T, seen, _any_bar(seen))


def _any_bar(seen: Table) -> tuple[Law, Law]:
    x, known = np.asarray(seen.x, float), np.asarray(seen.broke * seen.weight) > 0
    return normal(x[:, 0][known[:, 0]]), normal(x[:, 1][known[:, 1]])


@jax.jit
def _predict(weights: jax.Array, bars: Table, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    pooling = _model(weights)
    tables = _tables(pooling, bars)
    joint = _joint(tables)
    joint = joint - jax.nn.logsumexp(joint, (1, 2), keepdims=True)
    strength = jnp.stack([jax.nn.logsumexp(joint, 2), jax.nn.logsumexp(joint, 1)], 1)  # [M, 2, NODES]
    weight = strength[..., None] + tables.likelihood - jax.nn.logsumexp(tables.likelihood, -1, keepdims=True)
    held, density = _survival(pooling.hazard, x, tables.ell, tables.scatter)
    return jax.nn.logsumexp(weight[..., None] + density, (2, 3)), jax.nn.logsumexp(weight[..., None] + held, (2, 3))


def predict(fitted: Fit, log_load: np.ndarray, log_area: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log density of log F and P(break below F), [M, 2, Q], at loads of which `log_load` [M, 2, Q] is the log (N)."""
    x = jnp.asarray(log_load - log_area[..., None], jnp.float32)
    found = [_predict(jnp.asarray(draw, jnp.float32), fitted.table, x) for draw in fitted.weights]
    density, held = (np.stack([np.asarray(pair[i], np.float64) for pair in found]) for i in range(2))
    told = np.logaddexp.reduce(density) - np.log(len(found)), 1.0 - np.exp(np.minimum(held, 0.0)).mean(axis=0)
    usual = [
        np.stack(part, 1)
        for part in zip(*(law(np.asarray(x[:, a])) for a, law in enumerate(fitted.any_bar)), strict=True)
    ]
    new = (np.asarray(fitted.table.weight).sum((1, 2)) == 0)[:, None, None]
    mixed = np.logaddexp(told[0], usual[0]) - np.log(2), (told[1] + usual[1]) / 2
    return np.where(new, mixed[0], told[0]), np.where(new, mixed[1], told[1])


def largest_load(fitted: Fit, log_area: np.ndarray, risk: float = 0.01) -> np.ndarray:
    """The largest load (N) that keeps P(break) at or below `risk`, [M, 2]."""
    loads = np.broadcast_to(np.linspace(np.log(20.0), np.log(5000.0), LOADS), (*log_area.shape, LOADS))
    chance = predict(fitted, loads, log_area)[1]
    rows = zip(chance.reshape(-1, LOADS), loads.reshape(-1, LOADS), strict=True)
    return np.exp([np.interp(risk, np.maximum.accumulate(p), x) for p, x in rows]).reshape(log_area.shape)
