"""The joint search: what to do, and which events to let happen when.

    min over sigma, u of J(u | sigma),   sigma_e in {never, interval 0 .. I-1}
    s.t. P(e inside its interval) >= 1 - delta,   P(e elsewhere) <= delta                     (hazard consistency)

The tree: its root is "nothing happens"; a child adds one event later than all of its parent's (ordered by interval,
then event), so every schedule is exactly one node, and what happens before the added interval is the same in both.
Hence the cost that the parent's search could not avoid up to there, plus a bound on the cost still to come, bounds the
child and everything below it:  min_u sum_{t < start(child)} l(x_t, u_t) + bound(x).  The search visits the nodes of
lowest bound first, a batch at a time, and drops those whose bound exceeds the best consistent plan known. Bounds need
costs that are not negative. The minimum is taken over the samples seen, so it is lowered by `slack`.

Events are forced only as far as needed: inside its interval an event is free until the last step, which forces it.
Legend: L nodes, E events, I intervals, B branches per batch, H horizon, K knots, nu controls, M members.
"""

from collections.abc import Callable
from functools import partial
from itertools import combinations, product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planners import knots as splines
from planners import warmstart
from planners.problem import Contingency, Plan, Planner, PlanParams, Problem, check_problem, event_index
from planners.rollout import Forcing, finite
from planners.sampling import cem_rule, coloured, explore
from planners.verdict import settle
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


class _Frontier(NamedTuple):
    bound: jax.Array
    """`[L]`, of the node and everything below it."""
    open: jax.Array
    """`[L]` bool: the parent is known, the node is not."""
    cost: jax.Array
    """`[L]`, inf until visited."""
    consistent: jax.Array
    knots: jax.Array
    """`[L, K, nu]`."""
    valid: jax.Array
    tried: jax.Array
    polished: jax.Array
    """Rounds spent on the best nodes after nothing was left to open."""


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
    first = _first_steps(problem.spline.horizon, intervals)
    return Tree(
        schedule,
        np.array([index[node[:-1]] for node in nodes], np.int32),
        np.array([first[node[-1][0]] if node else 0 for node in nodes], np.int32),
        np.array([must <= {event for _, event in node} for node in nodes]),
    )


def _interval_of_step(horizon: int, intervals: int) -> np.ndarray:
    return np.arange(horizon) * intervals // horizon


def _first_steps(horizon: int, intervals: int) -> np.ndarray:
    return np.searchsorted(_interval_of_step(horizon, intervals), np.arange(intervals))


def forcing_of(schedule: jax.Array, horizon: int, intervals: int) -> Forcing:
    """A schedule `[E]` step by step: free inside the interval until its last step, held elsewhere."""
    owner = _interval_of_step(horizon, intervals)
    last = np.append(owner[1:] != owner[:-1], True)
    inside = jnp.asarray(owner)[:, None] == schedule
    forced = jnp.where(inside, jnp.where(jnp.asarray(last)[:, None], 1, -1), 0)
    return Forcing(forced.astype(jnp.int8), inside)


def joint(
    problem: Problem,
    *,
    intervals: int = 4,
    most_events: int = 2,
    branches: int = 4,
    samples: int = 64,
    iterations: int = 6,
    elites: int = 8,
    std: float = 1.0,
    colour: float = 1.0,
    polish_rounds: int = 1,
    slack: float = 0.1,
    bound: Callable[[Any, Any], jax.Array] | None = None,
    contingencies: bool = True,
) -> Planner:
    """Best-first search over event schedules with CEM inside each.

    bound(goal, state) -> `[N]`: a lower bound on the cost still to come, whatever happens; zero by default.
    polish_rounds: further searches of the best `branches` schedules at the end. slack: see above.
    std is wide, since a schedule often asks for a control near its limit before its branch can be consistent.
    """
    check_problem(problem)
    if not problem.model.events:
        raise ValueError("the joint search needs a model with events; use any other planner for this one")
    if not 1 <= intervals <= problem.spline.horizon:
        raise ValueError(f"intervals must lie between 1 and the horizon {problem.spline.horizon}, got {intervals}")
    tree = tree_of(problem, intervals, most_events)
    branches = min(branches, len(tree.parent))
    rule = cem_rule(elites, 0.02, coloured(problem.spline.knots, colour))
    least = bound or (lambda goal, state: jnp.zeros(()))
    inner = partial(explore, problem, rule, samples, iterations)

    def visit(params: PlanParams, key: jax.Array, state: Any, carry: Carry, knots: jax.Array, node: jax.Array) -> Any:
        """Search under one node's schedule from `knots`: (cost, consistent, knots, lower bounds `[H]`, valid)."""
        forcing = forcing_of(jnp.asarray(tree.schedule)[node], problem.spline.horizon, intervals)
        search = inner(
            params, jax.random.fold_in(key, node), state, carry._replace(knots=knots), forcing=forcing, bound=least
        )
        found = warmstart.from_unit(problem, jnp.stack([search.best, search.mean], axis=-1))
        plan, consistent = settle(problem, params, state, carry, found, search.valid, 1, forcing=forcing)
        return plan.cost, consistent, plan.knots, search.least, search.valid

    def plan(params: PlanParams, key: jax.Array, state: Any, carry: Carry) -> tuple[Plan, Carry]:
        carry = warmstart.mended(problem, carry, std)
        search_key, later_key = jax.random.split(key)
        visits = jax.vmap(partial(visit, params, search_key, state, carry))
        seen = _best_first(tree, visits, _root(tree, carry), branches, polish_rounds, slack)
        node = _choice(tree, seen)
        schedule = jnp.asarray(tree.schedule)[node]
        forcing = forcing_of(schedule, problem.spline.horizon, intervals)
        tried = seen.tried * samples * iterations
        result, _ = settle(problem, params, state, carry, seen.knots[node][..., None], seen.valid, tried,
                           forcing=forcing, schedule=schedule)  # fmt: skip
        if contingencies:
            result = result._replace(
                contingency=_contingencies(problem, inner, params, later_key, state, carry, result)
            )
        return result, carry._replace(knots=result.knots)

    def advance(carry: Carry, ctrl: jax.Array, steps: jax.Array | int) -> Carry:
        return warmstart.advance(problem, carry, std, ctrl, steps)

    return Planner(partial(warmstart.fresh, problem, std), plan, advance)


def _root(tree: Tree, carry: Carry) -> _Frontier:
    count = len(tree.parent)
    never = jnp.full(count, jnp.inf, carry.knots.dtype)
    return _Frontier(
        bound=-never,
        open=jnp.zeros(count, bool).at[0].set(True),
        cost=never,
        consistent=jnp.zeros(count, bool),
        knots=jnp.broadcast_to(carry.knots, (count, *carry.knots.shape)),
        valid=jnp.int32(0),
        tried=jnp.int32(0),
        polished=jnp.int32(0),
    )


def _incumbent(tree: Tree, seen: _Frontier) -> jax.Array:
    return jnp.min(jnp.where(seen.consistent & tree.allowed, seen.cost, jnp.inf))


def _choice(tree: Tree, seen: _Frontier) -> jax.Array:
    """The cheapest consistent schedule; without one, the cheapest allowed, whose penalties say what is wrong."""
    good = jnp.where(seen.consistent & tree.allowed, seen.cost, jnp.inf)
    rest = jnp.where(jnp.asarray(tree.allowed), seen.cost, jnp.inf)
    first_allowed = int(np.argmax(tree.allowed))
    fallback = jnp.where(jnp.isfinite(jnp.min(rest)), jnp.argmin(rest), first_allowed)
    return jnp.where(jnp.isfinite(jnp.min(good)), jnp.argmin(good), fallback)


def _best_first(
    tree: Tree, visits: Callable, start: _Frontier, branches: int, polish_rounds: int, slack: float
) -> _Frontier:
    parent, first = jnp.asarray(tree.parent), jnp.asarray(tree.start)

    def promising(seen: _Frontier) -> jax.Array:
        relaxed = seen.bound - slack * jnp.abs(seen.bound)
        return seen.open & ((relaxed < _incumbent(tree, seen)) | jnp.isneginf(seen.bound))

    def going(seen: _Frontier) -> jax.Array:
        return jnp.any(promising(seen)) | (seen.polished < polish_rounds)

    def round_(seen: _Frontier) -> _Frontier:
        ahead = promising(seen)
        opening = jnp.any(ahead)
        worth = jnp.where(seen.consistent & tree.allowed, seen.cost, jnp.where(tree.allowed, seen.cost + 1e6, jnp.inf))
        rank = jnp.where(opening, jnp.where(ahead, jnp.maximum(seen.bound, -1e30), jnp.inf), worth)
        nodes = jnp.argsort(rank, stable=True)[:branches]
        real = jnp.isfinite(rank[nodes])
        warm = jnp.where(opening, parent[nodes], nodes)
        cost, consistent, knots, least, valid = visits(seen.knots[warm], nodes)
        better = real & (cost < seen.cost[nodes])
        seen = seen._replace(
            open=seen.open.at[nodes].set(seen.open[nodes] & ~real),
            cost=seen.cost.at[nodes].min(jnp.where(real, cost, jnp.inf)),
            consistent=seen.consistent.at[nodes].set(jnp.where(better, consistent, seen.consistent[nodes])),
            knots=seen.knots.at[nodes].set(jnp.where(better[:, None, None], knots, seen.knots[nodes])),
            valid=seen.valid + jnp.sum(jnp.where(real, valid, 0)),
            tried=seen.tried + jnp.sum(real, dtype=jnp.int32),
            polished=seen.polished + jnp.where(opening, 0, 1),
        )
        return jax.lax.cond(opening, partial(_open_children, parent, first), lambda s, *_: s, seen, nodes, real, least)

    return jax.lax.while_loop(going, round_, start)


def _open_children(
    parent: jax.Array, first: jax.Array, seen: _Frontier, nodes: jax.Array, real: jax.Array, least: jax.Array
) -> _Frontier:
    """Children of the visited `nodes` `[B]` become open, bounded by least `[B, H]` at the step where they begin."""
    mine = (parent[:, None] == nodes) & real & (jnp.arange(len(parent))[:, None] != nodes)
    slot = jnp.argmax(mine, axis=1)
    child = jnp.any(mine, axis=1)
    prefix = jnp.where(first > 0, least[slot, jnp.maximum(first - 1, 0)], -jnp.inf)
    bound = jnp.maximum(prefix, seen.bound[nodes[slot]])
    return seen._replace(open=seen.open | child, bound=jnp.where(child, bound, seen.bound))


def _contingencies(
    problem: Problem, inner: Callable, params: PlanParams, key: jax.Array, state: Any, carry: Carry, plan: Plan
) -> Contingency:
    """For each event: suppose it happens where the plan makes it likeliest; what then?"""
    members, events, horizon = problem.risk.members, len(problem.model.events), problem.spline.horizon
    widen = (lambda leaf: leaf) if members > 1 else (lambda leaf: leaf[..., None])
    narrow = (lambda leaf: leaf) if members > 1 else (lambda leaf: leaf[..., 0])
    path = jax.tree.map(lambda a, b: jnp.concatenate([jnp.asarray(a)[None].astype(b.dtype), b]), state, plan.states)
    hold = jnp.full(events, -1, jnp.int32)

    def one(event: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        at = plan.event_step[event]
        before = jax.tree.map(lambda leaf: widen(leaf[at]), path)
        ctrl = jnp.broadcast_to(plan.ctrls[at][:, None], (problem.nu, members))
        forced = jnp.broadcast_to((jnp.arange(events) == event)[:, None], (events, members)).astype(jnp.int8)
        wide, _ = problem.model.step(params.model, before, ctrl, forced=forced)
        after = jax.tree.map(narrow, wide)
        knots, phase = splines.shift(problem.spline, plan.knots, carry.phase, at + 1)
        warm = carry._replace(knots=knots, phase=phase, ctrl=plan.ctrls[at])
        forcing = forcing_of(hold, horizon, 1)
        search = inner(params, key, after, warm, forcing=forcing)
        found = warmstart.from_unit(problem, jnp.stack([search.best, search.mean], axis=-1))
        best, _ = settle(problem, params, after, warm, found, search.valid, 1, forcing=forcing)
        return best.ctrls, best.cost, jnp.all(finite(wide)) & (search.valid > 0)

    ctrls, cost, valid = jax.vmap(one)(jnp.arange(events), jax.random.split(key, events))
    return Contingency(ctrls, cost, plan.event_step, valid)
