"""The command `plan`: its table, its files, its exit codes, and one sentence for every mistake."""

import csv
import json
import os

import numpy as np
import pytest
from children import one_sentence

from hybridwm.tasks.closed_loop import drive, driver
from hybridwm.tasks.setting import build_task
from hybridwm.tasks.starting import start_of
from hybridwm.tasks.task import Start

TASK = """
scene: pendulum
horizon: 0.4
rate: 50
knots: 5
options: {samples: 64, iterations: 4}
cost: [{of: joint, joint: hinge, target: 0.1, weight: 20, when: always}]
goal: [{of: joint, joint: hinge, target: 0.1, within: WITHIN}]
"""


@pytest.fixture
def task(tmp_path):
    def write(within="0.05", more=""):
        (tmp_path / "my.yaml").write_text(TASK.replace("WITHIN", within) + more)
        return "my.yaml"

    return write


def test_a_plan_and_its_files(hybridwm, task, tmp_path):
    child = hybridwm("plan", "--task", task(), "--out", "out/plan", "--closed-loop")
    assert child.returncode == 0, child.stderr
    for said in ("OK: The predicted plan meets", "hinge joint within 0.05 rad", "kept", "closed loop: reached"):
        assert said in child.stdout
    out = tmp_path / "out/plan"
    files = {"plan.npz", "controls.csv", "plan.png", "results.json", "closed_loop.npz"}
    assert {path.name for path in out.iterdir()} == files
    with np.load(out / "plan.npz", allow_pickle=False) as plan:
        assert plan["ctrl"].shape == (20, 1)
        np.testing.assert_allclose(plan["promised_qpos"], plan["real_qpos"], atol=1e-4)
        ctrl = plan["ctrl"]
    rows = list(csv.reader((out / "controls.csv").open()))
    assert rows[0] == ["time_s", "torque"]
    np.testing.assert_allclose([float(row[1]) for row in rows[1:]], ctrl[:, 0], rtol=1e-6)
    body = json.loads((out / "results.json").read_text())
    assert body["numbers"]["status"] == "OK"
    assert body["numbers"]["certificate"]["kept"] is True
    assert [claim["holds"] for claim in body["claims"]] == [True]
    assert hybridwm("claims", "out/plan").returncode == 0


def test_what_cannot_be_reached_is_said_and_written(hybridwm, task, tmp_path):
    """The motor cannot hold the pendulum out sideways."""
    child = hybridwm("plan", "--task", task(more="start: {joints: {hinge: 3}}\n"), "--out", "out", "--rounds", 1)
    assert child.returncode == 3, child.stderr
    assert "INFEASIBLE" in child.stdout
    assert json.loads((tmp_path / "out/results.json").read_text())["numbers"]["status"] == "INFEASIBLE"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--task", "nonsense"], "'nonsense' is neither a file nor a shipped task"),
        (["--task", "none.yaml"], "none.yaml cannot be read"),
        (["--task", "my.yaml", "--scene", "pendlum"], "pendlum"),
        (["--task", "my.yaml", "--model", "gone"], "gone"),
        (["--task", "my.yaml", "--rounds", "0"], "rounds is 0; it must be at least 1"),
        (["--tsk", "my.yaml"], "--task"),
        (["--task", "my.yaml", "--seeed", "1"], "did you mean --seed?"),
        (["--task", "my.yaml", "--out", "my.yaml"], "is a file; --out must be a folder"),
        (["--task", "my.yaml", "--out", "/dev/null/x"], "/dev/null/x"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_sentence(args, said, hybridwm, task, tmp_path):
    task()
    child = hybridwm("plan", *args, *([] if "--out" in args else ["--out", "out"]))
    assert one_sentence(child), child.stderr + child.stdout
    assert said in child.stderr
    assert not list(tmp_path.rglob("results.json"))
    assert not list(tmp_path.rglob(".plan-*")), "nothing half-written stays"


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_planned(hybridwm, task, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    child = hybridwm("plan", "--task", task(), "--out", closed)
    assert one_sentence(child)
    assert "cannot be written" in child.stderr


def test_help_names_the_exit_code(hybridwm):
    child = hybridwm("plan", "--help")
    assert child.returncode == 0
    assert "--closed-loop" in child.stdout


STARTS = {
    "pendulum_swingup": Start(joints={"hinge": 0.4}, speeds={"hinge": 1.0}),
    "cartpole_swingup": Start(joints={"hinge": 2.6, "x": 0.2}),
    "push_box": Start(),
    "push_tblock": Start(joints={"block": (0.1, -0.1, 0.025, 0.9, 0.0, 0.0, 0.436)}),
    "reach": Start(),
    "keep_rod": Start(joints={"hinge": 0.2}),
    "snap_rod": Start(joints={"hinge": -0.2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STARTS)
def test_every_shipped_task_is_solved_in_closed_loop_in_mujoco(name):
    setting = build_task(name)
    state = setting.begin(*start_of(setting.scene, STARTS[name]))
    driven = drive(setting, driver(setting), state, replan=10 if name.endswith("rod") else 1)
    assert driven.met(setting), driven.off[-1]
