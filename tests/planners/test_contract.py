"""What every planner promises; one suite over all of them."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import HORIZON, LANES, POISONS, Theta, cart_params, cart_state, contract_planners

from planners.problem import Plan, Planner, PlanParams, Problem, Status, strong
from planners.warmstart import Carry

PLANNERS = contract_planners()
every_planner = pytest.mark.parametrize("name", PLANNERS)


class Case(NamedTuple):
    problem: Problem
    planner: Planner
    plan: Any
    carry: Carry
    traces: list[int]


@cache
def case(name: str) -> Case:
    problem, planner = PLANNERS[name]
    traces: list[int] = []

    def counted(*args: Any) -> Any:
        traces.append(1)
        return planner.plan(*args)

    return Case(problem, planner, jax.jit(counted), strong(planner.init()), traces)


def plan_of(name: str, seed: int = 0, params: PlanParams | None = None, state: Any = None, carry: Any = None) -> Any:
    case_ = case(name)
    carry = case_.carry if carry is None else carry
    state = cart_state() if state is None else state
    return case_.plan(params or cart_params(), jax.random.key(seed), state, carry)


def within_limits(problem: Problem, ctrls: Any) -> bool:
    low, high = np.asarray(problem.model.ctrl_min, np.float32), np.asarray(problem.model.ctrl_max, np.float32)
    return bool(np.all(np.isfinite(ctrls)) and np.all(ctrls >= low) and np.all(ctrls <= high))


def random_carry(name: str, rng: np.random.Generator) -> Carry:
    """A warm start anywhere, also far outside the limits."""
    like = case(name).carry
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 2, leaf.shape), leaf.dtype), like)._replace(std=like.std)


@every_planner
def test_shapes(name: str) -> None:
    plan, carry = plan_of(name)
    problem = case(name).problem
    assert plan.ctrls.shape == (HORIZON, 2)
    assert plan.knots.shape == (problem.spline.knots, 2)
    assert plan.states.pos.shape == (HORIZON,)
    assert plan.states.intact.shape == (HORIZON, 1)
    assert plan.event_probability.shape == plan.event_step.shape == plan.schedule.shape == (1,)
    scalars = (plan.cost, plan.cost_start, plan.distance, plan.violation, plan.spread, plan.trust, plan.status)
    assert all(scalar.shape == () for scalar in scalars)
    assert 0 < int(plan.valid) <= int(plan.samples)
    assert jax.tree.map(jnp.shape, carry) == jax.tree.map(jnp.shape, case(name).carry)


@every_planner
def test_same_key_gives_the_same_plan(name: str) -> None:
    first, again = plan_of(name, seed=3)[0], plan_of(name, seed=3)[0]
    jax.tree.map(np.testing.assert_array_equal, first, again)


@every_planner
def test_limits_are_exact(name: str) -> None:
    rng, case_ = np.random.default_rng(1), case(name)
    reach = None if case_.problem.rate is None else case_.problem.rate * case_.problem.model.dt
    for seed in range(20):
        carry = random_carry(name, rng)
        ctrls = np.asarray(plan_of(name, seed, carry=carry, params=cart_params(target=rng.normal(0, 5)))[0].ctrls)
        assert within_limits(case_.problem, ctrls)
        if reach is not None:
            low, high = (np.asarray(limit) for limit in case_.problem.limits)
            path = np.concatenate([np.clip(np.asarray(carry.ctrl), low, high)[None], ctrls])
            assert np.abs(np.diff(path, axis=0)).max() <= np.float32(reach)


@every_planner
def test_never_worse_than_its_warm_start(name: str) -> None:
    rng = np.random.default_rng(2)
    for seed in range(20):
        plan, _ = plan_of(name, seed, carry=random_carry(name, rng), state=cart_state(*rng.normal(0, 0.5, 2)))
        assert float(plan.cost) <= float(plan.cost_start)


@every_planner
def test_repeated_calls_only_improve(name: str) -> None:
    if name == "joint":
        pytest.skip("the joint search may change the schedule under which its warm start is scored")
    _, carry = plan_of(name)
    last = np.inf
    for seed in range(5):
        plan, carry = plan_of(name, seed, carry=carry)
        assert float(plan.cost) <= last * (1 + 1e-6)
        last = float(plan.cost)


@every_planner
def test_the_cost_is_the_cost_of_the_controls(name: str) -> None:
    """An independent account: the cart stepped in numpy."""
    plan, _ = plan_of(name)
    pos, vel, intact, cost = 0.1, 0.0, 1.0, 0.0
    for ctrl in np.asarray(plan.ctrls, np.float64):
        cost += (pos - 0.6) ** 2 + 0.05 * vel**2 + 0.01 * np.sum(ctrl**2)
        intact = 0.0 if abs(ctrl[0]) > 1.5 else intact
        vel += 0.1 * (ctrl[0] - intact * (6 * pos + vel) + 0.1 * np.sin(ctrl[1]))
        pos += 0.1 * vel
    cost += 5 * (pos - 0.6) ** 2 + 2 * vel**2
    assert abs(pos - float(plan.states.pos[-1])) < 1e-5
    if name != "joint":  # there the cost holds penalties for what the schedule asks
        assert cost == pytest.approx(float(plan.cost), rel=1e-4)


def fast_for(*names: str) -> pytest.MarkDecorator:
    """All planners, but only `names` in the fast tests: each needs a compilation of its own."""
    return pytest.mark.parametrize(
        "name", [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in PLANNERS]
    )


@fast_for("annealed_mppi")
def test_vmap_is_a_loop(name: str) -> None:
    case_ = case(name)
    keys = jax.random.split(jax.random.key(7), 3)
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[cart_state(0.1 * i, -0.1 * i) for i in range(3)])
    batched, _ = jax.jit(jax.vmap(case_.planner.plan, in_axes=(None, 0, 0, None)))(
        cart_params(), keys, states, case_.carry
    )
    for i in range(3):
        one, _ = case_.plan(cart_params(), keys[i], jax.tree.map(lambda leaf, i=i: leaf[i], states), case_.carry)
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], batched), one)


@fast_for("annealed_mppi")
def test_jit_is_eager(name: str) -> None:
    case_ = case(name)
    eager, _ = case_.planner.plan(strong(cart_params()), jax.random.key(5), strong(cart_state()), case_.carry)
    assert_close(eager, plan_of(name, seed=5)[0])


def assert_close(one: Plan, other: Plan) -> None:
    for field in ("ctrls", "knots", "cost", "distance", "event_probability"):
        np.testing.assert_allclose(getattr(one, field), getattr(other, field), rtol=1e-5, atol=1e-5, err_msg=field)
    assert int(one.status) == int(other.status)


def poisoned(kind: str, lanes: np.ndarray, which: int, **aim: Any) -> PlanParams:
    """The lanes' states, costs or network weights hold POISONS[which]."""
    if kind == "state":
        return cart_params(Theta(state_lanes=lanes, state_value=POISONS[which]), **aim)
    if kind == "cost":
        return cart_params(Theta(cost_lanes=lanes), poison=which, **aim)
    return cart_params(Theta(weights=np.where(lanes, POISONS[which], 0.0)), **aim)


@every_planner
@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_poison_weighs_nothing(name: str, share: float) -> None:
    """Bitwise: poisoned samples leave the action as if the model itself had given them no weight."""
    rng = np.random.default_rng(int(100 * share))
    lanes = rng.random(LANES) < share
    lanes[:32][rng.integers(32)] = False
    clean, _ = plan_of(name, params=cart_params(Theta(dead_lanes=lanes)))
    assert int(clean.valid) < int(clean.samples)
    for kind in ("state", "cost", "network"):
        for which, value in enumerate(POISONS):
            plan, _ = plan_of(name, params=poisoned(kind, lanes, which))
            np.testing.assert_array_equal(plan.ctrls, clean.ctrls, err_msg=f"{kind} {value}")
            assert int(plan.valid) == int(clean.valid)
            assert within_limits(case(name).problem, np.asarray(plan.ctrls))


@every_planner
def test_all_samples_lost_is_a_fallback_and_the_next_call_is_clean(name: str) -> None:
    everything = np.ones(LANES, bool)
    _, carry = plan_of(name)
    lost, after = plan_of(name, params=cart_params(Theta(state_lanes=everything, state_value=np.nan, everywhere=True)),
                          carry=carry)  # fmt: skip
    assert Status(int(lost.status)) is Status.FALLBACK
    assert int(lost.valid) == 0
    np.testing.assert_array_equal(lost.knots, carry.knots)
    assert within_limits(case(name).problem, np.asarray(lost.ctrls))
    clean, _ = plan_of(name, carry=after)
    assert int(clean.valid) > 0
    assert Status(int(clean.status)) in (Status.OK, Status.INFEASIBLE)


@every_planner
def test_a_state_that_is_not_finite_is_named(name: str) -> None:
    for value in POISONS:
        plan, carry = plan_of(name, state=cart_state(pos=value))
        assert Status(int(plan.status)) is Status.NONFINITE_INPUT
        assert within_limits(case(name).problem, np.asarray(plan.ctrls))
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(carry))


def twins(name: str, count: int) -> tuple[int, int]:
    """Of `count` goals: (those reached, those called OK with a wall between, or twenty times out of reach)."""
    rng = np.random.default_rng(4)
    reached, wrong = 0, 0
    for seed in range(count):
        target = float(rng.uniform(-0.1, 0.22))
        _, carry = plan_of(name, seed, params=cart_params(target=target))
        for round_ in (1, 2, 3):
            plan, carry = plan_of(name, seed + 1000 * round_, params=cart_params(target=target), carry=carry)
        reached += int(plan.status) == Status.OK
        impossible = cart_params(target=target, wall=target - 0.3) if seed % 2 else cart_params(target=50 + target)
        wrong += int(plan_of(name, seed, params=impossible, carry=carry)[0].status) == Status.OK
    return reached, wrong


@every_planner
def test_reachable_goals_are_ok_and_contradictory_ones_never(name: str) -> None:
    assert twins(name, 20) == (20, 0)


@every_planner
@pytest.mark.slow
def test_two_hundred_goals_and_their_twins(name: str) -> None:
    reached, wrong = twins(name, 200)
    assert wrong == 0
    assert reached >= 196


def fuzz(name: str, calls: int) -> None:
    rng, case_ = np.random.default_rng(5), case(name)
    key = jax.random.key(0)
    case_.plan(cart_params(), key, cart_state(), case_.carry)
    known = len(case_.traces)

    def wild(shape: tuple[int, ...] = ()) -> np.ndarray:
        values = rng.choice([0.0, 1e-30, 1.0, -3.0, 1e6, 1e20, 1e38, np.nan, np.inf, -np.inf], shape)
        return (values * rng.uniform(-3, 3)).astype(np.float32)

    for _ in range(calls):
        state = cart_state(*(float(wild()) if rng.random() < 0.3 else rng.normal() for _ in range(2)),
                           intact=float(rng.random() < 0.5))  # fmt: skip
        lanes = rng.random(LANES) < rng.random()
        params = poisoned(rng.choice(["state", "cost", "network"]), lanes, int(rng.integers(4)),
                          target=wild() if rng.random() < 0.2 else rng.normal())  # fmt: skip
        carry = case_.carry
        if rng.random() < 0.3:
            carry = jax.tree.map(lambda leaf: wild(leaf.shape), carry)
        plan, _ = case_.plan(params, key, state, carry)
        assert int(plan.status) in list(Status)
        assert within_limits(case_.problem, np.asarray(plan.ctrls))
    assert len(case_.traces) == known == 1


@every_planner
def test_fuzz(name: str) -> None:
    fuzz(name, 2000 // len(PLANNERS))


@every_planner
@pytest.mark.slow
def test_fuzz_at_length(name: str) -> None:
    """100,000 calls over all planners; 12,500 with one trace for each."""
    fuzz(name, 100_000 // len(PLANNERS))


@every_planner
def test_one_trace_for_all_calls(name: str) -> None:
    """Runs after calls with all kinds of states, goals, events and carries; none of them may trace again."""
    case_ = case(name)
    carry, advance = case_.carry, jax.jit(case_.planner.advance)
    for index in range(50):
        state, params = cart_state(0.01 * index, intact=float(index % 2)), cart_params(target=0.01 * index)
        plan, carry = case_.plan(params, jax.random.key(index), state, carry)
        carry = advance(carry, plan.ctrls[0], 1)
    assert len(case_.traces) == 1


def test_the_joint_search_says_what_to_do_if_it_breaks_anyway() -> None:
    plan, _ = plan_of("joint", params=cart_params(target=0.1))
    then = plan.contingency
    assert int(plan.schedule[0]) == -1
    assert then.ctrls.shape == (1, HORIZON, 2)
    assert within_limits(case("joint").problem, np.asarray(then.ctrls[0]))
    assert np.all(then.valid)
    at = int(then.step[0])
    pos, vel = (float(plan.states[i][at - 1]) if at else float(cart_state()[i]) for i in (0, 1))
    cost = 0.0
    for index, ctrl in enumerate(np.concatenate([plan.ctrls[at : at + 1], then.ctrls[0]]).astype(np.float64)):
        cost += (pos - 0.1) ** 2 + 0.05 * vel**2 + 0.01 * np.sum(ctrl**2) if index else 0.0  # counted after the tear
        vel += 0.1 * (ctrl[0] + 0.1 * np.sin(ctrl[1]))
        pos += 0.1 * vel
    cost += 5 * (pos - 0.1) ** 2 + 2 * vel**2
    assert float(then.cost[0]) == pytest.approx(cost, rel=1e-3)


_CHILD = """
import sys; sys.path.insert(0, {here!r})
import jax, numpy as np
from toys import cart_params, cart_state, contract_planners
from planners.problem import strong
for name in {names!r}:
    problem, planner = contract_planners(jax.devices()[:{devices}])[name]
    plan, _ = jax.jit(planner.plan)(cart_params(), jax.random.key(3), cart_state(), strong(planner.init()))
    print(*(float(x).hex() for x in np.asarray(plan.ctrls).ravel()))
"""


def planned_elsewhere(names: list[str], devices: int) -> np.ndarray:
    """Controls `[planners, H, nu]`, planned in a process of its own that splits its samples over `devices`."""
    here = Path(__file__).parent
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PYTHONPATH": str(here.parents[1])}
    program = _CHILD.format(here=str(here), names=names, devices=devices)
    child = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=300,
                           check=True)  # fmt: skip
    numbers = [[float.fromhex(word) for word in line.split()] for line in child.stdout.splitlines()]
    return np.reshape(numbers, (len(names), HORIZON, 2))


def test_same_plan_in_another_process_on_two_devices() -> None:
    """Bit for bit."""
    mine = plan_of("cem", seed=3)[0].ctrls
    np.testing.assert_array_equal(planned_elsewhere(["cem"], 2)[0], mine)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_every_planner_gives_the_same_plan_in_another_process(devices: int) -> None:
    """Bit for bit; iLQR, whose lanes are step sizes, up to rounding on two devices."""
    for name, ctrls in zip(PLANNERS, planned_elsewhere(list(PLANNERS), devices), strict=True):
        mine = np.asarray(plan_of(name, seed=3)[0].ctrls, float)
        np.testing.assert_allclose(
            ctrls, mine, rtol=0, atol=1e-6 if name == "ilqr" and devices > 1 else 0, err_msg=name
        )
