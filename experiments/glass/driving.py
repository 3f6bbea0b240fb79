"""Many episodes at once in closed loop, in virtual time: the worlds wait while one call plans for all of them.

    every REPLAN controls:   x(t) as it is, the rest (loads, damage) as the model foretold ──▶ plan for each episode
    a plan made at t is used from t + LATE controls on: the time that planning takes is charged

Legend: B episodes, H horizon, T controls.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import planners as pl
from experiments.glass import tasks
from experiments.glass.models import EVERY, MEMORY_S, Models, luck, ready
from experiments.glass.reality import LEAD_S, reality
from experiments.glass.tasks import Wish
from hybridwm.world import rival
from hybridwm.world.physics_model import as_model
from physics import Episode

REPLAN, LATE = 5, 1
SAMPLES, ITERATIONS = 64, 2


class Driven(NamedTuple):
    """One episode."""

    wish: Wish
    episode: Episode
    outcome: tasks.Outcome
    promised: np.ndarray
    """[P, H, nq] what each plan foretold."""
    chance: np.ndarray
    """[P] how likely each plan took a break to be."""
    ctrls: np.ndarray
    """[P, H, nu]."""
    plan_s: float
    """Seconds that planning took, as a share of the batch."""


class Pilot(NamedTuple):
    """A compiled planner and the model that it plans on."""

    begin: Callable[..., Any]
    """begin(params, qpos [B, nq], qvel, past [B, D, nu]) -> states [B]."""
    plan: Callable[..., Any]
    advance: Callable[..., Any]
    fresh: Callable[[], Any]
    lagging: bool


def pilot(models: Models, name: str) -> Pilot:
    """The planner of one model; those with an engine share theirs."""
    if name == "network":
        made = rival.plan_model(models.network, models.network_params, every=EVERY)
        model, init = made.model, made.init
    else:
        world = models.world
        model, init = as_model(world.engine.scene, world.step, every=EVERY, events=tuple(world.spec.names)), world.init
    planner = pl.mppi(tasks.problem(model), samples=SAMPLES, iterations=ITERATIONS, std=0.12, temperature=0.05)

    def begin(params: Any, qpos: Any, qvel: Any, past: Any) -> Any:
        whole = jnp.ones((len(models.world.spec.names),))
        state = jax.vmap(lambda q, v, p: init(params, q, v, intact=whole, past=p))(qpos, qvel, past)
        return state._replace(events=state.events._replace(luck=jnp.full_like(state.events.luck, luck())))

    def plan(params: Any, goal: Any, key: Any, state: Any, carry: Any) -> Any:
        one = lambda g, k, s, c: planner.plan(pl.PlanParams(params, g), k, s, c)  # noqa: E731
        return jax.vmap(one)(goal, jax.random.split(key, len(state.qpos)), state, carry)

    advance = jax.vmap(planner.advance, in_axes=(0, 0, None))
    return Pilot(jax.jit(begin), jax.jit(plan), jax.jit(advance), planner.init, name != "network")


def params_of(models: Models, name: str) -> Any:
    """What the pilot of a model takes."""
    return models.network_params if name == "network" else ready(models.world, models.params[name])


def drive(pilot: Pilot, params: Any, wishes: Sequence[Wish], *, seed: int) -> list[Driven]:
    """Drive all episodes side by side."""
    count, task = len(wishes), wishes[0].task
    dt = 0.01 * EVERY
    total = round(tasks.SECONDS[task] / dt)
    walks = [_Walk(wish, total, seed + number) for number, wish in enumerate(wishes)]
    goal = tasks.stacked(wishes)
    qpos, qvel = (np.stack([getattr(w.start, part) for w in wishes]).astype(np.float32) for part in ("qpos", "qvel"))
    hold = qpos[:, 6:] + LEAD_S * qvel[:, 6:]
    state = pilot.begin(params, qpos, qvel, np.repeat(hold[:, None], round(MEMORY_S / 0.01), 1))
    carry = _warm(pilot, hold)
    used, lagged, told, spent = np.repeat(hold[:, None], REPLAN + LATE, 1), hold.copy(), list[Any](), 0.0
    for number in range(-(-total // REPLAN)):
        begun = time.perf_counter()
        state = state._replace(time=jnp.full(count, number * REPLAN * dt, jnp.float32))
        goal = goal._replace(used=state.events.used[:, 0])
        plan, carry = pilot.plan(params, goal, jax.random.key(1000 * seed + number), state, carry)
        ctrls, foretold, chance = (np.asarray(x) for x in (plan.ctrls, plan.states.qpos, plan.event_probability[:, 0]))
        spent += time.perf_counter() - begun
        told.append((foretold.astype(np.float32), chance, ctrls))
        late = LATE if number else 0
        steps = np.concatenate([used[:, REPLAN : REPLAN + late], ctrls[:, late:REPLAN]], 1)
        used = ctrls
        for walk, mine in zip(walks, steps, strict=True):
            walk.go(mine)
        if pilot.lagging:
            lagged = _follow(params.lag_s, lagged, steps)
        state = _seen(
            jax.tree.map(lambda leaf: leaf[:, REPLAN - 1], plan.states), walks, lagged if pilot.lagging else None
        )
        carry = pilot.advance(carry, steps[:, -1], REPLAN)
    found = [np.stack(column, 1) for column in zip(*told, strict=True)]
    ended = [walk.end() for walk in walks]
    return [
        Driven(w, e, tasks.judge(w, e), *(column[i] for column in found), spent / count)
        for i, (w, e) in enumerate(zip(wishes, ended, strict=True))
    ]


class _Walk:
    """One reality on its way."""

    def __init__(self, wish: Wish, total: int, seed: int) -> None:
        self.world, self.episode = reality(), None
        self.walk = self.world.walk(total * EVERY, seed=seed, qpos=wish.start.qpos, qvel=wish.start.qvel)
        self.seen = next(self.walk)

    def go(self, ctrls: np.ndarray) -> None:
        """Each control for EVERY steps; nothing once the episode is over."""
        for ctrl in np.repeat(ctrls, EVERY, 0):
            if self.episode is None:
                try:
                    self.seen = self.walk.send(ctrl)
                except StopIteration as over:
                    self.episode = over.value

    def end(self) -> Episode:
        """The episode, also where it ends early."""
        assert self.episode is not None
        return self.episode

    @property
    def intact(self) -> np.ndarray:
        """[nb]."""
        return self.world.reference.intact


def _warm(pilot: Pilot, hold: np.ndarray) -> Any:
    """A planner's memory that holds the fork where it is."""
    one = pilot.fresh()
    many = jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf)[None], len(hold), 0), one)
    knots = jnp.repeat(jnp.asarray(hold, one.knots.dtype)[:, None], one.knots.shape[0], 1)
    return many._replace(knots=knots, ctrl=jnp.asarray(hold, one.ctrl.dtype))


def _follow(lag_s: Any, lagged: np.ndarray, ctrls: np.ndarray) -> np.ndarray:
    """Where motors that lag are after ctrls [B, T, nu]."""
    stay = np.exp(-0.01 * EVERY / np.maximum(np.asarray(lag_s), 1e-6))
    for ctrl in np.moveaxis(ctrls, 1, 0):
        lagged = ctrl + (lagged - ctrl) * stay
    return lagged


def _seen(state: Any, walks: Sequence[_Walk], lagged: np.ndarray | None) -> Any:
    """What the model foretold, corrected by what the world shows."""
    rows = {
        "qpos": [w.seen.qpos for w in walks],
        "qvel": [w.seen.qvel for w in walks],
        "intact": [w.intact for w in walks],
    }
    found = {name: jnp.asarray(np.stack(value), state.qpos.dtype) for name, value in rows.items()}
    gone = 1 - found["intact"]
    memory = state.events._replace(luck=jnp.full_like(state.events.luck, luck()), happened=gone)
    if lagged is not None:
        found["lagged"] = jnp.asarray(lagged, state.qpos.dtype)
    return state._replace(events=memory, **found)
