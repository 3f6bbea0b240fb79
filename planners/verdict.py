"""From candidates to a plan: one last rollout decides which is returned and what may be said about it.

The status is OK only if this rollout meets the goal, the constraints and the event rules. The warm start is always a
candidate, so no plan is worse than its warm start. Legend: K knots, C candidates, H horizon, M members, E events.
"""

from typing import Any

import jax
import jax.numpy as jnp

from planners import risk
from planners.problem import LARGEST, Plan, PlanParams, Problem, Status
from planners.rollout import Forcing, Path, Score, score
from planners.warmstart import Carry, to_controls


def settle(
    problem: Problem,
    params: PlanParams,
    state: Any,
    carry: Carry,
    found: jax.Array,
    valid: jax.Array,
    samples: int | jax.Array,
    *,
    doubt: jax.Array | bool = False,
    forcing: Forcing | None = None,
    schedule: jax.Array | None = None,
) -> tuple[Plan, jax.Array]:
    """(plan, whether it meets what was asked), chosen among knots `[K, nu, C]` and the mended warm start in `carry`.

    found: best guess first, returned if nothing can be checked. valid of `samples` counted in the search; `doubt` says
    that something in it went wrong, though not all.
    """
    lost = valid == 0
    knots = jnp.concatenate([jnp.where(lost, carry.knots[..., None], found), carry.knots[..., None]], axis=-1)
    ctrls = to_controls(problem, knots, carry)
    scores, path = score(problem, params, state, ctrls, forcing, keep=True)
    best = jnp.argmin(scores.cost)
    one: Score = jax.tree.map(lambda leaf: leaf[..., best], scores)
    chosen: Path = risk.pick(path, problem.risk.members, best)
    doubt = doubt | (2 * valid < samples)
    events = len(problem.model.events)
    good = meets(problem, one)
    plan = Plan(
        ctrls=ctrls[..., best],
        knots=knots[..., best],
        states=chosen.states,
        cost=one.cost,
        cost_start=scores.cost[-1],
        distance=one.distance,
        violation=one.violation,
        event_probability=one.event_probability,
        event_step=_event_step(problem, chosen.infos),
        schedule=jnp.full(events, -2, jnp.int32) if schedule is None else schedule.astype(jnp.int32),
        spread=_over_path(chosen.infos, "spread", jnp.max, 0.0, ctrls.dtype),
        trust=_over_path(chosen.infos, "trust", jnp.min, 1.0, ctrls.dtype),
        status=_status(good, finite_input(params, state), one.valid, lost, doubt),
        valid=valid.astype(jnp.int32),
        samples=jnp.asarray(samples, jnp.int32),
    )
    return plan, good


def meets(problem: Problem, scored: Score) -> jax.Array:
    """Whether goal, constraints and event rules hold."""
    tolerance = LARGEST if problem.goal is None else problem.goal.tolerance
    return scored.valid & (scored.distance <= tolerance) & (scored.violation <= 0) & (scored.event_gap <= 1e-6)


def _status(good: jax.Array, fine: jax.Array, checked: jax.Array, lost: jax.Array, doubt: jax.Array) -> jax.Array:
    status = jnp.where(good, jnp.where(doubt, Status.DEGRADED, Status.OK), Status.INFEASIBLE)
    status = jnp.where(checked, status, Status.DEGRADED)
    status = jnp.where(lost, Status.FALLBACK, status)
    return jnp.where(fine, status, Status.NONFINITE_INPUT).astype(jnp.int32)


def finite_input(params: PlanParams, state: Any) -> jax.Array:
    """Whether the state and the goal hold only numbers below `LARGEST`."""
    fine = jnp.asarray(True)
    for leaf in jax.tree.leaves((state, params.goal)):
        if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating):
            fine = fine & jnp.all(jnp.abs(leaf) < LARGEST)
    return fine


def _event_step(problem: Problem, infos: Any) -> jax.Array:
    """`[E]`: the first step in which the event fired, else the one in which it was likeliest."""
    hazard, fired = getattr(infos, "event_probability", None), getattr(infos, "fired", None)
    events = len(problem.model.events)
    if not events or (hazard is None and fired is None):
        return jnp.zeros(events, jnp.int32)
    signal = sum((weight * part for weight, part in ((1, hazard), (2, fired)) if part is not None), jnp.zeros(()))
    if problem.risk.members > 1:
        signal = jnp.mean(jnp.nan_to_num(signal), axis=-1)
    return jnp.argmax(signal, axis=0).astype(jnp.int32)


def _over_path(infos: Any, name: str, reduce: Any, default: float, dtype: Any) -> jax.Array:
    told = getattr(infos, name, None)
    return jnp.asarray(default, dtype) if told is None else reduce(told).astype(dtype)


def describe(problem: Problem, plan: Plan) -> list[str]:
    """A plan in sentences: its status, its cost, every event with its time and probability, and what if it comes anyway."""
    status = Status(int(plan.status))
    lines = [
        f"{status.name}: {status.sentence}",
        f"cost {float(plan.cost):.4g} (warm start {float(plan.cost_start):.4g})",
    ]
    for index, name in enumerate(problem.model.events):
        chance = float(plan.event_probability[index])
        time_s = (int(plan.event_step[index]) + 1) * problem.model.dt
        happens = "happens" if chance > 0.5 else "does not happen; likeliest"
        lines.append(f"{name} {happens} at {time_s:.2f} s, p = {chance:.2f}")
    return lines + in_case(problem, plan)


def in_case(problem: Problem, plan: Plan) -> list[str]:
    """What the plan's contingencies are for, a sentence each; none for an event that the plan wants."""
    if (instead := plan.contingency) is None:
        return []
    return [
        f"should {name} happen anyway, at {(int(instead.step[index]) + 1) * problem.model.dt:.2f} s: a plan of cost "
        f"{float(instead.cost[index]):.4g} goes on from there"
        for index, name in enumerate(problem.model.events)
        if bool(instead.valid[index]) and float(plan.event_probability[index]) <= 0.5
    ]
