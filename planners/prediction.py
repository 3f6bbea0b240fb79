"""The model of one world: its next state, and the state some steps later."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from planners.problem import PlanParams, Problem


def one_step(problem: Problem, params: PlanParams, state: Any, ctrl: jax.Array) -> Any:
    """The next state of one world; with members, of each of them."""
    members = problem.risk.members
    if members > 1:
        return problem.model.step(params.model, state, jnp.broadcast_to(ctrl[:, None], (len(ctrl), members)))[0]
    wide = jax.tree.map(lambda leaf: leaf[..., None], state)
    return jax.tree.map(lambda leaf: leaf[..., 0], problem.model.step(params.model, wide, ctrl[:, None])[0])


def predictor(problem: Problem) -> Callable[..., Any]:
    """predict(params, state, ctrls `[H, nu]`, steps) -> the state `steps` later."""

    def predict(params: PlanParams, state: Any, ctrls: jax.Array, steps: jax.Array) -> Any:
        def advance(index: jax.Array, state: Any) -> Any:
            return one_step(problem, params, state, ctrls[jnp.minimum(index, ctrls.shape[0] - 1)])

        return jax.lax.fori_loop(0, steps, advance, state)

    return predict
