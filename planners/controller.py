"""The receding horizon: plan, use the first control, move on; always in time, always with an answer.

    step(observation, t):   x(t) -> x(t + latency) by the model -> rounds of plan(), as many as fit into the budget
                            -> the control for t + latency

The ladder when planning fails: best plan so far -> previous plan, shifted -> last control held -> the one nearest zero.
A round that has not ended when the budget does is left to itself (`rounds.py`): its plan serves the next call.
`Controller` is for whoever runs a loop of their own; `mpc.py` runs one. Times are in seconds, on the caller's clock.
Legend: H horizon, nu controls.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planners.knots import at_time
from planners.prediction import predictor
from planners.problem import Plan, Planner, PlanParams, Problem, Status, strong
from planners.rounds import Rounds

ANSWER = (0.02, 0.5)
"""Share of the budget kept for waking up and answering, at the least and at the most."""


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

    budget_s: wall time per call; None runs `max_rounds` always, in the caller's thread. latency_s: how long after the
    observation the control takes effect; the plan starts from the state predicted for then. estimate(observation) -> state.
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
        self._predict = jax.jit(predictor(problem))
        self._low, self._high = (np.asarray(limit) for limit in problem.limits)
        self._template: Any = None
        self._rounds, self._rest_s = Rounds(), deque[float](maxlen=1024)
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
        self._rounds.forget()

    def warmup(self, observation: Any, rounds: int = 5) -> None:
        """Compile everything and time a few rounds; after this no call compiles."""
        self._template = strong(self._estimate(observation))
        self._predict(self._params, self._template, jnp.asarray(self._in_use(0.0)), jnp.int32(1))
        for count in range(rounds):
            self.step(observation, 0.0)
            self._rounds.forget()
            if count == 0:
                self._rounds.took_s.clear()  # it compiled
                self._rest_s.clear()
        self.restart()
        self.records.clear()

    def step(self, observation: Any, t: float) -> np.ndarray:
        """The control `[nu]` for time `t` + latency: finite, within limits, whatever happens."""
        begin = time.perf_counter()
        error, rounds, done_s = "", 0, begin
        state, until_s = self._state(observation), begin + self._planning_s()
        due_s = t + self.latency_s
        try:
            self._adopt(self._rounds.awaited(until_s - time.perf_counter()))
            if not self._rounds.busy:
                rounds = self._search(self._upcoming(state, t, due_s), due_s, until_s)
            done_s = time.perf_counter()
            if not rounds:
                self.published = self.published._replace(status=Status.DEADLINE)
        except (RuntimeError, ArithmeticError, MemoryError) as failure:
            self.published = self.published._replace(status=Status.FALLBACK)
            error = f"{type(failure).__name__}: {failure}".splitlines()[0]
        self._ctrl = self.command(due_s)
        self._issued.append((due_s, self._ctrl))
        self._record(t, begin, rounds, error)
        self._rest_s.append(time.perf_counter() - min(done_s, until_s))
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

    def _upcoming(self, state: Any, t: float, due_s: float) -> Any:
        """The state from which to plan, when the next control is due; moves the warm start on to then."""
        steps = self._steps_since(due_s)
        in_use = self._ctrl if self.holds else self.command(due_s)
        self._carry = self._advance(self._carry, jnp.asarray(in_use), jnp.int32(steps))
        ahead = round(self.latency_s / self.problem.model.dt)
        return self._predict(self._params, state, jnp.asarray(self._in_use(t)), jnp.int32(ahead)) if ahead else state

    def _search(self, state: Any, due_s: float, until_s: float) -> int:
        """As many rounds as fit, each from the plan of the one before; how many ended."""
        for done in range(self.max_rounds):
            left_s = until_s - time.perf_counter()
            if left_s <= 0 or (done and not self._rounds.fits(left_s)):
                return done
            found = self._rounds.run(self._round, state, due_s, left_s=left_s)
            if found is None:
                return done
            self._adopt(found, first=not done)
        return self.max_rounds

    def _round(self, state: Any, due_s: float) -> tuple[Published, Any]:
        """One call of the planner, its plan on the host."""
        plan, carry = self._plan(self._params, self._key, jnp.uint32(self._count), state, self._carry)
        self._count = (self._count + 1) % 2**32
        plan = jax.device_get(plan)
        return Published(np.asarray(plan.ctrls), due_s, plan, Status(int(plan.status))), jax.block_until_ready(carry)

    def _adopt(self, found: tuple[Published, Any] | None, *, first: bool = False) -> None:
        """Go on from a round that ended; publish its plan if any valid sample stands behind it."""
        if found is None:
            return
        newer, self._carry = found
        if first or (newer.plan is not None and newer.plan.valid > 0):
            self.published = newer

    def _planning_s(self) -> float:
        """Seconds of the budget for planning. Kept is what waking up and answering took at worst in 1,024 calls, and a
        quarter more: on a busy machine a thread may wake late, and only who sets out earlier is in time."""
        if self.budget_s is None:
            return math.inf
        least, most = (share * self.budget_s for share in ANSWER)
        return self.budget_s - min(max(1.25 * max(self._rest_s, default=0.0), least), most)

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
