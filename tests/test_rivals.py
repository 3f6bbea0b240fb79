"""The network alone: it learns what a world does, is asked like a world model, and its events happen once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import physics
from hybridwm.judging.evaluation import Subject, errors, mended, predict
from hybridwm.learning.rivals import RivalOptions, fit_rival, transitions
from hybridwm.logs import tangent
from hybridwm.logs.recordings import Dataset, Recording, windows
from hybridwm.world.residual import into_world
from hybridwm.world.rival import into_body, plan_model, rival

XML = """<mujoco model="weight">
  <option timestep="0.01"/>
  <worldbody>
    <body name="hammer"><joint name="swing" type="hinge" axis="0 1 0" damping="0.1"/>
      <geom size="0.05" pos="0 0 -0.3" mass="1" contype="0" conaffinity="0"/></body>
    <body name="load" pos="0 0 -0.5"><freejoint/><geom size="0.05" mass="0.2" contype="0" conaffinity="0"/></body>
  </worldbody>
  <equality><weld name="glue" body1="hammer" body2="load"/></equality>
  <actuator><motor name="push" joint="swing" ctrllimited="true" ctrlrange="-1 1"/></actuator>
</mujoco>"""


@pytest.fixture(scope="module")
def scene():
    return physics.load_scene(XML)


def logs(scene, episodes=12, steps=60):
    """A hammer that swings to and fro by a law of its own; the glue gives way above 1.2 rad; then the load falls."""
    rng, found = np.random.default_rng(0), []
    for number in range(episodes):
        ctrl = np.repeat(rng.uniform(-1, 1, (steps // 10, 1)), 10, 0)
        angle, speed, rows, intact = rng.uniform(-0.6, 0.6), 0.0, [], 1.0
        for h in range(steps + 1):
            intact = 0.0 if abs(angle) > 1.2 else intact
            load = (-0.5 * np.sin(angle), 0.0, -0.5 * np.cos(angle))
            rows.append(
                (
                    (angle, *load, np.cos(angle / 2), 0.0, np.sin(angle / 2), 0.0),
                    (speed, *(0.0,) * 4, speed, 0.0),
                    intact,
                )
            )
            speed += 0.01 * (30 * ctrl[min(h, steps - 1), 0] - 10 * np.sin(angle))
            angle += 0.01 * speed
        qpos, qvel, whole = (np.array(x, float) for x in zip(*rows, strict=True))
        found.append(Recording(f"{number}", qpos, qvel, ctrl, whole[:, None]))
    return Dataset(scene, 0.01, tuple(found), {})


@pytest.fixture(scope="module")
def fitted(scene):
    options = RivalOptions(
        strides=(0.02,), hidden=(16,), members=2, past=1, updates=150, batch=64, look=150, validate_s=0.3
    )
    return fit_rival(logs(scene), options)


def test_it_foretells_like_a_world_model(fitted, scene):
    cut = windows(logs(scene), 30, past=4)
    found = predict(Subject(fitted.model, fitted.params), cut, project=False)
    assert found.qpos.shape == cut.qpos[1:].shape
    assert mended(cut, found) == 0
    assert ((found.chance >= 0) & (found.chance <= 1)).all()
    error = errors(scene, cut, found)["position (m)"]
    stays = errors(scene, cut, found._replace(qpos=np.broadcast_to(cut.qpos[:1], found.qpos.shape)))["position (m)"]
    assert np.median(error) < 0.5 * np.median(stays)


def test_it_is_planned_on_like_a_world_model(fitted):
    made = plan_model(fitted.model, fitted.params, every=4)
    qpos, qvel = fitted.model.engine.scene.home()
    state = made.init(made.params, *(jnp.repeat(jnp.asarray(x)[:, None], 3, 1) for x in (qpos, qvel)))
    forced = jnp.array([[-1, 0, 1]], jnp.int8)
    after, info = jax.jit(made.model.step)(made.params, state, jnp.array([[-1.0, 0, 1]]), forced=forced)
    assert made.model.dt == pytest.approx(0.04)
    assert info.event_probability.shape == (1, 3)
    np.testing.assert_array_equal(after.intact[0], [1, 1, 0])
    again, _ = jax.jit(made.model.step)(made.params, after, jnp.zeros((1, 3)), forced=-jnp.ones((1, 3), jnp.int8))
    assert again.intact[0, 2] == 0
    assert made.chance(again)[0, 2] == 1
    with pytest.raises(ValueError, match="multiple of the stride, 2"):
        plan_model(fitted.model, fitted.params, every=3)


def test_frames_there_and_back(fitted, scene):
    qpos = tangent.unit(scene.model, np.random.default_rng(1).normal(size=(8, 5)))
    force = np.random.default_rng(2).normal(size=(7, 5))
    seen, at = fitted.model.features, jnp.asarray(qpos)
    back = into_body(seen, at, into_world(seen, at, jnp.asarray(force)))
    np.testing.assert_allclose(back, force, atol=1e-5)


def test_soft_bonds_go_by_degrees_and_hard_ones_do_not(scene, fitted):
    options = RivalOptions(
        strides=(0.02,), hidden=(16,), members=2, past=1, updates=150, batch=64, look=150, validate_s=0.3, soft=True
    )
    soft = fit_rival(logs(scene), options)
    cut = windows(logs(scene, episodes=4), 40, past=2)
    found = {
        name: predict(Subject(one.model, one.params), cut, project=False)
        for name, one in (("soft", soft), ("hard", fitted))
    }
    assert set(np.unique(found["hard"].intact)) <= {0.0, 1.0}
    assert np.all((found["soft"].intact >= 0) & (found["soft"].intact <= 1))
    assert np.any((found["soft"].intact > 0.02) & (found["soft"].intact < 0.98))
    assert np.all((found["soft"].chance >= 0) & (found["soft"].chance <= 1))


def test_noise_moves_the_starts_and_leaves_the_goals(scene):
    data = logs(scene)
    model = rival(physics.brax_engine(scene), every=2, past=1, hidden=(4,), members=1)
    calm, shaken = (transitions(model, data, 2, 10_000, noise=noise) for noise in (0.0, 0.3))
    moved = np.asarray(shaken.target - calm.target, float)
    spread = np.asarray(calm.target, float).std(1)
    assert moved[0].std() == pytest.approx(0.3 * spread[0], rel=0.15), "the hinge"
    end = [np.asarray(one.raw[0] * 0 + one.target[0], float) for one in (calm, shaken)]
    begin = [np.arctan2(*(np.asarray(one.raw[i], float) for i in (0, 1))) for one in (calm, shaken)]
    assert np.allclose(begin[0] + end[0], begin[1] + end[1], atol=1e-4), "it ends where it ended"
