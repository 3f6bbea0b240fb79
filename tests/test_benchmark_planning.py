"""The planning benchmark: what it claims, what it says where a peer is absent, and one small race in real children."""

import os
import subprocess
import sys

import numpy as np
import pytest
from children import ROOT

from hybridwm import results

sys.path.insert(0, str(ROOT / "benchmarks"))
from plans import report, targets, wishes

PYTHON = os.environ | {"PYTHONPATH": str(ROOT)}


def bench(*args, timeout=60):
    command = [sys.executable, ROOT / "benchmarks" / "planning.py", *map(str, args)]
    return subprocess.run(command, env=PYTHON, timeout=timeout, capture_output=True, text=True)


def cell(*turns):
    return {"turns_s": [list(turn) for turn in turns], "prepared": {"seconds": 1.0, "versions": {"jax": "1"}}}


RACES = {
    "pushed_box": {"mujoco": cell([0.030, 0.034], [0.032]), "hybrid": cell([0.016], [0.008])},
    "push_t": {"hydrax": cell([0.030], [0.030]), "hybridwm": cell([0.010], [0.020]), "judo": {"not": "left out: give --judo"}},
    "cart_pole": {"hydrax": {"not": "left out: give --hydrax"}, "hybridwm": cell([0.001])},
}  # fmt: skip
MS = {"p50": 8.0, "p95": 9.0, "p99": 10.0, "p99.9": 11.0, "max": 50.0}
DEADLINE = {
    "calls": 10_000, "budget_ms": 20.0, "took_ms": MS, "without_waiting_ms": MS, "late": 1, "late_by_waiting": 1,
    "over_twice": 1, "over_twice_by_waiting": 0, "compiled": 0, "rounds": {"3": 10_000},
}  # fmt: skip


def test_claims_are_ratios_of_medians_and_a_peer_that_is_absent_is_no_success():
    made = {claim.id: claim for claim in targets.claims(RACES, {"cartpole": DEADLINE})}
    hybrid = made["planning_pushed_box_hybrid_against_mujoco"]
    assert hybrid.value == pytest.approx(0.012 / 0.032)
    assert hybrid.interval == pytest.approx((0.25, 0.5))
    assert made["planning_push_t_hydrax_against_hybridwm"].value == pytest.approx(2.0)
    assert not made["planning_push_t_hydrax_against_hybridwm"].holds, "2 is less than 3"
    assert made["planning_cart_pole_hydrax_against_hybridwm"].value is None
    assert "planning_cartpole_physics_against_mujoco" not in made, "nobody raced there"
    kept = {
        name.removeprefix("planning_deadline_cartpole_"): claim.holds
        for name, claim in made.items()
        if "deadline" in name
    }
    assert kept == {"p999": True, "over_twice": False, "compiled": True}


def test_the_report_holds_every_rival_and_every_refusal(tmp_path):
    shipped = {"push_box": {"cem": {
        "hybridwm": cell([0.01]) | {"samples": 512, "steps": 30, "seconds": 3.0,
                                    "search": {"seconds": [0.1, 0.1], "costs": [2.0, 1.0], "status": "OK"}},
        "brax": {"not": "its gradient is not finite"}}}}  # fmt: skip
    numbers = {
        "races": RACES,
        "deadlines": {"cartpole": DEADLINE},
        "shipped": shipped,
        "cores_taken": 0.0,
        "commands": ["python benchmarks/planning.py"],
    }
    written = results.write(tmp_path, study="planning", config={}, numbers=numbers, claims=[])
    report.table(written, tmp_path / "table.md")
    report.draw_races(written, tmp_path / "races.png")
    report.draw_search(written, tmp_path / "search.png")
    text = (tmp_path / "table.md").read_text()
    for said in ("| hydrax | left out: give --hydrax", "its gradient is not finite", "longest 50.00 ms", "1.54e+06"):
        assert said in text
    assert (tmp_path / "races.png").stat().st_size > 10_000


def test_costs_of_the_peers_are_least_where_they_should_be():
    upright, still = np.array([[0.0], [np.pi]]), np.zeros((2, 1))
    assert wishes.total("cart_pole", np, upright, still, still[:1]) == pytest.approx(0)
    assert wishes.total("cart_pole", np, 0 * upright, still, still[:1]) == pytest.approx(4 * 10.01)
    there = np.array([[0.0], [0.0], [2 * np.pi], [0.0], [-0.1]])
    assert wishes.total("push_t", np, there, None or np.zeros((5, 1)), still) < 1e-6


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--tasks", "push_bx"], "push_bx"),
        (["--hydrax", "/no/python"], "there is no such interpreter"),
        (["--rounds", "-1"], "must be positive"),
        (["--races", "moon"], "moon"),
    ],
)
def test_mistakes_are_refused(args, said, tmp_path):
    child = bench(*args, "--out", tmp_path)
    assert child.returncode == 2
    assert said in child.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_small_race_and_a_few_deadlines(tmp_path):
    args = ("--parts", "races", "shipped", "--races", "cartpole", "--rounds", 2, "--tasks", "pendulum_swingup")
    child = bench(*args, "--planners", "cem", "--engines", "hybridwm", "--out", tmp_path, timeout=300)
    assert child.returncode == 0, child.stderr
    numbers = results.read(tmp_path).body["numbers"]
    assert len(numbers["races"]["cartpole"]["physics"]["turns_s"]) == 2
    search = numbers["shipped"]["pendulum_swingup"]["cem"]["hybridwm"]["search"]
    assert search["costs"][-1] < search["costs"][0]
    again = bench(*args, "--planners", "cem", "--engines", "hybridwm", "--out", tmp_path, "--resume", timeout=60)
    assert again.returncode == 0
    assert results.read(tmp_path).body["numbers"]["races"] == numbers["races"], "kept, not measured again"
