"""The engine benchmark, as small as it gets: two rivals on one contact-free scene, in real child processes."""

import os
import subprocess
import sys

import numpy as np
import pytest
from children import ROOT

from hybridwm import results

sys.path.insert(0, str(ROOT / "benchmarks"))
from race import report, targets
from race.parent import Refused, engine

SMALL = ("cartpole", "--worlds", "64", "--rounds", "2", "--platform", "cpu", "--rivals", "mujoco", "hybridwm")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "benchmarks" / "engine.py", "--scenes", *SMALL, "--out", folder]
    subprocess.run(command, check=True, env=env, timeout=120, capture_output=True)
    return folder


def test_it_writes_what_the_reader_reads(out):
    found = results.read(out)
    assert found.study == "engine"
    assert found.claims == ()  # none is made of this scene
    assert {path.name for path in out.iterdir()} == {"results.json", "table.md", "engine.png"}
    cells = found.body["numbers"]["cells"]["cartpole"]["64"]
    assert set(cells) == {"mujoco", "hybridwm"}
    for cell in cells.values():
        assert len(cell["rounds_us"]) == 2
        assert min(cell["rounds_us"]) <= cell["us"] <= max(cell["rounds_us"])
        assert cell["memory_mib"] > 10
    assert cells["mujoco"]["error"] < 1e-6  # the reference itself, but for the tolerance of its solver
    assert 0 < cells["hybridwm"]["error"] < 1e-3  # float32: tens of roundings of 6e-8 in each of 50 steps would be 1e-4
    parts = cells["hybridwm"]["cold"]
    assert parts["first_call"] == pytest.approx(
        sum(v for k, v in parts.items() if k not in ("first_call", "processor"))
    )


def test_the_table_has_a_row_for_each_rival(out):
    text = (out / "table.md").read_text()
    assert "## cartpole, 64 worlds × 50 steps" in text
    assert text.count("| mujoco.rollout |") == text.count("| hybridwm |") == 1
    assert "jax " in text.splitlines()[2]


def test_an_unknown_scene_is_refused(tmp_path):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "benchmarks" / "engine.py", "--scenes", "moon", "--out", tmp_path]
    child = subprocess.run(command, env=env, timeout=60, capture_output=True, text=True)
    assert child.returncode == 2
    assert "moon" in child.stderr


def test_claims_are_ratios_of_medians():
    def cell(*rounds):
        return {"us": float(np.median(rounds)), "rounds_us": list(rounds)}

    found = {"mujoco": cell(2.0, 4.0, 3.0), "hybridwm": cell(2.0, 2.0, 3.0), "mjx": {"not": "too slow"}}
    made = {claim.id: claim for claim in targets.claims({"pushed_box": {"512": found}}, 512)}
    against_c = made["engine_pushed_box_against_c"]
    assert against_c.value == pytest.approx(2 / 3)
    assert against_c.interval == pytest.approx((0.5, 1.0))
    assert against_c.holds
    assert made["engine_pushed_box_against_mjx"].value is None
    assert not made["engine_pushed_box_against_mjx"].holds
    assert "engine_pushed_box_against_brax" not in made  # nobody asked for it
    assert not targets.claims({"pushed_box": {"64": found}}, 512)


def test_a_silent_child_is_ended(tmp_path):
    with engine("hybridwm", "cartpole", tmp_path / "none.npz", cache=tmp_path, platform="cpu") as child:
        with pytest.raises(Refused, match="no answer to 'prepare' within 0 s"):
            child.ask("prepare", 0.01)
        assert child._process.wait(timeout=10) != 0
    with (
        engine("hybridwm", "cartpole", tmp_path / "none.npz", cache=tmp_path, platform="cpu") as child,
        pytest.raises(Refused, match=r"none\.npz"),
    ):
        child.ask("prepare", 60)


def test_a_refusal_is_a_sentence_of_the_report():
    found = {"mujoco": {"not": "out of time"}, "brax": {"not": "ignores welds"}}
    assert "ignores welds" in report.lines("glass", 512, found)
    assert report.devices({"glass": {"512": found}}) == set()
