"""Fit φ and networks to measured throws, for M groups of throws side by side.

    ℓ(throw)  = mean over rows of |p − p̂| / (13 % of the width) + angle / 17°      the two published measures, alike
    J(φ)      = mean over throws of ℓ + ½/n Σ ((φ − φ₀)/spread)²                   n throws are known
    J(net)    = mean over throws of ℓ + SMALL/n · mean over rows of |y|²           few throws: y stays near 0

1. scale      φ₀ of gravity, size and tilt without any fit (scale.py)
2. descent    Adam on ∂J/∂φ through every contact of short windows: over whole throws, impact upon impact, the gradient is
              exact but of a rugged function, and leads astray
3. search     J of whole throws: candidates around φ, drawn anew around the best third
4. learn      Adam on ∂J/∂weights through short windows; φ is held

Legend: P unknowns, M groups, B throws of a batch in each, K candidates.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.toss.models import Fitted, Model, Start
from experiments.toss.scale import SPREAD, begin
from experiments.toss.things import Thing
from experiments.toss.windows import Throws, Windows, whole, window
from physics.rollout import gradient_options

Array = jax.Array
POSITION, ROTATION = 0.13, np.radians(17.0)


class Effort(NamedTuple):
    """How long to fit."""

    descent: int = 20
    search: int = 6
    again: int = 3  # of the search, from the φ of fewer throws
    candidates: int = 8
    batch: int = 32
    rows: int = 112
    window: int = 40
    updates: int = 80  # of a correction at each number of throws, from the weights of fewer
    alone: int = 2  # times as many for a network that must learn contact itself
    rate: float = 4e-3


def per_throw(thing: Thing, qpos: Array, truth: Any, seen: Any) -> Array:
    """ℓ of predicted qpos [H, nq, W]: [W]."""
    apart = jnp.sqrt(jnp.sum((qpos[:, :3] - truth[:, :3]) ** 2, 1) + 1e-8) / thing.width
    dot = jnp.abs(jnp.sum(qpos[:, 3:7] * truth[:, 3:7], 1))
    angle = 2 * jnp.sqrt(jnp.maximum(2 - 2 * dot, 0) + 1e-6)
    if thing.engine.scene.model.nq > 7:
        turn = jnp.sin((qpos[:, 7] - truth[:, 7]) / 2)
        angle = angle + 2 * jnp.sqrt(turn * turn + 1e-6)
    return jnp.sum((apart / POSITION + angle / ROTATION) * seen, 0) / jnp.maximum(jnp.sum(seen, 0), 1)


def drawn(parts: list[Throws], size: int, cut: Callable[[Throws], Windows], rng: np.random.Generator) -> Windows:
    """A batch of `size` throws of each group, cut, side by side."""
    picked = [cut(part.of(_pick(part.number, size, rng))) for part in parts]
    return Windows(*(np.concatenate(x, -1) for x in zip(*picked, strict=True)))


def _pick(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([rng.permutation(count) for _ in range(-(-size // count))])[:size]


def short(rows: int, rng: np.random.Generator) -> Callable[[Throws], Windows]:
    """Cuts windows at random rows, every other one before the first impacts: all that follows hangs on them."""

    def cut(part: Throws) -> Windows:
        latest = np.maximum(part.seen.sum(0).astype(int) - rows - 1, 1)
        latest[::2] = np.minimum(latest[::2], EARLY)
        return window(part, rng.integers(0, latest + 1), rows)

    return cut


class _Objective(NamedTuple):
    value: Callable[..., Array]  # ℓ [M, B]
    gradient: Callable[..., tuple[Array, Any]]


@functools.cache
def objective(thing: Thing, model: Model, *, train_phi: bool) -> _Objective:
    """J of a batch, and its gradient with respect to φ or to the weights."""

    def lost(fitted: Fitted, batch: Windows) -> tuple[Array, Array]:
        qpos, said = model.rollout(fitted, Start(batch.qpos, batch.qvel, batch.heading), batch.truth.shape[0])
        groups = fitted.phi.shape[1]
        return per_throw(thing, qpos, batch.truth, batch.seen).reshape(groups, -1), said.reshape(
            *said.shape[:2], groups, said.shape[2] // groups
        )

    def total(free: Any, held: Any, batch: Windows, anchor: Any) -> tuple[Array, Array]:
        fitted = Fitted(free, held) if train_phi else Fitted(held, (free,))
        loss, said = lost(fitted, batch)
        count, centre, spread = anchor
        if train_phi:
            extra = jnp.sum(((free - centre) / spread) ** 2, 0) / (2 * count)
        else:
            extra = SMALL / count * jnp.mean(jnp.sum(said**2, 1), (0, 2))
        return jnp.sum(jnp.mean(loss, 1) + extra), jnp.mean(loss, 1)

    def gradient(*args: Any) -> Any:
        (_, loss), found = jax.value_and_grad(total, has_aux=True)(*args)
        return loss, found

    return _Objective(
        jax.jit(lambda fitted, batch: lost(fitted, batch)[0]), jax.jit(gradient, compiler_options=gradient_options())
    )


SMALL = 1.0
EARLY = 8  # rows


def _per_group(tree: Any, groups: int, last: bool) -> Any:
    """Scale the gradient of each group to a norm of at most 1."""
    square = lambda x: jnp.sum((x.T if last else x).reshape(groups, -1) ** 2, 1)  # noqa: E731
    size = jnp.sqrt(jnp.sum(jnp.stack([square(x) for x in jax.tree.leaves(tree)]), 0) + 1e-12)
    factor = jnp.minimum(1.0, 1.0 / size)
    shape = lambda x: factor if last else factor.reshape(-1, *[1] * (x.ndim - 1))  # noqa: E731
    return jax.tree.map(lambda x: x * shape(x), tree)


def descend(
    free: Any, step: Callable[[Any, int], tuple[Array, Any]], *, steps: int, rate: Any, groups: int, last: bool
) -> Any:
    """Adam with a rate that falls along a cosine; `step(free, i)` gives loss [M] and gradient."""
    schedule = optax.cosine_decay_schedule(1.0, steps, 0.05)
    chain = optax.chain(optax.scale_by_adam(0.9, 0.98), optax.scale_by_schedule(schedule), optax.scale(-1.0))
    memory = chain.init(free)

    @jax.jit
    def move(free: Any, memory: Any, found: Any) -> Any:
        found = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), found)
        change, memory = chain.update(_per_group(found, groups, last), memory, free)
        return jax.tree.map(lambda x, d: x + rate * d, free, change), memory

    for i in range(steps):
        _, found = step(free, i)
        free, memory = move(free, memory, found)
    return free


def identify(
    thing: Thing, model: Model, parts: list[Throws], effort: Effort, seed: int, known: np.ndarray | None = None
) -> np.ndarray:
    """φ [P, M] of the physics of M groups of throws; `known` is what fewer of the throws said."""
    rng, groups = np.random.default_rng(seed), len(parts)
    centre, spread = begin(thing, parts)
    anchor = (jnp.array([float(p.number) for p in parts]), jnp.asarray(centre), jnp.asarray(spread))
    found = objective(thing, model, train_phi=True)
    if known is not None:
        fixed = spread <= max(SPREAD.values())
        phi = np.where(fixed, centre, known)
        return search(found.value, phi, parts, centre, spread, effort, rng, width=0.25, rounds=effort.again)
    cut = short(effort.window, rng)
    rate = 0.3 * jnp.minimum(jnp.asarray(spread), 0.3)

    def step(phi: Array, i: int) -> tuple[Array, Any]:
        return found.gradient(phi, None, drawn(parts, effort.batch, cut, rng), anchor)

    phi = np.asarray(descend(jnp.asarray(centre), step, steps=effort.descent, rate=rate, groups=groups, last=True))
    return search(found.value, phi, parts, centre, spread, effort, rng, width=0.5, rounds=effort.search)


def search(
    value: Callable[..., Array], phi: np.ndarray, parts: list[Throws], centre: np.ndarray, spread: np.ndarray,
    effort: Effort, rng: np.random.Generator, *, width: float, rounds: int,
) -> np.ndarray:  # fmt: skip
    """Cross-entropy search around φ: each group's candidates are judged on the same throws."""
    groups, many, counts = len(parts), effort.candidates, np.array([p.number for p in parts])
    mean, std = phi.astype(float), width * np.minimum(spread, 0.3)
    for _ in range(rounds):
        tried = mean[..., None] + std[..., None] * rng.normal(size=(*mean.shape, many))
        tried[..., 0] = mean
        batch = drawn(parts, effort.batch, lambda part: whole(part, effort.rows), rng)
        batch = Windows(
            *(np.repeat(x.reshape(*x.shape[:-1], groups, 1, -1), many, -2).reshape(*x.shape[:-1], -1) for x in batch)
        )
        loss = value(Fitted(jnp.asarray(tried.reshape(len(mean), -1), jnp.float32), None), batch)
        loss = np.asarray(loss).mean(1).reshape(groups, many)
        loss = loss + (((tried - centre[..., None]) / spread[..., None]) ** 2).sum(0) / (2 * counts[:, None])
        best = np.argsort(np.where(np.isfinite(loss), loss, np.inf), 1)[:, : max(many // 3, 2)]
        elite = np.take_along_axis(tried, best[None], 2)
        mean = 0.3 * mean + 0.7 * elite.mean(-1)
        std = 0.3 * std + 0.7 * np.maximum(elite.std(-1), 0.05 * np.minimum(spread, 0.3))
    return mean.astype(np.float32)


def learn(
    thing: Thing, model: Model, phi: np.ndarray, parts: list[Throws], effort: Effort, seed: int, known: Any = None
) -> Any:
    """Weights of one member of M groups, from windows of their throws; φ is held, `known` are those that fewer throws gave."""
    rng, groups = np.random.default_rng(seed + 1), len(parts)
    held, found = jnp.asarray(phi), objective(thing, model, train_phi=False)
    anchor = (jnp.array([float(p.number) for p in parts]), 0.0, 1.0)
    cut = short(effort.window, rng)

    def step(weights: Any, i: int) -> tuple[Array, Any]:
        return found.gradient(weights, held, drawn(parts, effort.batch, cut, rng), anchor)

    fresh = model.fresh(jax.random.key(seed), groups) if known is None else known
    steps = effort.updates * (effort.alone if model.name == "network" else 1)
    return descend(fresh, step, steps=steps, rate=effort.rate, groups=groups, last=False)
