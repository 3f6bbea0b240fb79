"""Recordings: written, read again, split, cut into windows; a bad log is refused: which file, which row, what was expected."""

import io
import json
import zipfile

import numpy as np
import pytest

from hybridwm.logs import archive, plausible, recordings, tangent
from hybridwm.logs.archive import read_recordings, write_recordings
from hybridwm.logs.recordings import Dataset, Recording
from physics.scene import load_scene

BALLS = """<mujoco><option timestep="0.01"/><worldbody>
<body name="arm"><joint name="elbow" axis="0 1 0" range="-90 90" limited="true"/><geom size=".1"/>
<body name="hand" pos="1 0 0"><joint name="wrist" type="ball"/><geom size=".1"/></body></body>
<body name="cup" pos="0 3 0"><freejoint name="cup"/><geom size=".1"/></body>
<body name="wheel" pos="0 6 0"><joint name="spin" axis="0 1 0"/><geom size=".1"/></body></worldbody>
<equality><connect name="thread" body1="cup" body2="wheel" anchor="0 0 0"/></equality>
<actuator><motor name="motor" joint="elbow"/></actuator></mujoco>"""


@pytest.fixture(scope="module")
def scene():
    return load_scene(BALLS)


def episode(scene, steps=12, seed=0, name="0"):
    """A smooth motion with nothing wrong with it."""
    rng, model = np.random.default_rng(seed), scene.model
    qvel = np.cumsum(0.05 * rng.normal(size=(steps + 1, model.nv)), axis=0)
    qpos = [scene.home()[0]]
    for v in qvel[:-1]:
        qpos.append(tangent.advance(model, qpos[-1], 0.01 * v))
    ctrl, intact = rng.normal(size=(steps, model.nu)), np.ones((steps + 1, 1))
    intact[8:] = 0
    return Recording(name, np.array(qpos), qvel, ctrl, intact)


def dataset(scene, lengths=(12, 9, 15)):
    return Dataset(
        scene, 0.01, tuple(episode(scene, n, seed=i, name=str(i)) for i, n in enumerate(lengths)), {"by": "hand"}
    )


@pytest.fixture
def folder(scene, tmp_path):
    data = dataset(scene)
    return write_recordings(
        tmp_path / "logs", data._replace(meta={**data.meta, "episodes": [{"seed": i} for i in range(3)]})
    )


def same(one, other, **tolerance):
    for left, right in zip(one.recordings, other.recordings, strict=True):
        for a, b in zip(left[1:], right[1:], strict=True):
            np.testing.assert_allclose(a, b, **{"rtol": 0, "atol": 0, **tolerance})


def test_what_is_written_is_read_again(scene, folder):
    found = read_recordings(folder, scene, smoothing="never")
    same(found, dataset(scene))
    assert [line["seed"] for line in found.meta["episodes"]] == [0, 1, 2]
    assert (found.dt, found.steps, found.substeps, found.meta["by"]) == (0.01, 36, 1, "hand")
    assert sorted(p.name for p in folder.iterdir()) == ["00000.npz", "00001.npz", "00002.npz", "meta.jsonl"]
    again = read_recordings(
        write_recordings(folder / "part", recordings.chosen(found, [2, 0])), scene, smoothing="never"
    )
    assert [line["seed"] for line in again.meta["episodes"]] == [2, 0]
    with pytest.raises(ValueError, match="already holds recordings"):
        write_recordings(folder, found)


def test_columns_are_named(scene):
    named = recordings.columns(scene)
    assert named.qpos[:6] == ("elbow", "wrist.qw", "wrist.qx", "wrist.qy", "wrist.qz", "cup.x")
    assert named.qvel[:5] == ("elbow", "wrist.wx", "wrist.wy", "wrist.wz", "cup.vx")
    assert (len(named.qpos), len(named.qvel), named.ctrl, named.intact) == (13, 11, ("motor",), ("thread",))


def test_a_split_keeps_every_episode_once(scene):
    many = dataset(scene, (2,) * 20)
    parts = recordings.split(many, (0.7, 0.15, 0.15), seed=3)
    assert [len(part.recordings) for part in parts] == [14, 3, 3]
    names = [r.name for part in parts for r in part.recordings]
    assert sorted(names, key=int) == [r.name for r in many.recordings]
    assert [r.name for part in recordings.split(many, seed=3) for r in part.recordings] == names
    assert [r.name for part in recordings.split(many, seed=4) for r in part.recordings] != names
    assert [len(p.recordings) for p in recordings.split(dataset(scene), (0.98, 0.01, 0.01))] == [1, 1, 1]
    with pytest.raises(ValueError, match="3 episodes cannot be split into 4"):
        recordings.split(dataset(scene), (0.25,) * 4)
    with pytest.raises(ValueError, match="add up to 1"):
        recordings.split(dataset(scene), (0.5, 0.4))


def test_windows_hold_the_rows_they_say(scene):
    data = dataset(scene)
    cut = recordings.windows(data, 4, stride=3, past=5)
    assert cut.qpos.shape == (5, 13, 3 + 2 + 4)
    assert cut.past.shape == (5, 1, 9)
    for w, (e, s) in enumerate(zip(cut.episode, cut.start, strict=True)):
        source = data.recordings[e]
        np.testing.assert_array_equal(cut.qpos[..., w], source.qpos[s : s + 5])
        np.testing.assert_array_equal(cut.intact[..., w], source.intact[s : s + 5])
        np.testing.assert_array_equal(cut.ctrl[..., w], source.ctrl[s : s + 4])
        before = source.ctrl[max(0, s - 5) : s]
        rest = np.zeros((5 - len(before), 1))
        np.testing.assert_array_equal(cut.past[..., w], np.concatenate([rest, before]))
    assert recordings.windows(data, 15).episode.tolist() == [2]
    with pytest.raises(ValueError, match="the longest of 3 episodes has 15"):
        recordings.windows(data, 16)


def test_tangent_steps_and_differences_are_inverse(scene):
    rng = np.random.default_rng(1)
    q = tangent.unit(scene.model, rng.normal(size=(13, 50)))
    v = rng.normal(size=(11, 50))
    v[:, :10] *= 1e-7
    np.testing.assert_allclose(tangent.difference(scene.model, q, tangent.advance(scene.model, q, v)), v, atol=1e-12)
    np.testing.assert_allclose(tangent.difference(scene.model, q, q), 0, atol=1e-15)


def changed(recording, field, where, value):
    array = getattr(recording, field).copy()
    array[where] = value
    return recording._replace(**{field: array})


@pytest.mark.parametrize(
    ("field", "where", "value", "said"),
    [
        ("qpos", (3, 0), np.nan, r"log: qpos row 3, column 0 \(elbow\) is nan; expected a finite"),
        ("ctrl", (2, 0), np.inf, r"log: ctrl row 2, column 0 \(motor\) is inf"),
        ("qvel", (4, 5), np.nan, r"log: qvel row 4, column 5 \(cup.vy\)"),
        ("qpos", (5, 0), 80.0, r"log: qpos row 5, column 0 \(elbow\) is 80; expected -1.571 to 1.571 rad .*degrees"),
        ("qpos", (6, 1), 0.2, r"log: qpos row 6, columns 1 to 4 \(wrist.qw …\): a quaternion of length .*expected 1"),
        ("qpos", (7, 12), 6.2, r"log: qpos row 7, column 12 \(spin\) leaps by 6.\d+ rad .*unwrap"),
        ("intact", (5, 0), 0.5, r"log: intact row 5, column 0 \(thread\) is 0.5; expected 1 \(holds\) or 0"),
        ("intact", (11, 0), 1.0, r"log: intact row 11, column 0 \(thread\) holds again"),
    ],
)
def test_what_cannot_be_is_refused_by_row_and_column(scene, field, where, value, said):
    with pytest.raises(ValueError, match=said):
        plausible.admitted(scene, changed(episode(scene), field, where, value), "log")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r._replace(qpos=r.qpos[:, :-1]), r"qpos has 12 columns; expected 13 columns: elbow, wrist.qw"),
        (lambda r: r._replace(ctrl=r.ctrl[:-1]), r"qpos has 13 rows; expected 12, one more state than the 11 controls"),
        (lambda r: r._replace(ctrl=r.ctrl[:0], qpos=r.qpos[:1], qvel=r.qvel[:1], intact=r.intact[:1]), "no steps"),
        (lambda r: r._replace(qvel=r.qvel[0]), "qvel has 1 axes; expected 11 columns"),
    ],
)
def test_sizes_are_checked(scene, change, said):
    with pytest.raises(ValueError, match=f"log: {said}"):
        plausible.admitted(scene, change(episode(scene)), "log")


def test_quaternions_are_made_unit(scene):
    rough = episode(scene)
    found = plausible.admitted(scene, rough._replace(qpos=np.round(rough.qpos, 3)), "log")
    np.testing.assert_allclose(np.linalg.norm(found.qpos[:, 1:5], axis=1), 1, atol=1e-15)


def edit_meta(folder, row, **changes):
    lines = (folder / "meta.jsonl").read_text().splitlines()
    lines[row] = json.dumps(json.loads(lines[row]) | changes)
    (folder / "meta.jsonl").write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("row", "changes", "said"),
    [
        (0, {"format": "pickle"}, r"meta.jsonl row 1: format is 'pickle'; expected 'hybridwm recordings 1'"),
        (0, {"digest": "abc", "scene": "other"}, r"row 1: recorded with scene 'other' \(abc\), .*other_physics"),
        (0, {"columns": {"qpos": ["x"]}}, r"row 1: qpos columns are x; scene 'scene' has elbow, wrist.qw"),
        (0, {"columns": 7}, r"row 1: qpos columns are None"),
        (0, {"dt": 0.015}, r"row 1: dt = 0.015 s: expected 0.01 s, the step of scene 'scene', or a multiple"),
        (0, {"dt": "fast"}, r"row 1: dt is 'fast'; expected seconds"),
        (0, {"dt": 0.02}, r"00000.npz: time row 1 comes 0.01 s after the row before; expected 0.02 s throughout"),
        (2, {"dt": 0.02}, r"00001.npz: rows 0.02 s apart by meta.jsonl; expected 0.01 s"),
        (
            2,
            {"file": "../secret.npz"},
            r"row 3: file is '../secret.npz'; expected the name of an .npz file in the same",
        ),
        (2, {"file": "lost.npz"}, r"row 3: lost.npz is no file"),
    ],
)
def test_a_meta_file_that_does_not_fit_is_refused(folder, scene, row, changes, said):
    edit_meta(folder, row, **changes)
    with pytest.raises(ValueError, match=said):
        read_recordings(folder, scene)


def test_logs_of_the_same_robot_with_other_masses_are_accepted_on_request(folder, scene):
    heavy = load_scene(BALLS.replace('size=".1"', 'size=".1" mass="9"'))
    with pytest.raises(ValueError, match="other_physics"):
        read_recordings(folder, heavy)
    assert read_recordings(folder, heavy, other_physics=True).scene is heavy


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]\n", b"\xff\xff", b'{"a":' * 9000], ids=["empty", "cut", "list", "bytes", "deep"]
)
def test_a_meta_file_that_is_none_is_refused(folder, scene, content):
    (folder / "meta.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=r"meta\.jsonl"):
        read_recordings(folder, scene)


def test_empty_and_missing_folders_are_refused(tmp_path, scene, folder):
    void = tmp_path / "void"
    void.mkdir()
    with pytest.raises(ValueError, match="an empty folder; expected recordings"):
        read_recordings(void, scene)
    with pytest.raises(ValueError, match="no such folder"):
        read_recordings(tmp_path / "nowhere", scene)
    (folder / "meta.jsonl").write_text((folder / "meta.jsonl").read_text().splitlines()[0])
    with pytest.raises(ValueError, match="lists no episodes"):
        read_recordings(folder, scene)


def test_velocities_are_in_all_files_or_in_none(folder, scene):
    with np.load(folder / "00001.npz") as arrays:
        kept = {name: arrays[name] for name in arrays.files if name != "qvel"}
    np.savez(folder / "00001.npz", **kept)
    with pytest.raises(ValueError, match=r"00001\.npz: lacks qvel, unlike the files before it"):
        read_recordings(folder, scene)


def npz(**members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive_:
        for name, data in members.items():
            archive_.writestr(name + ".npy", data)
    return content.getvalue()


def npy(array):
    content = io.BytesIO()
    np.lib.format.write_array(content, array, allow_pickle=array.dtype == object)
    return content.getvalue()


def header_of(shape):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a readable"),
        (b"PK\x03\x04 nonsense", "not a readable"),
        (npz(qpos=npy(np.zeros(3))), "qpos has 1 axes; expected 2"),
        (npz(qpos=npy(np.array([[{}]], dtype=object))), "of type object; expected plain numbers"),
        (npz(qpos=b"hello"), "not a NumPy array"),
        (npz(qpos=header_of((10**6 + 2, 1))), "1,000,002 rows; expected at most 1,000,000"),
        (npz(qpos=header_of((10**6, 10**6))), "promises 8,000,000,000,000 bytes"),
        (npz(qpos=header_of((-1, 4))), "NumPy array|axes"),
        (npz(secret=npy(np.zeros((1, 1)))), "holds 'secret'; expected time, qpos"),
        (npz(qvel=npy(np.zeros((1, 1))), ctrl=npy(np.zeros((1, 1)))), "no array 'qpos'"),
        (npz(**dict.fromkeys(("qpos", "qvel", "ctrl"), npy(np.zeros((3, 1))))), "no array 'intact'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_hostile_episode_is_refused(folder, scene, content, said):
    (folder / "00001.npz").write_bytes(content)
    with pytest.raises(ValueError, match=rf"00001\.npz.*({said})"):
        read_recordings(folder, scene)


def test_a_bomb_is_refused_before_it_is_unpacked(folder, scene, monkeypatch):
    monkeypatch.setattr(archive, "MAX_BYTES", 10_000)
    (folder / "00000.npz").write_bytes(npz(qpos=npy(np.zeros((2000, 13)))))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *a: pytest.fail("unpacked"))
    with pytest.raises(ValueError, match="unpacks to more than the 10,000 bytes"):
        read_recordings(folder, scene)


def test_a_flipped_byte_is_noticed(folder, scene):
    path = folder / "00002.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"00002\.npz"):
        read_recordings(folder, scene)


def test_links_are_not_followed(folder, scene, tmp_path):
    (folder / "00001.npz").rename(tmp_path / "outside.npz")
    (folder / "00001.npz").symlink_to(tmp_path / "outside.npz")
    with pytest.raises(ValueError, match="no file in"):
        read_recordings(folder, scene)
