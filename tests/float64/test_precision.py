"""This folder really computes in float64."""

import jax.numpy as jnp

import physics


def test_the_engine_steps_in_float64():
    scene = physics.load_scene("pendulum")
    engine = physics.brax_engine(scene)
    state = engine.init(physics.nominal(scene), *scene.home())
    state, _ = engine.step(physics.nominal(scene), state, jnp.zeros(scene.model.nu))
    assert state.qpos.dtype == jnp.float64
