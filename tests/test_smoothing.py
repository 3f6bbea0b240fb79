"""The smoother against motions that are known: a swinging hinge and a body that tumbles and flies."""

import numpy as np
import pytest

from hybridwm.logs import tangent
from hybridwm.logs.archive import read_recordings, write_recordings
from hybridwm.logs.recordings import Dataset, Recording
from hybridwm.logs.smoothing import smooth
from physics.scene import load_scene

FLYER = """<mujoco><option timestep="0.005"/><worldbody>
<body name="arm"><joint name="hinge" axis="0 1 0"/><geom size=".1"/></body>
<body name="cup" pos="0 3 0"><freejoint name="cup"/><geom size=".1"/></body></worldbody></mujoco>"""
DT, POSE_STD, RATE_STD = 0.005, 1e-3, 0.05


@pytest.fixture(scope="module")
def scene():
    return load_scene(FLYER)


def truth(scene, steps, phase=0.0):
    """Exact poses and rates: a sine, a parabola, and a turn whose rate is constant in the body."""
    t = DT * np.arange(steps + 1)
    qpos, qvel = np.zeros((steps + 1, scene.model.nq)), np.zeros((steps + 1, scene.model.nv))
    qpos[:, 0], qvel[:, 0] = np.sin(6 * t + phase), 6 * np.cos(6 * t + phase)
    qpos[:, 3], qvel[:, 3] = 2 * t - 4.905 * t**2, 2 - 9.81 * t
    qpos[:, 4] = 1
    qvel[:, 4:] = (3.0, -5.0, 1.0)
    qpos = tangent.advance(scene.model, qpos.T, np.where(np.arange(7)[:, None] < 4, 0, qvel.T * t)).T
    return Recording(str(phase), qpos, qvel, np.zeros((steps, 0)), np.zeros((steps + 1, 0)))


def noisy(scene, recording, seed):
    rng = np.random.default_rng(seed)
    qpos = tangent.advance(scene.model, recording.qpos.T, POSE_STD * rng.normal(size=recording.qvel.T.shape)).T
    return recording._replace(qpos=qpos, qvel=recording.qvel + RATE_STD * rng.normal(size=recording.qvel.shape))


def rms(scene, one, other):
    """Per dof, (poses, rates)."""
    pairs = list(zip(one.recordings, other.recordings, strict=True))
    pose = [tangent.difference(scene.model, a.qpos.T, b.qpos.T).T for a, b in pairs]
    rate = [b.qvel - a.qvel for a, b in pairs]
    return (np.sqrt(np.mean(np.concatenate(x) ** 2, axis=0)) for x in (pose, rate))


@pytest.fixture(scope="module")
def clean(scene):
    return Dataset(scene, DT, tuple(truth(scene, n, phase) for n, phase in ((300, 0.0), (200, 1.0), (260, 2.0))), {})


@pytest.fixture(scope="module")
def rough(scene, clean):
    return clean._replace(recordings=tuple(noisy(scene, r, i) for i, r in enumerate(clean.recordings)))


def test_the_noise_is_measured_and_taken_out(scene, clean, rough):
    smoothed, noise = smooth(rough)
    np.testing.assert_allclose(noise.qpos_std, POSE_STD, rtol=0.15)  # 760 rows: a median is known to 4 %
    np.testing.assert_allclose(noise.qvel_std, RATE_STD, rtol=0.15)
    assert noise.smoothed.all()
    pose, rate = rms(scene, clean, smoothed)
    assert (pose < POSE_STD / 3).all()
    assert (rate < RATE_STD / 3).all()
    for recording in smoothed.recordings:
        np.testing.assert_allclose(np.linalg.norm(recording.qpos[:, 4:], axis=1), 1, atol=1e-12)


def test_missing_velocities_are_found(scene, clean, rough):
    found, noise = smooth(rough, velocities=False)
    pose, rate = rms(scene, clean, found)
    assert np.isnan(noise.qvel_std).all()
    assert (rate < 0.08).all()  # differences of neighbours: 0.28
    assert (pose < POSE_STD / 2).all()
    exact, _ = smooth(clean, velocities=False)
    pose, rate = rms(scene, clean, exact)
    assert (pose < 1e-14).all(), "poses without noise stay"
    assert (rate < 1e-3).all()


def test_what_has_no_noise_is_left_alone(clean, rough):
    for data, when in ((clean, "auto"), (rough, "never")):
        same, noise = smooth(data, when)
        assert not noise.smoothed.any()
        for a, b in zip(same.recordings, data.recordings, strict=True):
            np.testing.assert_array_equal(a.qpos, b.qpos)
            np.testing.assert_array_equal(a.qvel, b.qvel)


@pytest.mark.parametrize("part", [0, 1])
def test_noise_in_one_of_the_two_alone(scene, clean, rough, part):
    """Poses noisy and velocities exact, or the other way round: the exact ones are followed."""
    kept = {1: "qpos", 0: "qvel"}[part]
    pairs = zip(rough.recordings, clean.recordings, strict=True)
    mixed = rough._replace(recordings=tuple(r._replace(**{kept: getattr(c, kept)}) for r, c in pairs))
    pose, rate = rms(scene, clean, smooth(mixed)[0])
    assert (pose < (POSE_STD / 3, 1e-4)[part]).all()
    assert (rate < (5e-3, 0.03)[part]).all()


def test_an_impact_is_not_taken_for_noise(clean):
    hit = clean.recordings[0]
    qpos, qvel = hit.qpos.copy(), hit.qvel.copy()
    for row in (80, 150, 220):
        qvel[row:, 0] *= -0.6
    qpos[1:, 0] = np.cumsum(DT * qvel[1:, 0])
    same, noise = smooth(clean._replace(recordings=(hit._replace(qpos=qpos, qvel=qvel),)))
    assert not noise.smoothed[0]
    np.testing.assert_array_equal(same.recordings[0].qvel[:, 0], qvel[:, 0])


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_short_episodes(scene, steps):
    found, _ = smooth(Dataset(scene, DT, (truth(scene, steps),), {}), velocities=False)
    assert np.isfinite(found.recordings[0].qvel).all()
    np.testing.assert_allclose(found.recordings[0].qvel, truth(scene, steps).qvel, atol=0.5)


def test_reading_estimates_what_the_files_lack(scene, rough, tmp_path):
    write_recordings(tmp_path, rough)
    for path in tmp_path.glob("*.npz"):
        with np.load(path) as arrays:
            kept = {name: arrays[name] for name in arrays.files if name != "qvel"}
        np.savez(path, **kept)
    found = read_recordings(tmp_path, scene)
    expected, _ = smooth(rough, velocities=False)
    np.testing.assert_allclose(found.recordings[1].qvel, expected.recordings[1].qvel, atol=1e-9)
    np.testing.assert_allclose(found.meta["noise"]["qpos_std"], POSE_STD, rtol=0.15)


def test_an_unknown_choice_is_refused(clean):
    with pytest.raises(ValueError, match="allowed are auto, always, never"):
        smooth(clean, "sometimes")
