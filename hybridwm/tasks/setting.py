"""A task meets its scene: names become functions, seconds become steps, and what does not fit is refused.

    ℓ(x, u) = dt Σ_i weight_i |error_i|²        ℓ_H(x) = Σ_j weight_j |error_j|²
    reached(x_H) = max_k off_k / within_k ≤ 1     g(x) = value − max,  min − value
    a bond that must break at T ± w:              g(x_t) = P(broken) − δ while t − dt < T − w,
                                                  1 − δ − P(broken) once t + dt > T + w

Targets and times are traced (`PlanParams.goal`): other ones never compile again.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import planners as pl
from hybridwm.reading import nearest
from hybridwm.tasks.starting import start_of
from hybridwm.tasks.task import Event, Limit, Task, load_task
from hybridwm.tasks.terms import Gauge, gauge, target_of
from hybridwm.world.physics_model import Make, PlanModel, nominal_model
from physics import Scene, brax_engine, gradient_options, load_scene
from physics.stillness import still

Array = jax.Array
PLANNERS = ("predictive_sampling", "cem", "mppi", "annealed_mppi", "adam", "ilqr", "mixture", "joint")
MOST_STEPS = 10_000
WORTH_SPREADING = 4
"""Dofs from which on a step takes longer than handing samples to several devices."""


class Check(NamedTuple):
    """Something that a plan promises: off(aim, state) -> `[N]`, kept where ≤ within."""

    label: str
    unit: str
    within: float
    off: Callable[[Any, Any], Array]
    last: bool
    """Whether it counts at the end only."""
    planned: Callable[[Any, Any], Array] | None = None
    """What the planner keeps ≤ 0 in its place, where more is known than what happens."""


class Aim(NamedTuple):
    """What may change without compiling."""

    cost: tuple[np.ndarray, ...]
    """Target of each cost term, `[k]`."""
    goal: tuple[np.ndarray, ...]
    times: np.ndarray
    """`[timed events]`, s."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A task ready to be planned: what `build_task` makes."""

    task: Task
    scene: Scene
    every: int
    """Engine steps per control."""
    model: PlanModel
    problem: pl.Problem
    planner: pl.Planner
    params: pl.PlanParams
    state: Any
    """Where it begins, as the model sees it."""
    checks: tuple[Check, ...]
    plan: Callable[..., tuple[pl.Plan, Any]]
    """`planner.plan`, compiled."""
    meter: Gauge
    """The quantities of its costs, goals and limits."""

    @property
    def steps(self) -> int:
        """Controls in a closed loop."""
        return round((self.task.duration or self.task.horizon) / self.problem.model.dt)

    def begin(self, qpos: Any, qvel: Any, intact: Any = None) -> Any:
        """Another start, as the model sees it."""
        return pl.strong(self.model.init(self.model.params, qpos, qvel, intact=intact))

    def aim(self, task: Task) -> Aim:
        """The targets and times of a task that differs in nothing else: for `PlanParams.goal`, nothing compiles."""
        return pl.strong(aim_of(task, self.meter))


def build_task(source: Any, scene: Scene | str | None = None, *, model: Make | None = None) -> Setting:
    """Bind a task (a `Task`, or what `load_task` takes) to a scene; the task's own unless one is given.

    model(scene, every) -> PlanModel is what plans are made on; without it the physics alone.
    """
    task = load_task(source)
    scene = scene if isinstance(scene, Scene) else load_scene(_scene_of(task, scene))
    every = _every(task, scene)
    body = (model or _physics)(scene, every)
    meter = gauge(scene, (*task.cost, *task.goal, *task.limits))
    checks = (*_goals(task, meter), *_limits(task, meter), *_timed(task, body))
    problem = _problem(task, body.model, meter, checks, scene.model.nv)
    qpos, qvel, intact = start_of(scene, task.start)
    planner = _planner(task, problem)
    if task.first_guess == "still":
        planner = _guessing(planner, still(scene, qpos))
    planner = _settled(planner, problem.devices)
    state = pl.strong(body.init(body.params, qpos, qvel, intact=intact))
    params = pl.strong(pl.PlanParams(body.params, aim_of(task, meter)))
    _refuse_excluded(checks, params.goal, state)
    options = gradient_options() if task.planner in ("adam", "ilqr", "mixture") else {}
    return Setting(task=task, scene=scene, every=every, model=body, problem=problem, planner=planner, params=params,
                   state=state, checks=checks, plan=jax.jit(planner.plan, compiler_options=options), meter=meter)  # fmt: skip


def _guessing(planner: pl.Planner, ctrl: np.ndarray) -> pl.Planner:
    """The planner, its search begun at a control that is held."""

    def init() -> Any:
        carry = planner.init()
        return carry._replace(knots=jnp.broadcast_to(jnp.asarray(ctrl, carry.knots.dtype), carry.knots.shape))

    return planner._replace(init=init)


def _settled(planner: pl.Planner, devices: Sequence[Any] | None) -> pl.Planner:
    """The planner, its first memory laid out like all later ones, so that the second call compiles nothing."""
    if devices is None:
        return planner
    everywhere = NamedSharding(Mesh(np.asarray(devices), ("samples",)), PartitionSpec())
    return planner._replace(init=lambda: jax.device_put(pl.strong(planner.init()), everywhere))


def aim_of(task: Task, meter: Gauge) -> Aim:
    """The targets and times of a task."""
    count = len(task.cost)
    targets = [
        target_of(term, measure, term.target)
        for term, measure in zip((*task.cost, *task.goal), meter.measures, strict=False)
    ]
    return Aim(
        tuple(targets[:count]), tuple(targets[count:]), np.array([e.at for e in task.events if e.at is not None])
    )


def _physics(scene: Scene, every: int) -> PlanModel:
    return nominal_model(brax_engine(scene), every=every)


def _scene_of(task: Task, scene: str | None) -> str:
    if (scene or task.scene) is None:
        raise ValueError("the task names no scene; give one with --scene, or with `scene:` in the task")
    return str(scene or task.scene)


def _every(task: Task, scene: Scene) -> int:
    """Engine steps per control."""
    dt = float(scene.model.opt.timestep)
    if not task.rate > 0:
        raise ValueError(f"rate is {task.rate:g} Hz; it must be positive")
    every = round(1 / (task.rate * dt))
    if every < 1 or abs(task.rate * dt * every - 1) > 1e-3:
        below = max(int(1 / (task.rate * dt)), 1)
        near = " or ".join(f"{1 / (dt * n):.6g}" for n in sorted({below, below + 1}))
        raise ValueError(
            f"rate {task.rate:g} Hz does not fit the model, which steps {1 / dt:.6g} times a second: "
            f"take a whole part of that, such as {near} Hz"
        )
    return every


def _horizon(task: Task, dt: float) -> int:
    steps = round(task.horizon / dt)
    if steps < 2 or abs(task.horizon / dt - steps) > 0.01:
        near = " or ".join(
            f"{dt * max(n, 2):.6g}" for n in sorted({int(task.horizon / dt), int(task.horizon / dt) + 1})
        )
        raise ValueError(
            f"horizon {task.horizon:g} s does not fit the model, which takes a control every {dt:.6g} s: "
            f"take a whole number of these, at least 2, such as {near} s"
        )
    if steps > MOST_STEPS:
        raise ValueError(f"horizon {task.horizon:g} s is {steps} steps at {task.rate:g} Hz; at most {MOST_STEPS} fit")
    return steps


def _problem(task: Task, model: pl.Model, meter: Gauge, checks: Sequence[Check], nv: int) -> pl.Problem:
    horizon = _horizon(task, model.dt)
    if task.curve == "hold":
        spline = pl.hold(horizon, task.knots)
    else:
        spline = {"linear": pl.linear, "cubic": pl.cubic}[task.curve](horizon, task.knots or max(horizon // 5 + 1, 2))
    ends, on_the_way = ([check for check in checks if check.last is last] for last in (True, False))
    devices = jax.devices() if nv >= WORTH_SPREADING else []
    problem = pl.Problem(
        model=model,
        cost=_cost(task, model.dt, meter),
        spline=spline,
        goal=_goal(ends) if ends else None,
        constraints=tuple(check.planned or check.off for check in on_the_way),
        forbidden=tuple(event.bond for event in task.events if event.must == "hold"),
        required=tuple(event.bond for event in task.events if event.must == "break" and event.at is None),
        delta=task.delta,
        penalty=task.penalty,
        rate=None if task.slew is None else task.slew * (np.asarray(model.ctrl_max) - np.asarray(model.ctrl_min)),
        devices=devices if len(devices) > 1 else None,
    )
    for event in task.events:
        _refuse_unbreakable(model, event.bond)
    return problem


def _refuse_unbreakable(model: pl.Model, bond: str) -> None:
    if bond not in model.events:
        raise ValueError(
            f"bond {bond!r} is not among those that may break in this model; {nearest(bond, model.events)}"
        )


def _cost(task: Task, dt: float, meter: Gauge) -> pl.Cost:
    terms = list(zip(task.cost, meter.measures, strict=False))
    if not terms:
        raise ValueError("cost: give at least one term")
    for term, measure in terms:
        if term.weight < 0:
            raise ValueError(f"{measure.label}: weight is {term.weight:g}; it must not be negative")
        if term.of == "effort" and term.when != "running":
            raise ValueError("'effort' is paid while running: there is no control at the end")
    on_the_way = [(i, term, measure) for i, (term, measure) in enumerate(terms) if term.when != "end"]
    at_the_end = [(i, term, measure) for i, (term, measure) in enumerate(terms) if term.when != "running"]

    def residual(parts: list[Any], share: float, aim: Aim, look: Any) -> Array:
        errors = [math.sqrt(share * t.weight) * m.error(m.value(look), aim.cost[i]) for i, t, m in parts]
        return jnp.concatenate(errors) if errors else jnp.zeros_like(look.state.qpos[:0])

    def running(aim: Aim, state: Any, ctrl: Array) -> Array:
        return residual(on_the_way, dt, aim, meter.look(state, ctrl))

    def terminal(aim: Aim, state: Any) -> Array:
        return residual(at_the_end, 1.0, aim, meter.look(state))

    return pl.least_squares(running, terminal if at_the_end else None)


def _goals(task: Task, meter: Gauge) -> list[Check]:
    def check(index: int) -> Check:
        term, measure = task.goal[index], meter.measures[len(task.cost) + index]
        if not term.within > 0:
            raise ValueError(f"goal {measure.label}: within is {term.within:g}; it must be positive")
        if term.of == "effort":
            raise ValueError("'effort' is no goal: there is no control at the end")
        return Check(measure.label, measure.unit, term.within,
                     lambda aim, state: measure.off(meter.look(state), aim.goal[index]), True)  # fmt: skip

    return [check(index) for index in range(len(task.goal))]


def _goal(ends: Sequence[Check]) -> pl.Goal:
    """The worst of all goals, as a share of its tolerance."""

    def reached(aim: Aim, state: Any) -> Array:
        return jnp.max(jnp.stack([check.off(aim, state) / check.within for check in ends]), axis=0)

    return pl.Goal(reached, 1.0)


def _limits(task: Task, meter: Gauge) -> list[Check]:
    return [
        check
        for limit, measure in zip(task.limits, meter.measures[len(task.cost) + len(task.goal) :], strict=True)
        for check in _sides(limit, measure, meter)
    ]


def _sides(limit: Limit, measure: Any, meter: Gauge) -> list[Check]:
    if limit.of in ("effort", "orientation"):
        raise ValueError(f"limits: {limit.of!r} cannot be limited; the scene limits controls, 'tilt' measures a lean")
    if limit.min is None and limit.max is None:
        raise ValueError(f"limit on {measure.label}: give min, max, or both")
    if limit.min is not None and limit.max is not None and not limit.min < limit.max:
        raise ValueError(f"limit on {measure.label}: min {limit.min:g} is not below max {limit.max:g}")

    def value(state: Any) -> Array:
        found = measure.value(meter.look(state))
        return found[0] if len(found) == 1 else jnp.sqrt(jnp.sum(found**2, axis=0))

    sides: list[Check] = []
    if (low := limit.min) is not None:
        sides.append(
            Check(f"{measure.label} ≥ {low:g}", measure.unit, 0.0, lambda aim, state: low - value(state), False)
        )
    if (high := limit.max) is not None:
        sides.append(
            Check(f"{measure.label} ≤ {high:g}", measure.unit, 0.0, lambda aim, state: value(state) - high, False)
        )
    return sides


def _timed(task: Task, body: PlanModel) -> list[Check]:
    """One constraint per bond that must break at a given time."""
    names = [event.bond for event in task.events]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"events: bond {twice[0]!r} is named twice")
    timed = [event for event in task.events if event.at is not None]
    for event in timed:
        if event.must != "break":
            raise ValueError(f"events: bond {event.bond!r} must hold all the time; 'at' goes with must: break")
        if not (event.within > 0 and float(event.at or 0.0) >= 0):
            raise ValueError(f"events: bond {event.bond!r}: at must not be negative and within must be positive")
        _refuse_unbreakable(body.model, event.bond)
        if event.within < body.model.dt:
            raise ValueError(f"events: bond {event.bond!r}: within is {event.within:g} s, less than one control "
                             f"({body.model.dt:g} s)")  # fmt: skip
    return [_moment(event, index, task.delta, body) for index, event in enumerate(timed)]


def _moment(event: Event, index: int, delta: float, body: PlanModel) -> Check:
    """States show a break up to one control late, so the plan breaks in a control that lies within the window whole."""
    bond, window, dt = body.model.events.index(event.bond), event.within, body.model.dt

    def misses(aim: Aim, state: Any, broken: Array, within: float) -> Array:
        late = state.time - aim.times[index]
        return jnp.where(late < -within, broken, jnp.where(late > within, 1 - broken, 0.0))

    def off(aim: Aim, state: Any) -> Array:
        return misses(aim, state, 1 - state.intact[bond], window - 0.01 * dt)

    def planned(aim: Aim, state: Any) -> Array:
        return misses(aim, state, body.chance(state)[bond], window - 0.99 * dt) - delta

    return Check(f"{event.bond} breaks at {event.at:g} s ± {event.within:g} s", "", 0.0, off, False, planned)


def _planner(task: Task, problem: pl.Problem) -> pl.Planner:
    factory = getattr(pl, task.planner)
    known = {
        name: parameter.default
        for name, parameter in inspect.signature(factory).parameters.items()
        if isinstance(parameter.default, int | float)
    }
    for name in task.options:
        if name not in known:
            raise ValueError(f"options: {task.planner} has no option {name!r}; {nearest(name, known)}")
    return factory(problem, **{name: _as_whole(name, value, known[name]) for name, value in task.options.items()})


def _as_whole(name: str, value: float, default: Any) -> Any:
    if isinstance(default, float):
        return value
    if value != int(value):
        raise ValueError(f"options: {name} is {value:g}; it must be a whole number")
    return type(default)(value)


def _refuse_excluded(checks: Sequence[Check], aim: Aim, state: Any) -> None:
    """A limit that the present state already violates makes every plan impossible."""
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf)[..., None], (aim, state))
    for check in checks:
        excess = 0.0 if check.last else float(check.off(*wide)[0])
        if excess > 0:
            raise ValueError(
                f"limit {check.label} excludes the present state, which is {excess:.4g} {check.unit} beyond it".rstrip()
            )
