"""Torque against angle: a thread-friction model, what a hole's history adds, and what the run itself adds as it goes.

friction     T(θ, k) = b + c θ + (f + g θ) e^(−k/κ)     bearing, friction of the engaged thread; cutting, which dies
                                                      out with use k; identified by least squares
history      T − T(θ, k) = Σ_i s_i(k) v_i(θ)           principal curves v of the residual; the scores s are linear in
                                                      the hole's earlier scores, failures and seats (ridge)
so far       + r_φ(…)                                  a network that also sees the torque of this run up to θ and says
                                                      what comes 1/32 turn to one turn later; zero before training
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.measured.screw_rivals import EDGES, earlier, inputs, other_side, running
from experiments.measured.screw_set import BIN, BINS, Screws

AHEAD = (1, 2, 4, 8, 16, 32)  # bins: 1/32 turn to a whole one
CURVES = 10
BACK = 12  # bins of this run that the network sees
WIDTH = 64


class Forecast(NamedTuple):
    """Of the holes asked, N m."""

    friction: np.ndarray  # [H, K, BINS]
    history: np.ndarray  # [H, K, BINS]
    so_far: np.ndarray  # [H, K, BINS, len(AHEAD)]: what was said that many bins before; nan where nothing was


def friction(curve: np.ndarray) -> np.ndarray:
    """The identified friction model [K, BINS] of curves [H, K, BINS] with nan where nothing was measured."""
    k, theta = np.arange(curve.shape[1]), np.arange(BINS) * BIN / 360
    there = np.isfinite(curve)
    count, total = there.sum(0), np.where(there, curve, 0.0).sum(0)
    best = (np.inf, np.zeros(count.shape))
    for kappa in (0.3, 0.5, 0.8, 1.2, 2.0, 3.0, 5.0, 8.0):
        fade, one = np.exp(-k / kappa)[:, None], np.ones(count.shape)
        basis = np.stack([one, theta * one, fade * one, fade * theta], -1)
        gram = np.einsum("kb,kbi,kbj->ij", count, basis, basis) + 1e-9 * np.eye(4)
        model = basis @ np.linalg.solve(gram, np.einsum("kb,kbi->i", total, basis))
        missed = float(np.sum(count * model**2 - 2 * total * model))
        best = min(best, (missed, model), key=lambda pair: pair[0])
    return best[1]


def filled(curve: np.ndarray) -> np.ndarray:
    """Curves continued with their last value."""
    last = np.maximum.accumulate(np.where(np.isfinite(curve), np.arange(BINS), 0), -1)
    return np.nan_to_num(np.take_along_axis(curve, last, -1))


def history(screws: Screws, model: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Friction model and residual from earlier uses alone, [H, K, BINS], fitted to the holes `shown` [H] bool."""
    rest = filled(screws.curve) - model
    middle = rest[shown].mean(0)
    known = screws.used[:, 1:] & shown[:, None]
    v = np.linalg.svd((rest - middle)[shown][screws.used[shown]], full_matrices=False)[2][:CURVES]
    score = (rest - middle) @ v.T
    x = np.concatenate(
        [earlier(score), earlier(score, 2), running(score, 0.3), running(score, 0.1), running(other_side(screws, score), 0.3),
         np.broadcast_to(score[:, :1], score.shape), inputs(screws, "curves")], -1
    )[:, 1:]  # fmt: skip
    mean, std = x[known].mean(0), x[known].std(0) + 1e-9
    a = np.concatenate([(x - mean) / std, np.ones((*x.shape[:2], 1))], -1)
    weights = np.linalg.solve(a[known].T @ a[known] + 300.0 * np.eye(a.shape[-1]), a[known].T @ score[:, 1:][known])
    later = model[1:] + middle[1:] + (a @ weights) @ v
    return np.concatenate([np.broadcast_to(model[0] + middle[0], (len(x), 1, BINS)), later], 1)


class Network(nnx.Module):
    """What comes `AHEAD` bins later, beyond the forecast from history; linear part and one hidden pair of layers."""

    def __init__(self, inputs: int, rngs: nnx.Rngs) -> None:
        zero = nnx.initializers.zeros
        self.straight = nnx.Linear(inputs, len(AHEAD), kernel_init=zero, rngs=rngs)
        self.first = nnx.Linear(inputs, WIDTH, rngs=rngs)
        self.second = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.last = nnx.Linear(WIDTH, len(AHEAD), kernel_init=zero, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Torque beyond the forecast, N m, [..., len(AHEAD)]."""
        return self.straight(x) + self.last(nnx.silu(self.second(nnx.silu(self.first(x)))))


def windows(screws: Screws, said: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [H, K, BINS, F] after each bin of a run, and targets [H, K, BINS, A] beyond `said`, nan where none."""
    curve = filled(screws.curve)
    rest = np.pad(curve - said, ((0, 0), (0, 0), (BACK - 1, 0)), mode="edge")
    back = np.lib.stride_tricks.sliding_window_view(rest, BACK, -1)
    later = [np.minimum(np.arange(BINS) + h, BINS - 1) for h in AHEAD]
    coming = np.stack([said[..., at] for at in later], -1) - said[..., None]
    use = np.arange(screws.used.shape[1])[:, None] / 25
    place = np.stack(np.broadcast_arrays(np.arange(BINS) / BINS, use, np.exp(-12.5 * use)), -1)
    seat = np.where(np.isfinite(screws.seat), screws.seat, 0.3)
    early = np.stack([running(1 / (1 + np.exp((seat - edge) / 0.05)), 0.15) for edge in EDGES], -1)[:, :, None]
    shape = (*curve.shape, 0)
    wide = lambda x: np.broadcast_to(x, (*shape[:3], x.shape[-1]))  # noqa: E731
    x = np.concatenate([back, curve[..., None], coming, wide(place), wide(early)], -1, dtype=np.float32)
    target = np.stack([np.where(np.arange(BINS) + h < BINS, screws.curve[..., at] - said[..., at], np.nan)
                       for h, at in zip(AHEAD, later, strict=True)], -1)  # fmt: skip
    return x, target.astype(np.float32)


@partial(jax.jit, static_argnames=("graph", "steps"))
def _train(
    graph: nnx.GraphDef, state: nnx.State, key: jax.Array, x: jax.Array, y: jax.Array, *, steps: int
) -> nnx.State:
    adam = optax.adamw(optax.cosine_decay_schedule(3e-3, steps), weight_decay=1e-3)

    def loss(state: nnx.State, x: jax.Array, y: jax.Array) -> jax.Array:
        missed = jnp.where(jnp.isfinite(y), nnx.merge(graph, state)(x) - jnp.nan_to_num(y), 0.0) / 0.05
        return jnp.sum(jnp.sqrt(1 + missed**2) - 1) / jnp.sum(jnp.isfinite(y))

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        state, memory = carry
        rows = jax.random.randint(key, (2048,), 0, len(x))
        move, memory = adam.update(jax.grad(loss)(state, x[rows], y[rows]), memory, state)
        return (optax.apply_updates(state, move), memory), None

    return jax.lax.scan(step, (state, adam.init(state)), jax.random.split(key, steps))[0][0]


def foretell(screws: Screws, shown: np.ndarray, asked: np.ndarray, *, seed: int, steps: int) -> Forecast:
    """All three models, fitted to the holes `shown` [H] bool, about the holes `asked`."""
    model = friction(screws.curve[shown])
    said = history(screws, model, shown)
    x, target = windows(screws, said)
    mine = np.isfinite(screws.curve) & np.isfinite(target).any(-1) & shown[:, None, None]
    mean, std = x[mine].mean(0), x[mine].std(0) + 1e-6
    graph, state = nnx.split(Network(x.shape[-1], nnx.Rngs(seed)))
    rows = jnp.asarray((x[mine] - mean) / std), jnp.asarray(target[mine])
    state = _train(graph, state, jax.random.key(seed), *rows, steps=steps)
    network = nnx.merge(graph, state)
    later = np.asarray(jax.jit(network)(jnp.asarray((x[asked] - mean) / std)), float)
    so_far = np.full((*said[asked].shape, len(AHEAD)), np.nan)
    for i, h in enumerate(AHEAD):
        so_far[:, :, h:, i] = said[asked][:, :, h:] + later[:, :, :-h, i]
    return Forecast(np.broadcast_to(model, said[asked].shape), said[asked], so_far)


def miss(found: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """Root mean square over the angle of each run, where both are known, N m: [H, K]; nan where nothing is."""
    both = np.isfinite(found) & np.isfinite(curve)
    square = np.where(both, np.nan_to_num(found) - np.nan_to_num(curve), 0.0) ** 2
    with np.errstate(invalid="ignore"):
        return np.sqrt(square.sum(-1) / both.sum(-1))


def moved(found: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """`miss` of the forecast moved by what suits each run best, up to a turn either way: what no forecast may know beforehand."""
    at = np.arange(BINS)
    shifts = [np.clip(at + shift, 0, BINS - 1) for shift in range(-AHEAD[-1], AHEAD[-1] + 1)]
    return np.min([miss(found[..., rows], curve) for rows in shifts], 0)
