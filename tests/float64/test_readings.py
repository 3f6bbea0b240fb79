"""Sensors, energy and momentum of a state against MuJoCo C's own, in float64."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from physics.balance import energy, momentum
from physics.engine import brax_engine
from physics.params import nominal
from physics.recompile import recompile
from physics.scene import load_scene
from physics.sensing import sensors

FRAMES = ("framepos", "framequat", "framexaxis", "frameyaxis", "framezaxis", "framelinvel", "frameangvel")
OBJECTS = (("site", "tip"), ("geom", "rod"), ("body", "arm"), ("xbody", "arm"), ("site", "post"), ("xbody", "box"))
ALL = "".join(f'<{s} objtype="{kind}" objname="{name}"/>' for s in FRAMES for kind, name in OBJECTS)
RELATIVE = "".join(
    f'<{s} objtype="{kind}" objname="{name}" reftype="{base}" refname="{other}"/>'
    for s in FRAMES
    if "axis" not in s or s == "framezaxis"
    for kind, name in OBJECTS[:3]
    for base, other in (("xbody", "box"), ("body", "box"), ("site", "post"))
)
SCENE = """<mujoco><worldbody><site name="post" pos="0 1 .2" euler="10 20 30"/>
<body name="box" pos="0 0 2"><freejoint/><geom type="box" size=".1 .2 .3" pos=".05 .02 0" euler="0 20 0" mass="2"/></body>
<body name="base" pos="1 0 1"><joint name="slide" type="slide" axis="0 1 1" stiffness="30" springref=".2"/>
<geom type="sphere" size=".1" mass="1"/>
<body name="arm" pos=".2 0 0"><joint name="hinge" axis="0 1 .3" pos="0 0 .1" armature=".02"/>
<geom name="rod" type="capsule" fromto="0 0 0 .4 .1 0" size=".03" mass=".5"/>
<site name="tip" pos=".4 .1 0" euler="0 0 40"/>
<body pos=".4 0 0"><joint name="ball" type="ball"/><geom type="box" size=".05 .1 .02" pos=".1 0 0" mass=".3"/></body>
</body></body></worldbody>
<actuator><motor name="drive" joint="slide" gear="3"/><motor name="turn" joint="hinge" gear="-2"/></actuator>
<sensor><jointpos joint="hinge"/><jointvel joint="slide"/><actuatorpos actuator="drive"/><actuatorvel actuator="turn"/>
<subtreecom body="base"/><subtreecom body="box"/><subtreecom body="arm"/>{more}</sensor></mujoco>"""
WORLDS = 4


@pytest.fixture(scope="module")
def moving():
    """Scene, θ away from nominal, random states as worlds, and MuJoCo C's data for each."""
    scene = load_scene(SCENE.format(more=ALL + RELATIVE))
    theta = nominal(scene)
    theta = theta._replace(body_mass=1.5 * theta.body_mass, gravity=np.array([1.0, 2.0, -9.0]))
    model, rng = recompile(scene, theta), np.random.default_rng(0)
    found = []
    for _ in range(WORLDS):
        data = mujoco.MjData(model)
        mujoco.mj_integratePos(model, data.qpos, rng.normal(size=model.nv), 1.0)
        data.qvel[:] = rng.normal(size=model.nv)
        for compute in (mujoco.mj_forward, mujoco.mj_energyPos, mujoco.mj_energyVel, mujoco.mj_subtreeVel):
            compute(model, data)
        found.append(data)
    start = (np.stack([getattr(data, name) for data in found], -1) for name in ("qpos", "qvel"))
    return scene, theta, brax_engine(scene).init(theta, *start), found


def test_sensors_read_what_mujoco_reads(moving):
    scene, theta, state, found = moving
    readings = jax.jit(sensors(scene))(theta, state)
    assert readings.shape == (scene.model.nsensordata, WORLDS)
    for w, data in enumerate(found):
        for i in range(scene.model.nsensor):
            at = slice(scene.model.sensor_adr[i], scene.model.sensor_adr[i] + scene.model.sensor_dim[i])
            ours, theirs = np.array(readings[at, w]), data.sensordata[at]
            if scene.model.sensor_type[i] == mujoco.mjtSensor.mjSENS_FRAMEQUAT:
                ours = ours * np.sign(ours @ theirs)  # q and −q are one rotation
            np.testing.assert_allclose(ours, theirs, atol=1e-12, err_msg=f"sensor {i}, {scene.model.sensor_type[i]}")


def test_one_world_and_no_sensor(moving):
    scene, theta, state, found = moving
    one = jax.tree.map(lambda x: x[..., 0], state)
    np.testing.assert_allclose(jax.jit(sensors(scene))(theta, one)[0], found[0].sensordata[0], atol=1e-12)
    bare = load_scene("pushed_box")
    empty = sensors(bare)(nominal(bare), brax_engine(bare).init(nominal(bare), *bare.home()))
    assert empty.shape == (0,)


def test_cameras_are_refused_by_name():
    text = SCENE.format(more='<framepos name="eye" objtype="camera" objname="lens"/>')
    text = text.replace("<worldbody>", '<worldbody><camera name="lens"/>')
    with pytest.raises(ValueError, match="'eye'"):
        sensors(load_scene(text))


def test_energy_and_momentum_are_mujocos(moving):
    scene, theta, state, found = moving
    model = scene.model
    ours, drift = energy(scene, theta, state), momentum(scene, theta, state, per_tree=True)
    roots = [b for b in range(1, model.nbody) if model.body_rootid[b] == b]
    for w, data in enumerate(found):
        np.testing.assert_allclose([ours.potential[w], ours.kinetic[w]], data.energy, rtol=1e-12)
        for tree, root in enumerate(roots):
            linear = 1.5 * model.body_subtreemass[root] * data.subtree_linvel[root]
            angular = data.subtree_angmom[root] + np.cross(data.subtree_com[root], linear)
            np.testing.assert_allclose(drift.linear[tree, :, w], linear, atol=1e-12)
            np.testing.assert_allclose(drift.angular[tree, :, w], angular, atol=1e-12)


def test_the_power_of_gravity_is_the_change_of_potential(moving):
    """dV/dt = −Σ m g·ċ: energy differentiates, and momentum is its other half."""
    scene, theta, state, _ = moving
    gravity = jnp.asarray(theta.gravity)
    heavy = momentum(scene, theta, state).linear
    model = scene.model

    def potential(t):
        ahead = [np.array(state.qpos[:, w]) for w in range(WORLDS)]
        for w, at in enumerate(ahead):
            mujoco.mj_integratePos(model, at, np.array(state.qvel[:, w]), t)
        return energy(scene, theta, state._replace(qpos=jnp.asarray(np.stack(ahead, -1)))).potential

    spring = int(model.joint("slide").qposadr[0])
    stretch = state.qpos[spring] - model.qpos_spring[spring]
    pull = 30 * stretch * state.qvel[int(model.joint("slide").dofadr[0])]
    slope = (potential(1e-5) - potential(-1e-5)) / 2e-5
    np.testing.assert_allclose(slope, pull - jnp.sum(gravity[:, None] * heavy, 0), rtol=1e-6, atol=1e-6)
