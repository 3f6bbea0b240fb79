"""The pay-off: follow a swinging path in a world that a residual was fitted to, planned with the model of another arm.

    reference world    design C.1: its identified physics and its residual (without what was missed, which it defines)
    planned with       design C.0: its identified physics; the same with its residual, which sees the torque that was
                       missing in the last 50 and 200 ms; and, for comparison, C.1's own physics and hybrid
    path               q*(t) = a sin(2π f t + p) for each joint, drawn at random; error: root mean square over the run

Model-predictive control by the cross-entropy method: 64 samples, 2 rounds, 0.3 s ahead, a torque every 20 ms.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.measured.double_pendulum import MISSED_TIMES, TORQUE_TIMES, Memory, Window, hybrid, missing, rollout
from experiments.measured.pendulum_fit import Models, graph_of
from experiments.measured.pendulum_set import DESIGNS, STEP
from experiments.measured.splits import bootstrap
from hybridwm.results import Claim
from planners import Cost, Model, PlanParams, Problem, cem, linear

EVERY, AHEAD, TORQUE = 5, 15, 5.0  # steps to a control; controls; N m
WORLD, OTHER = DESIGNS.index("C.1"), DESIGNS.index("C.0")
PLANNERS = ("physics of another design", "hybrid of another design", "own physics", "own hybrid")


class State(NamedTuple):
    """One world, or N."""

    q: jax.Array  # [2, N]
    v: jax.Array  # [2, N]
    memory: Memory
    time: jax.Array  # [N] s


class Path(NamedTuple):
    """What is followed; [2]."""

    size: jax.Array  # a, rad
    rate: jax.Array  # f, Hz
    phase: jax.Array  # p, rad


def wanted(path: Path, time: jax.Array) -> tuple[jax.Array, jax.Array]:
    """q* and its velocity, [2, N]."""
    turn = 2 * jnp.pi * path.rate
    angle = turn * time + path.phase
    return path.size * jnp.sin(angle), path.size * turn * jnp.cos(angle)


def onward(law: Any, state: State, ctrl: jax.Array, design: jax.Array) -> State:
    """`EVERY` steps under one torque [2, N]."""
    given = Window(state.q[None], state.v[None], jnp.broadcast_to(ctrl, (EVERY, *ctrl.shape)), state.memory, design)
    q, v = rollout(law, given)
    return State(q[-1], v[-1], state.memory._replace(fresh=state.memory.fresh), state.time + EVERY * STEP)


def problem(learned: bool) -> Problem:
    """Follow a path with a model (θ, weights, design) handed over as parameters."""
    graph = graph_of("hybrid")[0]

    def step(params: Any, state: State, ctrl: jax.Array) -> tuple[State, None]:
        theta, weights, design = params
        law = hybrid(theta, nnx.merge(graph, weights) if learned else None)
        return onward(law, state, ctrl, jnp.broadcast_to(design, state.time.shape)), None

    def running(path: Path, state: State, ctrl: jax.Array) -> jax.Array:
        q, v = wanted(path, state.time)
        return jnp.sum((state.q - q) ** 2 + 0.01 * (state.v - v) ** 2 + 1e-4 * ctrl**2, 0)

    low = np.full(2, -TORQUE)
    return Problem(Model(step, low, -low, EVERY * STEP), Cost(running), linear(AHEAD, 5))


@partial(jax.jit, static_argnames=("learned", "periods"))
def follow(
    world: tuple[jax.Array, Any], planned: tuple, path: Path, key: jax.Array, *, learned: bool, periods: int
) -> jax.Array:
    """Angle errors after each period, [periods, 2] rad."""
    task = problem(learned)
    planner = cem(task, samples=64, iterations=2, elites=8, std=0.3)
    reality = hybrid(world[0], None if world[1] is None else nnx.merge(graph_of("hybrid")[0], world[1]))
    params = PlanParams(planned, path)
    keep = jnp.repeat(jnp.exp(-STEP / jnp.array(MISSED_TIMES)), 2)

    def period(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        real, seen, warm = carry
        plan, warm = planner.plan(params, key, seen, warm)
        u = plan.ctrls[0]
        wide = jax.tree.map(lambda x: x[..., None], real)
        given = Window(
            wide.q[None], wide.v[None], jnp.broadcast_to(u[:, None], (EVERY, 2, 1)), wide.memory, jnp.full(1, WORLD)
        )
        q, v = (
            jnp.concatenate([a[None], b[..., 0]])
            for a, b in zip((real.q, real.v), rollout(reality, given), strict=True)
        )
        held = jnp.broadcast_to(u[:, None], (2, EVERY))
        lost = missing(planned[0][planned[2]], q.T, v.T, held)
        missed = seen.memory.missed
        for k in range(EVERY):
            missed = keep * missed + (1 - keep) * jnp.tile(lost[:, k], 2)
        torque = _recent(seen.memory.torque, u)
        time = real.time + EVERY * STEP
        real = State(q[-1], v[-1], Memory(torque, jnp.zeros(4), jnp.zeros(2)), time)
        seen = State(q[-1], v[-1], Memory(torque, missed, jnp.ones(2)), time)
        return (real, seen, planner.advance(warm, u, 1)), q[-1] - wanted(path, time)[0]

    q, v = wanted(path, jnp.zeros(()))
    nothing = Memory(jnp.zeros(4), jnp.zeros(4), jnp.zeros(2))
    start = State(q, v, nothing, jnp.zeros(()))
    return jax.lax.scan(period, (start, start, planner.init()), jax.random.split(key, periods))[1]


def _recent(torque: jax.Array, u: jax.Array) -> jax.Array:
    keep = jnp.repeat(jnp.exp(-EVERY * STEP / jnp.array(TORQUE_TIMES)), 2)
    return keep * torque + (1 - keep) * jnp.tile(u, 2)


def study(models: Models, *, quick: bool, seed: int = 0) -> dict[str, np.ndarray]:
    """Root mean square errors [paths, planners], rad. Without a residual (refused) both pairs are alike."""
    rng, paths, periods = np.random.default_rng(seed), 2 if quick else 8, 50 if quick else 150
    theta, weights = jnp.asarray(models.theta, jnp.float32), models.residual
    found = np.zeros((paths, len(PLANNERS)))
    for i in range(paths):
        drawn = rng.uniform((0.4, 0.3, 0.0), (1.2, 0.9, 2 * np.pi), size=(2, 3)).T
        path = Path(*(jnp.asarray(x, jnp.float32) for x in drawn))
        for k, (design, learned) in enumerate(((OTHER, False), (OTHER, True), (WORLD, False), (WORLD, True))):
            planned = theta, weights, jnp.asarray(design)
            learned &= weights is not None
            error = follow((theta, weights), planned, path, jax.random.key(i), learned=learned, periods=periods)
            found[i, k] = np.sqrt(np.mean(np.asarray(error) ** 2))
    return {"error": found}


def summary(track: dict[str, np.ndarray]) -> dict[str, Any]:
    """Mean error of each planner, and hybrid over physics for the other design and for the own one."""
    error = track["error"]
    paths = np.arange(len(error))
    ratio = lambda total: float(total[0] / total[1])  # noqa: E731
    return {
        "paths": len(error),
        "error": {name: error[:, k].mean() for k, name in enumerate(PLANNERS)},
        "ratio": {
            name: {
                "value": ratio(error[:, [k + 1, k]].sum(0)),
                "interval": bootstrap(error[:, [k + 1, k]], paths, statistic=ratio),
            }
            for name, k in (("another design", 0), ("own design", 2))
        },
    }


def claims(numbers: dict[str, Any]) -> list[Claim]:
    """With the model of another design the hybrid tracks better than its physics."""
    found = numbers["ratio"]["another design"]
    return [
        Claim(
            id="doublepend_tracking",
            statement="tracking in C.1's fitted world with C.0's model: error with the hybrid / with its physics",
            value=found["value"],
            interval=found["interval"],
            target=1.0,
            better="lower",
        )
    ]


def rows(numbers: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table of planners."""
    return [("planned with", "tracking error (rad)"), *((name, f"{e:.4f}") for name, e in numbers["error"].items())]
