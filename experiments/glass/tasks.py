"""The three tasks, as one cost with numbers that may change from call to call: so that one compiled planner serves all.

    l = w_p |x − mark| + w_t tilt² + w_f (fork − height(t))² + w_b wrong(t) + w_e beyond + w_l too hard
    wrong(t) = P(broken)  before `break_at`,  1 − P(broken)  after it;       `break_at` = never: keep it whole

    carry    to the mark near the edge, fast; neither tipped, dropped nor broken
    snap     the neck off at a given time and place, the body left standing
    rescue   it comes too fast towards the edge: stop it whole; if that cannot be, lose the neck rather than the glass

P is what the model says has become of the bond since the plan began. A model that knows no events has P = 0 throughout.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import planners as pl
from experiments.glass.leading import led
from experiments.glass.models import EVERY
from experiments.glass.reality import HOME_X, Start, standing
from physics import Episode

TASKS = ("carry", "snap", "rescue")
HORIZON, KNOTS = 40, 7
NEVER = 1e6
RATE = np.array([1.5, 0.6])
"""m/s, how fast the commands may move."""
LOW, HIGH = 0.0, 0.088
EDGE = -HOME_X - 0.045
"""Joint x beyond which the feet would leave the table."""
KP, KV = 80.0, 8.0
"""N/m, N s/m of the fork's servos, as the scene has them."""
SECONDS = {"carry": 2.5, "snap": 2.0, "rescue": 1.2}
CLOSE, UPRIGHT = 0.015, 0.2
ON_TIME_S, IN_PLACE = 0.06, 0.03
LOSSES = {"whole": 0.0, "broken": 1.0, "lost": 3.0}


class Goal(NamedTuple):
    """What is asked; every leaf a number."""

    mark: Any  # joint x, m
    place: Any  # weight
    height: Any  # weight of the fork's height
    lift_at: Any  # s, when the fork shall go up to the neck
    whole: Any  # weight of a break at the wrong time
    break_at: Any  # s
    force: Any  # N, the most that the servo may be asked for
    used: Any  # hazard used up when the plan begins


class Wish(NamedTuple):
    """One episode of a task."""

    task: str
    start: Start
    goal: Goal


def wish(task: str, rng: np.random.Generator, *, force: float = NEVER) -> Wish:
    """A random start and goal."""
    if task == "carry":
        start = standing(rng.uniform(-0.6, -0.5), fork=rng.uniform(-0.006, 0.006))
        goal = Goal(rng.uniform(-0.13, -0.08) - HOME_X, 1.0, 1.0, NEVER, 30.0, NEVER, force, 0.0)
    elif task == "snap":
        x = rng.uniform(-0.4, -0.2)
        start = standing(x + rng.uniform(-0.12, 0.12), fork=rng.uniform(-0.006, 0.006))
        at = rng.uniform(1.3, 1.6)
        goal = Goal(x - HOME_X, 1.0, 1.0, at - 0.55, 30.0, at, force, 0.0)
    else:
        start = standing(rng.uniform(-0.3, -0.2), speed=rng.uniform(0.6, 1.5), fork=rng.uniform(-0.006, 0.006))
        goal = Goal(rng.uniform(-0.08, -0.06) - HOME_X, 0.3, 1.0, NEVER, 10.0, NEVER, force, 0.0)
    return Wish(task, start, goal)


def running(goal: Goal, state: Any, ctrl: jax.Array) -> jax.Array:
    """l."""
    world = state.world
    q, time = world.qpos, world.time
    height = jnp.where(time > goal.lift_at, HIGH, LOW)
    gone = chance(goal, world)
    wrong = jnp.where(time > goal.break_at, 1 - gone, gone)
    calm = jnp.abs(time - goal.break_at) < 0.02
    return (
        goal.place * jnp.sqrt(jnp.square((q[0] - goal.mark) / 0.05) + 0.01)
        + jnp.square(q[2] / 0.1)
        + goal.height * jnp.square((q[7] - height) / 0.03)
        + jnp.where(calm, 0.0, goal.whole * wrong)
        + 100 * (jnp.maximum(q[0] - EDGE, 0) / 0.02 + jnp.maximum(-q[1] - 0.005, 0) / 0.02)
        + 5
        * jnp.square(jnp.maximum(jnp.abs(KP * (state.waiting[0, 0] - q[6]) - KV * world.qvel[6]) - goal.force, 0) / 0.5)
    )


def terminal(goal: Goal, state: Any) -> jax.Array:
    """l_H: near the mark, and slow."""
    q, v = state.world.qpos, state.world.qvel
    near = jnp.square((q[0] - goal.mark) / 0.05)
    return goal.place * (5 * near + 5 * jnp.square(v[0] / 0.1)) + 20 * jnp.square(q[2] / 0.1)


def chance(goal: Goal, state: Any) -> jax.Array:
    """P: that the neck broke since the plan began; 1 once it is broken."""
    spent = jnp.maximum(state.events.used[0] - goal.used, 0)
    return jnp.where(state.intact[0] > 0.5, -jnp.expm1(-spent), 1.0)


def problem(model: pl.Model) -> pl.Problem:
    """The planning problem of one model."""
    assert abs(model.dt - 0.01 * EVERY) < 1e-9
    return pl.Problem(led(model, RATE), pl.Cost(running, terminal), pl.cubic(HORIZON, KNOTS))


class Outcome(NamedTuple):
    """How an episode came out."""

    good: bool
    state: str  # whole, broken, lost
    broke_s: float | None
    reached_s: float | None
    """From when on the glass stayed at its mark."""
    off: float
    """m from the mark at the end; of snap: when it broke."""


def judge(asked: Wish, found: Episode) -> Outcome:
    """Whether what was asked came true."""
    goal, dt = asked.goal, float(found.time[1] - found.time[0])
    x, z, tilt = found.qpos[:, 0], found.qpos[:, 1], found.qpos[:, 2]
    stands = bool(abs(tilt[-1]) < UPRIGHT and abs(z[-1]) < 0.01 and x[-1] < EDGE + 0.01) and found.failure is None
    broke = found.breaks[0][1] if found.breaks else None
    state = "lost" if not stands else "whole" if broke is None else "broken"
    away = np.flatnonzero(np.abs(x - goal.mark) > CLOSE)
    since = 0 if not len(away) else int(away[-1]) + 1
    reached = None if since >= len(x) else since * dt
    off = float(abs(x[-1] - goal.mark))
    good = state == "whole" and (asked.task == "rescue" or reached is not None)
    if asked.task == "snap":
        row = len(x) - 1 if broke is None else min(round(broke / dt), len(x) - 1)
        off = float(abs(x[row] - goal.mark))
        good = state == "broken" and broke is not None and abs(broke - goal.break_at) <= ON_TIME_S and off <= IN_PLACE
    return Outcome(good, state, broke, reached, off)


def stacked(wishes: Sequence[Wish]) -> Goal:
    """The goals of several episodes, [B] each."""
    return Goal(*(np.array(column, np.float32) for column in zip(*(wish.goal for wish in wishes), strict=True)))
