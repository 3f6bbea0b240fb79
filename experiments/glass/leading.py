"""A model that is steered by the rate of its commands, and whose commands arrive late: how a planner leads a servo.

    c⁺ = clip(c + dt v, limits)          v, the control: how fast the command moves; 0 stands still
    x⁺ = f(x, w₀)                        w: commands on their way, as long as planning takes
    w⁺ = (w₁, …, c⁺)

Searching over rates makes every sample a smooth motion within its rate limit, and the plan's first controls are those that are
still free to choose. Legend: L commands on their way, nu commands, N samples (last axis).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planners import Model


class Led(NamedTuple):
    """A world, the command that was given last, and those that have not arrived."""

    world: Any
    command: Any  # [nu, N]
    waiting: Any  # [L, nu, N]


def led(model: Model, rate: np.ndarray) -> Model:
    """`model` steered by rates of up to `rate` [nu] per second."""

    def step(params: Any, state: Led, control: jax.Array, **forced: Any) -> tuple[Led, Any]:
        low, high = (jnp.asarray(x, control.dtype)[:, None] for x in (model.ctrl_min, model.ctrl_max))
        command = jnp.clip(state.command + model.dt * control, low, high)
        line = jnp.concatenate([state.waiting, command[None]])
        world, info = model.step(params, state.world, line[0], **forced)
        return Led(world, command, line[1:]), info

    return Model(step, -np.asarray(rate), np.asarray(rate), model.dt, model.events)


def moving(world: Any, command: np.ndarray, step: np.ndarray, late: int) -> Led:
    """A world whose command has been moving by `step` from control to control; both [B, nu]."""
    waiting = np.stack([command + (k + 1) * step for k in range(late)], 1)
    return Led(world, jnp.asarray(waiting[:, -1]), jnp.asarray(waiting))
