"""The vocabulary of planning: what is searched, what it costs, what was found, and how that went.

    min over u_0 .. u_{H-1}    E[ sum_t l(x_t, u_t) + l_H(x_H) ]
    s.t.    x_{t+1} = f(x_t, u_t),   u_t in U,   g_i(x_t) <= 0,   P(forbidden) <= delta,   P(required) >= 1 - delta

Legend: H horizon (steps), K knots, N samples, M members, E events, nu controls. Structure first, samples last:
every leaf of a state is `[..., N]`, a control is `[nu, N]`, a cost is `[N]`; a control sequence is `[H, nu, N]`.
"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from enum import IntEnum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planners.knots import Spline
from planners.risk import Risk, mean

LARGEST = 1e30
"""A number above this in a state or a cost counts as lost, like NaN and infinity."""


class PlanInfo(NamedTuple):
    """What a step may tell besides the next state; every part is optional, and so is the whole.

    event_probability `[E, N]`: chance that each event happens in this step. fired `[E, N]`: whether it did.
    spread `[N]`: disagreement of a model's members. trust `[N]` in [0, 1]. valid `[N]`: False gives a sample no weight.
    """

    event_probability: jax.Array | None = None
    fired: jax.Array | None = None
    spread: jax.Array | None = None
    trust: jax.Array | None = None
    valid: jax.Array | None = None


class Model(NamedTuple):
    """Any step function, and the static facts a search needs.

    step(params, state, ctrl) -> (state, info), with `info` an `PlanInfo`, any record with some of its names, or None.
    A model with `events` also takes `forced`, int8 `[E, N]`: -1 the model decides, 0 must hold, 1 happens now;
    forcing an event that has already happened changes nothing. Randomness lives in the state (common random numbers).
    rollout(params, state, ctrls `[H, nu, N]`, forced `[H, E, N]` | None) -> (states, infos) replaces a scan over step.
    """

    step: Callable[..., tuple[Any, Any]]
    ctrl_min: Any
    """`[nu]`, finite."""
    ctrl_max: Any
    """`[nu]`, finite, above ctrl_min."""
    dt: float
    """Seconds per step."""
    events: tuple[str, ...] = ()
    rollout: Callable[..., tuple[Any, Any]] | None = None


class Cost(NamedTuple):
    """l(x, u) and l_H(x). `goal` is traced data: its leaves arrive with a trailing axis of one, to meet `[..., N]`.

    residual and terminal_residual, where given, say l = sum of squares, which Gauss-Newton uses (`least_squares`).
    """

    running: Callable[[Any, Any, jax.Array], jax.Array]
    """running(goal, state, ctrl) -> `[N]`."""
    terminal: Callable[[Any, Any], jax.Array] | None = None
    """terminal(goal, state) -> `[N]`."""
    residual: Callable[[Any, Any, jax.Array], jax.Array] | None = None
    """residual(goal, state, ctrl) -> `[R, N]`."""
    terminal_residual: Callable[[Any, Any], jax.Array] | None = None


def least_squares(residual: Callable, terminal_residual: Callable | None = None) -> Cost:
    """Cost whose running part is the sum of squares of residual(goal, state, ctrl) `[R, N]`; likewise at the end."""

    def running(goal: Any, state: Any, ctrl: jax.Array) -> jax.Array:
        return jnp.sum(residual(goal, state, ctrl) ** 2, axis=0)

    if terminal_residual is None:
        return Cost(running, None, residual, None)
    return Cost(running, lambda goal, state: jnp.sum(terminal_residual(goal, state) ** 2, axis=0),
                residual, terminal_residual)  # fmt: skip


class Goal(NamedTuple):
    """The last state must lie within `tolerance` of the goal, as measured by reached(goal, state) -> `[N]`."""

    reached: Callable[[Any, Any], jax.Array]
    tolerance: float


class PlanParams(NamedTuple):
    """Everything traced: a change of value never compiles again."""

    model: Any = ()
    """Handed to `Model.step`: learned weights, physical parameters."""
    goal: Any = ()
    """Handed to the costs, the goal and the constraints."""


class Problem(NamedTuple):
    """A planning problem; static, so functions and facts only. `PlanParams` holds what may change between calls."""

    model: Model
    cost: Cost
    spline: Spline
    goal: Goal | None = None
    constraints: tuple[Callable[[Any, Any], jax.Array], ...] = ()
    """Each g(goal, state) -> `[N]`, satisfied where <= 0."""
    forbidden: tuple[str, ...] = ()
    """Events that may happen with at most the chance `delta`."""
    required: tuple[str, ...] = ()
    """Events that must happen with at least the chance `1 - delta`."""
    delta: float = 0.05
    penalty: float = 1e3
    """Cost per unit of constraint excess and step, and per unit of missing event probability."""
    rate: Any = None
    """`[nu]` or a number: largest change of a control per second."""
    risk: Risk = mean()
    devices: Sequence[Any] | None = None
    """The sample axis is spread over these; None keeps the default device."""

    @property
    def nu(self) -> int:
        """Number of controls."""
        return int(np.shape(self.model.ctrl_min)[0])

    @property
    def limits(self) -> tuple[jax.Array, jax.Array]:
        """(ctrl_min, ctrl_max), each `[nu]` and of JAX's default float type."""
        return jnp.asarray(self.model.ctrl_min, float), jnp.asarray(self.model.ctrl_max, float)


class Status(IntEnum):
    """How a call of a planner ended. `sentence` says it in words."""

    OK = 0
    DEADLINE = 1
    INFEASIBLE = 2
    DEGRADED = 3
    NONFINITE_INPUT = 4
    FALLBACK = 5

    @property
    def sentence(self) -> str:
        """What this status means, for people."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.OK: "The predicted plan meets the goal, the constraints and the events.",
    Status.DEADLINE: "Time ran out before a round of the search could end; the best plan known so far goes on.",
    Status.INFEASIBLE: "No plan was found that meets goal, constraints and events; this is the nearest one.",
    Status.DEGRADED: "The plan can be used, but most samples were lost, the gradient was wrong, or the check failed.",
    Status.NONFINITE_INPUT: "The state or the goal holds a number that is not finite; the previous plan goes on.",
    Status.FALLBACK: "Every sample failed; the previous plan goes on, or the last control is held.",
}


class Contingency(NamedTuple):
    """For each event: what to do should it happen though the plan does not want it."""

    ctrls: jax.Array
    """`[E, H, nu]`, to be used from the step after the event."""
    cost: jax.Array
    """`[E]`, from that step on."""
    step: jax.Array
    """`[E]` int32: the step after which the event is most likely."""
    valid: jax.Array
    """`[E]` bool: False where no plan could be computed."""


class Plan(NamedTuple):
    """What every planner returns. Arrays for one plan; `vmap` puts a batch axis in front."""

    ctrls: jax.Array
    """`[H, nu]`, finite and within limits whatever happened."""
    knots: jax.Array
    """`[K, nu]`."""
    states: Any
    """Predicted x_1 .. x_H, leaves `[H, ...]`, or `[H, ..., M]` with members."""
    cost: jax.Array
    """`[]`, with penalties, after the risk measure; inf when it could not be computed."""
    cost_start: jax.Array
    """`[]`, the same of the warm start."""
    distance: jax.Array
    """`[]`, from the goal at the end; 0 without a goal."""
    violation: jax.Array
    """`[]`, the largest constraint value on the way, at least 0."""
    event_probability: jax.Array
    """`[E]`, that each event happens within the horizon."""
    event_step: jax.Array
    """`[E]` int32, when it does or is likeliest to."""
    schedule: jax.Array
    """`[E]` int32, the interval in which the plan wants the event; -1 not at all; -2 the planner left it open."""
    spread: jax.Array
    """`[]`, largest disagreement of the model's members on the way."""
    trust: jax.Array
    """`[]`, smallest trust on the way."""
    status: jax.Array
    """`[]` int32, a `Status`."""
    valid: jax.Array
    """`[]` int32, samples that counted."""
    samples: jax.Array
    """`[]` int32, samples that were tried."""
    contingency: Contingency | None = None


class Planner(NamedTuple):
    """Three pure functions; the caller jits.

    init() -> carry; plan(params, key, state, carry) -> (Plan, carry), `state` for one world (or `[..., M]` with
    members); advance(carry, ctrl `[nu]`, steps) -> carry moves the warm start on after `steps` steps of the world.
    """

    init: Callable[[], Any]
    plan: Callable[..., tuple[Plan, Any]]
    advance: Callable[..., Any]


def check_problem(problem: Problem) -> Problem:
    """The problem itself, or a ValueError that says what does not fit."""
    low, high = np.asarray(problem.model.ctrl_min, float), np.asarray(problem.model.ctrl_max, float)
    if low.ndim != 1 or low.shape != high.shape or not np.all(np.isfinite(high - low)) or not np.all(low < high):
        raise ValueError(f"control limits must be finite with ctrl_min < ctrl_max, got {low} and {high}")
    if not problem.model.dt > 0:
        raise ValueError(f"dt must be positive, got {problem.model.dt}")
    if not 0 < problem.delta < 0.5:
        raise ValueError(f"delta must lie between 0 and 0.5, got {problem.delta}")
    if problem.rate is not None and not np.all(np.asarray(problem.rate) > 0):
        raise ValueError(f"rate limits must be positive, got {problem.rate}")
    for name in (*problem.forbidden, *problem.required):
        event_index(problem.model, name)
    if both := set(problem.forbidden) & set(problem.required):
        raise ValueError(f"an event cannot be both forbidden and required: {', '.join(sorted(both))}")
    return problem


def event_index(model: Model, name: str) -> int:
    """Where the event `name` stands in the model's list."""
    if name in model.events:
        return model.events.index(name)
    near = get_close_matches(name, model.events, 1)
    known = f"did you mean {near[0]!r}?" if near else f"the model's events are {', '.join(model.events) or 'none'}"
    raise ValueError(f"unknown event {name!r}; {known}")


def strong(tree: Any) -> Any:
    """The tree as device arrays of JAX's default types, never weak: what keeps one trace for all calls."""

    def leaf(value: Any) -> jax.Array:
        if isinstance(value, jax.Array):
            return jax.lax.convert_element_type(value, value.dtype)
        array = np.asarray(value)
        return jnp.asarray(array, jax.dtypes.canonicalize_dtype(array.dtype))

    return jax.tree.map(leaf, tree)
