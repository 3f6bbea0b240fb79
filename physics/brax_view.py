"""The Brax system of a scene: for programs written against Brax, and to hold our kinematics and dynamics against its own.

Brax's loader changes the model it is given (ranges become infinite) and drops what its pipelines do not know (equalities), so
it gets a copy of the fused model. `brax_state` has Brax's q, qd and link transforms for one world of ours.
"""

import copy
from typing import Any

import jax
import jax.numpy as jnp

from physics.brax_import import quietly
from physics.scene import Scene
from physics.types import State


def brax_system(scene: Scene) -> Any:
    """A `brax.System` with the scene's links, dofs, actuators and geoms; its contacts and bonds are not ours."""
    with quietly():
        from brax.io import mjcf

        return mjcf.load_model(copy.deepcopy(scene.model))


def brax_state(scene: Scene, state: State, system: Any = None) -> Any:
    """The `brax.generalized` state of one world: link poses, motions, mass matrix."""
    if state.qpos.ndim != 1:
        raise ValueError(f"qpos {state.qpos.shape}: give one world, [{scene.model.nq}]")
    system = brax_system(scene) if system is None else system
    with quietly():
        from brax.generalized import pipeline

        return jax.jit(pipeline.init)(system, jnp.asarray(state.qpos), jnp.asarray(state.qvel))
