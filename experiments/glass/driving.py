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
from experiments.glass.leading import moving
from experiments.glass.models import EVERY, MEMORY_S, luck
from experiments.glass.reality import LEAD_S, reality
from experiments.glass.tasks import Wish
from hybridwm.world import rival
from hybridwm.world.model import WorldModel
from hybridwm.world.physics_model import as_model
from physics import Episode

REPLAN, LATE = 5, 1
SAMPLES, ITERATIONS = 64, 2
NECK = 0.085
"""m from the body's centre to the neck's."""


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


def pilot(world: WorldModel, network: Any = None) -> Pilot:
    """The planner on the network, or else the one that all models with an engine share."""
    names = tuple(world.spec.names)
    if network:
        made = rival.plan_model(network.model, network.params, every=EVERY)
        model, init = made.model, made.init
    else:
        model, init = as_model(world.engine.scene, world.step, every=EVERY, events=names), world.init
    planner = pl.mppi(
        tasks.problem(model), samples=SAMPLES, iterations=ITERATIONS, std=0.4, temperature=0.05, finest=0.1
    )

    def begin(params: Any, qpos: Any, qvel: Any, past: Any) -> Any:
        whole = jnp.ones(len(names))
        state = jax.vmap(lambda q, v, p: init(params, q, v, intact=whole, past=p))(qpos, qvel, past)
        memory: Any = state.events
        return state._replace(events=memory._replace(luck=jnp.full_like(memory.luck, luck())))

    def plan(params: Any, goal: Any, key: Any, state: Any, carry: Any) -> Any:
        one = lambda g, k, s, c: planner.plan(pl.PlanParams(params, g), k, s, c)  # noqa: E731
        return jax.vmap(one)(goal, jax.random.split(key, len(state.command)), state, carry)

    advance = jax.vmap(planner.advance, in_axes=(0, 0, None))
    return Pilot(jax.jit(begin), jax.jit(plan), jax.jit(advance), planner.init, not network)


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
    state = moving(state, hold, dt * qvel[:, 6:], LATE)
    carry, apart = _warm(pilot, qvel[:, 6:]), getattr(state.world, "apart", None)
    lagged, told, spent = hold.copy(), list[Any](), 0.0
    for number in range(-(-total // REPLAN)):
        begun = time.perf_counter()
        world = state.world._replace(time=jnp.full(count, number * REPLAN * dt, jnp.float32))
        goal = goal._replace(used=world.events.used[:, 0])
        plan, carry = pilot.plan(params, goal, jax.random.key(1000 * seed + number), state._replace(world=world), carry)
        foretold, chance = (np.asarray(x) for x in (plan.states.world.qpos, plan.event_probability[:, 0]))
        ctrls = np.concatenate([state.waiting, plan.states.command], 1)[:, : foretold.shape[1]]
        spent += time.perf_counter() - begun
        told.append((foretold.astype(np.float32), chance, ctrls))
        for walk, mine in zip(walks, ctrls[:, :REPLAN], strict=True):
            walk.go(mine)
        if pilot.lagging:
            lagged = _follow(params.lag_s, lagged, ctrls[:, :REPLAN])
        here = jax.tree.map(lambda leaf: leaf[:, REPLAN - 1], plan.states)
        state = here._replace(world=_seen(here.world, apart, walks, lagged if pilot.lagging else None))
        carry = pilot.advance(carry, plan.ctrls[:, REPLAN - 1], REPLAN)
    found = [np.stack(column, 1) for column in zip(*told, strict=True)]
    ended = [walk.end() for walk in walks]
    return [
        Driven(w, e, tasks.judge(w, e), found[0][i], found[1][i], found[2][i], spent / count)
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
    def qpos(self) -> np.ndarray:
        """[nq]."""
        return self.seen.qpos

    @property
    def qvel(self) -> np.ndarray:
        """[nv]."""
        return self.seen.qvel

    @property
    def intact(self) -> np.ndarray:
        """[nb]."""
        return self.world.reference.intact


def _warm(pilot: Pilot, speed: np.ndarray) -> Any:
    """A planner's memory that lets the fork go on as fast as it goes, speed [B, nu]."""
    many = jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf)[None], len(speed), 0), pilot.fresh())
    return many._replace(knots=many.knots + jnp.asarray(speed)[:, None])


def _follow(lag_s: Any, lagged: np.ndarray, ctrls: np.ndarray) -> np.ndarray:
    """Where motors that lag are after ctrls [B, T, nu]."""
    stay = np.exp(-0.01 * EVERY / np.maximum(np.asarray(lag_s), 1e-6))
    for ctrl in np.moveaxis(ctrls, 1, 0):
        lagged = ctrl + (lagged - ctrl) * stay
    return lagged


def _seen(state: Any, apart: Any, walks: Sequence[_Walk], lagged: np.ndarray | None) -> Any:
    """What the model foretold, corrected by what the world shows; of a bond that holds its stretch is kept as foretold.

    A pose read from the world is off by far less than a glass, but by more than a weld gives way: its load would be noise.
    """
    qpos, qvel, intact = (np.stack([getattr(w, part) for w in walks]) for part in ("qpos", "qvel", "intact"))
    before = np.asarray(state.qpos), np.asarray(state.qvel)
    holds = (intact > 0.5) & (np.asarray(state.intact) > 0.5)
    for here, there, one, other in zip((qpos, qvel), before, _rigid(qpos, qvel), _rigid(*before), strict=True):
        stretch = np.where(holds, there[:, 3:6] - other, 0.0)
        here[:, 3:6] = np.where(intact > 0.5, one + stretch, here[:, 3:6])
    cast = lambda x: jnp.asarray(x, state.qpos.dtype)  # noqa: E731
    memory = state.events._replace(luck=jnp.full_like(state.events.luck, luck()), happened=cast(1 - intact))
    found: dict[str, Any] = {"qpos": cast(qpos), "qvel": cast(qvel), "intact": cast(intact)}
    found["apart"] = jnp.where(cast(intact) > 0.5, apart, state.apart) if hasattr(state, "apart") else None
    found["lagged"] = None if lagged is None else cast(lagged)
    return state._replace(events=memory, **{name: value for name, value in found.items() if value is not None})


def _rigid(qpos: np.ndarray, qvel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the neck would be, and how fast, were it one with the body: [B, 3] each."""
    (x, z, tilt), (vx, vz, turn) = qpos[:, :3].T, qvel[:, :3].T
    sin, cos = np.sin(tilt), np.cos(tilt)
    pose = np.stack([x + NECK * sin, z + NECK * (cos - 1), tilt], 1)
    return pose, np.stack([vx + NECK * cos * turn, vz - NECK * sin * turn, turn], 1)
