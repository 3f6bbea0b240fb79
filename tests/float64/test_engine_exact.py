"""The engine against converged MuJoCo C in float64: starts, controls, pushes and θ as the worlds of one program.

Asked: 1e-5 m and 1e-4 rad after 100 steps, forces to 1 %, one step from C's own state to 1e-8. Both cones agree to
rounding: 1e-13 m in a step, which hard starts let grow to 1e-11 m in a hundred.
"""

import re
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import side_by_side as side
from starts import hard_starts

import physics
from physics.scene import load_scene, shipped_scenes

STEPS, STARTS = 100, 5
METRES, RADIANS, ONE_STEP = 1e-9, 1e-8, 1e-11
FORCES = 1e-6  # of the largest in the path
QUICK = {"pushed_box-pyramidal", "sliding_box-elliptic", "snapping_rod-pyramidal", "double_pendulum-pyramidal"}

TABLE = {"glass": 0.4}  # m, where a scene's bodies do not stand on the floor

# How far from home (m, rad), how fast (m/s, rad/s), how much lower: into contact within the 100 steps, and not so wild
# that rounding grows to 1e-7 on its own.
STARTING = {
    "arm": {"spread": 1.0},
    "cartpole": {"spread": 1.0, "speed": 2.0},
    "double_pendulum": {"spread": 1.0, "speed": 5.0},
    "falling_box": {"low": 0.38},
    "glass": {"spread": 0.001, "speed": 0.1},
    "pendulum": {"spread": 2.0, "speed": 3.0},
    "pushed_box": {"spread": 0.03},
    "sliding_box": {"spread": 0.02},
    "snapping_rod": {"spread": 0.0},
    "stacked_boxes": {"spread": 0.003, "speed": 0.1},
    "thrown_cube": {"low": 0.24, "spread": 0.1},
    "zoo": {"spread": 0.02},
}
TOUCH_NOTHING = {"arm", "cartpole", "double_pendulum", "pendulum"}


def moved(theta, model):
    """Centres of mass elsewhere. Not those of bodies on slides alone: MuJoCo weighs these by another rule at 0."""
    return theta._replace(body_ipos=theta.body_ipos + 0.01 * (model.body_simple != 2)[:, None] * [0.5, -0.3, 0.4])


def heavier(theta, model):
    return theta._replace(body_mass=3 * theta.body_mass, body_inertia=3 * theta.body_inertia)


def rounder(theta, model):
    return theta._replace(body_inertia=theta.body_inertia + 0.2 * theta.body_inertia.mean(1, keepdims=True))


def rubbing(theta, model):
    """More dry friction, where there may be any."""
    some = "joint_friction" in [model.numeric(i).name for i in range(model.nnumeric)]
    return theta._replace(dof_frictionloss=2 * theta.dof_frictionloss + 0.1 * some)


EDITS = {
    "masses": heavier,
    "centres": moved,
    "inertias": rounder,
    "friction": lambda theta, model: theta._replace(geom_friction=0.6 * theta.geom_friction),
    "damping": lambda theta, model: theta._replace(dof_damping=theta.dof_damping + 0.1),
    "armature": lambda theta, model: theta._replace(dof_armature=theta.dof_armature + 0.05),
    "rubbing": rubbing,
    "gain": lambda theta, model: theta._replace(actuator_gain=0.7 * theta.actuator_gain),
    "solref": lambda theta, model: theta._replace(geom_solref=theta.geom_solref * [1.5, 0.8]),
    "size": lambda theta, model: theta._replace(geom_size=0.97 * theta.geom_size),
    "gravity": lambda theta, model: theta._replace(gravity=np.array([1.0, -0.5, -8.0])),
}

# Every kind of contact, joint, actuator and equality that the shipped scenes lack. Bits keep capsules off the brick.
ZOO = """<mujoco model="zoo"><option timestep="0.004" impratio="3" CONE/>
<worldbody><geom name="floor" type="plane" size="3 3 1" contype="7" conaffinity="7"/>
<body pos="0 0 .049"><freejoint/><geom type="sphere" size=".05" mass="1" solref="-9000 -60"/></body>
<body pos=".11 0 .049"><freejoint/><geom type="capsule" size=".05 .1" euler="90 0 0" mass="2" priority="1"/></body>
<body pos="0 .3 .048"><freejoint/>
<geom type="box" size=".1 .05 .05" mass="2" solmix="2" condim="1" contype="4" conaffinity="4"/></body>
<body pos=".03 .3 .145"><freejoint/>
<geom type="sphere" size=".05" mass=".5" condim="1" solimp=".8 .9 .01 .3 3" contype="4" conaffinity="4"/></body>
<body pos="0 -.5 .3"><joint name="lift" type="slide" axis="0 0 1" stiffness="50" springref=".1" damping="1"/>
<geom type="capsule" size=".03 .1" euler="0 90 0" mass="1" contype="2" conaffinity="2"/>
<body pos=".15 0 0"><joint name="ball" type="ball" damping=".05" armature=".001" frictionloss=".02" solreffriction=".03 .8"/>
<geom type="capsule" fromto="0 0 0 .2 0 0" size=".03" mass=".4" contype="0" conaffinity="0"/></body></body>
<body pos="0 -.505 .36"><freejoint/>
<geom type="capsule" size=".03 .1" euler="90 0 20" mass=".5" contype="3" conaffinity="3"/></body>
<body name="crane" pos="1 0 1"><joint name="crane" axis="0 1 .2" limited="true" range="-20 20" damping=".5" frictionloss=".3"/>
<geom type="capsule" fromto="0 0 0 .5 0 0" size=".03" mass="1" contype="0" conaffinity="0"/>
<site name="hook" pos=".5 0 0"/></body>
<body name="load" pos="1.5 0 .8"><freejoint/><geom type="sphere" size=".06" mass=".8"/>
<site name="eye" pos="0 0 .2"/></body>
<body name="plate" pos="2 0 1"><freejoint/>
<geom type="box" size=".1 .1 .02" mass=".5" contype="0" conaffinity="0"/></body></worldbody>
<equality><weld name="rope" site1="hook" site2="eye" torquescale=".5"/>
<connect name="pin" body1="plate" anchor=".1 .1 0" solref=".01 1"/></equality>
<actuator><position joint="crane" kp="20" kv="1" ctrlrange="-.5 .5" ctrllimited="true"/>
<general joint="lift" dyntype="filterexact" dynprm=".05" gainprm="5" gear="2" forcerange="-4 4" forcelimited="true"/>
<velocity joint="crane" kv=".3"/><intvelocity joint="lift" kp="3"/></actuator></mujoco>"""


def scene_of(name, cone):
    text = ZOO if name == "zoo" else (Path(physics.__file__).parent / "scenes" / f"{name}.xml").read_text("utf-8")
    if name != "zoo":
        text = re.sub(r'<option (.*?)\s*cone="\w+"', r"<option \1", text).replace("<option ", "<option CONE ")
    return load_scene(text.replace("CONE", f'cone="{cone}"'))


@cache
def case(name, cone):
    """Scene, worlds, MuJoCo's path and the states its steps began in.

    Worlds: the starts about home, one pushed by wrenches, one by forces, the hard starts, one per edit of θ. World −1 of
    a bonded scene starts broken.
    """
    scene = scene_of(name, cone)
    edits = [partial(edit, model=scene.model) for edit in EDITS.values()]
    hard = hard_starts(scene, TABLE.get(name, 0.0))
    if name == "zoo":  # its welds torn a metre apart: MuJoCo C itself flies off
        hard = tuple(x[:, :0] for x in hard)
    count = STARTS + 2 + hard[0].shape[1] + len(EDITS)
    given = side.worlds(
        scene, count, horizon=STEPS, seed=1, theta=edits, effort=0.6, **STARTING.get(name, {"spread": 0.02})
    )
    rng = np.random.default_rng(2)
    weight = 2.0 * float(scene.model.body_mass.mean())
    given.wrench[1:, :, STARTS] = weight * rng.uniform(-1, 1, (scene.model.nbody - 1, 6)) * ([1.0] * 3 + [0.05] * 3)
    given.force[:, STARTS + 1] = rng.uniform(-2, 2, scene.model.nv) / scene.model.dof_invweight0
    given.intact[:, [1, -1]] = 0.0
    for all_worlds, some in zip((given.qpos, given.qvel, given.intact), hard, strict=True):
        all_worlds[:, STARTS + 2 : -len(EDITS)] = some
    return scene, given, *side.mujoco_path(scene, given)


NAMES = [f"{name}-{cone}" for name in (*shipped_scenes(), "zoo") for cone in ("pyramidal", "elliptic")]
CASES = [pytest.param(*name.split("-"), id=name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMES]


@pytest.mark.parametrize(("name", "cone"), CASES)
def test_follows_mujoco_c(name, cone):
    scene, given, theirs, starts = case(name, cone)
    touched = (np.abs(theirs.impulse).sum((1, 2)) > 0).any(0) if theirs.impulse.size else np.zeros(1, bool)
    assert touched.mean() > 0.4 or name in TOUCH_NOTHING

    step = side.engine_path(scene, given, starts)
    assert max(side.gap(scene.model, step.qpos, theirs.qpos)) < ONE_STEP
    np.testing.assert_allclose(step.apart, theirs.apart, atol=ONE_STEP, equal_nan=False)
    for ours, expected in ((step.impulse, theirs.impulse), (step.load, theirs.load)):
        largest = np.abs(expected).max((0, 1, 2), initial=1e-9)
        np.testing.assert_array_less(np.abs(ours - expected).max((0, 1, 2), initial=0.0), FORCES * largest)
    assert side.contact_gap(step.contacts, theirs.contacts) < FORCES

    ours = side.engine_path(scene, given)
    for mine, expected in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-12)
    metres, radians = side.gap(scene.model, ours.qpos, theirs.qpos)
    assert metres < METRES
    assert radians < RADIANS


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pushed_box", "snapping_rod"])
def test_theta_as_numbers_follows_mujoco_c_too(name):
    """Numpy θ is folded into the program: other code, the same physics."""
    scene, given, theirs, _ = case(name, "pyramidal")
    plain = list(range(given.qpos.shape[1] - len(EDITS)))
    ours = side.engine_path(scene, given, folded=True)
    assert max(side.gap(scene.model, ours.qpos[..., plain], theirs.qpos[..., plain])) < METRES
