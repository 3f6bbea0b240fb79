"""Certificates: a plan that keeps its promise, and every way in which a promise can be broken."""

import jax.numpy as jnp
import numpy as np
import pytest

import physics
import planners as pl
from hybridwm.tasks.certificate import certify, certify_controls, witness
from hybridwm.tasks.closed_loop import drive, driver
from hybridwm.tasks.plan import plan_task
from hybridwm.tasks.setting import build_task

HOLD = {
    "scene": "pendulum", "horizon": 0.6, "rate": 50, "knots": 7, "planner": "cem",
    "options": {"samples": 64, "iterations": 6},
    "cost": [{"of": "joint", "joint": "hinge", "target": 0.2, "weight": 20, "when": "always"}],
    "goal": [{"of": "joint", "joint": "hinge", "target": 0.2, "within": 0.05}],
    "limits": [{"of": "joint_speed", "joint": "hinge", "max": 3}],
}  # fmt: skip


@pytest.fixture(scope="module")
def setting():
    return build_task(HOLD)


@pytest.fixture(scope="module")
def found(setting):
    return plan_task(setting, rounds=4)


def test_a_good_plan_is_certified(found):
    certificate = found.certificate
    assert int(found.plan.status) == pl.Status.OK
    assert certificate.kept
    assert certificate.met
    (gap,) = certificate.gaps
    assert (gap.quantity, gap.unit) == ("hinge", "rad")
    assert gap.largest < 1e-4, "the same physics, float32 against float64, 120 steps"
    assert [outcome.what for outcome in certificate.outcomes] == [
        "hinge joint within 0.05 rad",
        "hinge joint_speed ≤ 3",
    ]
    assert certificate.describe()[0] == "kept: everything came out as promised in MuJoCo C"
    assert certificate.qpos.shape == (31, 1)


def test_a_gap_is_measured_and_a_broken_promise_is_named(setting, found):
    plan = found.plan
    lying = plan._replace(states=plan.states._replace(qpos=plan.states.qpos.at[-1].add(0.3)))
    certificate = certify(setting, lying)
    assert certificate.gaps[0].end == pytest.approx(0.3, abs=1e-4)
    assert certificate.gaps[0].at_s == pytest.approx(0.6)
    goal, limit = certificate.outcomes
    assert (goal.kept, goal.met, limit.kept) == (False, True, True), "reality reaches what the plan did not promise"
    assert not certificate.kept
    assert certificate.describe()[0].startswith("BROKEN")


def test_another_reality_breaks_the_promise(setting, found):
    heavy = physics.nominal(setting.scene)
    world = physics.Reality(setting.scene, params=heavy._replace(actuator_gain=np.array([0.3])), substeps=2)
    certificate = certify(setting, found.plan, reality=world)
    assert certificate.outcomes[0].what.startswith("hinge joint")
    assert not certificate.kept
    assert not certificate.met


def test_a_problem_of_ones_own(setting, found):
    certificate = certify_controls(setting.scene, setting.problem, found.plan, setting.state, goal=setting.params.goal)
    assert [outcome.what for outcome in certificate.outcomes] == ["goal within 1", "constraint 0"]
    assert certificate.kept


def test_closed_loop_reaches_the_goal(setting):
    controller = driver(setting)
    driven = drive(setting, controller, setting.begin([1.0], [0.0]), steps=60)
    assert driven.off.shape == (61, 2)
    assert driven.met(setting)
    assert driven.off[0, 0] == pytest.approx(0.8, abs=1e-6)
    again = drive(setting, controller, setting.begin([1.0], [0.0]), steps=60)
    np.testing.assert_array_equal(driven.off, again.off, "a loop in virtual time is a function of its seed")
    assert not drive(setting, controller, setting.begin([1.0], [0.0]), steps=3).met(setting)
    assert len(drive(setting, controller, steps=10, replan=5).records) == 2


class Rod:
    """A made-up promise for the rod under full torque: no planning, no compiling."""

    def __init__(self):
        self.scene = physics.load_scene("snapping_rod")
        qpos, qvel = self.scene.home()
        body = physics.brax_engine(self.scene).init(physics.nominal(self.scene), qpos, qvel)
        self.state = body
        self.model = pl.Model(lambda *_: (None, None), [-5.0], [5.0], 0.01, ("weld",))

    def certify(self, *, chance, step, forbidden=(), state=None, **options):
        many = 30
        state = state or self.state
        path = type(state)(*(jnp.repeat(jnp.asarray(part)[None], many, axis=0) for part in state))
        zero = jnp.zeros(())
        plan = pl.Plan(
            ctrls=jnp.full((many, 1), 5.0), knots=jnp.zeros((1, 1)), states=path, cost=zero, cost_start=zero, distance=zero,
            violation=zero, event_probability=jnp.asarray([chance]), event_step=jnp.asarray([step]),
            schedule=jnp.asarray([-2]), spread=zero, trust=zero, status=zero, valid=zero, samples=zero,
        )  # fmt: skip
        problem = pl.Problem(self.model, pl.Cost(lambda *_: zero), pl.hold(many), forbidden=forbidden)
        return certify_controls(self.scene, problem, plan, state, **options)


@pytest.fixture(scope="module")
def rod():
    return Rod()


def test_a_break_must_come_and_come_in_time(rod):
    said = rod.certify(chance=1.0, step=0).outcomes[0].real
    real_s = float(said.removeprefix("breaks at ").removesuffix(" s"))
    assert 0.02 < real_s < 0.25, "5 N m load the weld a little above what it can bear"
    step = round(real_s / 0.01) - 1
    for late, kept in ((0, True), (1, True), (8, False)):
        (outcome,) = rod.certify(chance=1.0, step=step + late).outcomes
        assert outcome.kept == kept, late
    (outcome,) = rod.certify(chance=0.1, step=0, forbidden=("weld",)).outcomes
    assert not outcome.kept, "it was to hold"
    assert not outcome.met


def test_a_bond_that_holds_in_reality_breaks_the_promise_of_a_break(rod):
    strong = physics.Reality(rod.scene, [physics.LoadBreak(bond="weld", strength=(400.0, 15.0))], substeps=1)
    (outcome,) = rod.certify(chance=1.0, step=5, reality=strong).outcomes
    assert (outcome.real, outcome.kept) == ("holds", False)
    (outcome,) = rod.certify(chance=0.1, step=5, reality=strong).outcomes
    assert outcome.kept


def test_a_broken_start_is_replayed_broken(rod):
    broken = rod.state._replace(intact=jnp.zeros(1))
    certificate = rod.certify(chance=0.0, step=0, state=broken)
    assert certificate.outcomes[0].promised == "is broken already"
    assert certificate.qpos[-1, 3] < certificate.qpos[0, 3] - 0.1, "the outer link falls"
    whole = rod.certify(chance=0.0, step=0, reality=witness(rod.scene, substeps=4))
    assert [gap.quantity for gap in whole.gaps] == ["hinge", "outer position", "outer turn"]
