"""A screw driven into a joint, against what can be solved by hand."""

import numpy as np
import pytest

from physics.effects import SensorNoise, SensorRounding
from physics.fastening import REMNANT, Fastening, ramp, windup
from physics.reality import Reality
from physics.scene import load_scene

K, GAP, CLAMP, PITCH, RADIUS, DRAG, DRIVER_DRAG = 200.0, 0.04, 1e4, 2e-4, 1e-2, 0.15, 0.3
FRICTION = np.array([0.08, 0.12])
STICK = 'solreffriction="0.002 1" solimpfriction="0.9999 0.9999 0.001 0.5 2"'
BODY = '<geom type="cylinder" size=".01 .02" mass=".001" contype="0" conaffinity="0"/>'
RACK = f"""<mujoco><option timestep="0.01" gravity="0 0 0" integrator="Euler"/><worldbody>{
    "".join(
        f'<body name="d{i}"><joint name="driver{i}" axis="0 0 1" armature="1e-2" damping="1" {STICK}/>{BODY}</body>'
        f'<body name="b{i}"><joint name="bolt{i}" axis="0 0 1" armature="1e-3" {STICK}/>{BODY}</body>'
        for i in range(2)
    )
}</worldbody><actuator><motor joint="driver0"/><motor joint="driver1"/></actuator></mujoco>"""


def fastening(**changes):
    plain = {
        "drivers": ("driver0", "driver1"), "bolts": ("bolt0", "bolt1"), "stiffness": K, "gap": np.full(2, GAP),
        "damping": 0.2, "clamp": CLAMP, "toe": 0.1, "snug": np.array([0.2, 0.3]), "pitch": PITCH, "radius": RADIUS,
        "friction": FRICTION, "drag": DRAG, "driver_drag": DRIVER_DRAG,
    }  # fmt: skip
    return Fastening(**plain | changes)


def turned(top, rise=90, rest=30, **changes):
    """An episode: the torque rises slowly to `top` N m, then the motor rests."""
    held = fastening(**changes)
    torque = np.concatenate([np.linspace(0, top, rise), np.full(40, top), np.zeros(rest)])
    return held, Reality(load_scene(RACK), [held], substeps=10).episode(np.stack([torque, torque], 1), seed=0)


@pytest.fixture(scope="module")
def tightened():
    return turned(9.0)


def test_a_slow_torque_gives_the_clamp_force_of_the_formula(tightened):
    held, episode = tightened
    q = episode.qpos[129, 1::2]
    wanted = (9.0 - DRIVER_DRAG - DRAG) / (PITCH + RADIUS * FRICTION)
    # the bolt stops a little beyond the balance, since it arrives with some speed
    np.testing.assert_allclose(held.clamp_force(q, np.zeros(2, bool)), wanted, rtol=0.02)


def test_the_driver_is_wound_up_by_its_torque_and_half_the_play(tightened):
    _, episode = tightened
    twist = episode.qpos[129, 0::2] - episode.qpos[129, 1::2]
    # the gear's own dry friction may hold part of the torque
    assert (twist < GAP / 2 + 9.0 / K + 1e-4).all()
    assert (twist > GAP / 2 + (9.0 - 2 * DRIVER_DRAG) / K).all()


def test_a_thread_that_locks_itself_keeps_its_clamp_force(tightened):
    _, episode = tightened
    np.testing.assert_allclose(episode.qpos[-1, 1::2], episode.qpos[129, 1::2], atol=2e-4)
    assert (np.abs(episode.effort[129]) > 8.9).all()
    np.testing.assert_allclose(episode.effort[-1], 0.0)


def test_a_steep_thread_comes_loose():
    _, episode = turned(9.0, friction=np.array([0.01, 0.12]))
    loosened = episode.qpos[129, 1::2] - episode.qpos[-1, 1::2]
    assert loosened[0] > 0.1 > 2e-4 > abs(loosened[1])


def test_too_much_strips_for_good_and_only_then():
    held, episode = turned(17.0, strength=(1e4, np.inf))
    wound = next(m for m in episode.memory if hasattr(m, "stripped_at"))
    row = np.searchsorted(episode.time, wound.stripped_at)
    before = [held.clamp_force(episode.qpos[r - 2, 1::2], np.zeros(2, bool))[i] for i, r in enumerate(row)]
    assert wound.stripped_at[0] < wound.stripped_at[1] < episode.time[-1], "the slippery bolt reaches it first"
    assert (np.array(before) > 0.9e4).all()
    after = held.clamp_force(episode.qpos[-1, 1::2], episode.time[-1] >= wound.stripped_at)
    np.testing.assert_allclose(after, REMNANT * held.clamp_force(episode.qpos[-1, 1::2], np.zeros(2, bool)))


def test_wear_is_the_sliding_work():
    held, episode = turned(9.0, wear_work=1e3)
    q = episode.qpos[-1, 1::2]
    work = CLAMP * np.square(q - held.snug - 0.05) / 2  # the integral of F over the angle, toe left out
    np.testing.assert_allclose(episode.memory[0].work, work / 1e3, rtol=0.02)


def test_laws():
    np.testing.assert_allclose(ramp(np.array([-1.0, 0.0, 0.05, 0.1, 1.1]), 0.1), [0, 0, 0.0125, 0.05, 1.05])
    np.testing.assert_allclose(windup(K, GAP, 0.2, np.array([0.019, 0.03, -0.03]), 1.0), [0, 2.2, -1.8])


def test_effort_is_seen_with_noise_and_rounding():
    noise, rounding = SensorNoise(effort_std=0.01), SensorRounding(effort_step=0.5)
    ctrl = np.full((30, 2), 3.2)
    seen = Reality(load_scene(RACK), [noise], substeps=5).episode(ctrl, seed=0).seen
    assert 0.003 < np.std(seen.effort[1:]) < 0.02
    coarse = Reality(load_scene(RACK), [rounding], substeps=5).episode(ctrl, seed=0).seen
    np.testing.assert_allclose(coarse.effort[-1], 3.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bolts": ("bolt0",)}, "2 drivers and 1 bolts"),
        ({"bolts": ("bolt0", "nut")}, "joint 'nut' is not in this scene"),
    ],
)
def test_wrong_names_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        turned(1.0, **changes)
