"""Derivatives with respect to a friction that differs from contact to contact, both modes, against central differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics.engine import brax_engine
from physics.params import nominal
from physics.scene import load_scene

BOX = """<mujoco><option timestep="0.005" cone="CONE"/>
<worldbody><geom type="plane" size="5 5 .1" friction=".5"/>
<body pos="0 0 .1"><freejoint/><geom type="box" size=".1 .1 .1" mass="2" friction=".5"/></body></worldbody></mujoco>"""


@pytest.mark.parametrize("cone", ["pyramidal", pytest.param("elliptic", marks=pytest.mark.slow)])
def test_the_friction_of_a_place_moves_the_box_as_differences_say(cone):
    scene = load_scene(BOX.replace("CONE", cone))
    engine, theta = brax_engine(scene), nominal(scene)
    qpos = jnp.asarray([[0.0, 0.02, 0.0995, np.cos(0.2), 0.0, 0.0, np.sin(0.2)]]).T
    qvel = jnp.asarray([[0.8, 0.3, 0.0, 0.0, 0.0, 1.0]]).T
    a = np.random.default_rng(0).normal(size=(6, 1))

    def value(x):
        """A ground that changes smoothly, x[0] how much and x[1] where the box stands on it."""
        state = engine.init(theta, qpos.at[1, 0].add(x[1]), qvel)
        grip = lambda at: 1 + x[0] * jnp.sin(5 * at[:, 0] + 9 * at[:, 1])  # noqa: E731
        last, _ = engine.rollout(theta, state, jnp.zeros((4, 0, 1)), grip=grip)
        return jnp.sum(a * last.qvel)

    at, run = jnp.asarray([0.4, 0.0]), jax.jit(value)
    differences = np.array([(run(at + h) - run(at - h)) / 2e-6 for h in 1e-6 * np.eye(2)])
    assert np.abs(differences).min() > 1e-4
    np.testing.assert_allclose(jax.jit(jax.grad(value))(at), differences, rtol=1e-4)
    way = jnp.asarray([0.3, 1.0])
    forward = jax.jit(lambda x: jax.jvp(value, (x,), (way,))[1])(at)
    np.testing.assert_allclose(forward, differences @ way, rtol=1e-4)
