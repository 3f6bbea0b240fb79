"""The joint search: what to do, and which events to let happen when.

    min over sigma, u of J(u | sigma),   sigma_e in {never, interval 0 .. I-1}
    s.t. P(e inside its interval) >= 1 - delta,   P(e elsewhere) <= delta                     (hazard consistency)

Best first over the tree of `schedules.py`, a batch of nodes at a time. An open node first gets a bound of its own, the
cost if events were controls; then, if that is still below the best consistent plan, a search under its schedule, which
opens its children with its bound. The rest is dropped. A bound is the least cost that a short search found, so it is
lowered by `slack`.

Events are forced only as far as needed: inside its interval an event is free until the last step, which forces it.
Legend: L nodes, E events, I intervals, B branches per batch, H horizon, K knots, nu controls, M members.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planners import knots as splines
from planners import warmstart
from planners.problem import Contingency, Plan, Planner, PlanParams, Problem, check_problem
from planners.rollout import finite
from planners.sampling import cem_rule, coloured, explore
from planners.schedules import Tree, forcing_of, relaxed, relaxed_carry, relaxed_forcing, tree_of
from planners.verdict import meets, settle
from planners.warmstart import Carry


class _Frontier(NamedTuple):
    bound: jax.Array
    """`[L]`, of the node and everything below it."""
    bounded: jax.Array
    """`[L]` bool: the bound is the node's own, no longer its parent's."""
    open: jax.Array
    """`[L]` bool: the parent is known, the node is not."""
    cost: jax.Array
    """`[L]`, inf until visited."""
    consistent: jax.Array
    knots: jax.Array
    """`[L, K, nu]`."""
    valid: jax.Array
    tried: jax.Array
    """`[]` int32, samples."""
    polished: jax.Array
    """Rounds spent on the best nodes after nothing was left to open."""


class _Search(NamedTuple):
    """The search's two questions about a batch of nodes, `knots` `[B, K, nu]` being where to begin."""

    bound: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    """(knots, nodes) -> (bounds `[B]`, valid samples `[B]`)."""
    visit: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array, jax.Array]]
    """(knots, nodes) -> (cost, consistent, knots, valid samples)."""
    bound_samples: int
    visit_samples: int
    branches: int
    polish_rounds: int
    slack: float


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
    bound_iterations: int = 2,
    slack: float = 0.1,
    contingencies: bool = True,
) -> Planner:
    """Best-first search over event schedules with CEM inside each.

    polish_rounds: further searches of the best `branches` schedules at the end. bound_iterations, slack: see above.
    std is wide, since a schedule often asks for a control near its limit before its branch can be consistent.
    """
    check_problem(problem)
    if not problem.model.events:
        raise ValueError("the joint search needs a model with events; use any other planner for this one")
    if not 1 <= intervals <= problem.spline.horizon:
        raise ValueError(f"intervals must lie between 1 and the horizon {problem.spline.horizon}, got {intervals}")
    tree = tree_of(problem, intervals, most_events)
    schedules, horizon = jnp.asarray(tree.schedule), problem.spline.horizon
    rule = cem_rule(elites, 0.02, coloured(problem.spline.knots, colour))
    inner = partial(explore, problem, rule, samples, iterations)
    loose = relaxed(problem)

    def bound(params: PlanParams, key: jax.Array, state: Any, carry: Carry, knots: jax.Array, node: jax.Array) -> Any:
        forcing = relaxed_forcing(problem, schedules[node], jnp.asarray(tree.start)[node], intervals)
        warm = relaxed_carry(carry, knots, len(problem.model.events))
        key = jax.random.fold_in(key, len(tree.parent) + node)
        search = explore(loose, rule, samples, bound_iterations, params, key, state, warm, forcing=forcing)
        return search.score.cost, search.valid

    def visit(params: PlanParams, key: jax.Array, state: Any, carry: Carry, knots: jax.Array, node: jax.Array) -> Any:
        forcing = forcing_of(schedules[node], horizon, intervals)
        search = inner(params, jax.random.fold_in(key, node), state, carry._replace(knots=knots), forcing=forcing)
        return search.score.cost, meets(problem, search.score), warmstart.from_unit(problem, search.best), search.valid

    def plan(params: PlanParams, key: jax.Array, state: Any, carry: Carry) -> tuple[Plan, Carry]:
        carry = warmstart.mended(problem, carry, std)
        search_key, later_key = jax.random.split(key)
        bounds, visits = (jax.vmap(partial(question, params, search_key, state, carry)) for question in (bound, visit))
        search = _Search(bounds, visits, samples * bound_iterations, samples * iterations,
                         min(branches, len(tree.parent)), polish_rounds, slack)  # fmt: skip
        seen = _best_first(tree, search, _root(tree, carry))
        node = _choice(tree, seen)
        forcing = forcing_of(schedules[node], horizon, intervals)
        result, _ = settle(problem, params, state, carry, seen.knots[node][..., None], seen.valid, seen.tried,
                           forcing=forcing, schedule=schedules[node])  # fmt: skip
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
        bounded=jnp.zeros(count, bool),
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


def _best_first(tree: Tree, search: _Search, start: _Frontier) -> _Frontier:
    def promising(seen: _Frontier) -> jax.Array:
        lowered = seen.bound - search.slack * jnp.abs(seen.bound)
        return seen.open & ((lowered < _incumbent(tree, seen)) | jnp.isneginf(seen.bound))

    def going(seen: _Frontier) -> jax.Array:
        return jnp.any(promising(seen)) | (seen.polished < search.polish_rounds)

    def round_(seen: _Frontier) -> _Frontier:
        ahead = promising(seen)
        fresh = ahead & ~seen.bounded
        return jax.lax.cond(
            jnp.any(fresh), partial(_bound_round, tree, search), partial(_search_round, tree, search), seen, ahead
        )

    return jax.lax.while_loop(going, round_, start)


def _lowest(rank: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """(`count` nodes of lowest rank, which of them are real: of finite rank)."""
    nodes = jnp.argsort(rank, stable=True)[:count]
    return nodes, jnp.isfinite(rank[nodes])


def _bound_round(tree: Tree, search: _Search, seen: _Frontier, ahead: jax.Array) -> _Frontier:
    """Give the most promising nodes bounds of their own."""
    rank = jnp.where(ahead & ~seen.bounded, jnp.maximum(seen.bound, -1e30), jnp.inf)
    nodes, real = _lowest(rank, search.branches)
    own, valid = search.bound(seen.knots[jnp.asarray(tree.parent)[nodes]], nodes)
    known = real & (valid > 0)
    return seen._replace(
        bound=seen.bound.at[nodes].max(jnp.where(known, own, -jnp.inf)),
        bounded=seen.bounded.at[nodes].set(seen.bounded[nodes] | real),
        valid=seen.valid + jnp.sum(jnp.where(real, valid, 0)),
        tried=seen.tried + search.bound_samples * jnp.sum(real, dtype=jnp.int32),
    )


def _search_round(tree: Tree, search: _Search, seen: _Frontier, ahead: jax.Array) -> _Frontier:
    """Visit the most promising nodes and open their children; with none left, search the best ones again."""
    parent, opening = jnp.asarray(tree.parent), jnp.any(ahead)
    worth = jnp.where(seen.consistent & tree.allowed, seen.cost, jnp.where(tree.allowed, seen.cost + 1e6, jnp.inf))
    rank = jnp.where(opening, jnp.where(ahead, jnp.maximum(seen.bound, -1e30), jnp.inf), worth)
    nodes, real = _lowest(rank, search.branches)
    cost, consistent, knots, valid = search.visit(seen.knots[jnp.where(opening, parent[nodes], nodes)], nodes)
    better = real & (cost < seen.cost[nodes])
    visited = jnp.zeros_like(seen.open).at[nodes].set(real)
    child = opening & visited[parent] & (jnp.arange(len(parent)) > 0)
    return seen._replace(
        bound=jnp.where(child, seen.bound[parent], seen.bound),
        open=(seen.open & ~visited) | child,
        cost=seen.cost.at[nodes].min(jnp.where(real, cost, jnp.inf)),
        consistent=seen.consistent.at[nodes].set(jnp.where(better, consistent, seen.consistent[nodes])),
        knots=seen.knots.at[nodes].set(jnp.where(better[:, None, None], knots, seen.knots[nodes])),
        valid=seen.valid + jnp.sum(jnp.where(real, valid, 0)),
        tried=seen.tried + search.visit_samples * jnp.sum(real, dtype=jnp.int32),
        polished=seen.polished + jnp.where(opening, 0, 1),
    )


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
        search = inner(params, key, after, warm, forcing=forcing_of(hold, horizon, 1))
        ctrls = warmstart.to_controls(problem, warmstart.from_unit(problem, search.best)[..., None], warm)[..., 0]
        return ctrls, search.score.cost, jnp.all(finite(wide)) & (search.valid > 0)

    ctrls, cost, valid = jax.vmap(one)(jnp.arange(events), jax.random.split(key, events))
    return Contingency(ctrls, cost, plan.event_step, valid)
