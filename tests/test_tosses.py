"""The reader of measured throws and how predictions of them are scored, on small made-up throws."""

from pathlib import Path

import numpy as np
import pytest

from experiments.measured import tosses
from experiments.measured.tosses import DT, HALF_WIDTH, TRUE_HALF_WIDTH, folds, read_throws, scores, stacked


def made_up(throws=4, rows=(30, 25, 40, 30), seed=0):
    """Arrays of a file: cubes that slide to rest, at the height at which the measured one rests."""
    rng, parts = np.random.default_rng(seed), {name: [] for name in ("pos", "quat", "vel", "omega")}
    for n in rows[:throws]:
        vel = np.outer(np.linspace(1, 0, n), [*rng.uniform(-1, 1, 2), 0.0])
        pos = np.cumsum(vel * DT, 0) + np.array([0, 0, TRUE_HALF_WIDTH])
        quat = np.tile([1.0, 0.0, 0.0, 0.0], (n, 1))
        for name, value in zip(parts, (pos, quat, vel, np.zeros((n, 3))), strict=True):
            parts[name].append(value)
    out = {name: np.concatenate(value) for name, value in parts.items()}
    return out | {"offsets": np.cumsum([0, *rows[:throws]])}


def saved(folder: Path, arrays, name="cube_toss_a.npz"):
    np.savez(folder / name, **arrays)
    return folder


def test_throws_are_read_from_all_files_of_the_folder(tmp_path):
    saved(tmp_path, made_up())
    saved(tmp_path, made_up(2, seed=1), "cube_toss_b.npz")
    throws = read_throws(tmp_path)
    assert [len(t.pos) for t in throws] == [30, 25, 40, 30, 30, 25]
    assert throws[4].name == "cube_toss_b/0"


def changed(name, value):
    arrays = made_up()
    arrays[name] = value(arrays[name])
    return arrays


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({k: v for k, v in made_up().items() if k != "vel"}, "vel missing; expected pos, quat, vel"),
        (changed("pos", lambda x: 1000 * x), "other units"),
        (changed("vel", lambda x: 1000 * x), "other units, or another rate"),
        (changed("quat", lambda x: 2 * x), "not of length 1"),
        (changed("omega", lambda x: x[:, :2]), r"omega is \(125, 2\); expected \(125, 3\)"),
        (changed("pos", lambda x: np.where(np.arange(125)[:, None] == 7, np.nan, x)), "not finite at row 7"),
        (changed("offsets", lambda x: x[:-1]), "half a download"),
        (changed("offsets", lambda x: np.insert(x, 1, 3)), "throw 0 has 3 rows; expected at least 20"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path, arrays, words):
    with pytest.raises(ValueError, match=f"cube_toss_a.npz.*{words}"):
        read_throws(saved(tmp_path, arrays))


def test_folders_without_the_set(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        read_throws(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no file cube_toss\*.npz; there is other.npz"):
        read_throws(saved(tmp_path, made_up(), "other.npz"))
    whole = (tmp_path / "other.npz").read_bytes()
    (tmp_path / "cube_toss_a.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="no whole"):
        read_throws(tmp_path)


def test_folds_are_disjoint_and_cover_all():
    parts = folds(23, 5, seed=3)
    assert sorted(np.concatenate(parts).tolist()) == list(range(23))
    assert {len(part) for part in parts} == {4, 5}
    np.testing.assert_array_equal(parts[2], folds(23, 5, seed=3)[2])


def truth_of(tmp_path):
    return stacked(read_throws(saved(tmp_path, made_up())))


def poses(truth):
    return np.concatenate([truth.pos, truth.quat], 1)


def test_the_truth_scores_zero(tmp_path):
    found = scores(poses(truth_of(tmp_path)), truth_of(tmp_path))
    assert found.position == pytest.approx(0)
    assert found.rotation == pytest.approx(0, abs=1e-5)
    assert found.face == pytest.approx(1)
    assert found.penetration == pytest.approx(0, abs=1e-9)


def test_known_errors(tmp_path):
    truth = truth_of(tmp_path)
    found = poses(truth)
    found[:, 0] += 0.2 * HALF_WIDTH  # a tenth of the width
    found[:, 2, 1] -= 0.02 * HALF_WIDTH  # into the board
    half = np.radians(30) / 2
    found[:, 3:, 2] = [np.cos(half), np.sin(half), 0, 0]
    found[:, 3:, 3] = [np.sqrt(0.5), np.sqrt(0.5), 0, 0]
    got = scores(found, truth)
    assert got.position[[0, 2, 3]] == pytest.approx(10)
    assert got.rotation == pytest.approx([0, 0, 30, 90], abs=1e-5)
    assert got.face.tolist() == [1, 1, 1, 0]
    assert got.penetration[:2] == pytest.approx([0, 1])
    corner = TRUE_HALF_WIDTH * (np.cos(2 * half) + np.sin(2 * half)) - TRUE_HALF_WIDTH
    assert got.deepest[2] == pytest.approx(100 * corner / (2 * HALF_WIDTH))


def test_rows_after_the_end_of_a_throw_do_not_count(tmp_path):
    truth = truth_of(tmp_path)
    found = poses(truth)
    found[30:, 0, 0] += 1.0
    assert scores(found, truth).position[0] == pytest.approx(0)


def test_what_is_not_finite_scores_badly(tmp_path):
    truth = truth_of(tmp_path)
    found = poses(truth)
    found[5, 0, 0] = np.nan
    got = scores(found, truth)
    assert got.position[0] > 1000
    assert got.position[1] == pytest.approx(0)
    assert not got.face[0]


def test_angles_do_not_care_for_the_sign_of_a_quaternion():
    one = np.array([np.cos(0.4), np.sin(0.4), 0.0, 0.0])[:, None]
    assert tosses.angle(one, -one) == pytest.approx(0)
    assert tosses.angle(one, np.array([1.0, 0, 0, 0])[:, None]) == pytest.approx(0.8)
