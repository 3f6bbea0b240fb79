"""Splines, risk measures, members and chances, small systems, the vocabulary."""

import ast
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import cart_params, cart_problem, cart_state

import planners
from planners import knots as splines
from planners.knots import cubic, hold, linear
from planners.problem import Cost, Goal, Model, PlanInfo, PlanParams, Problem, Status, check_problem, strong
from planners.risk import cvar, mean, pick, spread_out, worst
from planners.sampling import cem, coloured
from planners.smallmat import cholesky, solve_lower

LIMITS = (jnp.array([-1.0, -0.3]), jnp.array([1.0, 0.7]))
controls = jax.jit(splines.controls, static_argnums=0)
shift = jax.jit(splines.shift, static_argnums=0)


@pytest.mark.parametrize("spline", [hold(20, 6), hold(20), linear(20, 6), cubic(20, 6)], ids=str)
def test_a_constant_stays_constant_and_limits_are_exact(spline: Any) -> None:
    level = jnp.broadcast_to(jnp.array([0.25, 0.5]), (spline.knots, 2))
    for phase in (0.0, 0.4 * spline.spacing):
        np.testing.assert_allclose(controls(spline, level, LIMITS, phase), jnp.tile(level[:1], (20, 1)), atol=1e-6)
    wild = 5 * jax.random.normal(jax.random.key(0), (spline.knots, 2, 50))
    ctrls = np.asarray(controls(spline, wild, LIMITS))
    assert ctrls.shape == (20, 2, 50)
    assert np.all(ctrls >= LIMITS[0][:, None])
    assert np.all(ctrls <= LIMITS[1][:, None])


def test_curves_pass_through_their_knots() -> None:
    knots = jnp.array([[0.1], [0.5], [-0.4], [0.2]])
    wide = (jnp.array([-9.0]), jnp.array([9.0]))
    for spline in (linear(13, 4), cubic(13, 4)):
        np.testing.assert_allclose(controls(spline, knots, wide)[::4], knots, atol=1e-6)
    np.testing.assert_allclose(controls(linear(13, 4), knots, wide)[2, 0], 0.3, atol=1e-6)
    np.testing.assert_array_equal(controls(hold(12, 4), knots, wide), jnp.repeat(knots, 3, axis=0))


@pytest.mark.parametrize("spline", [hold(20, 6), hold(20), linear(20, 6), linear(17, 5)], ids=str)
def test_a_shifted_curve_is_the_same_curve(spline: Any) -> None:
    knots, phase = jax.random.uniform(jax.random.key(1), (spline.knots, 2), minval=-0.3, maxval=0.7), jnp.float32(0)
    before = np.asarray(controls(spline, knots, LIMITS))
    for steps in (1, 1, 2, 1, 3, 1):
        knots, phase = shift(spline, knots, phase, steps)
        after = np.asarray(controls(spline, knots, LIMITS, phase))
        np.testing.assert_allclose(after[:-steps], before[steps:], atol=1e-5)
        np.testing.assert_allclose(after[-steps:], np.broadcast_to(before[-1], (steps, 2)), atol=1e-5)
        before = after


@given(st.floats(1e-4, 3.0), st.integers(0, 1000))
def test_rate_limits_are_exact(rate: float, seed: int) -> None:
    knots = jax.random.normal(jax.random.key(seed), (6, 2, 8))
    ctrls = np.asarray(controls(linear(20, 6), knots, LIMITS, 0.0, jnp.array([0.9, 0.6]), jnp.float32(rate)))
    path = np.concatenate([np.broadcast_to(np.array([[0.9], [0.6]], np.float32), (1, 2, 8)), ctrls])
    assert np.abs(np.diff(path, axis=0)).max() <= np.float32(rate)
    assert np.all((ctrls >= LIMITS[0][:, None]) & (ctrls <= LIMITS[1][:, None]))


def test_bad_splines_are_refused() -> None:
    with pytest.raises(ValueError, match="needs between 2 and 10 knots, got 11"):
        linear(10, 11)


def test_risk_measures_by_hand() -> None:
    values = jnp.array([[1.0, 5.0, 3.0, jnp.nan], [2.0, 2.0, 2.0, 2.0]])
    valid = jnp.array([[True, True, True, False], [True, True, True, True]])
    np.testing.assert_allclose(mean(4).combine(values, valid), [3, 2])
    np.testing.assert_allclose(worst(4).combine(values, valid), [5, 2])
    np.testing.assert_allclose(cvar(4, 2 / 3).combine(values, valid), [4, 2], rtol=1e-6)
    np.testing.assert_allclose(cvar(4, 0.5).combine(values, valid), [(5 + 0.5 * 3) / 1.5, 2], rtol=1e-6)
    np.testing.assert_allclose(cvar(4, 1.0).combine(values, valid), [3, 2], rtol=1e-6)
    with pytest.raises(ValueError, match="share of CVaR"):
        cvar(4, 0.0)


def test_candidates_and_members_fold_and_unfold() -> None:
    belief = {"x": jnp.arange(6.0).reshape(2, 3)}
    wide = spread_out(belief, 3, 4)["x"]
    assert wide.shape == (2, 12)
    np.testing.assert_array_equal(pick({"x": wide}, 3, jnp.int32(2))["x"], belief["x"])
    np.testing.assert_array_equal(spread_out(jnp.array([1.0, 2.0]), 1, 3), [[1, 1, 1], [2, 2, 2]])


class Guess(NamedTuple):
    """A point whose gain is uncertain: every member of the belief has its own, and its own draw for the event."""

    pos: Any
    gain: Any
    draw: Any
    intact: Any


def _guess_step(params: Any, guess: Guess, ctrl: jax.Array, forced: Any = None) -> tuple[Guess, PlanInfo]:
    hazard = guess.intact * jax.nn.sigmoid(8 * (jnp.abs(ctrl[:1]) - 1.0))
    fired = guess.draw < hazard
    return guess._replace(
        pos=guess.pos + 0.2 * guess.gain * ctrl[0], intact=jnp.where(fired, 0.0, guess.intact)
    ), PlanInfo(event_probability=hazard, fired=fired)


@cache
def _guess_plan(risk: Any, forbidden: tuple[str, ...] = ()) -> Any:
    model = Model(_guess_step, [-2.0], [2.0], 0.1, ("snap",))
    cost = Cost(
        lambda goal, guess, ctrl: 1e-3 * ctrl[0] ** 2,
        lambda goal, guess: (guess.pos - goal) ** 2 + 30 * jnp.maximum(guess.pos - goal - 0.3, 0) ** 2,
    )
    goal = Goal(lambda goal, guess: jnp.abs(guess.pos - goal), 0.8)
    problem = Problem(model, cost, hold(5, 2), goal, forbidden=forbidden, risk=risk, delta=0.1)
    planner = cem(problem, samples=128, iterations=12, colour=0.0)
    members = risk.members
    gain, draw = np.linspace(0.7, 1.6, members), np.linspace(0.02, 0.98, members)[None]
    belief = Guess(np.zeros(members), gain, draw, np.ones((1, members)))
    belief = strong(jax.tree.map(np.float32, belief))
    params = strong(PlanParams((), np.float32(1.4)))
    return jax.jit(planner.plan)(params, jax.random.key(0), belief, strong(planner.init()))[0], problem


@pytest.mark.slow
def test_members_make_a_plan_careful() -> None:
    """Each measure is best at what it measures; costs by hand from the predicted states."""
    average, careful = _guess_plan(mean(6))[0], _guess_plan(worst(6))[0]
    assert average.states.pos.shape == (5, 6)

    def each(plan: Any) -> np.ndarray:
        final = np.asarray(plan.states.pos[-1], np.float64)
        effort = 1e-3 * np.sum(np.asarray(plan.ctrls) ** 2)
        return (final - 1.4) ** 2 + 30 * np.maximum(final - 1.7, 0) ** 2 + effort

    assert float(average.cost) == pytest.approx(each(average).mean(), rel=1e-4)
    assert float(careful.cost) == pytest.approx(each(careful).max(), rel=1e-4)
    assert each(careful).max() < 0.95 * each(average).max()
    assert each(average).mean() < each(careful).mean()


def test_chance_constraints_by_hazard_and_by_counting() -> None:
    free, _ = _guess_plan(mean(6))
    by_hazard, _ = _guess_plan(mean(6), ("snap",))
    counted, _ = _guess_plan(mean(6, draws=True), ("snap",))
    assert float(free.event_probability[0]) > 0.3
    for plan in (by_hazard, counted):
        assert float(plan.event_probability[0]) <= 0.1 + 1e-6
    snapped = np.asarray(counted.states.intact[-1, 0] == 0)
    assert float(counted.event_probability[0]) == pytest.approx(snapped.mean(), abs=1e-6)


def test_a_wall_is_respected_or_reported() -> None:
    problem = cart_problem(linear(12, 5))
    planner = cem(problem, samples=64, iterations=8)
    plan = jax.jit(planner.plan)
    near, _ = plan(cart_params(target=0.2, wall=0.15), jax.random.key(0), cart_state(), strong(planner.init()))
    assert float(near.violation) == 0
    assert float(near.states.pos.max()) <= 0.15
    inside, _ = plan(cart_params(target=0.2, wall=-1.0), jax.random.key(0), cart_state(), strong(planner.init()))
    assert Status(int(inside.status)) is Status.INFEASIBLE
    assert float(inside.violation) == pytest.approx(float(inside.states.pos.max()) + 1, abs=1e-5)


def test_coloured_noise_has_unit_variance_and_the_asked_spectrum() -> None:
    matrix = coloured(32, 2.0)
    assert matrix is not None
    covariance = matrix @ matrix.T
    np.testing.assert_allclose(np.diag(covariance), 1, atol=1e-9)
    power = np.abs(np.fft.rfft(matrix, axis=0)) ** 2 @ np.ones(32)
    assert power[1] > 4 * power[4] > 8 * power[12]


@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_small_systems_against_numpy(n: int) -> None:
    rng = np.random.default_rng(n)
    root = rng.normal(size=(30, n, n)).astype(np.float32)
    matrix = root @ root.swapaxes(1, 2) + np.eye(n, dtype=np.float32)
    right = rng.normal(size=(30, n, 1)).astype(np.float32)
    lower, positive = jax.jit(cholesky)(np.moveaxis(matrix, 0, -1))
    assert positive.all()
    np.testing.assert_allclose(
        jax.jit(solve_lower)(lower, np.moveaxis(right[..., 0], 0, -1)).T,
        np.linalg.solve(matrix, right)[..., 0],
        atol=2e-3,
    )
    indefinite = matrix - 2 * np.trace(matrix, axis1=1, axis2=2)[:, None, None] * np.eye(n, dtype=np.float32)
    assert not jax.jit(cholesky)(np.moveaxis(indefinite, 0, -1))[1].any()


def test_bad_problems_are_refused() -> None:
    problem = cart_problem(linear(12, 5))
    for change, message in [
        ({"forbidden": ("sprin",)}, "did you mean 'spring'"),
        ({"forbidden": ("spring",), "required": ("spring",)}, "both forbidden and required"),
        ({"delta": 0.7}, "delta must lie"),
        ({"rate": -1.0}, "rate limits must be positive"),
        ({"model": problem.model._replace(ctrl_min=[-np.inf, 0])}, "finite"),
        ({"model": problem.model._replace(dt=0.0)}, "dt must be positive"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_problem(problem._replace(**change))


def test_every_status_has_a_sentence() -> None:
    assert len({status.sentence for status in Status}) == 6
    assert all(status.sentence.endswith(".") for status in Status)


def test_planners_stand_on_their_own_and_use_no_lapack() -> None:
    """No import of the layers above or beside, and no batched call that LAPACK would serve."""
    refused = {"brax", "flax", "mujoco", "physics", "hybridwm", "optax"}
    lapack = {
        "inv",
        "solve",
        "qr",
        "eigh",
        "eig",
        "svd",
        "cho_factor",
        "cho_solve",
        "solve_triangular",
        "lstsq",
        "pinv",
    }
    for path in Path(planners.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not refused & {alias.name.split(".")[0] for alias in node.names}, path
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in refused, path
            if isinstance(node, ast.Attribute) and node.attr in lapack:
                raise AssertionError(f"{path.name}: {node.attr}")
