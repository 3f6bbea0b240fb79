"""Small analytic models for the planner tests: a tied cart with an event and poison, linear systems, swing-ups."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planners import knots
from planners.branching import joint
from planners.gradient import adam, mixture
from planners.problem import Cost, Goal, Model, PlanInfo, Planner, PlanParams, Problem, least_squares
from planners.riccati import ilqr
from planners.sampling import annealed_mppi, cem, mppi, predictive_sampling

LANES = 64
POISONS = (np.nan, np.inf, -np.inf, 1e38)


class Cart(NamedTuple):
    pos: Any
    vel: Any
    intact: Any
    mark: Any


class Theta(NamedTuple):
    """Physics, and which lanes are poisoned where."""

    strength: Any = 1.5
    state_lanes: Any = np.zeros(LANES, bool)
    state_value: Any = 0.0
    cost_lanes: Any = np.zeros(LANES, bool)
    weights: Any = np.zeros(LANES)
    dead_lanes: Any = np.zeros(LANES, bool)
    everywhere: Any = False


class Aim(NamedTuple):
    """The goal."""

    target: Any = 0.6
    poison: Any = 0
    """Which of POISONS a poisoned lane pays."""
    wall: Any = 10.0


def _lanes(flags: jax.Array, theta: Theta, count: int) -> jax.Array:
    """The flags of the sampled lanes; the few lanes of the last rollout are spared unless all are to be hit."""
    chosen = flags[:count] if count >= 8 else jnp.zeros(count, flags.dtype)
    return jnp.where(theta.everywhere, flags[0], chosen)


def cart_step(theta: Theta, cart: Cart, ctrl: jax.Array, forced: Any = None) -> tuple[Cart, PlanInfo]:
    """A cart on a spring that tears when it is pulled or pushed harder than `strength`."""
    count = ctrl.shape[-1]
    hazard = cart.intact * jax.nn.sigmoid(20 * (jnp.abs(ctrl[:1]) - theta.strength))
    tears = hazard > 0.5 if forced is None else jnp.where(forced < 0, hazard > 0.5, forced > 0)
    tears = tears & (cart.intact > 0)
    intact = jnp.where(tears, 0.0, cart.intact)
    network = _lanes(theta.weights, theta, count) * cart.pos
    acc = ctrl[0] - intact[0] * (6 * cart.pos + cart.vel) + 0.1 * jnp.sin(ctrl[1]) + network
    vel = cart.vel + 0.1 * acc
    pos = cart.pos + 0.1 * vel
    pos = jnp.where(_lanes(theta.state_lanes, theta, count), theta.state_value, pos)
    mark = jnp.where(_lanes(theta.cost_lanes, theta, count), 1.0, 0.0)
    valid = ~_lanes(theta.dead_lanes, theta, count)
    return Cart(pos, vel, intact, mark), PlanInfo(event_probability=hazard, fired=tears, valid=valid)


def _cart_running(aim: Aim, cart: Cart, ctrl: jax.Array) -> jax.Array:
    cost = (cart.pos - aim.target) ** 2 + 0.05 * cart.vel**2 + 0.01 * jnp.sum(ctrl**2, axis=0)
    return cost + jnp.where(cart.mark > 0, jnp.asarray(POISONS)[aim.poison.astype(int)], 0.0)


def cart_problem(spline: knots.Spline, **changes: Any) -> Problem:
    model = Model(cart_step, [-2.0, -1.0], [2.0, 1.5], 0.1, ("spring",))
    cost = Cost(_cart_running, lambda aim, cart: 5 * (cart.pos - aim.target) ** 2 + 2 * cart.vel**2)
    goal = Goal(lambda aim, cart: jnp.abs(cart.pos - aim.target), 0.15)
    constraints = (lambda aim, cart: cart.pos - aim.wall,)
    return Problem(model, cost, spline, goal, constraints)._replace(**changes)


def single(tree: Any) -> Any:
    """numpy leaves, float32 where they are not bool, whatever Python numbers came in."""
    return jax.tree.map(lambda x: np.asarray(x, None if np.asarray(x).dtype == bool else np.float32), tree)


def cart_state(pos: float = 0.1, vel: float = 0.0, intact: float = 1.0) -> Cart:
    return single(Cart(pos, vel, np.full(1, intact), 0))


def cart_params(theta: Theta | None = None, **aim: Any) -> PlanParams:
    return single(PlanParams(theta or Theta(), Aim(**aim)))


HORIZON = 12


def contract_planners(devices: Any = None) -> dict[str, tuple[Problem, Planner]]:
    """Every planner on the tied cart, small. A new planner is added here, and gets the whole suite."""
    curve, steps = (cart_problem(s, devices=devices) for s in (knots.linear(HORIZON, 5), knots.hold(HORIZON)))
    limited = curve._replace(rate=8.0)
    return {
        "predictive_sampling": (limited, predictive_sampling(limited, samples=32, iterations=3)),
        "cem": (curve, cem(curve, samples=32, iterations=3, elites=6)),
        "mppi": (curve, mppi(curve, samples=32, iterations=3)),
        "annealed_mppi": (steps, annealed_mppi(steps, samples=32, iterations=3)),
        "adam": (curve, adam(curve, starts=32, iterations=10, samples=32)),
        "ilqr": (steps, ilqr(steps, iterations=5, samples=32)),
        "mixture": (curve, mixture(curve, samples=32, iterations=3, elites=6)),
        "joint": (curve, joint(curve, intervals=2, branches=2, samples=32, iterations=3, elites=6)),
    }


class Linear(NamedTuple):
    """x+ = A x + B u, four states."""

    a: Any
    b: Any


def linear_step(theta: Linear, x: jax.Array, ctrl: jax.Array) -> tuple[jax.Array, None]:
    return jnp.sum(theta.a[:, :, None] * x[None], axis=1) + theta.b[:, None] * ctrl[0], None


def linear_problem(spline: knots.Spline) -> Problem:
    """Cost x' Q x + R u^2 with diagonal Q, as residuals; goal = (sqrt Q, sqrt R, sqrt Q at the end)."""

    def residual(goal: Any, x: jax.Array, ctrl: jax.Array) -> jax.Array:
        return jnp.concatenate([goal[0] * x, goal[1] * ctrl])

    cost = least_squares(residual, lambda goal, x: goal[2] * x)
    return Problem(Model(linear_step, [-30.0], [30.0], 0.05), cost, spline)


class Swing(NamedTuple):
    """Hanging at angle pi, upright at 0; the pendulum leaves the cart's part at zero."""

    pos: Any
    angle: Any
    vel: Any
    rate: Any


def pendulum_step(params: Any, s: Swing, ctrl: jax.Array) -> tuple[Swing, None]:
    """A rod of 1 m and 1 kg, torque too weak to lift it at once; 0.05 s in 2 substeps."""
    angle, rate = s.angle, s.rate
    for _ in range(2):
        rate = rate + 0.025 * (3 * 9.81 / 2 * jnp.sin(angle) + 3 * ctrl[0])
        angle = angle + 0.025 * rate
    return s._replace(angle=angle, rate=rate), None


def cartpole_step(params: Any, s: Swing, ctrl: jax.Array) -> tuple[Swing, None]:
    """Cart 1 kg, pole 0.1 kg at 0.5 m, no friction; 0.04 s in 2 substeps."""
    pos, angle, vel, rate = s
    for _ in range(2):
        sin, cos = jnp.sin(angle), jnp.cos(angle)
        push = (ctrl[0] + 0.05 * rate**2 * sin) / 1.1
        alpha = (9.81 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
        acc = push - 0.05 * alpha * cos / 1.1
        vel, rate = vel + 0.02 * acc, rate + 0.02 * alpha
        pos, angle = pos + 0.02 * vel, angle + 0.02 * rate
    return Swing(pos, angle, vel, rate), None


def pendulum_problem(horizon: int = 40, count: int = 8) -> Problem:
    def running(goal: Any, s: Swing, ctrl: jax.Array) -> jax.Array:
        return 5 * (1 - jnp.cos(s.angle)) + 0.05 * s.rate**2 + 0.005 * ctrl[0] ** 2

    cost = Cost(running, lambda goal, s: 100 * (1 - jnp.cos(s.angle)) + 5.0 * s.rate**2)
    return Problem(Model(pendulum_step, [-2.5], [2.5], 0.05), cost, knots.linear(horizon, count))


def cartpole_problem(horizon: int = 40, count: int = 8) -> Problem:
    def running(goal: Any, s: Swing, ctrl: jax.Array) -> jax.Array:
        return 5 * (1 - jnp.cos(s.angle)) + 0.2 * s.pos**2 + 0.02 * s.vel**2 + 0.02 * s.rate**2 + 5e-4 * ctrl[0] ** 2

    def terminal(goal: Any, s: Swing) -> jax.Array:
        return 50 * (1 - jnp.cos(s.angle)) + s.pos**2 + 0.5 * s.vel**2 + 1.0 * s.rate**2

    return Problem(Model(cartpole_step, [-15.0], [15.0], 0.04), Cost(running, terminal), knots.linear(horizon, count))
