"""Exploration in reality: it covers the motors' range, starts where the world can be, and is the same for the same seed."""

import sys

import numpy as np
import pytest
from children import one_sentence

from hybridwm.logs import collecting, exploring
from hybridwm.logs.archive import read_recordings, write_recordings
from hybridwm.logs.collecting import collect
from hybridwm.logs.exploring import Exploration
from physics.effects import SensorNoise
from physics.reality import Reality
from physics.scene import load_scene
from physics.wear import LoadBreak


@pytest.fixture(scope="module")
def rod():
    return Reality(load_scene("snapping_rod"), [LoadBreak(bond="weld", strength=(20.0, 0.5))], substeps=2)


def same(one, other):
    for a, b in zip(one.recordings, other.recordings, strict=True):
        assert a.name == b.name
        for left, right in zip(a[1:], b[1:], strict=True):
            np.testing.assert_array_equal(left, right)


def test_controls_cover_the_range_and_the_band():
    scene, rng = load_scene("double_pendulum"), np.random.default_rng(0)
    options = Exploration(slowest_hz=0.5, fastest_hz=8.0)
    found = exploring.controls(scene, options, 30, 2000, rng) / 6  # range ±6
    assert np.abs(found).max() <= 1
    reach = np.sort((found.max(1) - found.min(1)) / 2, axis=0)
    assert (np.abs(reach - np.linspace(0, 1, 30)[:, None]) < 0.2).all(), "amplitudes lie evenly over the range"
    crossings = (np.diff(np.sign(found - found.mean(1, keepdims=True)), axis=1) != 0).sum(1) / (2 * 4.0)
    assert ((crossings > 0.1) & (crossings < 8.5)).all(), "frequencies within the band"
    levels = [len(np.unique(episode[:, 0])) for episode in found]
    assert max(levels[2::3]) < 70 < min(levels[0::3]), "every third episode is made of steps"


def test_starts_differ_and_are_possible(rod):
    qpos, qvel = exploring.starts(rod, Exploration(), 40, np.random.default_rng(1))
    np.testing.assert_allclose(np.linalg.norm(qpos[4:8], axis=0), 1, atol=1e-12)
    assert qpos[0].std() > 0.1
    assert qvel[0].std() > 0.5
    hinge = np.array([[0.3 * np.sin(a), 0.9 - 0.3 * np.cos(a)] for a in -qpos[0]])  # where the weld is
    np.testing.assert_allclose(qpos[[1, 3]].T, hinge, atol=3e-3, err_msg="the weld holds at every start")


def test_starts_stay_within_limits():
    reality = Reality(load_scene("double_pendulum"))
    qpos, _ = exploring.starts(reality, Exploration(angle_std=3.0), 40, np.random.default_rng(1))
    low, high = reality.scene.model.jnt_range.T[..., None]
    assert ((qpos > low - 0.3) & (qpos < high + 0.3)).all()  # limits are soft, and are hit at up to some rad/s


def test_the_same_seed_gives_the_same_dataset(rod, tmp_path):
    seen = []
    first = collect(rod, episodes=6, seconds=0.4, seed=7, processes=1, watch=seen.append)
    same(first, collect(rod, episodes=6, seconds=0.4, seed=7, processes=1))
    assert seen == [1, 2, 3, 4, 5, 6]
    assert len({len(r.ctrl) for r in first.recordings}) == 1
    other = collect(rod, episodes=6, seconds=0.4, seed=8, processes=1)
    assert not np.allclose(first.recordings[0].ctrl, other.recordings[0].ctrl)
    broken = [bool(line["breaks"]) for line in first.meta["episodes"]]
    assert broken == [bool((r.intact == 0).any()) for r in first.recordings]
    assert any(broken)
    same(first, read_recordings(write_recordings(tmp_path, first), rod.scene, smoothing="never"))


def test_processes_give_what_one_gives(rod, monkeypatch):
    monkeypatch.setattr(collecting, "_jax_runs", lambda: False)  # the children here never touch JAX
    same(*(collect(rod, episodes=4, seconds=0.2, seed=3, processes=n) for n in (1, 2)))


def test_forking_waits_for_no_jax(monkeypatch):
    import jax

    jax.devices()
    assert collecting._jax_runs()
    monkeypatch.delitem(sys.modules, "jax._src.xla_bridge")
    assert not collecting._jax_runs()


def test_own_starts_and_noise():
    scene = load_scene("pendulum")
    begin = np.array([[0.1, 0.2]]), np.zeros((1, 2))
    quiet = collect(Reality(scene), episodes=2, seconds=0.1, begin=begin)
    assert [r.qpos[0, 0] for r in quiet.recordings] == [0.1, 0.2]
    rough = collect(Reality(scene, [SensorNoise(qpos_std=0.01)]), episodes=2, seconds=0.1, begin=begin)
    apart = np.concatenate([a.qpos - b.qpos for a, b in zip(quiet.recordings, rough.recordings, strict=True)])
    assert 0.007 < apart.std() < 0.013
    assert "SensorNoise" in rough.meta["collected"]["effects"][0]


def test_a_reality_that_fails_is_named():
    scene = load_scene("pendulum")
    begin = np.array([[0.1]]), np.array([[1e12]])
    with pytest.raises(ValueError, match="no episode took a single step; the first says: "):
        collect(Reality(scene), episodes=1, seconds=0.1, begin=begin)


@pytest.mark.parametrize("change", [{"episodes": 0}, {"seconds": 0.0}, {"seconds": np.nan}, {"seconds": 1e9}])
def test_nonsense_is_refused(rod, change):
    with pytest.raises(ValueError, match="give at least one"):
        collect(rod, **({"episodes": 1, "seconds": 1.0} | change))


@pytest.mark.parametrize(
    "change", [{"slowest_hz": 0.0}, {"fastest_hz": 0.1}, {"kinds": ("jumps",)}, {"speed_std": -1.0}]
)
def test_an_exploration_that_cannot_be_is_refused(change):
    with pytest.raises(ValueError, match=r"band|kinds|speed_std"):
        Exploration(**change)


def test_the_command(hybridwm, tmp_path):
    args = ("collect", "--scene", "pendulum", "--episodes", 3, "--seconds", 0.2, "--seed", 1, "--noise", 0.001)
    child = hybridwm(*args, "--out", "logs")
    assert child.returncode == 0, child.stderr
    assert "3 episodes" in child.stdout
    found = read_recordings(tmp_path / "logs", load_scene("pendulum"))
    assert found.meta["collected"]["seed"] == 1
    child = hybridwm(*args, "--out", "logs")
    assert one_sentence(child), child.stderr
    assert "already holds recordings" in child.stderr
