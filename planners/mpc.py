"""The receding horizon: plan, use the first control, move on; always in time, always with an answer.

    step(observation, t):   x(t) -> x(t + latency) by the model -> rounds of plan() while the next is expected to end
                            before the budget does -> the control for t + latency

The ladder when planning fails: best plan so far -> previous plan, shifted -> last control held -> the one nearest zero.
`Controller` is for whoever runs a loop of their own; `run` runs one over a `Plant`; `simulate` is the same as one pure
scan. Times are in seconds, on the caller's clock. Legend: H horizon, nu controls.
"""

import json
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planners.knots import at_time
from planners.problem import Plan, Planner, PlanParams, Problem, Status, strong


class Plant(NamedTuple):
    """A machine, or a simulation of one, for which we run the loop."""

    reset: Callable[[], Any]
    apply: Callable[[np.ndarray], Any]
    """apply(ctrl `[nu]`) starts using a control."""
    observe: Callable[[], Any]
    """observe() -> observation, by default the state itself."""


class Record(NamedTuple):
    """One planned control, for the log."""

    t_s: float
    status: int
    cost: float
    took_s: float
    """Wall time of the call, from observation to control."""
    rounds: int
    valid: int
    samples: int
    event_probability: list[float]
    ctrl: list[float]
    error: str = ""


class Published(NamedTuple):
    """A whole plan in use; replaced as one object."""

    ctrls: np.ndarray
    """`[H, nu]`."""
    start_s: float
    """When its first control is due."""
    plan: Plan | None
    status: Status


class Controller:
    """Plans within a budget at every call of `step`.

    budget_s: wall time per call; None runs `max_rounds` always. latency_s: how long after the observation the control
    takes effect; the plan starts from the state predicted for then. estimate(observation) -> state.
    """

    def __init__(
        self,
        problem: Problem,
        planner: Planner,
        params: PlanParams,
        *,
        seed: int = 0,
        budget_s: float | None = None,
        max_rounds: int = 1,
        latency_s: float = 0.0,
        estimate: Callable[[Any], Any] | None = None,
    ) -> None:
        if budget_s is not None and not budget_s > 0:
            raise ValueError(f"the budget must be positive, got {budget_s} s")
        if max_rounds < 1 or latency_s < 0:
            raise ValueError(f"need max_rounds >= 1 and latency_s >= 0, got {max_rounds} and {latency_s}")
        self.problem, self.budget_s, self.max_rounds, self.latency_s = problem, budget_s, max_rounds, latency_s
        self.holds = True
        """Whether the last control is held until the next call of `step`; if not, the plan in use is followed."""
        self.records: list[Record] = []
        self._estimate = estimate or (lambda observation: observation)
        self._params = strong(params)
        self._key = jax.random.key(seed)
        self._plan = jax.jit(_keyed(planner))
        self._advance, self._init = jax.jit(planner.advance), planner.init
        self._predict = jax.jit(_predictor(problem))
        self._low, self._high = (np.asarray(limit) for limit in problem.limits)
        self._template: Any = None
        self.restart()

    @property
    def params(self) -> PlanParams:
        """Model parameters and goal; may be replaced between calls by others of the same shapes."""
        return self._params

    @params.setter
    def params(self, params: PlanParams) -> None:
        self._params = strong(params)

    def restart(self) -> None:
        """Forget the previous plan, not the compiled programs."""
        self._carry = strong(self._init())
        self._count, self._shifted, self._origin_s = 0, 0, None
        self._rest = np.clip(np.zeros_like(self._low), self._low, self._high)
        self._ctrl = self._rest
        self._issued: deque[tuple[float, np.ndarray]] = deque(maxlen=256)
        self.published = Published(self._ctrl[None], 0.0, None, Status.FALLBACK)
        self._round_s: deque[float] = deque(maxlen=64)
        self._rest_s: deque[float] = deque(maxlen=64)

    def warmup(self, observation: Any, rounds: int = 5) -> None:
        """Compile everything and time a few rounds; after this no call compiles."""
        self._template = strong(self._estimate(observation))
        self._predict(self._params, self._template, jnp.asarray(self._in_use(0.0)), jnp.int32(1))
        for _ in range(rounds):
            self.step(observation, 0.0)
        durations = list(self._round_s)[1:] or list(self._round_s)
        self.restart()
        self.records.clear()
        self._round_s.extend(durations)

    def step(self, observation: Any, t: float) -> np.ndarray:
        """The control `[nu]` for time `t` + latency: finite, within limits, whatever happens."""
        begin = time.perf_counter()
        error, rounds, done_s = "", 0, begin
        state = self._state(observation)
        due_s = t + self.latency_s
        try:
            steps = self._steps_since(due_s)
            in_use = self._ctrl if self.holds else self.command(due_s)
            self._carry = self._advance(self._carry, jnp.asarray(in_use), jnp.int32(steps))
            ahead = round(self.latency_s / self.problem.model.dt)
            if ahead:
                state = self._predict(self._params, state, jnp.asarray(self._in_use(t)), jnp.int32(ahead))
            plan, rounds = self._rounds(state, begin)
            done_s = time.perf_counter()
            if plan is not None:
                ctrls = np.asarray(plan.ctrls)
                self.published = Published(ctrls, due_s, plan, Status(int(plan.status)))
            else:
                self.published = self.published._replace(status=Status.DEADLINE)
        except (RuntimeError, ArithmeticError, MemoryError) as failure:
            self.published = self.published._replace(status=Status.FALLBACK)
            error = f"{type(failure).__name__}: {failure}".splitlines()[0]
        self._ctrl = self.command(due_s)
        self._issued.append((due_s, self._ctrl))
        self._record(t, begin, rounds, error)
        self._rest_s.append(time.perf_counter() - done_s if rounds else 0.0)
        return self._ctrl

    def command(self, t: float) -> np.ndarray:
        """The control that the plan in use says for time `t`; its last one for later times."""
        ctrls, start_s, _, _ = self.published
        ctrl = at_time(ctrls, (t - start_s) / self.problem.model.dt, self.problem.spline.kind)
        ctrl = np.where(np.isfinite(ctrl), ctrl, np.where(np.isfinite(self._ctrl), self._ctrl, 0))
        return np.clip(ctrl, self._low, self._high).astype(self._low.dtype)

    def _state(self, observation: Any) -> Any:
        """The state, of the very types and shapes that were compiled."""
        state = self._estimate(observation)
        if self._template is None:
            self._template = strong(state)
        if jax.tree.structure(state) != jax.tree.structure(self._template):
            raise ValueError(f"the observation gives {jax.tree.structure(state)}, "
                             f"but the first one gave {jax.tree.structure(self._template)}")  # fmt: skip
        return jax.tree.map(_as, state, self._template)

    def _steps_since(self, due_s: float) -> int:
        """Whole model steps by which the plan's start has to move."""
        if self._origin_s is None:
            self._origin_s = due_s
        total = round((due_s - self._origin_s) / self.problem.model.dt) if np.isfinite(due_s) else self._shifted
        steps = max(total - self._shifted, 0)
        self._shifted += steps
        return min(steps, self.problem.spline.horizon)

    def _in_use(self, t: float) -> np.ndarray:
        """Controls `[H, nu]` expected to act from `t` on, until a new plan takes effect."""
        times = t + self.problem.model.dt * np.arange(self.problem.spline.horizon)
        return np.stack([self._issued_for(at) if self.holds else self.command(at) for at in times])

    def _issued_for(self, t: float) -> np.ndarray:
        """The control that was returned for time `t`: the last one due by then."""
        slack = 1e-3 * self.problem.model.dt
        return next((ctrl for due_s, ctrl in reversed(self._issued) if due_s <= t + slack), self._rest)

    def _rounds(self, state: Any, begin: float) -> tuple[Plan | None, int]:
        """As many rounds as fit; the last plan that any valid sample stands behind."""
        plan, rounds = None, 0
        while rounds < self.max_rounds and self._fits(begin):
            started = time.perf_counter()
            newer, self._carry = self._plan(self._params, self._key, jnp.uint32(self._count), state, self._carry)
            self._count = (self._count + 1) % 2**32
            if plan is None or int(newer.valid) > 0:
                plan = newer
            jax.block_until_ready(newer)
            self._round_s.append(time.perf_counter() - started)
            rounds += 1
        return plan, rounds

    def _fits(self, begin: float) -> bool:
        """Whether the slowest of the recent rounds would still end in time."""
        if self.budget_s is None or not self._round_s:
            return True
        left = self.budget_s - (time.perf_counter() - begin)
        fits = max(self._round_s) + max(self._rest_s, default=0.0) < left
        if not fits and max(self._round_s) > 0.5 * self.budget_s:
            self._round_s[int(np.argmax(self._round_s))] *= 0.7  # one slow round must not stop planning for long
        return fits

    def _record(self, t: float, begin: float, rounds: int, error: str) -> None:
        plan, status = self.published.plan, self.published.status
        self.records.append(
            Record(
                t_s=float(t),
                status=int(status),
                cost=float("nan") if plan is None else float(plan.cost),
                took_s=time.perf_counter() - begin,
                rounds=rounds,
                valid=0 if plan is None else int(plan.valid),
                samples=0 if plan is None else int(plan.samples),
                event_probability=[] if plan is None else np.asarray(plan.event_probability).tolist(),
                ctrl=self._ctrl.tolist(),
                error=error,
            )
        )


def _as(value: Any, like: jax.Array) -> jax.Array:
    array = np.asarray(value)
    if array.shape != like.shape:
        raise ValueError(f"the observation gives a leaf of shape {array.shape}, but the first one gave {like.shape}")
    return jnp.asarray(array.astype(like.dtype))


def _keyed(planner: Planner) -> Callable[..., tuple[Plan, Any]]:
    def plan(params: PlanParams, key: jax.Array, count: jax.Array, state: Any, carry: Any) -> tuple[Plan, Any]:
        return planner.plan(params, jax.random.fold_in(key, count), state, carry)

    return plan


def _predictor(problem: Problem) -> Callable[..., Any]:
    """predict(params, state, ctrls `[H, nu]`, steps) -> the state `steps` later."""

    def predict(params: PlanParams, state: Any, ctrls: jax.Array, steps: jax.Array) -> Any:
        def advance(index: jax.Array, state: Any) -> Any:
            return _one_step(problem, params, state, ctrls[jnp.minimum(index, ctrls.shape[0] - 1)])

        return jax.lax.fori_loop(0, steps, advance, state)

    return predict


def _one_step(problem: Problem, params: PlanParams, state: Any, ctrl: jax.Array) -> Any:
    """The next state of one world; with members, of each of them."""
    members = problem.risk.members
    if members > 1:
        return problem.model.step(params.model, state, jnp.broadcast_to(ctrl[:, None], (len(ctrl), members)))[0]
    wide = jax.tree.map(lambda leaf: leaf[..., None], state)
    return jax.tree.map(lambda leaf: leaf[..., 0], problem.model.step(params.model, wide, ctrl[:, None])[0])


def simulated_plant(problem: Problem, params: PlanParams, state: Any) -> Plant:
    """A plant that is the model itself, started at `state`."""
    step = jax.jit(lambda params, state, ctrl: _one_step(problem, params, state, ctrl))
    start, params = strong(state), strong(params)
    now = [start]

    def reset() -> None:
        now[0] = start

    def apply(ctrl: np.ndarray) -> None:
        now[0] = step(params, now[0], jnp.asarray(ctrl))

    return Plant(reset, apply, lambda: now[0])


def run(
    plant: Plant,
    controller: Controller,
    *,
    steps: int,
    period_s: float | None = None,
    realtime: bool = False,
    progress: bool = False,
    log: str | Path | None = None,
) -> list[Record]:
    """The loop over a plant for `steps` periods (by default the model's dt); one JSON line per plan goes to `log`.

    With `realtime`, each period lasts `period_s` on the wall clock (or as long as the plan takes, if longer).
    """
    period_s = controller.problem.model.dt if period_s is None else period_s
    plant.reset()
    begin, first = time.perf_counter(), len(controller.records)
    for index in _progress(steps, progress):
        t = time.perf_counter() - begin if realtime else index * period_s
        plant.apply(controller.step(plant.observe(), t))
        if realtime:
            time.sleep(max(begin + (index + 1) * period_s - time.perf_counter(), 0))
    records = controller.records[first:]
    if log is not None:
        Path(log).write_text("".join(json.dumps(record._asdict()) + "\n" for record in records), encoding="utf-8")
    return records


def _progress(steps: int, shown: bool) -> Any:
    if not shown:
        return range(steps)
    from rich.progress import track

    return track(range(steps), description="planning")


def simulate(
    problem: Problem, planner: Planner, params: PlanParams, key: jax.Array, state: Any, steps: int
) -> tuple[Any, jax.Array, jax.Array]:
    """Closed loop on the model itself as one pure scan: (states `[T, ...]`, ctrls `[T, nu]`, statuses `[T]`)."""

    def advance(loop: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], tuple[Any, jax.Array, jax.Array]]:
        state, carry = loop
        plan, carry = planner.plan(params, key, state, carry)
        ctrl = plan.ctrls[0]
        state = _one_step(problem, params, state, ctrl)
        return (state, planner.advance(carry, ctrl, 1)), (state, ctrl, plan.status)

    return jax.lax.scan(advance, (state, planner.init()), jax.random.split(key, steps))[1]
