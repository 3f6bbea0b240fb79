"""CSV logs through a map of columns."""

import numpy as np
import pytest
from children import one_sentence

from hybridwm.logs.archive import read_recordings
from hybridwm.logs.importing import import_csv, read_map
from physics.scene import load_scene

ROBOT = """<mujoco><option timestep="0.005"/><worldbody>
<body name="arm"><joint name="hinge" axis="0 1 0"/><geom size=".1"/>
<body name="cup" pos="0 1 0"><joint name="wrist" type="ball"/><geom size=".1"/></body></body></worldbody>
<actuator><motor name="torque" joint="hinge"/></actuator></mujoco>"""
MAP = {"time": "t", "qpos": ["deg", "qx", "qy", "qz", "qw"], "ctrl": "tau", "quaternion": "xyzw"}
MAP |= {"scale": {"deg": np.pi / 180}, "unwrap": ["deg"]}


@pytest.fixture(scope="module")
def scene():
    return load_scene(ROBOT)


def rows(count=40, dt=0.01):
    """An arm that turns past 180°, in degrees and wrapped, and a wrist turning about x: quaternions x y z w."""
    t = dt * np.arange(count)
    degrees = (170 + 200 * t + 180) % 360 - 180
    zero = 0 * t
    return np.stack([t, degrees, np.sin(t), zero, zero, np.cos(t), np.sin(9 * t)], axis=1)


def write(path, table, titles="t,deg,qx,qy,qz,qw,tau", separator=","):
    lines = [titles.replace(",", separator)] if titles else []
    lines += [separator.join(f"{x:.12g}" if isinstance(x, float) else str(x) for x in row) for row in table]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_log_in_degrees_with_wrapped_angles_and_other_quaternions(scene, tmp_path):
    data = import_csv(write(tmp_path / "run.csv", rows()), scene, MAP)
    (found,) = data.recordings
    t = 0.01 * np.arange(40)
    assert (data.dt, data.substeps, found.name) == (0.01, 2, "run")
    np.testing.assert_allclose(found.qpos[:, 0], np.radians(170 + 200 * t), atol=1e-9)
    np.testing.assert_allclose(found.qpos[:, 1:], np.stack([np.cos(t), np.sin(t), 0 * t, 0 * t], 1), atol=1e-9)
    np.testing.assert_allclose(found.qvel, np.tile([np.radians(200), 2, 0, 0], (40, 1)), atol=1e-4)
    np.testing.assert_allclose(found.ctrl[:, 0], np.sin(9 * t[:-1]), atol=1e-9)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_by_number_and_a_folder_of_files(scene, tmp_path, separator):
    table = rows()[:, [0, 1, 5, 2, 3, 4, 6]]
    table[:, 1] = 0.1 * table[:, 0]
    for name in ("b", "a"):
        write(tmp_path / f"{name}.csv", table, titles="", separator=separator)
    found = import_csv(tmp_path, scene, read_map(["qpos=1:6", "ctrl=6", "time=0"]))
    assert [r.name for r in found.recordings] == ["a", "b"]
    assert found.meta["imported"]["files"] == ["a.csv", "b.csv"]
    timeless = import_csv(tmp_path, scene, read_map(["qpos=1,2,3:6", "ctrl=6", "dt=0.01", "scale=6:2"]))
    np.testing.assert_allclose(timeless.recordings[0].ctrl, 2 * found.recordings[0].ctrl)


def test_given_velocities_are_kept(scene, tmp_path):
    table = np.concatenate([rows(), np.full((40, 4), 0.25)], axis=1)
    path = write(tmp_path / "run.csv", table, titles="t,deg,qx,qy,qz,qw,tau,a,b,c,d")
    found = import_csv(path, scene, MAP | {"qvel": "7:11"}, smoothing="never")
    np.testing.assert_array_equal(found.recordings[0].qvel, 0.25)


def cell(row, column, value):
    table = rows().tolist()
    table[row][column] = value
    return table


def cut_short():
    table = rows().tolist()
    table[7].pop()
    return table


def two_rates():
    table = rows()
    table[25:, 0] += 0.01
    return table


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (cell(4, 3, "oops"), r"run\.csv line 6, column 3 \(qy\) is 'oops'; expected a number"),
        (cell(4, 3, ""), r"run\.csv line 6, column 3 \(qy\) is ''; expected a number"),
        (cell(4, 6, "nan"), r"run\.csv: ctrl row 4, column 0 \(torque\) is nan"),
        (cell(9, 5, 3.0), r"run\.csv: qpos row 9, columns 1 to 4 \(wrist\.qw …\): a quaternion of length"),
        (cut_short(), r"run\.csv line 9 has 6 columns; expected 7 as in the first line"),
        (two_rates(), r"run\.csv: time row 25 comes 0\.02 s after the row before; expected 0\.01 s throughout"),
        (rows(dt=0.007), r"run\.csv: dt = 0\.007 s: expected 0\.005 s, the step of scene 'scene', or a multiple"),
        (rows(1), r"run\.csv: 1 rows; expected at least two"),
        ([], r"run\.csv: 0 rows"),
    ],
)
def test_a_bad_file_is_named_with_its_line(scene, tmp_path, table, said):
    with pytest.raises(ValueError, match=said):
        import_csv(write(tmp_path / "run.csv", table), scene, MAP)


def test_files_of_mixed_rates_are_refused(scene, tmp_path):
    write(tmp_path / "a.csv", rows())
    write(tmp_path / "b.csv", rows(dt=0.005))
    with pytest.raises(ValueError, match=r"b\.csv: time row 1 comes 0\.005 s after .* expected 0\.01 s"):
        import_csv(tmp_path, scene, MAP)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"qpos": ["deg"]}, r"map qpos names 1 columns; expected hinge, wrist\.qw"),
        ({"qpos": ["deg", "lost"]}, r"map qpos names 'lost'; the file has columns 0 to 6, titles t, deg"),
        ({"qpos": "1:99"}, r"map qpos names '1:99'"),
        ({"ctl": "tau"}, r"map: 'ctl' is no entry; allowed are qpos, qvel"),
        ({"dt": 0.01}, r"map: give either time"),
        ({"quaternion": "zyxw"}, r"map: quaternion is 'zyxw'; allowed are wxyz and xyzw"),
        ({"scale": {"deg": "big"}}, r"map: scale of deg is 'big'; expected a number"),
        ({"scale": 3}, r"map: scale is no map"),
        ({"qvel": "6"}, r"map qvel names 1 columns; expected hinge, wrist\.wx"),
    ],
)
def test_a_bad_map_is_named(scene, tmp_path, change, said):
    path = write(tmp_path / "run.csv", rows())
    with pytest.raises(ValueError, match=said):
        import_csv(path, scene, MAP | change)


def test_what_is_missing_is_named(scene, tmp_path):
    with pytest.raises(ValueError, match="map: ctrl is missing; expected the columns of torque"):
        import_csv(tmp_path, scene, {"time": 0, "qpos": "1:6"})
    with pytest.raises(ValueError, match=r"no \.csv file in this folder"):
        import_csv(tmp_path, scene, MAP)
    with pytest.raises(ValueError, match="cannot be read"):
        import_csv(tmp_path / "lost.csv", scene, MAP)
    bonded = load_scene("snapping_rod")
    with pytest.raises(ValueError, match="map: intact is missing; expected the columns of weld"):
        import_csv(tmp_path, bonded, {"time": 0, "qpos": "1:9", "ctrl": 9})


@pytest.mark.parametrize("words", [["qpos"], ["qpos=", "ctrl=3"], ["lost.yaml"]])
def test_a_map_that_is_none(words):
    with pytest.raises(ValueError, match="--map"):
        read_map(words)


def test_the_command(hybridwm, tmp_path):
    write(tmp_path / "run.csv", rows())
    (tmp_path / "robot.xml").write_text(ROBOT)
    (tmp_path / "map.yaml").write_text("time: t\nqpos: [deg, qx, qy, qz, qw]\nctrl: tau\nquaternion: xyzw\n"
                                       "scale: {deg: 0.017453292519943295}\nunwrap: [deg]\n")  # fmt: skip
    args = ("import", "run.csv", "--scene", "robot.xml", "--out", "logs", "--map", "map.yaml")
    child = hybridwm(*args)
    assert child.returncode == 0, child.stderr
    assert "1 episodes, 39 steps of 10 ms" in child.stdout
    assert len(read_recordings(tmp_path / "logs", load_scene(tmp_path / "robot.xml")).recordings) == 1
    assert one_sentence(hybridwm(*args))
    (tmp_path / "map.yaml").write_text("[")
    assert one_sentence(hybridwm(*args[:4], "--out", "more", "--map", "map.yaml"))
