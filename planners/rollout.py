"""From control sequences to costs: the one rollout that every planner uses.

    J = sum_t l(x_t, u_t) + l_H(x_H) + c sum_t sum_i max(0, g_i(x_t))
      + c ( sum_forbidden max(0, P_e - delta) + sum_required max(0, 1 - delta - P_e) ),    P_e = 1 - prod_t (1 - h_e,t)

Under a forced schedule every event must agree with its hazard: P >= 1 - delta inside its interval, P <= delta outside.
A sample counts only if its states and costs are finite and below `LARGEST`; the others cost infinity and weigh nothing.
Legend: H horizon, N samples, M members, E events, nu controls; samples last.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from planners import risk
from planners.problem import LARGEST, PlanParams, Problem, event_index


class Forcing(NamedTuple):
    """An event schedule, step by step."""

    forced: jax.Array
    """int8 `[H, E]`: -1 the model decides, 0 must hold, 1 happens now."""
    inside: jax.Array
    """bool `[H, E]`: the steps of the interval in which the event shall happen."""


class Trace(NamedTuple):
    """Per-sample sums over one rollout; leaves `[N M]` or `[E, N M]`."""

    cost: jax.Array
    valid: jax.Array
    violation: jax.Array
    distance: jax.Array
    log_hold_inside: jax.Array
    """log of the chance that the event did not happen inside its interval."""
    log_hold_outside: jax.Array
    fired: jax.Array


class Score(NamedTuple):
    """One number per candidate, after the risk measure."""

    cost: jax.Array
    """`[N]`, infinite where the candidate was lost."""
    raw: jax.Array
    """`[N]`, the same before that mask; the one to differentiate."""
    valid: jax.Array
    """`[N]` bool."""
    distance: jax.Array
    violation: jax.Array
    event_gap: jax.Array
    """`[N]`, missing probability over all event rules; 0 if they are met."""
    event_probability: jax.Array
    """`[E, N]`."""


def no_score(problem: Problem, dtype: Any) -> Score:
    """The score, without a sample axis, of a candidate that is lost."""
    zero, never = jnp.zeros((), dtype), jnp.full((), jnp.inf, dtype)
    chances = jnp.zeros(len(problem.model.events), dtype)
    return Score(never, zero, jnp.asarray(False), never, never, zero, chances)


class Path(NamedTuple):
    """What happened on the way, for a few samples: states `[H, ..., N M]` and the model's infos."""

    states: Any
    infos: Any


def score(
    problem: Problem,
    params: PlanParams,
    state: Any,
    ctrls: jax.Array,
    forcing: Forcing | None = None,
    *,
    keep: bool = False,
) -> tuple[Score, Path | None]:
    """Scores of N control sequences `[H, nu, N]` from one state; with `keep`, also the paths they take."""
    members = problem.risk.members
    states = risk.spread_out(state, members, ctrls.shape[-1])
    ctrls = jnp.repeat(ctrls, members, axis=-1) if members > 1 else ctrls

    def roll(params: PlanParams, states: Any, ctrls: jax.Array, forcing: Forcing | None) -> Any:
        return _roll(problem, params, states, ctrls, forcing, keep)

    if problem.devices is not None and len(problem.devices) > 1 and not keep:
        roll = _over_devices(roll, problem.devices)
    trace, path = roll(params, states, ctrls, forcing)
    return _combine(problem, trace, forcing), path


def _roll(
    problem: Problem, params: PlanParams, state: Any, ctrls: jax.Array, forcing: Forcing | None, keep: bool
) -> tuple[Trace, Path | None]:
    """Per-sample sums, and the path if it is to be kept."""
    goal = jax.tree.map(lambda leaf: jnp.asarray(leaf)[..., None], params.goal)
    forced, inside = (None, None) if forcing is None else (_beside(flags, ctrls) for flags in forcing)

    def tally(trace: Trace, before: Any, ctrl: jax.Array, after: Any, info: Any, inside: Any) -> tuple[Any, Any]:
        trace = _tally(problem, goal, trace, before, ctrl, after, info, inside)
        return (after, trace), Path(after, info) if keep else None

    def advance(carry: Any, inputs: Any) -> tuple[Any, Any]:
        (before, trace), (ctrl, force, inside) = carry, inputs
        extra = {} if force is None else {"forced": force}
        after, info = problem.model.step(params.model, before, ctrl, **extra)
        return tally(trace, before, ctrl, after, info, inside)

    def follow(carry: Any, inputs: Any) -> tuple[Any, Any]:
        (before, trace), (ctrl, after, info, inside) = carry, inputs
        return tally(trace, before, ctrl, after, info, inside)

    body, inputs = advance, (ctrls, forced, inside)
    if problem.model.rollout is not None:
        states, infos = problem.model.rollout(params.model, state, ctrls, forced)
        body, inputs = follow, (ctrls, states, infos, inside)
    (last, trace), path = jax.lax.scan(body, (state, _empty(problem, ctrls)), inputs)
    return _close(problem, goal, trace, last), path


def _beside(flags: jax.Array, ctrls: jax.Array) -> jax.Array:
    return jnp.broadcast_to(flags[..., None], (*flags.shape, ctrls.shape[-1]))


def _empty(problem: Problem, ctrls: jax.Array) -> Trace:
    count, events = ctrls.shape[-1], len(problem.model.events)
    zero, none = jnp.zeros(count, ctrls.dtype), jnp.zeros((events, count), ctrls.dtype)
    return Trace(zero, jnp.ones(count, bool), zero, zero, none, none, jnp.zeros((events, count), bool))


def _tally(
    problem: Problem, goal: Any, trace: Trace, before: Any, ctrl: jax.Array, after: Any, info: Any, inside: Any
) -> Trace:
    """The sums after one more step."""
    cost = trace.cost + problem.cost.running(goal, before, ctrl)
    violation = trace.violation
    for constraint in problem.constraints:
        excess = jnp.maximum(constraint(goal, after), 0)
        cost, violation = cost + problem.penalty * excess, jnp.maximum(violation, excess)
    valid = trace.valid & finite(after)
    if (told := getattr(info, "valid", None)) is not None:
        valid = valid & told
    trace = trace._replace(cost=cost, violation=violation, valid=valid)
    return _tally_events(trace, info, inside)


def _tally_events(trace: Trace, info: Any, inside: Any) -> Trace:
    """The chance that nothing happened yet, inside and outside the wanted interval, and what did happen."""
    hazard, fired = getattr(info, "event_probability", None), getattr(info, "fired", None)
    if fired is not None:
        trace = trace._replace(fired=trace.fired | fired.astype(bool))
        hazard = fired.astype(trace.cost.dtype) if hazard is None else hazard
    if hazard is None:
        return trace
    hold = jnp.log1p(-jnp.clip(hazard, 0, 1 - 1e-6))
    inside = False if inside is None else inside
    return trace._replace(
        log_hold_inside=trace.log_hold_inside + jnp.where(inside, hold, 0),
        log_hold_outside=trace.log_hold_outside + jnp.where(inside, 0, hold),
        valid=trace.valid & jnp.all(jnp.isfinite(hazard), axis=0),
    )


def _close(problem: Problem, goal: Any, trace: Trace, last: Any) -> Trace:
    cost, distance = trace.cost, trace.distance
    if problem.cost.terminal is not None:
        cost = cost + problem.cost.terminal(goal, last)
    if problem.goal is not None:
        distance = distance + problem.goal.reached(goal, last)
    within = (jnp.abs(cost) < LARGEST) & jnp.isfinite(distance) & jnp.isfinite(trace.violation)
    return trace._replace(cost=cost, distance=distance, valid=trace.valid & within)


def finite(state: Any) -> jax.Array:
    """`[N]` bool: whether every float of a state `[..., N]` is a number below `LARGEST`."""
    fine = jnp.asarray(True)
    for leaf in jax.tree.leaves(state):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            fine = fine & jnp.all(jnp.abs(leaf) < LARGEST, axis=tuple(range(leaf.ndim - 1)))
    return fine


def _combine(problem: Problem, trace: Trace, forcing: Forcing | None) -> Score:
    """Members to candidates, then the rules about events."""
    members = problem.risk.members

    def fold(value: jax.Array) -> jax.Array:
        return value.reshape(*value.shape[:-1], value.shape[-1] // members, members)

    each = fold(trace.valid)
    valid = jnp.any(each, axis=-1)
    inside, outside = (risk.masked_mean(fold(chance), each) for chance in _chances(problem, trace, forcing))
    gap = _free_gap(problem, outside) if forcing is None else _forced_gap(problem, forcing, inside, outside)
    raw = problem.risk.combine(fold(trace.cost), each) + problem.penalty * gap
    return Score(
        cost=jnp.where(valid, raw, jnp.inf),
        raw=raw,
        valid=valid,
        distance=jnp.where(valid, problem.risk.combine(fold(trace.distance), each), jnp.inf),
        violation=jnp.where(valid, risk.masked_max(fold(trace.violation), each), jnp.inf),
        event_gap=gap,
        event_probability=1 - (1 - inside) * (1 - outside),
    )


def _chances(problem: Problem, trace: Trace, forcing: Forcing | None) -> tuple[jax.Array, jax.Array]:
    """P(event) `[E, N M]` inside and outside its interval: by the hazard, or counted where the model draws events."""
    if problem.risk.draws and forcing is None:
        return jnp.zeros_like(trace.log_hold_inside), trace.fired.astype(trace.cost.dtype)
    return -jnp.expm1(trace.log_hold_inside), -jnp.expm1(trace.log_hold_outside)


def _free_gap(problem: Problem, chance: jax.Array) -> jax.Array:
    gap = jnp.zeros(chance.shape[-1], chance.dtype)
    for name in problem.forbidden:
        gap = gap + jnp.maximum(chance[event_index(problem.model, name)] - problem.delta, 0)
    for name in problem.required:
        gap = gap + jnp.maximum(1 - problem.delta - chance[event_index(problem.model, name)], 0)
    return gap


def _forced_gap(problem: Problem, forcing: Forcing, inside: jax.Array, outside: jax.Array) -> jax.Array:
    wanted = jnp.any(forcing.inside, axis=0)[:, None]
    missing = jnp.where(wanted, jnp.maximum(1 - problem.delta - inside, 0), 0)
    return jnp.sum(missing + jnp.maximum(outside - problem.delta, 0), axis=0)


def _over_devices(roll: Callable, devices: Sequence[Any]) -> Callable:
    """The same rollout with the sample axis cut into equal parts, one per device, where that comes out even.

    Every device holds all inputs, takes its part, and gets all results before anything is summed: so the scores do not
    depend on the number of devices, bit for bit.
    """
    mesh = Mesh(np.asarray(devices), ("samples",))
    whole = PartitionSpec()

    def mine(leaf: jax.Array) -> jax.Array:
        size = leaf.shape[-1] // len(devices)
        return jax.lax.dynamic_slice_in_dim(leaf, jax.lax.axis_index("samples") * size, size, axis=leaf.ndim - 1)

    def gather(leaf: jax.Array) -> jax.Array:
        return jax.lax.all_gather(leaf, "samples", axis=leaf.ndim - 1, tiled=True)

    def part(params: PlanParams, states: Any, ctrls: jax.Array, forcing: Forcing | None) -> Any:
        return jax.tree.map(gather, roll(params, jax.tree.map(mine, states), mine(ctrls), forcing))

    def sharded(params: PlanParams, states: Any, ctrls: jax.Array, forcing: Forcing | None) -> Any:
        if ctrls.shape[-1] % len(devices):
            return roll(params, states, ctrls, forcing)
        return jax.shard_map(part, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)(
            params, states, ctrls, forcing
        )

    return sharded
