"""The receding horizon: deadlines, fallbacks, latency, the planning thread, the log."""

import json
import threading
import time
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import LANES, Swing, Theta, cart_params, cart_problem, cart_state, pendulum_problem

from planners.background import Background
from planners.controller import Controller
from planners.knots import linear
from planners.mpc import run, simulate, simulated_plant
from planners.problem import Planner, PlanParams, Status, strong
from planners.sampling import cem

PROBLEM = cart_problem(linear(12, 5))


@pytest.fixture(scope="module")
def planner() -> Planner:
    return cem(PROBLEM, samples=32, iterations=3, elites=6)


@pytest.fixture(scope="module")
def controller(planner: Planner) -> Controller:
    made = Controller(PROBLEM, planner, cart_params(target=0.2), budget_s=0.02, max_rounds=3)
    made.warmup(cart_state())
    return made


def test_the_loop_reaches_its_goal_and_logs_every_plan(controller: Controller, tmp_path: Any) -> None:
    controller.restart()
    plant = simulated_plant(PROBLEM, cart_params(), cart_state())
    records = run(plant, controller, steps=40, log=tmp_path / "plans.jsonl")
    assert abs(float(plant.observe().pos) - 0.2) < 0.1  # the spring pulls back and effort costs
    assert all(record.status == Status.OK for record in records[-10:] if record.rounds)
    lines = [json.loads(line) for line in (tmp_path / "plans.jsonl").read_text().splitlines()]
    assert len(lines) == 40
    assert lines[7]["t_s"] == pytest.approx(0.7)
    assert len(lines[7]["ctrl"]) == 2


def deadline(controller: Controller, calls: int) -> np.ndarray:
    controller.restart()
    controller.records.clear()
    rng = np.random.default_rng(0)
    for index in range(calls):
        controller.step(cart_state(*rng.normal(0, 0.3, 2)), 0.1 * index)
    return np.array([record.took_s for record in controller.records])


def test_rounds_stop_before_the_budget(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only rounds move, 3 or 6 ms each: a busy machine changes nothing."""
    rng, now = np.random.default_rng(0), [0.0]
    rounds, plan = controller._rounds, controller._plan

    def timed(*args: Any) -> Any:
        now[0] += float(rng.choice([0.003, 0.006]))
        return plan(*args)

    def at_once(call: Any, *args: Any, left_s: float) -> Any:
        return rounds._timed(call, *args)

    for module in ("controller", "rounds"):
        monkeypatch.setattr(f"planners.{module}.time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(rounds, "run", at_once)
    monkeypatch.setattr(controller, "_plan", timed)
    monkeypatch.setattr(controller, "max_rounds", 9)
    controller.warmup(cart_state())
    took = deadline(controller, 300)
    assert took.max() <= 0.02
    assert all(1000 * record.took_s >= 20 - 6 and 3 <= record.rounds <= 5 for record in controller.records)


def test_a_late_round_is_not_waited_for_and_serves_the_next_call(planner: Planner) -> None:
    """The gate is the round: closed it never ends, so only the budget can end the call."""
    gate = threading.Event()
    controller = Controller(PROBLEM, planner, cart_params(target=0.2), budget_s=0.5)
    controller.warmup(cart_state())
    plan = controller._plan

    def gated(*args: Any) -> Any:
        gate.wait()
        return plan(*args)

    controller._plan = gated  # type: ignore[method-assign]
    for index in range(3):
        ctrl = controller.step(cart_state(), 0.1 * index)
        np.testing.assert_array_equal(ctrl, [0, 0])
        assert controller.records[-1].status == Status.DEADLINE
        assert controller.records[-1].rounds == 0
    assert controller._rounds.busy
    gate.set()
    controller.budget_s = 60.0
    controller.step(cart_state(), 0.3)
    assert controller.records[-1].rounds == 1
    alone = Controller(PROBLEM, planner, cart_params(target=0.2))
    alone.step(cart_state(), 0.0)
    ctrl = alone.step(cart_state(), 0.3)
    np.testing.assert_array_equal(controller.published.ctrls, alone.published.ctrls)
    np.testing.assert_array_equal(controller.records[-1].ctrl, ctrl.tolist())


def test_without_time_for_a_round_the_previous_plan_goes_on(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.restart()
    monkeypatch.setattr(controller, "budget_s", 10.0)
    controller.step(cart_state(), 0.0)
    plan = controller.published.ctrls
    monkeypatch.setattr(controller, "budget_s", 1e-9)
    for index in (1, 2, 30):
        ctrl = controller.step(cart_state(), 0.1 * index)
        assert controller.records[-1].status == Status.DEADLINE
        assert controller.records[-1].rounds == 0
        np.testing.assert_allclose(ctrl, plan[min(index, 11)], atol=1e-6)


def test_no_compilation_after_warmup(controller: Controller) -> None:
    """Counts what XLA is asked to compile, for new states, goals and broken bonds, and after a restart."""
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
    try:
        for index in range(20):
            controller.params = cart_params(target=0.01 * index)
            controller.step(cart_state(0.01 * index, intact=float(index % 2)), 0.1 * index)
        controller.restart()
        controller.step(cart_state(), 0.0)
        seen = [event for event in compiled if "compile" in event]
        jax.jit(lambda x: x * 3.5 + 1)(jnp.ones(7))
        assert seen == []
        assert [event for event in compiled if "compile" in event], "the listener hears compilations"
    finally:
        jax.monitoring.clear_event_listeners()


def test_bad_observations_get_the_ladder(controller: Controller) -> None:
    controller.restart()
    controller.step(cart_state(), 0.0)
    plan = controller.published.ctrls
    ctrl = controller.step(cart_state(pos=np.nan), 0.1)
    assert controller.records[-1].status in (Status.NONFINITE_INPUT, Status.DEADLINE)
    np.testing.assert_allclose(ctrl, plan[1], atol=1e-6)
    everything = np.ones(LANES, bool)
    controller.params = cart_params(Theta(state_lanes=everything, state_value=np.nan, everywhere=True))
    ctrl = controller.step(cart_state(), 0.2)
    assert controller.records[-1].status in (Status.FALLBACK, Status.DEADLINE)
    np.testing.assert_allclose(ctrl, plan[2], atol=1e-5)
    controller.params = cart_params(target=0.2)
    controller.step(cart_state(), 0.3)
    assert controller.records[-1].status in (Status.OK, Status.DEADLINE)
    with pytest.raises(ValueError, match="shape"):
        controller.step(cart_state()._replace(intact=np.ones(3)), 0.4)


def test_a_planner_that_raises_does_not_stop_the_loop(planner: Planner) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    controller = Controller(PROBLEM, planner._replace(plan=fails), cart_params())
    ctrl = controller.step(cart_state(), 0.0)
    assert controller.records[-1].status == Status.FALLBACK
    assert "out of memory" in controller.records[-1].error
    np.testing.assert_array_equal(ctrl, [0, 0])


def delayed_run(controller: Controller, latency_s: float, steps: int) -> float:
    """Mean distance of a pendulum from upright when every control takes effect two steps late."""
    controller.restart()
    controller.latency_s = latency_s
    problem = controller.problem
    state = strong(Swing(*(np.float32(x) for x in (0, 0.3, 0, 0))))
    step, pending, angles = jax.jit(problem.model.step), [np.zeros(1, np.float32)] * 2, []
    for index in range(steps):
        pending.append(controller.step(state, index * problem.model.dt))
        state, _ = step((), state, jnp.asarray(pending.pop(0)))
        angles.append(float(state.angle))
    return float(np.mean(np.abs((np.array(angles[-40:]) + np.pi) % (2 * np.pi) - np.pi)))


@pytest.mark.slow
def test_latency_compensation_pays() -> None:
    problem = pendulum_problem()
    controller = Controller(problem, cem(problem, samples=64), PlanParams())
    assert delayed_run(controller, 2 * problem.model.dt, 80) < 0.7 * delayed_run(controller, 0.0, 80)


def test_the_thread_publishes_whole_plans(planner: Planner) -> None:
    """Commands come at once, follow the newest plan, and interpolate between its controls."""
    controller = Controller(PROBLEM, planner, cart_params(target=0.2))
    controller.warmup(cart_state())
    with Background(controller) as background:
        begin, waits = time.perf_counter(), []
        while (t := time.perf_counter() - begin) < 60 and len(controller.records) < 6:
            ctrl = background.step(cart_state(), t)
            waits.append(time.perf_counter() - begin - t)
            assert np.all(np.isfinite(ctrl))
            time.sleep(0.002)
        assert background.failure is None
    assert np.min(waits) < 0.002
    assert len(controller.records) > 5
    ctrls, start_s, plan, _ = controller.published
    assert plan is not None
    between = controller.command(start_s + 1.5 * PROBLEM.model.dt)
    np.testing.assert_allclose(between, (ctrls[1] + ctrls[2]) / 2, atol=1e-6)


@pytest.mark.slow
def test_simulate_is_the_loop(planner: Planner) -> None:
    states, ctrls, statuses = jax.jit(
        lambda key: simulate(PROBLEM, planner, cart_params(target=0.2), key, cart_state(), 30)
    )(jax.random.key(0))
    assert abs(float(states.pos[-1]) - 0.2) < 0.1
    assert ctrls.shape == (30, 2)
    assert int(statuses[-1]) == Status.OK
