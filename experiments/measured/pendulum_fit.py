"""Learn the double pendulum: θ by gradient through the rollout, then the residual; the network alone in the same way.

    loss = Σ √(1 + |Δq/0.1|² + |Δv/1|²) − 1          over short stretches, then longer ones; unstable stretches do not rule

Stretches are drawn evenly over runs. The residual is kept only where runs set aside for validation say that it is better
at 1 s than the physics; so is the longer stage of each fit. All models see the same runs, stretches and number of updates.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.measured.double_pendulum import (
    WIDTH,
    Memory,
    Residual,
    Window,
    hybrid,
    memories,
    network_alone,
    published,
    rollout,
)
from experiments.measured.pendulum_set import STEP, Run

STAGES = ((50, 1.0), (125, 0.5), (250, 0.5))  # steps of a stretch, share of the updates
BATCH, DRAWN = 96, 2048
HORIZONS_S = (0.1, 0.2, 0.5, 1.0, 2.0)
LONGEST = round(HORIZONS_S[-1] / STEP)
LEAST = 60  # rows before a stretch, for the memory
CHUNK = 256  # windows rolled out at once


class Models(NamedTuple):
    """What was learned from some runs."""

    theta: np.ndarray  # [3, 11]
    residual: nnx.State | None  # None: refused by validation
    network: nnx.State


def cut(runs: Sequence[Run], places: Sequence[tuple[int, int]], length: int, theta: np.ndarray | None) -> Window:
    """Stretches of `length` steps that begin at (run, row)."""
    kept = {i: memories(runs[i], theta) for i in sorted({i for i, _ in places})}
    stack = lambda rows: jnp.asarray(np.stack(rows, -1), jnp.float32)  # noqa: E731
    q, v = (stack([getattr(runs[i], x)[s : s + length + 1] for i, s in places]) for x in "qv")
    u = stack([runs[i].u[s : s + length] for i, s in places])
    effort, friction = (stack([kept[i][k][s] for i, s in places]) for k in range(2))
    memory = Memory(effort, friction, jnp.ones((2, len(places))))
    return Window(q, v, u, memory, jnp.asarray([runs[i].design for i, _ in places]))


def drawn(runs: Sequence[Run], length: int, seed: int, count: int = DRAWN) -> list[tuple[int, int]]:
    """Random beginnings, as many from each run."""
    rng = np.random.default_rng(seed)
    long = [i for i, run in enumerate(runs) if len(run.u) > length + LEAST]
    if not long:
        raise ValueError(f"none of {len(runs)} runs to learn from lasts {(length + LEAST) * STEP:g} s, as is needed")
    return [
        (i, int(rng.integers(LEAST, len(runs[i].u) - length + 1)))
        for i in np.resize(rng.permutation(long), count).tolist()
    ]


def every(runs: Sequence[Run], stride_s: float = 0.25, most: int = 40) -> list[tuple[int, int]]:
    """Beginnings `stride_s` apart, at most `most` per run, whose longest forecast ends inside the run."""
    found = []
    for i, run in enumerate(runs):
        rows = np.arange(LEAST, len(run.u) - LONGEST + 1, round(stride_s / STEP))
        found += [
            (i, int(s)) for s in rows[np.unique(np.linspace(0, len(rows) - 1, most).round().astype(int))] if len(rows)
        ]
    return found


def _loss(q: jax.Array, v: jax.Array, given: Window) -> jax.Array:
    missed = (((q - given.q[1:]) / 0.1) ** 2 + (v - given.v[1:]) ** 2).sum(1).mean(0)
    return (jnp.sqrt(1 + missed) - 1).mean()


def _law(kind: str, theta: jax.Array, weights: Any, graph: Any, trust: Any = 1.0) -> Any:
    if kind == "network":
        return network_alone(nnx.merge(graph, weights))
    return hybrid(theta, None if weights is None else nnx.merge(graph, weights), trust)


@partial(jax.jit, static_argnames=("kind", "graph", "steps"))
def _learn(
    kind: str, graph: Any, start: tuple[jax.Array, Any], given: Window, key: jax.Array, rate: jax.Array, *, steps: int
) -> tuple[jax.Array, Any]:
    """`steps` updates of θ (kind identified) or of the weights."""
    identify, (theta, weights) = kind == "identified", start
    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())

    def loss(free: Any, key: jax.Array) -> jax.Array:
        rows = jax.random.randint(key, (BATCH,), 0, given.q.shape[-1])
        batch = jax.tree.map(lambda x: x[..., rows], given)
        law = _law(kind, free if identify else theta, None if identify else free, graph)
        prior = 1e-3 * jnp.mean((free - theta) ** 2) if identify else 0.0
        return _loss(*rollout(law, batch), batch) + prior

    def step(carry: Any, given: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        (free, state), (key, share) = carry, given
        move, state = adam.update(jax.grad(loss)(free, key), state)
        return (jax.tree.map(lambda x, m: x - rate * share * m, free, move), state), None

    shares = 0.5 * (1 + jnp.cos(jnp.linspace(0.0, jnp.pi, steps)))
    free = theta if identify else weights
    free = jax.lax.scan(step, (free, adam.init(free)), (jax.random.split(key, steps), shares))[0][0]
    return (free, weights) if identify else (theta, free)


@partial(jax.jit, static_argnames=("kind", "graph"))
def _foretold(kind: str, graph: Any, theta: jax.Array, weights: Any, trust: jax.Array, given: Window) -> jax.Array:
    """Angles after each step, [LONGEST, 2, W] rad."""
    return rollout(_law(kind, theta, weights, graph, trust), given)[0]


def graph_of(kind: str, seed: int = 0) -> tuple[Any, nnx.State]:
    """The network's form and its weights before training; alone it is twice as wide."""
    return nnx.split(Residual(nnx.Rngs(seed), width=WIDTH * (1 + (kind == "network"))))


def forecasts(
    kind: str, theta: np.ndarray, weights: Any, runs: Sequence[Run], places: list[tuple[int, int]],
    trust: Callable[[Run], float] = lambda run: 1.0,
) -> np.ndarray:  # fmt: skip
    """Angles 0 … LONGEST steps after each beginning, [windows, LONGEST + 1, 2] rad. `trust` in the residual, by run."""
    found, graph = [np.zeros((0, LONGEST + 1, 2))], graph_of(kind)[0]
    for at in range(0, len(places), CHUNK):
        some = places[at : at + CHUNK]
        full = (some * (CHUNK // len(some) + 1))[:CHUNK]
        given = cut(runs, full, LONGEST, None if kind == "network" else theta)
        much = jnp.asarray([trust(runs[i]) for i, _ in full], jnp.float32)
        said = _foretold(kind, graph, jnp.asarray(theta, jnp.float32), weights, much, given)
        path = np.concatenate([np.asarray(given.q[:1], float), np.asarray(said, float)])
        found.append(path.transpose(2, 0, 1)[: len(some)])
    return np.concatenate(found)


def measured(runs: Sequence[Run], places: Sequence[tuple[int, int]]) -> np.ndarray:
    """What the runs did at the same times, [windows, LONGEST + 1, 2] rad."""
    rows = [runs[i].q[s : s + LONGEST + 1] for i, s in places]
    return np.stack(rows) if rows else np.zeros((0, LONGEST + 1, 2))


def errors(
    kind: str, theta: np.ndarray, weights: Any, runs: Sequence[Run], places: list[tuple[int, int]],
    trust: Callable[[Run], float] = lambda run: 1.0,
) -> np.ndarray:  # fmt: skip
    """Errors at each horizon [windows, horizons], rad over both joints; what is not finite is half a turn."""
    rows = [round(h / STEP) for h in HORIZONS_S]
    missed = (forecasts(kind, theta, weights, runs, places, trust) - measured(runs, places))[:, rows]
    return np.nan_to_num(np.sqrt(np.mean(missed**2, -1)), nan=np.pi, posinf=np.pi)


def fit(
    runs: Sequence[Run], valid: Sequence[Run], *, seed: int, updates: int, say: Callable[[str], None] = print
) -> Models:
    """θ, residual and network from `runs`; `valid` decides what is kept."""
    asked = every(valid, most=12)
    theta, key = published(), jax.random.key(seed)

    def worth(kind: str, theta: np.ndarray, weights: Any) -> float:
        error = errors(kind, theta, weights, valid, asked)[:, HORIZONS_S.index(1.0)]
        group = np.array([valid[i].group for i, _ in asked])
        return float(np.exp(np.mean([np.log(np.median(error[group == name])) for name in set(group.tolist())])))

    def stages(kind: str, theta: np.ndarray, weights: Any, rate: float) -> list[tuple[float, np.ndarray, Any]]:
        tried = []
        for stage, (length, share) in enumerate(STAGES):
            given = cut(runs, drawn(runs, length, seed + stage), length, None if kind == "network" else theta)
            start = jnp.asarray(theta, jnp.float32), weights
            steps, pace = round(updates * share), jnp.asarray(rate / (1 + stage))
            fold = jax.random.fold_in(key, stage)
            found, weights = _learn(kind, graph_of(kind)[0], start, given, fold, pace, steps=steps)
            theta = np.asarray(found, float)
            tried.append((worth(kind, theta, weights), theta, weights))
            say(f"  {kind}: {length * STEP:g} s stretches, {tried[-1][0]:.3f} rad at 1 s on validation runs")
        return tried

    best = lambda tried: min(tried, key=lambda one: one[0])  # noqa: E731
    plain, theta, _ = best([(worth("identified", theta, None), theta, None), *stages("identified", theta, None, 0.03)])
    learned, _, residual = best(stages("hybrid", theta, graph_of("hybrid", seed)[1], 5e-3))
    network = best(stages("network", theta, graph_of("network", seed)[1], 5e-3))[2]
    return Models(theta, residual if learned < plain else None, network)
