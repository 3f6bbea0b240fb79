"""The joint search against exhaustive search over event schedules and gridded controls."""

from functools import cache
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planners.branching import joint
from planners.knots import hold, linear
from planners.problem import Contingency, Cost, Goal, Model, Plan, PlanInfo, PlanParams, Problem, Status, strong
from planners.rollout import score
from planners.schedules import forcing_of, relaxed, relaxed_forcing, tree_of
from planners.verdict import describe, in_case

HORIZON, INTERVALS, DELTA = 6, 3, 0.05
SCHEDULES, BRANCHES, SAMPLES, ITERATIONS = 16, 4, 64, 10


class Tied(NamedTuple):
    """A cart on two springs, left and right, each of which tears when the push towards it is strong enough."""

    pos: Any
    vel: Any
    intact: Any


class Springs(NamedTuple):
    strength: Any
    stiffness: Any


def step(springs: Springs, cart: Tied, ctrl: jax.Array, forced: Any = None) -> tuple[Tied, PlanInfo]:
    load = jnp.stack([-ctrl[0], ctrl[0]])
    hazard = cart.intact * jax.nn.sigmoid(30 * (load - springs.strength[:, None]))
    tears = hazard > 0.5 if forced is None else jnp.where(forced < 0, hazard > 0.5, forced > 0)
    intact = jnp.where(tears, 0.0, cart.intact)
    pull = jnp.sum(springs.stiffness[:, None] * intact, axis=0) * cart.pos
    vel = 0.9 * cart.vel + 0.25 * (ctrl[0] - pull)
    return Tied(cart.pos + 0.25 * vel, vel, intact), PlanInfo(event_probability=hazard, fired=tears & (cart.intact > 0))


def running(goal: Any, cart: Tied, ctrl: jax.Array) -> jax.Array:
    broken = jnp.sum(goal["price"] * (1 - cart.intact), axis=0)
    return (cart.pos - goal["target"]) ** 2 + 0.02 * ctrl[0] ** 2 + broken


def terminal(goal: Any, cart: Tied) -> jax.Array:
    return 4 * (cart.pos - goal["target"]) ** 2 + 6 * jnp.sum(goal["price"] * (1 - cart.intact), axis=0)


PROBLEM = Problem(
    Model(step, [-2.0], [2.0], 0.1, ("left", "right")), Cost(running, terminal), hold(HORIZON, 3), delta=DELTA
)
START = strong(Tied(np.float32(0), np.float32(0), np.ones(2, np.float32)))


@cache
def joint_plan() -> Any:
    planner = joint(
        PROBLEM,
        intervals=INTERVALS,
        branches=BRANCHES,
        samples=SAMPLES,
        iterations=ITERATIONS,
        colour=0.0,
        contingencies=False,
    )
    return jax.jit(planner.plan), strong(planner.init())


def random_instance(seed: int) -> PlanParams:
    rng = np.random.default_rng(seed)
    springs = Springs(rng.uniform(0.6, 1.8, 2), rng.uniform(0.5, 6, 2))
    goal = {"target": rng.uniform(-1.2, 1.2), "price": rng.uniform(0, 0.05, 2)}
    return strong(jax.tree.map(np.float32, PlanParams(springs, goal)))


LEVELS = np.linspace(-2, 2, 41)
GRID = np.array(list(product(LEVELS, repeat=3))).repeat(2, axis=1)  # every control sequence of three held knots


def exhaustive(params: PlanParams) -> tuple[list[int], float, dict[tuple[int, ...], float]]:
    """(best schedule, its cost, the cost of every schedule) over all schedules and gridded controls, in numpy."""
    (strength, stiffness), goal = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tuple(params))
    costs = {}
    for schedule in product(range(-1, INTERVALS), repeat=2):
        pos, vel, intact = np.zeros(len(GRID)), np.zeros(len(GRID)), np.ones((2, len(GRID)))
        cost, hold_in, hold_out = np.zeros(len(GRID)), np.ones((2, len(GRID))), np.ones((2, len(GRID)))
        for t in range(HORIZON):
            ctrl, interval, last = GRID[:, t], t // 2, t % 2 == 1
            cost += (pos - goal["target"]) ** 2 + 0.02 * ctrl**2 + goal["price"] @ (1 - intact)
            for e, load in enumerate((-ctrl, ctrl)):
                hazard = intact[e] / (1 + np.exp(np.clip(-30 * (load - strength[e]), -50, 50)))
                mine = schedule[e] == interval
                (hold_in if mine else hold_out)[e] *= 1 - hazard
                intact[e] = np.where(mine & ((hazard > 0.5) | last), 0, intact[e])
            vel = 0.9 * vel + 0.25 * (ctrl - (stiffness @ intact) * pos)
            pos = pos + 0.25 * vel
        cost += 4 * (pos - goal["target"]) ** 2 + 6 * goal["price"] @ (1 - intact)
        wanted = np.array(schedule)[:, None] >= 0
        agrees = np.all((1 - hold_out <= DELTA) & (~wanted | (1 - hold_in >= 1 - DELTA)), axis=0)
        costs[schedule] = float(np.min(np.where(agrees, cost, np.inf)))
    best = min(costs, key=lambda schedule: costs[schedule])
    return list(best), costs[best], costs


class Tally(NamedTuple):
    """Of a run against exhaustive search."""

    same: float
    """Share of equal schedules."""
    excess: float
    """Worst excess of cost."""
    breaking: int
    """Instances whose best plan breaks something."""
    effort: float
    """Mean number of samples, over that of a search that visits every schedule."""


def compare(seeds: range) -> Tally:
    plan, carry = joint_plan()
    same, excess, breaking, samples = 0, 0.0, 0, 0
    for seed in seeds:
        params = random_instance(seed)
        schedule, cost, costs = exhaustive(params)
        result, _ = plan(params, jax.random.key(seed), START, carry)
        assert Status(int(result.status)) is Status.OK
        found = tuple(np.asarray(result.schedule).tolist())
        same += found == tuple(schedule) or costs[found] <= cost * 1.002  # a tie of the grid's own resolution
        excess = max(excess, float(result.cost) / cost - 1)
        breaking += max(schedule) >= 0
        samples += int(result.samples)
    everything = (SCHEDULES + BRANCHES) * SAMPLES * ITERATIONS  # the last batch is polished
    return Tally(same / len(seeds), excess, breaking, samples / len(seeds) / everything)


def test_against_exhaustive_search() -> None:
    tally = compare(range(15))
    assert tally.same == 1
    assert tally.excess <= 0.02
    assert 3 <= tally.breaking <= 12
    assert tally.effort <= 0.75


@pytest.mark.slow
def test_against_exhaustive_search_at_length() -> None:
    tally = compare(range(200))
    assert tally.same >= 0.98
    assert tally.excess <= 0.02
    assert tally.effort <= 0.75


@jax.jit
def free_step(params: PlanParams, cart: Tied, ctrl: jax.Array) -> Tied:
    return step(params.model, cart, ctrl)[0]


def test_a_schedule_comes_true_without_being_forced() -> None:
    """The model left to itself, under the planned controls, breaks what the plan says, in the step it says."""
    plan, carry = joint_plan()
    broken = 0
    for seed in range(15):
        params = random_instance(seed)
        result, _ = plan(params, jax.random.key(seed), START, carry)
        cart = jax.tree.map(lambda leaf: leaf[..., None], START)
        fired_at = [-1, -1]
        for t, ctrl in enumerate(np.asarray(result.ctrls)):
            cart = free_step(params, cart, ctrl[:, None])
            gone = np.asarray(cart.intact)[:, 0] == 0
            fired_at = [t if at < 0 and gone else at for at, gone in zip(fired_at, gone, strict=True)]
        for event in range(2):
            wanted = int(result.schedule[event])
            assert (fired_at[event] // 2 if fired_at[event] >= 0 else -1) == wanted
            if wanted >= 0:
                assert fired_at[event] == int(result.event_step[event])
                broken += 1
    assert broken >= 3


def test_every_schedule_is_one_node() -> None:
    tree = tree_of(PROBLEM, INTERVALS, 2)
    assert {tuple(row) for row in tree.schedule.tolist()} == set(product(range(-1, INTERVALS), repeat=2))
    assert len(tree.schedule) == SCHEDULES
    for node in range(1, SCHEDULES):
        gained = tree.schedule[node] != tree.schedule[tree.parent[node]]
        assert gained.sum() == 1
        assert tree.start[node] == 2 * tree.schedule[node][gained][0]
        assert tree.schedule[node].max() == tree.schedule[node][gained][0]


def test_a_relaxation_costs_no_more() -> None:
    """With events for controls, whatever a schedule and controls cost can be had, and at most what is free differs."""
    loose, rng = relaxed(PROBLEM), np.random.default_rng(0)
    tree = tree_of(PROBLEM, INTERVALS, 2)
    params = random_instance(3)

    @jax.jit
    def costs(node: jax.Array, ctrls: jax.Array, triggers: jax.Array) -> Any:
        schedule, start = jnp.asarray(tree.schedule)[node], jnp.asarray(tree.start)[node]
        both = jnp.concatenate([ctrls, triggers], axis=1)
        free = score(loose, params, START, both, relaxed_forcing(PROBLEM, schedule, start, INTERVALS))[0]
        strict = score(PROBLEM, params, START, ctrls, forcing_of(schedule, HORIZON, INTERVALS))[0]
        return free.raw, strict.raw - PROBLEM.penalty * strict.event_gap

    for node in range(len(tree.schedule)):
        ctrls = jnp.asarray(rng.uniform(-0.4, 0.4, (HORIZON, 1, 50)), jnp.float32)  # too gentle to break anything
        never = jnp.full((HORIZON, 2, 50), -1.0)
        free, strict = costs(node, ctrls, never)
        np.testing.assert_allclose(free, strict, rtol=1e-5)
        early = never.at[min(tree.start[node] + 1, HORIZON - 1)].set(1.0)
        assert (np.abs(np.asarray(costs(node, ctrls, early)[0]) - strict) > 1e-6).any()


def test_required_and_forbidden_events() -> None:
    """Forbidden events stay away, required ones come, impossible ones make the plan infeasible."""
    goal = Goal(lambda goal, cart: jnp.abs(cart.pos - goal["target"]), 10.0)
    problem = PROBLEM._replace(goal=goal, required=("left",), forbidden=("right",))
    planner = joint(problem, intervals=2, samples=64, iterations=6, colour=0.0, contingencies=False)
    plan, aim = jax.jit(planner.plan), {"target": np.float32(0.1), "price": np.zeros(2, np.float32)}

    def result(left_strength: float) -> Any:
        springs = Springs(np.array([left_strength, 1.0], np.float32), np.full(2, 3, np.float32))
        return plan(strong(PlanParams(springs, aim)), jax.random.key(0), START, strong(planner.init()))[0]

    weak, strong_ = result(1.0), result(5.0)
    assert Status(int(weak.status)) is Status.OK
    assert int(weak.schedule[0]) >= 0
    assert int(weak.schedule[1]) == -1
    assert any("left happens at" in line for line in describe(problem, weak))
    assert Status(int(strong_.status)) is Status.INFEASIBLE


def test_what_if_is_told_of_events_that_the_plan_does_not_want() -> None:
    def sentences(chances: list[float], valid: list[bool] | None) -> list[str]:
        found = jnp.array([3, 1]), jnp.array([2.5, 1.0]), jnp.array(valid or [])
        instead = (
            Contingency(jnp.zeros((2, HORIZON, 1)), cost=found[1], step=found[0], valid=found[2]) if valid else None
        )
        parts = [jnp.zeros(())] * (len(Plan._fields) - 1)
        return in_case(PROBLEM, Plan(*parts, contingency=instead)._replace(event_probability=jnp.array(chances)))

    (line,) = sentences([0.02, 0.9], [True, True])
    assert line.startswith("should left happen anyway, at 0.40 s: a plan of cost 2.5")
    assert len(sentences([0.02, 0.1], [True, False])) == 1, "no plan could be found for right"
    assert sentences([0.02, 0.1], None) == []


def test_bad_trees_are_refused() -> None:
    with pytest.raises(ValueError, match="schedules are too many"):
        joint(PROBLEM._replace(spline=linear(200, 4)), intervals=150, most_events=2)
    with pytest.raises(ValueError, match="did you mean 'left'"):
        joint(PROBLEM._replace(forbidden=("lefty",)))
    with pytest.raises(ValueError, match="intervals must lie"):
        joint(PROBLEM, intervals=7)
