"""Box-constrained iLQR (Tassa et al. 2014): a linear-quadratic problem along the present plan, solved backwards.

    Q_x  = l_x + A' V_x            Q_u  = l_u + B' V_x
    Q_xx = l_xx + A' V_xx A        Q_ux = l_ux + B' V_xx A        Q_uu = l_uu + B' V_xx B + mu I
    k = argmin over low <= u + k <= high of  k' Q_uu k / 2 + Q_u' k,      K = -Q_uu^-1 Q_ux on the free controls
    u <- clip(u + alpha k + K (x - x_old))                                the best alpha of a few, if it improves

A = df/dx, B = df/du. Where the cost is a sum of squares, its second derivatives are Gauss-Newton's 2 J' J, else exact.
x is the vector of all floats of the state; other leaves (bonds, counters) are constants along the present plan. Event
rules do not enter the derivatives, but they do enter the choice of alpha. Legend: H horizon, nx, nu, L step sizes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from planners import warmstart
from planners.guard import guarded
from planners.problem import Planner, PlanParams, Problem
from planners.rollout import score
from planners.smallmat import cholesky, solve_lower
from planners.warmstart import Carry


class _Local(NamedTuple):
    """The linear-quadratic problem; leaves have H in front."""

    a: jax.Array
    b: jax.Array
    grad: jax.Array
    """`[H, nx + nu]`."""
    hess: jax.Array
    """`[H, nx + nu, nx + nu]`."""
    ctrl: jax.Array


class _Now(NamedTuple):
    ctrls: jax.Array
    cost: jax.Array
    mu: jax.Array
    valid: jax.Array


def ilqr(
    problem: Problem,
    *,
    iterations: int = 10,
    step_sizes: int = 8,
    mu: float = 1e-6,
    std: float = 0.3,
    tolerance: float = 0.25,
    samples: int = 64,
) -> Planner:
    """iLQR on one knot per step (`hold(horizon)`); falls back to MPPI where the gradient is wrong.

    mu: first regularisation, as a share of the largest entry of Q_uu's diagonal.
    """
    if problem.spline.kind != "hold" or problem.spline.knots != problem.spline.horizon:
        raise ValueError(f"ilqr needs one knot per step, hold(horizon); got {problem.spline.kind} knots "
                         f"({problem.spline.knots} for {problem.spline.horizon} steps)")  # fmt: skip
    if problem.risk.members != 1:
        raise ValueError(f"ilqr plans for one member, got {problem.risk.members}; use a sampling planner")
    alphas = 0.5 ** jnp.arange(step_sizes, dtype=float)

    def climb(params: PlanParams, key: jax.Array, state: Any, carry: Carry) -> tuple[jax.Array, jax.Array, jax.Array]:
        del key
        ctrls = warmstart.to_controls(problem, carry.knots[..., None], carry)
        first = score(problem, params, state, ctrls)[0]

        def iterate(now: _Now, _: None) -> tuple[_Now, None]:
            return _improve(problem, params, state, carry, now, alphas), None

        start = _Now(ctrls[..., 0], first.cost[0], jnp.asarray(mu, ctrls.dtype), first.valid[0].astype(jnp.int32))
        last, _ = jax.lax.scan(iterate, start, None, length=iterations)
        return warmstart.to_unit(problem, last.ctrls), last.valid, jnp.int32(1 + iterations * step_sizes)

    return guarded(problem, climb, std=std, tolerance=tolerance, samples=samples, rounds=max(iterations // 2, 1))


def _improve(problem: Problem, params: PlanParams, state: Any, carry: Carry, now: _Now, alphas: jax.Array) -> _Now:
    """One backward and one forward pass."""
    nominal = _states(problem, params, state, now.ctrls)
    local, end = _expand(problem, params, nominal, now.ctrls)
    feedforward, feedback, sound = _backward(problem, local, end, now.mu)
    tried = _forward(problem, params, state, nominal, now.ctrls, feedforward, feedback, alphas)
    tried = warmstart.to_controls(problem, tried, carry)
    scores = score(problem, params, state, tried)[0]
    best = jnp.argmin(scores.cost)
    better = sound & (scores.cost[best] < now.cost)
    return _Now(
        ctrls=jnp.where(better, tried[..., best], now.ctrls),
        cost=jnp.where(better, scores.cost[best], now.cost),
        mu=jnp.clip(jnp.where(better, now.mu / 5, now.mu * 10), 1e-7, 1e7),
        valid=now.valid + jnp.sum(scores.valid, dtype=jnp.int32),
    )


def _is_float(leaf: jax.Array) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def _pack(state: Any) -> jax.Array:
    """x `[nx, N]` of a state with leaves `[..., N]`."""
    floats = [leaf for leaf in jax.tree.leaves(state) if _is_float(leaf)]
    return jnp.concatenate([leaf.reshape(-1, leaf.shape[-1]) for leaf in floats])


def _unpack(x: jax.Array, template: Any) -> Any:
    """The state whose floats are x `[nx, N]` and whose other leaves are the template's."""
    leaves, tree = jax.tree.flatten(template)
    at, out = 0, []
    for leaf in leaves:
        size = leaf.size // leaf.shape[-1] if _is_float(leaf) else 0
        if size:
            out.append(x[at : at + size].reshape(*leaf.shape[:-1], x.shape[-1]).astype(leaf.dtype))
        else:
            out.append(leaf)
        at += size
    return jax.tree.unflatten(tree, out)


def _alone(state: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[..., None], state)


def _states(problem: Problem, params: PlanParams, state: Any, ctrls: jax.Array) -> Any:
    """x_0 .. x_H of one control sequence, leaves `[H + 1, ..., 1]`."""

    def advance(state: Any, ctrl: jax.Array) -> tuple[Any, Any]:
        after, _ = problem.model.step(params.model, state, ctrl[:, None])
        return after, after

    first = _alone(state)
    _, rest = jax.lax.scan(advance, first, ctrls)
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)


def _expand(
    problem: Problem, params: PlanParams, nominal: Any, ctrls: jax.Array
) -> tuple[_Local, tuple[jax.Array, jax.Array]]:
    """The local problem along the nominal states, and (V_x, V_xx) at its end."""
    goal, nu = _alone(params.goal), problem.nu

    def penalties(state: Any) -> jax.Array:
        return sum((problem.penalty * jnp.maximum(g(goal, state), 0) for g in problem.constraints), jnp.zeros(1))

    def dynamics(y: jax.Array, template: Any) -> jax.Array:
        after, _ = problem.model.step(params.model, _unpack(y[:-nu, None], template), y[-nu:, None])
        return _pack(after)[:, 0]

    def stage(y: jax.Array, template: Any) -> jax.Array:
        state = _unpack(y[:-nu, None], template)
        return (problem.cost.running(goal, state, y[-nu:, None]) + penalties(state))[0]

    def residual(y: jax.Array, template: Any) -> jax.Array:
        assert problem.cost.residual is not None
        return problem.cost.residual(goal, _unpack(y[:-nu, None], template), y[-nu:, None])[:, 0]

    def end(x: jax.Array, template: Any) -> jax.Array:
        state = _unpack(x[:, None], template)
        terminal = 0.0 if problem.cost.terminal is None else problem.cost.terminal(goal, state)
        return (terminal + penalties(state))[0]

    def end_residual(x: jax.Array, template: Any) -> jax.Array:
        assert problem.cost.terminal_residual is not None
        return problem.cost.terminal_residual(goal, _unpack(x[:, None], template))[:, 0]

    before = jax.tree.map(lambda leaf: leaf[:-1], nominal)
    last = jax.tree.map(lambda leaf: leaf[-1], nominal)
    y = jnp.concatenate([jax.vmap(_pack)(before)[..., 0], ctrls], axis=-1)
    slopes = jax.vmap(jax.jacfwd(dynamics))(y, before)
    hess = jax.vmap(_curvature(stage, residual if problem.cost.residual else None))(y, before)
    local = _Local(slopes[..., :-nu], slopes[..., -nu:], jax.vmap(jax.grad(stage))(y, before), hess, ctrls)
    x = _pack(last)[:, 0]
    curved = _curvature(end, end_residual if problem.cost.terminal_residual else None)
    return local, (jax.grad(end)(x, last), curved(x, last))


def _curvature(value: Callable, residual: Callable | None) -> Callable:
    """Hessian of `value`, or 2 J' J of its residual."""
    if residual is None:
        return jax.hessian(value)

    def gauss_newton(y: jax.Array, template: Any) -> jax.Array:
        slope = jax.jacfwd(residual)(y, template)
        return 2 * slope.T @ slope

    return gauss_newton


def _backward(
    problem: Problem, local: _Local, end: tuple[jax.Array, jax.Array], mu: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(k `[H, nu]`, K `[H, nu, nx]`, whether every Q_uu was positive)."""
    (low, high), nu = problem.limits, problem.nu

    def recede(value: tuple[jax.Array, jax.Array, jax.Array], at: _Local) -> Any:
        v_x, v_xx, sound = value
        ab = jnp.concatenate([at.a, at.b], axis=1)
        q, qq = at.grad + ab.T @ v_x, at.hess + ab.T @ v_xx @ ab
        q_x, q_u, q_xx, q_ux, q_uu = q[:-nu], q[-nu:], qq[:-nu, :-nu], qq[-nu:, :-nu], qq[-nu:, -nu:]
        firm = q_uu + mu * jnp.maximum(jnp.max(jnp.abs(jnp.diagonal(q_uu))), 1e-6) * jnp.eye(nu)
        k, free, positive = _box_newton(firm, q_u, low - at.ctrl, high - at.ctrl)
        lower, _ = cholesky(_only(firm, free))
        gain = -solve_lower(lower, jnp.where(free[:, None], q_ux, 0))
        v_x = q_x + gain.T @ (q_uu @ k + q_u) + q_ux.T @ k
        v_xx = q_xx + gain.T @ q_uu @ gain + gain.T @ q_ux + q_ux.T @ gain
        return (v_x, (v_xx + v_xx.T) / 2, sound & positive), (k, gain)

    (_, _, sound), (k, gain) = jax.lax.scan(recede, (*end, jnp.asarray(True)), local, reverse=True)
    return k, gain, sound


def _only(matrix: jax.Array, free: jax.Array) -> jax.Array:
    """The matrix with the rows and columns of clamped controls replaced by the identity's."""
    return jnp.where(free[:, None] & free[None, :], matrix, jnp.eye(len(free), dtype=matrix.dtype))


def _box_newton(
    matrix: jax.Array, slope: jax.Array, low: jax.Array, high: jax.Array, iterations: int = 4
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(k, free `[nu]` bool, positive) of min k' Q k / 2 + q' k over low <= k <= high: projected Newton."""
    k = jnp.zeros_like(slope)
    for _ in range(iterations):
        lower, _ = cholesky(_only(matrix, free := _free(matrix, slope, k, low, high)))
        k = jnp.clip(k - solve_lower(lower, jnp.where(free, slope + matrix @ k, 0)), low, high)
    return k, _free(matrix, slope, k, low, high), cholesky(matrix)[1]


def _free(matrix: jax.Array, slope: jax.Array, k: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    downhill = slope + matrix @ k
    return ~(((k <= low) & (downhill > 0)) | ((k >= high) & (downhill < 0)))


def _forward(
    problem: Problem,
    params: PlanParams,
    state: Any,
    nominal: Any,
    ctrls: jax.Array,
    feedforward: jax.Array,
    feedback: jax.Array,
    alphas: jax.Array,
) -> jax.Array:
    """Controls `[H, nu, L]` under the new law, one lane per step size."""
    low, high = (limit[:, None] for limit in problem.limits)

    def advance(state: Any, at: Any) -> tuple[Any, jax.Array]:
        expected, ctrl, k, gain = at
        wish = ctrl[:, None] + alphas * k[:, None] + gain @ (_pack(state) - expected)
        now = jnp.clip(jnp.nan_to_num(wish), low, high)
        return problem.model.step(params.model, state, now)[0], now

    lanes = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*leaf.shape[:-1], len(alphas))), _alone(state))
    expected = jax.vmap(_pack)(jax.tree.map(lambda leaf: leaf[:-1], nominal))
    return jax.lax.scan(advance, lanes, (expected, ctrls, feedforward, feedback))[1]
