"""Rollouts split over devices and blocks are those of one device, world by world."""

import jax
import numpy as np
import pytest

import physics
from physics.engine import brax_engine
from physics.params import nominal
from physics.rollout import sharded_rollout
from physics.scene import load_scene

PUSH = """<mujoco><option timestep="0.005"/>
<worldbody><geom type="plane" size="5 5 .1"/>
<body pos="0 0 .0495"><freejoint/><geom size=".05" mass="1"/></body>
<body pos="-.11 0 .05"><joint name="push" type="slide" axis="1 0 0"/><geom size=".05" mass="1"/></body></worldbody>
<actuator><motor joint="push" gear="10"/></actuator></mujoco>"""
WORLDS, STEPS = 8, 30


@pytest.fixture(scope="module")
def given():
    """The engine, θ with a friction for each world, starts and controls: the ball is pushed."""
    engine, rng = brax_engine(load_scene(PUSH)), np.random.default_rng(0)
    theta = nominal(engine.scene)
    friction = theta.geom_friction[..., None] * rng.uniform(0.5, 1.5, WORLDS)
    qpos, qvel = (np.repeat(x[:, None], WORLDS, 1) for x in engine.scene.home())
    theta = theta._replace(geom_friction=friction)
    state = engine.init(theta, qpos, qvel + 0.1 * rng.normal(size=qvel.shape))
    return engine, theta, state, rng.uniform(0, 1, (STEPS, 1, WORLDS))


@pytest.fixture(scope="module")
def alone(given):
    engine, theta, state, ctrls = given
    return jax.jit(engine.rollout)(theta, state, ctrls)


@pytest.mark.parametrize("block", [None, 2, 3])
def test_devices_and_blocks_change_nothing(given, alone, block):
    engine, theta, state, ctrls = given
    last, path = sharded_rollout(engine, block=block)(theta, state, ctrls)
    assert len(last.qpos.devices()) == len(jax.devices())
    assert np.ptp(path.qpos[-1, 0]) > 1e-4  # worlds differ
    for ours, theirs in zip(jax.tree.leaves((last, path)), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_what_does_not_fit_is_refused(given):
    engine, theta, state, ctrls = given
    run = physics.sharded_rollout(engine)
    with pytest.raises(ValueError, match=r"ctrl.*finite"):
        run(theta, state, np.full_like(ctrls, np.nan))
    with pytest.raises(ValueError, match=r"params.gravity.*finite"):
        run(theta._replace(gravity=np.full(3, np.inf)), state, ctrls)
    with pytest.raises(ValueError, match="ctrl has shape"):
        run(theta, state, ctrls[..., :4])
