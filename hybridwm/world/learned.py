"""A fitted world model as what plans are made on: the seam between `hybridwm plan --model` and what `fit` saves."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hybridwm.learning.checkpoint import load_model
from hybridwm.world.physics_model import SURE, Make, PlanModel, as_model
from physics import Scene


def plan_model(world: Any, params: Any, *, every: int) -> PlanModel:
    """A `WorldModel` and its `WorldParams` for a planner, `every` steps to one control.

    An event happens there once it is as good as sure, not at its median (see `physics_model`).
    """
    ready = params._replace(theta=world.engine.prepare(params.theta))

    def init(params: Any, qpos: Any, qvel: Any, **bonds: Any) -> Any:
        state = world.init(params, qpos, qvel, **bonds)
        if state.events is None:
            return state
        sure = jnp.full_like(state.events.luck, -np.log(1 - SURE))
        return state._replace(events=state.events._replace(luck=sure))

    def chance(state: Any) -> jax.Array:
        return jnp.where(state.events.happened > 0, 1, -jnp.expm1(-state.events.used))

    model = as_model(world.engine.scene, world.step, every=every, events=tuple(world.spec.names))
    return PlanModel(model, init, ready, chance)


def load_plan_model(folder: Path) -> Make:
    """(scene, every) -> the model saved in `folder`; refused when it was fitted on another scene."""

    def make(scene: Scene, every: int) -> PlanModel:
        world, params = load_model(folder, scene)
        return plan_model(world, params, every=every)

    return make
