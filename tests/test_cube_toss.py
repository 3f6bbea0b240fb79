"""The public files of the thrown cube: tensors read as data, units, twins, and what is wrong with a file."""

import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from experiments.measured.tosses import DT, read_throws
from hybridwm import cli
from hybridwm.logs.cube_toss import UNIT, import_throws
from hybridwm.logs.tensors import read_tensor


class Storage:
    """Stands for torch.FloatStorage in a pickle."""


class Tensor:
    """Pickles as torch pickles a dense tensor."""

    def __init__(self, array, rebuild):
        self.array, self.rebuild = array, rebuild

    def __reduce__(self):
        strides = tuple(s // self.array.itemsize for s in self.array.strides)
        return self.rebuild, (Storage(), 0, self.array.shape, strides, False, OrderedDict())


def _rebuild_tensor_v2(*args):
    raise AssertionError("the reader called something")


@pytest.fixture
def torch():
    """Names that a pickle of torch asks for; they are importable while it is written, and only then."""
    main, inner = types.ModuleType("torch"), types.ModuleType("torch._utils")
    vars(main)["FloatStorage"], vars(inner)["_rebuild_tensor_v2"], vars(main)["_utils"] = (
        type("FloatStorage", (), {"__module__": "torch"}),
        _rebuild_tensor_v2,
        inner,
    )
    return main


def described(torch, array, *, old=False):
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol=2)
    extra = (None,) if old else ()
    pickler.persistent_id = lambda x: (
        ("storage", torch.FloatStorage, "7", "cpu", array.size, *extra) if isinstance(x, Storage) else None
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_rebuild_tensor_v2, "__module__", "torch._utils")
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", torch._utils)
        pickler.dump(Tensor(array, torch._utils._rebuild_tensor_v2))
    return stream.getvalue()


def new_file(path, torch, array):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("throw/data.pkl", described(torch, array))
        archive.writestr("throw/data/7", array.tobytes())
        archive.writestr("throw/version", "3")
    return path


def old_file(path, torch, array):
    head = b"".join(
        pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "sizes": {"int": 4}})
    )
    numbers = array.size.to_bytes(8, "little") + array.tobytes()
    path.write_bytes(head + described(torch, array, old=True) + pickle.dumps(["7"], 2) + numbers)
    return path


def rows(seed=0, n=40, turn=0.0):
    """A cube that falls, slides and lies, in the public files' units."""
    rng = np.random.default_rng(seed)
    vel = np.outer(np.linspace(1, 0, n), [*rng.uniform(-10, 10, 2), 0.0])
    vel[:, 2] = np.where(np.arange(n) < 20, rng.uniform(-8, -6), 0)
    pos = np.cumsum(vel * DT, 0)
    pos[:, 2] += 0.98 - pos[-1, 2]
    yaw = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    quat = np.tile([np.cos(turn / 2), 0, 0, np.sin(turn / 2)], (n, 1))
    return np.hstack([pos @ yaw.T, quat, vel @ yaw.T, np.zeros((n, 9))]).astype(np.float32)


@pytest.mark.parametrize("write", [new_file, old_file])
def test_a_tensor_is_read_from_both_forms(tmp_path, torch, write):
    array = rows()[None]
    np.testing.assert_array_equal(read_tensor(write(tmp_path / "0.pt", torch, array)), array)


@pytest.mark.parametrize("write", [new_file, old_file])
def test_half_a_tensor_is_refused(tmp_path, torch, write):
    path = write(tmp_path / "0.pt", torch, rows()[None])
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"0\.pt is no whole PyTorch file"):
        read_tensor(path)


def test_nothing_in_a_file_is_run(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(os, "system", ran.append)

    class Evil:
        def __reduce__(self):
            return os.system, ("touch owned",)

    path = tmp_path / "0.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(Evil(), 2).replace(b"test_cube_toss", b"os"))
    with pytest.raises(ValueError, match="not one tensor"):
        read_tensor(path)
    assert ran == []


def test_a_folder_becomes_a_set_that_the_study_reads(tmp_path, torch):
    public, out = tmp_path / "public", tmp_path / "data"
    public.mkdir()
    for i in range(3):
        new_file(public / f"{i}.pt", torch, rows(i)[None])
    np.savetxt(public / "10.csv", rows(6), delimiter=",", header="x,y", comments="")
    new_file(public / "11.pt", torch, rows(1, turn=0.8)[None, 3:])  # the second again, turned and cut
    assert cli.main(["import", "cube-toss", str(public), "--out", str(out)]) == 0
    throws = read_throws(out)
    assert len(throws) == 4
    np.testing.assert_allclose(throws[1].pos, rows(1)[:, :3] * UNIT, rtol=1e-6)
    assert import_throws(public).twins == (("11.pt", "1.pt"),)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[:10], "10 rows; a throw has at least"),
        (lambda x: x[:, :12], "expected rows of 13 or 19"),
        (lambda x: np.hstack([x[:, :3] * 0.0524, x[:, 3:]]), "in half widths: other units"),
        (lambda x: np.hstack([x[:, :3], 2 * x[:, 3:7], x[:, 7:]]), "no unit quaternion"),
    ],
)
def test_what_is_wrong_with_a_public_file_is_told(tmp_path, change, words, capsys):
    np.savetxt(tmp_path / "0.csv", change(rows()), delimiter=",")
    assert cli.main(["import", "cube-toss", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_import_says_what_it_needs(tmp_path, capsys):
    for words in (["cube-toss"], ["cube-toss", str(tmp_path), "--scene", "arm"], [str(tmp_path)]):
        assert cli.main(["import", *words, "--out", str(tmp_path / "out")]) == 2
        assert "needs one" in capsys.readouterr().err
