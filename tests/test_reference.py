"""MuJoCo C as the checker, and as reality."""

import mujoco
import numpy as np
import pytest

from physics.bonds import FAR
from physics.effects import (
    Backlash,
    GroundPatch,
    MotorDelay,
    MotorLag,
    QuadraticDrag,
    SensorDelay,
    SensorNoise,
    StribeckFriction,
)
from physics.params import nominal
from physics.reality import Reality
from physics.recompile import recompile
from physics.reference import Reference, Unstable
from physics.scene import load_scene
from physics.wear import ImpulseBreak, LoadBreak, without_luck

G = 9.81
STACK = """<mujoco><option timestep="0.002" cone="elliptic"/>
<worldbody><geom name="floor" type="plane" size="5 5 .1"/>
<body name="a" pos="0 0 .1"><freejoint/><geom type="box" size=".1 .1 .1" mass="1"/></body>
<body name="b" pos="0 0 .3"><freejoint/><geom type="box" size=".1 .1 .1" mass="2"/></body></worldbody>
<equality><weld name="glue" body1="a" body2="b"/></equality></mujoco>"""
SLIDE = """<mujoco><option timestep="0.01" cone="elliptic"/>
<worldbody><geom name="floor" type="plane" size="9 9 .1" friction=".3"/>
<body name="box" pos="0 0 .1"><freejoint/><geom type="box" size=".1 .1 .1" mass="1" friction=".3"/></body>
<body name="cart" pos="0 3 1"><joint name="rail" type="slide" axis="1 0 0"/>
<geom type="sphere" size=".1" mass="2"/></body></worldbody>
<actuator><motor name="motor" joint="rail"/></actuator><sensor><jointpos joint="rail"/></sensor></mujoco>"""
HANG = """<mujoco><option timestep="0.004"/><worldbody>
<body name="top" pos="0 0 2"><joint type="slide" axis="0 0 1" stiffness="1e5" damping="1e3"/>
<geom type="sphere" size=".05" mass="1"/></body>
<body name="load" pos=".3 0 2"><freejoint/><geom type="sphere" size=".05" mass="1.5"/></body></worldbody>
<equality><weld name="arm" body1="top" body2="load" anchor="-.3 0 0"/></equality></mujoco>"""


@pytest.fixture(scope="module")
def slide():
    return load_scene(SLIDE)


def test_rollout_equals_stepping(slide):
    rng = np.random.default_rng(0)
    ctrl, force = rng.normal(size=(20, 1, 3)), rng.normal(size=(20, slide.model.nv, 3))
    reference = Reference(slide, substeps=3)
    qpos, qvel = slide.home()
    many = reference.rollout(qpos, qvel, ctrl, force=force)
    assert many.qpos.shape == (21, slide.model.nq, 3)
    np.testing.assert_array_equal(many.steps, 20)
    for world in range(3):
        reference.reset(qpos, qvel)
        for h in range(20):
            state = reference.step(ctrl[h, :, world], force=force[h, :, world])
            np.testing.assert_array_equal(state.qpos, many.qpos[h + 1, :, world])
            np.testing.assert_allclose(state.time, many.time[h + 1, world])


def test_recompile_gives_the_same_model_and_other_theta(slide):
    same = recompile(slide, nominal(slide))
    for name in (
        "body_mass",
        "body_inertia",
        "body_iquat",
        "body_invweight0",
        "dof_invweight0",
        "geom_rbound",
        "geom_pos",
    ):
        np.testing.assert_allclose(
            getattr(same, name), getattr(slide.model, name), rtol=1e-12, atol=1e-12, err_msg=name
        )
    theta = nominal(slide)
    heavy = recompile(slide, theta._replace(body_mass=theta.body_mass * 2, actuator_gain=theta.actuator_gain * 3))
    np.testing.assert_allclose(heavy.body_invweight0[:, 0], slide.model.body_invweight0[:, 0] / 2)
    np.testing.assert_allclose(heavy.actuator_gainprm, slide.model.actuator_gainprm * 3)
    with pytest.raises(ValueError, match="gravity"):
        recompile(slide, theta._replace(gravity=np.full(3, np.nan)))


def test_a_bond_carries_the_weight_and_the_moment_that_hang_on_it():
    reference = Reference(load_scene(HANG))
    for _ in range(1500):
        reference.step(np.zeros(0))
    # On the second body, at the anchor 0.3 m to its left: m g upwards, and a moment that keeps the weight level.
    expected = [0, 0, 1.5 * G, 0, -0.3 * 1.5 * G, 0]
    np.testing.assert_allclose(reference.bond_load()[0], expected, atol=0.01 * 1.5 * G)


def test_contact_impulses_carry_the_weight():
    reference = Reference(load_scene(STACK))
    for _ in range(400):
        reference.step(np.zeros(0))
    contacts = reference.contacts()
    assert {tuple(pair) for pair in contacts.bodies} == {(0, 1)}  # the bonded pair is masked
    np.testing.assert_allclose(contacts.impulse[:, 0].sum(), 3 * G * 0.002, rtol=1e-3)


def test_broken_pieces_are_neither_flung_nor_sink():
    reference = Reference(load_scene(STACK))
    for _ in range(400):
        reference.step(np.zeros(0))
    load = np.abs(reference.bond_load()[0, 2])
    sag = 0.2 - (reference.data.qpos[9] - reference.data.qpos[2])
    assert sag > 1e-4  # the weld gives way by this much, so the boxes overlap
    reference.release(0)
    energies = []
    for _ in range(250):
        reference.step(np.zeros(0))
        mujoco.mj_energyVel(reference.model, reference.data)
        energies.append(reference.data.energy[1])
    assert max(energies[:25]) <= 0.5 * load * sag + 1e-6
    assert energies[-1] < 1e-9
    assert 0.195 < reference.data.qpos[9] - reference.data.qpos[2] < 0.2
    bodies, impulse = reference.contacts().bodies, reference.contacts().impulse
    np.testing.assert_allclose(impulse[(bodies == [1, 2]).all(1), 0].sum(), 2 * G * 0.002, rtol=1e-2)


def test_pieces_that_came_apart_collide_for_good():
    scene = load_scene(STACK)
    reference = Reference(scene)
    qpos = scene.home()[0].copy()
    qpos[9] += 0.05
    reference.reset(qpos, np.zeros(12), [0.0])
    assert reference.apart[0] == FAR
    reference.step(np.zeros(0))
    assert reference.apart[0] == 0.0
    for _ in range(500):
        reference.step(np.zeros(0))
    np.testing.assert_allclose(reference.data.qpos[9] - reference.data.qpos[2], 0.2, atol=2e-3)


def test_rollout_with_broken_bonds_equals_stepping():
    scene = load_scene(STACK)
    reference = Reference(scene)
    qpos = np.repeat(scene.home()[0][:, None], 3, 1)
    qpos[9] -= [0.0, 0.01, -0.01]  # touching and bonded, broken and overlapping, broken and apart
    intact = np.array([[1.0, 0.0, 0.0]])
    many = reference.rollout(qpos, np.zeros(12), np.zeros((50, 0)), intact)
    for world in range(3):
        reference.reset(qpos[:, world], np.zeros(12), intact[:, world])
        for _ in range(50):
            reference.step(np.zeros(0))
        np.testing.assert_allclose(many.qpos[-1, :, world], reference.data.qpos, atol=1e-12)


def test_bad_states_are_refused_or_reported(slide, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reference = Reference(slide)
    qpos, qvel = slide.home()
    with pytest.raises(ValueError, match="qvel"):
        reference.reset(qpos, qvel * np.nan)
    with pytest.raises(ValueError, match="ctrl"):
        reference.step([0.0, 0.0])
    with pytest.raises(Unstable, match="huge"):
        reference.step([1e30])
    ctrl = np.zeros((5, 1, 2))
    ctrl[2, 0, 1] = 1e30
    many = reference.rollout(qpos, qvel, ctrl)
    assert many.steps[0] == 5
    assert many.steps[1] < 5
    assert not list(tmp_path.iterdir())  # MuJoCo's log file


def run(scene, effects, ctrl, **options):
    return Reality(scene, effects, **options).episode(ctrl, seed=options.pop("seed", 0))


def test_without_effects_reality_is_the_reference(slide):
    ctrl = np.sin(np.arange(30))[:, None]
    episode = run(slide, [], ctrl, substeps=4)
    qpos, qvel = slide.home()
    np.testing.assert_array_equal(episode.qpos, Reference(slide, substeps=4).rollout(qpos, qvel, ctrl).qpos[..., 0])
    assert episode.failure is None
    assert episode.breaks == ()


def test_dry_friction_sticks_and_slides(slide):
    friction = StribeckFriction(joint="rail", coulomb=1.0, static=2.0, stribeck_speed=0.01)
    held = run(slide, [friction], np.full((50, 1), 1.9))
    assert abs(held.qpos[-1, 7]) < 1e-3
    moving = run(slide, [friction], np.full((50, 1), 3.0))
    # Past the breakaway: (3 N − 1 N) / 2 kg for half a second; the start at static friction costs a little.
    np.testing.assert_allclose(moving.qvel[-1, 6], 0.5, rtol=0.03)


def test_a_slippery_patch_lengthens_the_stop(slide):
    qvel = slide.home()[1]
    qvel[0] = 1.0
    ctrl = np.zeros((60, 1))
    distances = []
    for factor in (1.0, 0.5):
        patch = GroundPatch(geom="floor", low=(-9.0, -9.0), high=(9.0, 9.0), factor=factor)
        distances.append(Reality(slide, [patch]).episode(ctrl, seed=0, qvel=qvel).qpos[-1, 0])
    # v²/(2 μ g), in fine steps of 1 ms; soft contact creeps by under 2 %.
    np.testing.assert_allclose(
        distances, [1 / (2 * 0.3 * G), 1 / (2 * 0.15 * G) * (1 - (1 - 0.6 * 0.15 * G) ** 2)], rtol=0.02
    )


def test_drag_follows_its_closed_form(slide):
    qvel = slide.home()[1]
    qvel[6] = 4.0
    drag = QuadraticDrag(body="cart", coefficient=0.5)
    end = Reality(slide, [drag]).episode(np.zeros((100, 1)), seed=0, qvel=qvel).qvel[-1, 6]
    np.testing.assert_allclose(end, 4.0 / (1 + 0.5 / 2 * 4.0 * 1.0), rtol=2e-3)


def test_motor_chain(slide):
    step = np.ones((10, 1))
    plain, late = run(slide, [], step), run(slide, [MotorDelay(steps=3)], step)
    np.testing.assert_allclose(late.qvel[3:, 6], plain.qvel[:-3, 6], atol=1e-12)
    lag = run(slide, [MotorLag(time_constant=0.05)], step)
    t, tau = 0.1, 0.05
    np.testing.assert_allclose(lag.qvel[-1, 6], 0.5 * (t - tau * (1 - np.exp(-t / tau))), rtol=0.03)
    play = Backlash(actuator="motor", gap=0.4)
    memory = play.start(Reference(slide).model, 0.01, np.random.default_rng(0))
    outputs = []
    for u in (0.1, 0.5, 0.4, 0.0):
        memory, out = play.command(memory, np.array([u]), 0.001)
        outputs.append(float(out[0]))
    np.testing.assert_allclose(outputs, [0.0, 0.3, 0.3, 0.2])


def test_sensors_lie_and_truth_does_not_change(slide):
    ctrl = np.ones((40, 1))
    noisy = [SensorNoise(qpos_std=0.01, qvel_std=0.02, sensor_std=0.03), SensorDelay(steps=2)]
    one, two, three = (Reality(slide, noisy).episode(ctrl, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.seen.qpos, two.seen.qpos)
    assert not np.array_equal(one.seen.qpos, three.seen.qpos)
    np.testing.assert_array_equal(one.qpos, three.qpos)
    np.testing.assert_allclose(np.linalg.norm(one.seen.qpos[:, 3:7], axis=1), 1.0)
    error = one.seen.qvel[2:] - one.qvel[:-2]
    assert 0.015 < error.std() < 0.025
    assert 0.02 < (one.seen.sensors[2:, 0] - one.qpos[:-2, 7]).std() < 0.045


def test_bonds_break_by_hidden_rules():
    scene = load_scene(HANG)
    still = np.zeros((500, 0))
    weight, moment = 1.5 * G, 0.3 * 1.5 * G
    strong = LoadBreak(bond="arm", strength=(3 * weight, 3 * moment))
    assert run(scene, [strong], still).breaks == ()
    weak = LoadBreak(bond="arm", strength=(0.8 * weight, 10 * moment))
    broken = run(scene, [weak], still)
    ((name, time),) = broken.breaks
    # The filter (10 ms) must charge to 0.8 of the load while weld and spring (20 ms) settle.
    assert name == "arm"
    assert 0.01 < time < 0.2
    assert broken.intact[0, 0] == 1
    assert broken.intact[-1, 0] == 0
    assert not broken.load[-1].any()
    # Damage adds up as the load of an unbroken run says, read through the filter (10 ms late).
    tired = LoadBreak(bond="arm", strength=(4 * weight, 4 * moment), life_s=0.125, exponent=2.0)
    ((_, worn),) = run(scene, [tired], still).breaks
    load = run(scene, [strong], still).load[:, 0]
    share = (load[:, :3] ** 2).sum(1) / tired.strength[0] ** 2 + (load[:, 3:] ** 2).sum(1) / tired.strength[1] ** 2
    expected = 0.004 * np.searchsorted(np.cumsum(share) * 0.004 / 0.125, 1.0)
    np.testing.assert_allclose(worn, expected + 0.01, atol=0.012)
    impulse = ImpulseBreak(bond="arm", impulse=0.5 * weight * 0.02, window_s=0.02)
    assert len(run(scene, [impulse], still).breaks) == 1
    with pytest.raises(ValueError, match="filter_s"):
        Reality(scene, [LoadBreak(bond="arm", strength=(1.0, 1.0), filter_s=0.001)])
    with pytest.raises(ValueError, match="'leg'"):
        Reality(scene, [LoadBreak(bond="leg", strength=(1.0, 1.0))])


def test_without_luck_every_episode_breaks_alike():
    scene, weight = load_scene(HANG), 1.5 * G
    drawn = (LoadBreak(bond="arm", strength=(0.8 * weight, 1e3), scatter=0.1, life_s=0.5),)
    times = {name: {Reality(scene, effects).episode(np.zeros((500, 0)), seed=seed).breaks[0][1] for seed in range(4)}
             for name, effects in (("drawn", drawn), ("known", without_luck(drawn)))}  # fmt: skip
    assert len(times["drawn"]) > 1
    assert len(times["known"]) == 1


def test_unknown_names_are_refused(slide):
    with pytest.raises(ValueError, match="'rial'"):
        Reality(slide, [StribeckFriction(joint="rial", coulomb=1.0, static=2.0)])
