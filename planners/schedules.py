"""Event schedules: the tree of all of them, how one is forced on a model, and how cheap one can be at best.

    sigma_e in {never, interval 0 .. I-1}

The tree: its root is "nothing happens"; a child adds one event later than all of its parent's (ordered by interval,
then event), so every schedule is exactly one node, and what happens before the added interval is the same in both.

The relaxation of a node: events are controls. What the schedule has happens inside its interval, what the node's
descendants may add happens from the node's last interval on whenever the search likes, and no hazard is asked:

    bound = min over u and event times of J  <=  J of the node and of everything below it

Legend: L nodes, E events, I intervals, H horizon, K knots, nu controls.
"""

from itertools import combinations, product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planners.problem import Cost, PlanInfo, Problem, event_index
from planners.rollout import Forcing
from planners.warmstart import Carry

MOST_NODES = 20_000


class Tree(NamedTuple):
    """All schedules, as tables."""

    schedule: np.ndarray
    """`[L, E]`: interval, or -1 for never."""
    parent: np.ndarray
    """`[L]`; the root (node 0) is its own parent."""
    start: np.ndarray
    """`[L]`: first step of the interval of the event that the node adds; 0 for the root."""
    allowed: np.ndarray
    """`[L]` bool: whether the schedule holds every required event."""


def tree_of(problem: Problem, intervals: int, most_events: int) -> Tree:
    """Every schedule with at most `most_events` events, none of them forbidden; parents before children."""
    names = problem.model.events
    free = [index for index, name in enumerate(names) if name not in problem.forbidden]
    must = {event_index(problem.model, name) for name in problem.required}
    if len(must) > most_events:
        raise ValueError(f"{len(must)} events are required but at most {most_events} may be planned")
    nodes = [
        tuple(sorted(zip(when, chosen, strict=True)))
        for count in range(min(most_events, len(free)) + 1)
        for chosen in combinations(free, count)
        for when in product(range(intervals), repeat=count)
    ]
    if len(nodes) > MOST_NODES:
        raise ValueError(f"{len(nodes)} schedules are too many (at most {MOST_NODES}): fewer intervals or most_events")
    index = {node: place for place, node in enumerate(nodes)}
    schedule = np.full((len(nodes), len(names)), -1, np.int32)
    for place, node in enumerate(nodes):
        for interval, event in node:
            schedule[place, event] = interval
    first = np.searchsorted(_interval_of_step(problem.spline.horizon, intervals), np.arange(intervals))
    return Tree(
        schedule,
        np.array([index[node[:-1]] for node in nodes], np.int32),
        np.array([first[node[-1][0]] if node else 0 for node in nodes], np.int32),
        np.array([must <= {event for _, event in node} for node in nodes]),
    )


def _interval_of_step(horizon: int, intervals: int) -> np.ndarray:
    return np.arange(horizon) * intervals // horizon


def forcing_of(schedule: jax.Array, horizon: int, intervals: int) -> Forcing:
    """A schedule `[E]` step by step: free inside the interval until its last step, held elsewhere."""
    owner = _interval_of_step(horizon, intervals)
    last = np.append(owner[1:] != owner[:-1], True)
    inside = jnp.asarray(owner)[:, None] == schedule
    forced = jnp.where(inside, jnp.where(jnp.asarray(last)[:, None], 1, -1), 0)
    return Forcing(forced.astype(jnp.int8), inside)


def relaxed(problem: Problem) -> Problem:
    """The problem with one more control in [-1, 1] for each event, which happens, where it is free, while that is > 0."""
    model, nu, count = problem.model, problem.nu, len(problem.model.events)

    def decided(ctrl: jax.Array, forced: jax.Array) -> jax.Array:
        return jnp.where(forced < 0, (ctrl > 0).astype(jnp.int8), forced)

    def told(info: Any) -> PlanInfo:
        return PlanInfo(valid=getattr(info, "valid", None))

    def step(params: Any, state: Any, ctrl: jax.Array, forced: jax.Array) -> tuple[Any, PlanInfo]:
        state, info = model.step(params, state, ctrl[:nu], forced=decided(ctrl[nu:], forced))
        return state, told(info)

    def rollout(params: Any, state: Any, ctrls: jax.Array, forced: jax.Array) -> tuple[Any, PlanInfo]:
        assert model.rollout is not None
        states, infos = model.rollout(params, state, ctrls[:, :nu], decided(ctrls[:, nu:], forced))
        return states, told(infos)

    cost = Cost(lambda goal, state, ctrl: problem.cost.running(goal, state, ctrl[:nu]), problem.cost.terminal)
    rate = problem.rate
    return problem._replace(
        model=model._replace(
            step=step,
            rollout=None if model.rollout is None else rollout,
            ctrl_min=np.append(np.asarray(model.ctrl_min, float), -np.ones(count)),
            ctrl_max=np.append(np.asarray(model.ctrl_max, float), np.ones(count)),
        ),
        cost=cost,
        rate=None if rate is None else np.append(np.broadcast_to(np.asarray(rate, float), nu), np.full(count, np.inf)),
    )


def relaxed_forcing(problem: Problem, schedule: jax.Array, start: jax.Array, intervals: int) -> Forcing:
    """What stays forced in a node's relaxation: its schedule, and everything before `start`; nothing has to agree."""
    horizon, events = problem.spline.horizon, problem.model.events
    own, inside = forcing_of(schedule, horizon, intervals)
    may = jnp.asarray([name not in problem.forbidden for name in events]) & (schedule < 0)
    later = (jnp.arange(horizon)[:, None] >= start) & may
    return Forcing(jnp.where(later, -1, own).astype(jnp.int8), jnp.zeros_like(inside))


def relaxed_carry(carry: Carry, knots: jax.Array, count: int) -> Carry:
    """The warm start `knots` `[K, nu]` with the controls of `count` events beside it, at first rather off."""

    def beside(value: jax.Array, fill: float) -> jax.Array:
        return jnp.concatenate([value, jnp.full((*value.shape[:-1], count), fill, value.dtype)], axis=-1)

    return Carry(beside(knots, -0.5), beside(carry.std, 1.0), beside(carry.ctrl, -0.5), carry.phase)
