"""Known optima: double integrator and linearised cart-pole against the Riccati solution; swing-ups."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import Linear, Swing, cartpole_problem, linear_problem, pendulum_problem

from planners.gradient import adam, mixture
from planners.knots import hold, linear
from planners.mpc import simulate
from planners.problem import Planner, PlanParams, Problem, Status, strong
from planners.riccati import ilqr
from planners.sampling import annealed_mppi, cem, mppi, predictive_sampling

HORIZON, DT = 25, 0.05
GRADIENT, SAMPLING = 1.01, 1.05


def double_integrator() -> tuple[PlanParams, np.ndarray]:
    """Two states, and two idle ones to keep the shape of the cart-pole: one compilation serves both."""
    a, b = np.eye(4), np.zeros(4)
    a[0, 1], b[:2] = DT, (DT**2 / 2, DT)
    q, q_end = np.array([1, 0.1, 0, 0]), np.array([10, 5, 0, 0])
    return linear_params(a, b, q, 0.05, q_end), np.array([1.0, 0.5, 0, 0])


def linearised_cartpole() -> tuple[PlanParams, np.ndarray]:
    """Cart 1 kg, pole 0.1 kg at 0.5 m, upright and unstable; half a second."""
    dt = 0.02
    continuous = np.zeros((4, 4))
    continuous[0, 2] = continuous[1, 3] = 1
    continuous[2, 1], continuous[3, 1] = -0.1 * 9.81, 1.1 * 9.81 / 0.5
    force = np.array([0, 0, 1.0, -2.0])
    return (
        linear_params(
            np.eye(4) + dt * continuous, dt * force, np.array([1, 5, 0.1, 0.1]), 0.01, np.array([5, 40, 3, 5])
        ),
        np.array([0.2, 0.15, 0.0, 0.0]),
    )


def linear_params(a: np.ndarray, b: np.ndarray, q: np.ndarray, r: float, q_end: np.ndarray) -> PlanParams:
    goal = (np.sqrt(q), np.sqrt([r]), np.sqrt(q_end))
    return strong(jax.tree.map(np.float32, PlanParams(Linear(a, b), goal)))


def riccati_cost(params: PlanParams, x: np.ndarray) -> float:
    a, b = (np.asarray(part, np.float64) for part in params.model)
    q, r, p = (np.diag(np.asarray(part, np.float64) ** 2) for part in params.goal)
    b = b[:, None]
    for _ in range(HORIZON):
        gain = np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)
        p = q + a.T @ p @ (a - b @ gain)
    return float(x @ p @ x)


def linear_planners() -> dict[str, tuple[Planner, float]]:
    curve, steps = linear_problem(linear(HORIZON, 9)), linear_problem(hold(HORIZON))
    return {
        "predictive_sampling": (predictive_sampling(curve, samples=256, iterations=60, std=0.3, shrink=0.92), SAMPLING),
        "cem": (cem(curve, samples=256, iterations=60, elites=20, std_min=1e-3, keep=0.5), SAMPLING),
        "mppi": (mppi(curve, samples=256, iterations=60, std=0.3, shrink=0.92), SAMPLING),
        "annealed_mppi": (annealed_mppi(curve, samples=256, iterations=60, std=0.3, cooling=0.01), SAMPLING),
        "mixture": (mixture(curve, samples=64, iterations=40, std_min=1e-3), SAMPLING),
        "adam": (adam(steps, starts=1, iterations=1000, step=0.05), GRADIENT),
        "ilqr": (ilqr(steps, iterations=6), GRADIENT),
    }


@pytest.mark.parametrize(
    "name",
    [name if name in ("mppi", "ilqr") else pytest.param(name, marks=pytest.mark.slow) for name in linear_planners()],
)
def test_linear_optimum(name: str) -> None:
    planner, allowed = linear_planners()[name]
    plan = jax.jit(planner.plan)
    for make in (double_integrator, linearised_cartpole):
        params, x = make()
        result, _ = plan(params, jax.random.key(0), strong(x.astype(np.float32)), strong(planner.init()))
        best = riccati_cost(params, x)
        assert best * 0.999 <= float(result.cost) <= best * allowed, (make.__name__, float(result.cost) / best)


@pytest.mark.slow
def test_ilqr_without_residuals_uses_the_exact_hessian() -> None:
    problem = linear_problem(hold(HORIZON))
    planner = ilqr(problem._replace(cost=problem.cost._replace(residual=None, terminal_residual=None)), iterations=6)
    params, x = linearised_cartpole()
    result, _ = jax.jit(planner.plan)(params, jax.random.key(0), strong(x.astype(np.float32)), strong(planner.init()))
    assert float(result.cost) <= riccati_cost(params, x) * GRADIENT


SWINGS = {"pendulum": pendulum_problem, "cartpole": cartpole_problem}
SWINGERS: dict[str, Any] = {
    "cem": partial(cem, samples=128, iterations=4),
    "mppi": partial(mppi, samples=128, iterations=4),
    "mixture": partial(mixture, samples=64, iterations=3),
}


def solved_share(problem: Problem, planner: Planner, starts: int, seconds: float) -> float:
    """Share of random starts from which the pole stays within 0.1 rad of upright for the last second."""
    rng = np.random.default_rng(0)
    first = Swing(*(np.float32(rng.uniform(-0.5, 0.5, starts)) for _ in range(4)))
    moving = np.float32(problem.model.ctrl_max[0] > 10)  # the pendulum has no cart
    angle = np.float32(rng.uniform(-np.pi, np.pi, starts))
    first = Swing(first.pos * moving, angle, first.vel * moving, first.rate)
    steps = round(seconds / problem.model.dt)
    loop = jax.vmap(partial(simulate, problem, planner, PlanParams(), steps=steps))
    states, ctrls, _ = jax.jit(loop)(jax.random.split(jax.random.key(0), starts), strong(first))
    assert np.all(np.abs(ctrls) <= np.asarray(problem.model.ctrl_max, np.float32))
    last = np.asarray(states.angle)[:, -round(1 / problem.model.dt) :]
    off = np.abs((last + np.pi) % (2 * np.pi) - np.pi).max(axis=1)
    return float(np.mean(off < 0.1))


def test_swing_up() -> None:
    problem = cartpole_problem()
    assert solved_share(problem, cem(problem, samples=128, iterations=4), starts=4, seconds=5) == 1


@pytest.mark.slow
@pytest.mark.parametrize("scene", SWINGS)
@pytest.mark.parametrize("name", SWINGERS)
def test_swing_up_from_fifty_starts(scene: str, name: str) -> None:
    problem = SWINGS[scene]()
    assert solved_share(problem, SWINGERS[name](problem), starts=50, seconds=6) >= 0.98


@pytest.mark.parametrize("lie", [-40.0, pytest.param(0.0, marks=pytest.mark.slow)])
def test_a_wrong_gradient_is_refused(lie: float) -> None:
    """The model lies about its derivative: the guard must see it, sample instead, and say so."""
    params, x = double_integrator()
    problem = linear_problem(linear(HORIZON, 9))
    step = problem.model.step

    @jax.custom_jvp
    def same(ctrl: jax.Array) -> jax.Array:
        return ctrl

    same.defjvp(lambda primals, tangents: (primals[0], lie * tangents[0]))
    lying = problem._replace(model=problem.model._replace(step=lambda p, s, u: step(p, s, same(u))))
    planner = adam(lying, iterations=40, samples=128)
    plan, _ = jax.jit(planner.plan)(params, jax.random.key(0), jnp.asarray(x, jnp.float32), strong(planner.init()))
    assert int(plan.samples) == 10 * 128
    assert Status(int(plan.status)) is Status.DEGRADED
    assert float(plan.cost) < 0.5 * float(plan.cost_start)
