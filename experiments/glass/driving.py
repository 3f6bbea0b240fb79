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
from experiments.glass.fitting import MEMORY_S
from experiments.glass.leading import moving
from experiments.glass.models import EVERY, luck
from experiments.glass.reality import LEAD_S, reality
from experiments.glass.tasks import Wish
from experiments.glass.walking import STEP_S, Look, Walk, believed, followed, looks
from hybridwm.world import rival
from hybridwm.world.model import WorldModel
from hybridwm.world.physics_model import as_model
from physics import Episode, Reality

REPLAN, LATE = 5, 1
SAMPLES, ITERATIONS = 64, 2
TICK_S = STEP_S * EVERY


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
    plan_s: np.ndarray
    """[P] seconds that each plan took, as a share of its batch; the first one of a batch may hold the compiling."""


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
        """One episode after another: the samples of one are as many worlds as a core's cache holds."""
        one = lambda given: planner.plan(pl.PlanParams(params, given[0]), *given[1:])  # noqa: E731
        return jax.lax.map(one, (goal, jax.random.split(key, len(state.command)), state, carry))

    advance = jax.vmap(planner.advance, in_axes=(0, 0, None))
    return Pilot(jax.jit(begin), jax.jit(plan), jax.jit(advance), planner.init, not network)


class Mind:
    """What a pilot knows and intends, in B episodes: `think` plans, `see` takes in what came of it."""

    def __init__(
        self, pilot: Pilot, params: Any, wishes: Sequence[Wish], *, seed: int, late: int = LATE, rounds: int = 1
    ) -> None:
        self.pilot, self.params, self.seed, self.rounds = pilot, params, seed, rounds
        self.goal = tasks.stacked(wishes)
        qpos, qvel = (
            np.stack([getattr(w.start, part) for w in wishes]).astype(np.float32) for part in ("qpos", "qvel")
        )
        self.lagged = qpos[:, 6:] + LEAD_S * qvel[:, 6:]
        past = np.repeat(self.lagged[:, None], round(MEMORY_S / STEP_S), 1)
        world = pilot.begin(params, qpos, qvel, past)
        self.state = moving(world, self.lagged, TICK_S * qvel[:, 6:], late)
        self.apart, self.carry = getattr(world, "apart", None), _warm(pilot, qvel[:, 6:])
        self.plan: Any = None

    def think(self, tick: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Plan at a tick: commands [B, H, nu] from now on, poses foretold [B, H, nq], how likely a break is [B]."""
        world = self.state.world._replace(time=jnp.full(len(self.lagged), tick * TICK_S, jnp.float32))
        goal, state = self.goal._replace(used=world.events.used[:, 0]), self.state._replace(world=world)
        for number in range(self.rounds):
            key = jax.random.key(1000 * self.seed + tick // REPLAN + 500_000 * number)
            self.plan, self.carry = self.pilot.plan(self.params, goal, key, state, self.carry)
        foretold, chance = (np.asarray(x) for x in (self.plan.states.world.qpos, self.plan.event_probability[:, 0]))
        commands = np.concatenate([self.state.waiting, self.plan.states.command], 1)[:, : foretold.shape[1]]
        return commands, foretold, chance

    def see(self, seen: Look, given: np.ndarray, waiting: np.ndarray | None = None) -> None:
        """After the commands `given` [B, T, nu] since the plan; `waiting` [B, L, nu] if others than planned come next."""
        if self.pilot.lagging:
            self.lagged = followed(self.params.lag_s, self.lagged, given)
        row = given.shape[1] - 1
        here = jax.tree.map(lambda leaf: leaf[:, row], self.plan.states)
        world = believed(here.world, self.apart, seen, self.lagged if self.pilot.lagging else None)
        self.state = here._replace(world=world)
        if waiting is not None:
            self.state = self.state._replace(waiting=jnp.asarray(waiting), command=jnp.asarray(waiting[:, -1]))
        self.carry = self.pilot.advance(self.carry, self.plan.ctrls[:, row], row + 1)


def drive(
    pilot: Pilot, params: Any, wishes: Sequence[Wish], *, seed: int, late: int = LATE, rounds: int = 1,
    make: Callable[[], Reality] = reality,
) -> list[Driven]:  # fmt: skip
    """Drive all episodes side by side, in worlds that wait."""
    total = round(tasks.SECONDS[wishes[0].task] / TICK_S)
    walks = [Walk(wish, total, seed + number, make) for number, wish in enumerate(wishes)]
    mind, told, spent = Mind(pilot, params, wishes, seed=seed, late=late, rounds=rounds), list[Any](), list[float]()
    for tick in range(0, total, REPLAN):
        begun = time.perf_counter()
        commands, foretold, chance = mind.think(tick)
        spent.append((time.perf_counter() - begun) / len(wishes))
        told.append((foretold.astype(np.float32), chance, commands))
        for walk, mine in zip(walks, commands[:, :REPLAN], strict=True):
            walk.go(mine)
        mind.see(looks(walks), commands[:, :REPLAN])
    found = [np.stack(column, 1) for column in zip(*told, strict=True)]
    ended = [walk.end() for walk in walks]
    return [
        Driven(w, e, tasks.judge(w, e), found[0][i], found[1][i], found[2][i], np.array(spent))
        for i, (w, e) in enumerate(zip(wishes, ended, strict=True))
    ]


def _warm(pilot: Pilot, speed: np.ndarray) -> Any:
    """A planner's memory that lets the fork go on as fast as it goes, speed [B, nu]."""
    many = jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf)[None], len(speed), 0), pilot.fresh())
    return many._replace(knots=many.knots + jnp.asarray(speed)[:, None])
