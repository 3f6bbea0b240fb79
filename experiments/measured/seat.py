"""Does the next use of a hole fail? A filter over what cannot be seen: where the thread of the hole lies.

    φ_k       angle at which the head meets the part in use k, in turns from the limit of the forming step
    ℓ_k       the earliest such angle, of which a hole keeps the memory; ρ how much it falls with each use (wear)
    φ_k = ℓ_k + ξ,  ξ ~ e(ξ)      the screw's own thread comes round within one turn: e is learned, about uniform on [0, 1]
    ℓ_k+1 ~ N(ℓ_k − ρ, σ²)        wear; now and then a thread is cut anew and ℓ jumps
    p_k = P(φ_k < φ_max)          too early: the torque limit is met while the thread is still being formed

The belief over (ℓ, ρ), on a grid, is the memory m of the event: after each use it is multiplied by e(φ_k − ℓ) and moved
on. What the belief leaves unexplained is a small correction, linear in the torques of the last uses and of recent
failures; over-angle and other failures have a hazard of their own, which rises with use.

    P(fail at k) = 1 − (1 − σ(a + b·logit p_k + c·x_k)) (1 − q_k)

All weights maximise the likelihood of seats and failures together; members of the ensemble see holes reweighted at random.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.measured.screw_set import Screws

LOWEST = np.arange(-1.4, 0.45, 1 / 24)  # ℓ, turns from the limit
WEAR = np.array([0.0, 4.0, 8.0, 14.0, 24.0]) / 360  # ρ, turns per use
KNOTS = np.linspace(-0.6, 1.6, 45)  # of log e
ANGLES = np.arange(-1.2, 1.3, 1 / 36)  # φ, to sum over
RECENT, JUMP = 0.3, 0.25  # weight of the last use in the running mean; width of a jump, turns
SEATS_WEIGHT = 0.3  # of the seats' likelihood beside that of the failures


class Holes(NamedTuple):
    """What the filter sees of H holes; uses in front."""

    seat: jax.Array  # [K, H] turns, nan unknown
    failed: jax.Array  # [K, H]
    other: jax.Array  # [K, H] failures that are not by torque, before this use
    features: jax.Array  # [K, H, F] standardised, of the run itself
    used: jax.Array  # [K, H]


class Memory(nnx.Module):
    """The weights of the filter."""

    def __init__(self, features: int) -> None:
        inside = 1 / (1 + np.exp(-KNOTS / 0.05)) / (1 + np.exp((KNOTS - 1) / 0.05))
        self.phase = nnx.Param(jnp.asarray(np.log(inside + 0.01), jnp.float32))  # log e, up to a constant
        self.start = nnx.Param(jnp.array([0.0, np.log(0.1)]))  # mean and log std of ℓ₁
        self.wear = nnx.Param(jnp.zeros(len(WEAR)))
        self.log_std = nnx.Param(jnp.log(jnp.array(0.04)))  # σ
        self.jump = nnx.Param(jnp.array(-3.0))
        self.limit = nnx.Param(jnp.array([-0.02, np.log(0.02)]))  # φ_max and its width
        self.other = nnx.Param(jnp.array([-4.0, 0.05, 0.0]))
        self.scale = nnx.Param(jnp.array([0.0, 1.0]))  # a, b
        self.last = nnx.Param(jnp.zeros(features))
        self.mean = nnx.Param(jnp.zeros(features))
        self.recent = nnx.Param(jnp.array(0.0))

    def log_density(self, xi: jax.Array | np.ndarray) -> jax.Array:
        """log e(ξ), per turn."""
        whole = jax.nn.logsumexp(self.phase[...]) + np.log(KNOTS[1] - KNOTS[0])
        return jnp.interp(xi, KNOTS, self.phase[...]) - whole

    def moves(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Transition of ℓ for each ρ, [R, L, L]; that of a jump, [L, L]; the probability of a jump."""
        gap = LOWEST[None, :] - LOWEST[:, None]
        stay = jax.nn.softmax(-0.5 * ((gap + WEAR[:, None, None]) / jnp.exp(self.log_std[...])) ** 2, -1)
        return stay, jax.nn.softmax(-0.5 * (gap / JUMP) ** 2, -1), jax.nn.sigmoid(self.jump[...])

    def chances(self) -> jax.Array:
        """P(φ < φ_max) for each ℓ, [L]."""
        density = jax.nn.softmax(self.log_density(ANGLES[None, :] - LOWEST[:, None]), -1)
        return density @ jax.nn.sigmoid((self.limit[...][0] - ANGLES) / jnp.exp(self.limit[...][1]))

    def __call__(self, holes: Holes) -> tuple[jax.Array, jax.Array]:
        """Minus the log density of each seat given those before, and P(fail) of each use but the first: [K-1, H]."""
        (stay, anew, jump), early = self.moves(), self.chances()
        first = jax.nn.softmax(-0.5 * ((LOWEST - self.start[...][0]) / jnp.exp(self.start[...][1])) ** 2)
        belief = jax.nn.softmax(self.wear[...])[:, None] * first * jnp.ones((holes.seat.shape[1], 1, 1))

        def use(carry: tuple[jax.Array, ...], given: tuple[jax.Array, ...]) -> tuple[tuple[jax.Array, ...], tuple]:
            (belief, last, mean, recent), (k, seat, failed, other, x, used) = carry, given
            p = jnp.clip(belief.sum(1) @ early, 1e-5, 1 - 1e-5)
            odds = self.scale[...][0] + self.scale[...][1] * jnp.log(p / (1 - p))
            odds += last @ self.last[...] + mean @ self.mean[...] + recent * self.recent[...]
            by_angle = jax.nn.sigmoid(self.other[...][0] + self.other[...][1] * k + self.other[...][2] * other)
            chance = 1 - jax.nn.sigmoid(-odds) * (1 - by_angle)
            known = jnp.isfinite(seat) & (used > 0)
            fit = jnp.where(known[:, None], self.log_density(jnp.nan_to_num(seat)[:, None] - LOWEST), 0.0)
            belief = belief * jnp.exp(fit)[:, None, :]
            total = belief.sum((1, 2))
            belief = belief / total[:, None, None]
            moved = jnp.einsum("hrl,rlm->hrm", belief, stay)
            belief = (1 - jump) * moved + jump * jnp.einsum("hrl,lm->hrm", belief, anew)
            carry = belief, x, (1 - RECENT) * mean + RECENT * x, (1 - RECENT) * recent + RECENT * (failed - 0.2)
            return carry, (-jnp.log(total), chance)

        begin = belief, holes.features[0], holes.features[0], jnp.full(holes.seat.shape[1], -0.2)
        later = jax.tree.map(lambda x: x[1:], holes)
        return jax.lax.scan(use, begin, (jnp.arange(1.0, len(holes.seat)), *later))[1]

    def prior(self) -> jax.Array:
        """Minus the log of the weak priors: e is smooth, jumps are rare, corrections small."""
        bend = self.phase[...][2:] - 2 * self.phase[...][1:-1] + self.phase[...][:-2]
        small = jnp.sum(self.last[...] ** 2) + jnp.sum(self.mean[...] ** 2) + self.recent[...] ** 2
        rare = 0.05 * (self.jump[...] + 3) ** 2 + 0.01 * jnp.sum(self.wear[...] ** 2)
        return 0.02 * jnp.sum(bend**2) + 0.3 * small + rare + 0.1 * self.other[...][2] ** 2


def gather(screws: Screws, features: np.ndarray, rows: np.ndarray) -> Holes:
    """The holes of `rows` for the filter; `features` [H, K, F]."""
    failed = screws.failed[rows].T.astype(float)
    other = np.cumsum((screws.failed & ~screws.by_torque)[rows].T, 0) - (screws.failed & ~screws.by_torque)[rows].T
    arrays = (screws.seat[rows].T, failed, other, np.moveaxis(features[rows], 1, 0), screws.used[rows].T)
    return Holes(*(jnp.asarray(a, jnp.float32) for a in arrays))


def _loss(state: nnx.State, graph: nnx.GraphDef, holes: Holes, weight: jax.Array) -> jax.Array:
    memory = nnx.merge(graph, state)
    seats, chance = memory(holes)
    chance = jnp.clip(chance, 1e-5, 1 - 1e-5)
    happened = -jnp.where(holes.failed[1:] > 0, jnp.log(chance), jnp.log1p(-chance))
    each = ((SEATS_WEIGHT * seats + happened) * holes.used[1:]).sum(0)
    return (jnp.sum(weight * each) + len(holes.seat) * memory.prior()) / jnp.sum(holes.used)


@partial(jax.jit, static_argnames=("graph", "steps"))
def _train(graph: nnx.GraphDef, state: nnx.State, holes: Holes, weights: jax.Array, *, steps: int) -> nnx.State:
    adam = optax.adam(optax.cosine_decay_schedule(0.06, steps))

    def member(weight: jax.Array) -> nnx.State:
        def step(carry: Any, _: None) -> tuple[Any, None]:
            state, memory = carry
            move, memory = adam.update(jax.grad(_loss)(state, graph, holes, weight), memory)
            return (optax.apply_updates(state, move), memory), None

        return jax.lax.scan(step, (state, adam.init(state)), None, length=steps)[0][0]

    return jax.vmap(member)(weights)


@partial(jax.jit, static_argnames="graph")
def _ask(graph: nnx.GraphDef, members: nnx.State, holes: Holes) -> jax.Array:
    return jax.vmap(lambda state: nnx.merge(graph, state)(holes)[1])(members).mean(0)


def foretell(
    screws: Screws, features: np.ndarray, shown: np.ndarray, asked: np.ndarray, *, seed: int, members: int, steps: int
) -> np.ndarray:
    """P(fail) of each use but the first, [asked, K-1], by an ensemble fitted to the holes `shown` [H] bool."""
    graph, state = nnx.split(Memory(features.shape[-1]))
    pieces, piece = np.unique(screws.workpiece[shown], return_inverse=True)
    drawn = np.random.default_rng(seed).exponential(size=(members, len(pieces)))[:, piece]
    weights = jnp.asarray(drawn / drawn.mean(1, keepdims=True), jnp.float32)
    fitted = _train(graph, state, gather(screws, features, shown), weights, steps=steps)
    return np.asarray(_ask(graph, fitted, gather(screws, features, asked)), np.float64).T
