"""Tasks: what may be written, what is refused and in which words, and that quantities are those of MuJoCo C."""

import textwrap
from dataclasses import replace

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

import physics
from hybridwm.tasks.setting import build_task
from hybridwm.tasks.starting import start_of
from hybridwm.tasks.task import Quantity, Start, load_task, retargeted, shipped_tasks
from hybridwm.tasks.terms import gauge, target_of
from physics.stillness import still

SWING = """
scene: cartpole
horizon: 0.4
rate: 50
options: {samples: 16, iterations: 2, elites: 4}
cost:
  - {of: joint, joint: hinge, target: 0, weight: 4}
  - {of: effort, weight: 1e-2}
goal:
  - {of: joint, joint: hinge, target: 0, within: 0.1}
limits:
  - {of: joint, joint: x, min: -1.7, max: 1.7}
"""


def written(tmp_path, text):
    path = tmp_path / "my.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def test_a_task_is_read_as_written(tmp_path):
    task = load_task(written(tmp_path, SWING))
    assert (task.scene, task.horizon, task.options["samples"]) == ("cartpole", 0.4, 16)
    assert task.cost[1].weight == 0.01, "YAML reads 1e-2 as a word"
    assert load_task(task) is task
    assert load_task({"horizon": 1, "rate": 10, "cost": [{"of": "effort"}]}).cost[0].when == "running"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("horizon: 0.4", "horizn: 0.4"), "unknown key 'horizn'; did you mean 'horizon'?"),
        (("rate: 50", ""), "'rate' is missing"),
        (("rate: 50", "rate: .nan"), "rate is 'nan'; it must be a finite number"),
        (("rate: 50", "rate: [50]"), "it must be a finite number"),
        (("rate: 50", "rate: true"), "it must be a finite number"),
        (("rate: 50", "rate: 50\nknots: 2.5"), "knots is '2.5'; it must be a whole number"),
        (("rate: 50", "rate: 50\nplanner: cm"), "planner is 'cm'; did you mean 'cem'?"),
        (("of: effort", "of: efort"), "did you mean 'effort'?"),
        (("weight: 4", "wieght: 4"), "cost[0]: unknown key 'wieght'; did you mean 'weight'?"),
        (("rate: 50", "rate: 50\nrate: 60"), "'rate' is given twice"),
        (("rate: 50", "rate: 50\nstart: &a {joints: {}}\nevents: [*a]"), "aliases are not read"),
        (("cost:", "cost: ]"), "is no YAML"),
        (("rate: 50", "rate: 50\nother: 1"), "unknown key 'other'"),
        (("rate: 50", "rate: 50\nabout: !!python/object:os.system {}"), "is no YAML"),
        (("rate: 50", "rate: 50\nabout: " + "[" * 3000), "is "),
        (("rate: 50", "rate: 50\nabout: " + "x" * 70000), "is larger than 64 KiB"),
    ],
)
def test_what_is_no_task_is_refused(change, said, tmp_path):
    path = written(tmp_path, SWING.replace(*change))
    with pytest.raises(ValueError, match=r"my\.yaml") as refused:
        load_task(path)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_and_names_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"did you mean 'pendulum_swingup'\?"):
        load_task("pendulum_swing")
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        load_task(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="no text in UTF-8"):
        load_task(tmp_path / "bytes.yaml")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("rate: 50", "rate: 30"), "rate 30 Hz does not fit the model, which steps 100 times a second: take a whole part"),
        (("rate: 50", "rate: 500"), "such as 100 or 50 Hz"),
        (("rate: 50", "rate: -1"), "must be positive"),
        (("horizon: 0.4", "horizon: 0.41"), "such as 0.4 or 0.42 s"),
        (("horizon: 0.4", "horizon: -3"), "does not fit the model"),
        (("horizon: 0.4", "horizon: 9000"), "at most 10000 fit"),
        (("max: 1.7", "max: -0.5"), "limit x joint ≤ -0.5 excludes the present state, which is 0.5 m beyond it"),
        (("min: -1.7, max: 1.7", "min: 2, max: 1"), "min 2 is not below max 1"),
        (("min: -1.7, max: 1.7", ""), "give min, max, or both"),
        (("joint: x", "joint: hing"), "joint 'hing': not in scene 'cartpole'; did you mean 'hinge'?"),
        (("of: joint, joint: hinge, target: 0, weight: 4", "of: position, site: tp, target: [0, 0, 0]"),
         "site 'tp': not in scene 'cartpole'; did you mean 'tip'?"),
        (("of: joint, joint: hinge, target: 0, weight: 4", "of: height, body: prop, target: 0"), "did you mean 'pole'?"),
        (("of: joint, joint: hinge, target: 0, weight: 4", "of: height, target: 0"), "needs exactly one of: body, site"),
        (("of: joint, joint: hinge, target: 0, weight: 4", "of: position, site: tip, target: 0"), "it needs 3"),
        (("of: joint, joint: hinge, target: 0, weight: 4", "of: position, site: tip"), "give a target of 3 numbers"),
        (("of: joint, joint: hinge, target: 0, weight: 4", "of: sensor, sensor: angle, target: 0"), "there is none"),
        (("of: effort", "of: effort, actuator: psh"), "did you mean 'push'?"),
        (("weight: 4", "weight: -4"), "must not be negative"),
        (("within: 0.1", "within: 0"), "it must be positive"),
        (("options: {samples", "options: {sample"), "cem has no option 'sample'; did you mean 'samples'?"),
        (("samples: 16", "samples: 16.5"), "samples is 16.5; it must be a whole number"),
        (("rate: 50", "rate: 50\nknots: 900"), "needs between 2 and 20 knots, got 900"),
        (("rate: 50", "rate: 50\nevents: [{bond: weld, must: hold}]"), "bond 'weld' is not among those that may break"),
        (("options: {samples: 16, iterations: 2, elites: 4}", "planner: joint"), "needs a model with events"),
        (("rate: 50", "rate: 50\nstart: {joints: {hinge: [1, 2]}}"), "start.joints.hinge has 2 numbers, it needs 1"),
        (("rate: 50", "rate: 50\nstart: {broken: [weld]}"), "bond 'weld'"),
        (("rate: 50", "rate: 50\ndelta: 0.7"), "delta must lie between 0 and 0.5"),
        (("scene: cartpole", "scene: cartpool"), "cartpool"),
        (("scene: cartpole", ""), "the task names no scene"),
        (("scene: cartpole", "scene: falling_box"), "has no actuators"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_scene_is_refused(change, said, tmp_path):
    with pytest.raises(ValueError, match=r"\w") as refused:
        build_task(written(tmp_path, SWING.replace(*change)))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", shipped_tasks())
def test_every_shipped_task_fits_its_scene(name):
    setting = build_task(name)
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf)[..., None], (setting.params.goal, setting.state))
    ctrl = jnp.zeros((setting.problem.nu, 1))
    assert float(setting.problem.cost.running(wide[0], wide[1], ctrl)[0]) >= 0
    assert setting.task.about
    assert setting.checks, "it can be judged"


QUANTITIES = (
    Quantity(of="position", site="tip"),
    Quantity(of="position", body="tool", axes="xz"),
    Quantity(of="velocity", site="tip"),
    Quantity(of="spin", body="link6"),
    Quantity(of="orientation", body="tool"),
    Quantity(of="heading", body="link6"),
    Quantity(of="tilt", site="tip"),
    Quantity(of="distance", site="tip", to_body="link3"),
    Quantity(of="height", body="link6"),
    Quantity(of="joint", joint="joint4"),
    Quantity(of="joint_speed", joint="joint4"),
    Quantity(of="sensor", sensor="tip_turn"),
)


def test_quantities_are_those_of_mujoco():
    """Two random states of the arm at once; 1e-5 is float32 with lengths and speeds of a few units."""
    scene = physics.load_scene("arm")
    meter = gauge(scene, QUANTITIES)
    rng = np.random.default_rng(0)
    qpos, qvel = rng.normal(size=(7, 2)), rng.normal(size=(7, 2))
    state = physics.brax_engine(scene).init(physics.nominal(scene), qpos, qvel)
    look = jax.jit(lambda state: [measure.value(meter.look(state)) for measure in meter.measures])
    found = [np.asarray(value) for value in look(state)]
    for world in range(2):
        for value, exact in zip(found, exact_values(scene, qpos[:, world], qvel[:, world]), strict=True):
            np.testing.assert_allclose(value[:, world], np.atleast_1d(exact), atol=1e-5)


def exact_values(scene, qpos, qvel):
    m = scene.model
    d = mujoco.MjData(m)
    d.qpos[:], d.qvel[:] = qpos, qvel
    mujoco.mj_forward(m, d)
    tip, tool, mat = d.site("tip"), scene.body("tool"), np.zeros(9)
    turn = np.zeros(4)
    at = d.xpos[tool.body] + d.xmat[tool.body].reshape(3, 3) @ tool.pos
    mujoco.mju_mulQuat(turn, d.xquat[tool.body], tool.quat)
    spin, tip_speed = np.zeros(6), np.zeros(6)
    mujoco.mj_objectVelocity(m, d, mujoco.mjtObj.mjOBJ_XBODY, m.body("link6").id, spin, 0)
    mujoco.mj_objectVelocity(m, d, mujoco.mjtObj.mjOBJ_SITE, m.site("tip").id, tip_speed, 0)
    rot = d.body("link6").xmat.reshape(3, 3)
    mat = tip.xmat.reshape(3, 3)
    return [
        tip.xpos, at[[0, 2]], tip_speed[3:], spin[:3], turn, np.arctan2(rot[1, 0], rot[0, 0]), np.arccos(mat[2, 2]),
        np.linalg.norm(tip.xpos - d.body("link3").xpos), d.body("link6").xpos[2], qpos[3], qvel[3],
        d.sensor("tip_turn").data,
    ]  # fmt: skip


def test_angles_are_compared_around_the_circle():
    scene = physics.load_scene("pendulum")
    hinge, turn = (
        Quantity(of="joint", joint="hinge"),
        Quantity(of="orientation", body="link"),
    )
    meter = gauge(scene, (hinge, turn))
    state = physics.brax_engine(scene).init(
        physics.nominal(scene), np.array([[3.0, 3.0 + 4 * np.pi]]), np.zeros((1, 2))
    )
    look, aims = (
        meter.look(state),
        (np.array([[-3.0]]), target_of(turn, meter.measures[1], (0.0, 0.0, 2.0, 0.0))[:, None]),
    )
    for measure, aim, away in zip(meter.measures, aims, (2 * np.pi - 6.0, np.pi - 3.0), strict=True):
        np.testing.assert_allclose(measure.off(look, jnp.asarray(aim, float)), away, atol=2e-6)
    assert look.frames is not None
    gradient = jax.grad(lambda aim: jnp.sum(meter.measures[1].off(look, aim)))(jnp.asarray(look.frames.quat[0, :, :1]))
    assert np.isfinite(gradient).all(), "at no distance too"


def test_targets_are_traced(tmp_path):
    setting = build_task(written(tmp_path, SWING))
    traced = []

    @jax.jit
    def cost(aim, state):
        traced.append(None)
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf)[..., None], (aim, state))
        return setting.problem.cost.running(wide[0], wide[1], jnp.zeros((1, 1)))[0]

    near, far = (setting.aim(retargeted(setting.task, "joint", target)) for target in (3.0, 0.0))
    assert cost(near, setting.state) < cost(far, setting.state), "the pole hangs at π"
    assert len(traced) == 1


def test_the_start_carries_welded_bodies_along():
    """The rod, turned about its hinge: the outer link stays in line, and turns about the hinge too."""
    scene = physics.load_scene("snapping_rod")
    qpos, qvel, intact = start_of(scene, Start(joints={"hinge": 0.7}, speeds={"hinge": 2.0}))
    np.testing.assert_allclose(qpos[1:4], [-0.3 * np.sin(0.7), 0, 0.9 - 0.3 * np.cos(0.7)], atol=1e-6)
    np.testing.assert_allclose(qpos[4:], [np.cos(0.35), 0, np.sin(0.35), 0], atol=1e-6)
    np.testing.assert_allclose(qvel[1:4], 2.0 * 0.3 * np.array([-np.cos(0.7), 0, np.sin(0.7)]), atol=1e-6)
    np.testing.assert_allclose(qvel[4:], [0, 2, 0], atol=1e-6)
    reference = physics.Reference(scene)
    reference.reset(qpos, qvel, intact)
    for _ in range(20):
        reference.step([0.0])
    ratio = np.linalg.norm(reference.bond_load()[0, :3]) / (0.3 * (9.81 + 4 * 0.43))
    assert ratio < 1.5, "the weld carries weight and swing, and no more"
    assert start_of(scene, Start(broken=("weld",)))[2] == [0.0]
    home = start_of(scene, Start())
    assert all((a == b).all() for a, b in zip(home[:2], scene.home(), strict=True)), "exactly, when nothing is said"


def test_events_become_rules(tmp_path):
    task = replace(load_task("keep_rod"), scene=None)
    kept = build_task(task, "snapping_rod").problem
    assert (kept.forbidden, kept.required, kept.model.events) == (("weld",), (), ("weld",))
    timed = build_task("snap_rod")
    state = timed.state
    off = timed.problem.constraints[0]

    def at(time, intact):
        return float(
            off(timed.params.goal, state._replace(time=jnp.asarray([time]), intact=jnp.asarray([[intact]])))[0]
        )

    found = [at(0.3, 1.0), at(0.3, 0.0), at(0.5, 0.0), at(0.5, 1.0), at(0.7, 1.0), at(0.7, 0.0)]
    assert found == pytest.approx([-0.05, 0.95, -0.05, -0.05, 0.95, -0.05], abs=1e-6), (
        "too early, in time, too late; δ = 0.05"
    )


def test_a_first_guess_holds_the_arm_still():
    scene = physics.load_scene("arm")
    qpos = scene.home()[0]
    data = mujoco.MjData(scene.model)
    data.qpos[:] = qpos
    data.ctrl[:] = still(scene, qpos)
    for _ in range(100):
        mujoco.mj_step(scene.model, data)
    assert np.abs(data.qpos - qpos).max() < 1e-6
    data.ctrl[:] = 0
    for _ in range(100):
        mujoco.mj_step(scene.model, data)
    assert np.abs(data.qpos - qpos).max() > 0.1, "without it the arm falls"


def test_a_search_begins_where_the_task_says(tmp_path):
    scene = physics.load_scene("cartpole")
    task = load_task(written(tmp_path, SWING))
    leaning = replace(task, start=Start(joints={"hinge": 0.3}), first_guess="still")
    carry = build_task(leaning, scene).planner.init()
    assert np.allclose(carry.knots, still(scene, np.array([0.0, 0.3])), atol=1e-6)
    assert np.all(build_task(task, scene).planner.init().knots == 0)
