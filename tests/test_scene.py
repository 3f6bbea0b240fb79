"""Scenes: what is shipped, what fusing keeps, which geoms may touch, and what is refused."""

import re
from pathlib import Path

import jax
import mujoco
import numpy as np
import pytest

from physics import refusals
from physics.engine import brax_engine
from physics.inspect import Inspection, inspect
from physics.pairs import geom_pairs
from physics.params import nominal
from physics.reference import Reference
from physics.scene import load_scene, shipped_scenes

FUSED = """<mujoco model="fused">
<option timestep="0.002" cone="{cone}" iterations="200" ls_iterations="100" tolerance="1e-14"/>
<worldbody><geom name="floor" type="plane" size="0 0 1"/>
<body name="table" pos=".6 0 .2" euler="0 0 20"><geom name="top" type="box" size=".3 .3 .02"/>
  <body name="block" pos=".1 0 .1" euler="0 10 0"><geom name="block" type="box" size=".05 .05 .05"/></body></body>
<body name="a" pos="0 0 .35"><freejoint/><geom name="ga" size=".08"/>
  <body name="b" pos=".2 0 0" euler="0 30 15"><geom name="gb" type="box" size=".1 .05 .03"/>
    <site name="s" pos="0 .02 .1" euler="20 0 0"/>
    <body name="c" pos="0 .05 .2" euler="40 0 0">
      <inertial pos=".01 .02 0" mass="1.5" fullinertia=".01 .02 .015 .001 .002 -.001"/>
      <geom name="gc" size=".04"/></body>
    <body name="m" pos="-.1 0 .1" euler="0 0 50"><joint name="h" axis="0 1 0" damping=".05" stiffness="1"/>
      <geom name="gm" type="capsule" size=".03 .1"/>
      <body name="n" pos="0 0 .2" euler="0 70 0">
        <geom name="gn" type="box" size=".02 .03 .04" density="3000"/></body></body>
  </body></body>
<body name="d" pos="-.1 .1 .8" euler="10 20 30"><freejoint/><geom name="gd" type="capsule" size=".04 .1"/></body>
<body name="e" pos=".62 0 .45"><freejoint/><geom name="ge" type="box" size=".05 .05 .05"/>
  <body name="f" pos="0 0 .1" euler="5 0 0"><geom name="gf" size=".03"/></body></body>
</worldbody>
<contact><exclude body1="b" body2="d"/><exclude body1="table" body2="e"/></contact>
<equality><weld name="w" body1="c" body2="d" anchor="0.01 0.02 -.1"/>
  <connect name="k" body1="n" body2="d" anchor=".02 .01 0"/>
  <weld body1="f" body2="block" active="false"/></equality>
<sensor><framepos name="sp" objtype="site" objname="s"/><framepos name="xp" objtype="xbody" objname="n"/>
  <framequat name="bq" objtype="body" objname="c"/><frameangvel name="av" objtype="xbody" objname="b"/>
  <framelinvel name="lv" objtype="body" objname="c" reftype="xbody" refname="n"/>
  <subtreecom name="com" body="a"/></sensor>
</mujoco>"""


# ---- shipped scenes ----


def rest(scene, seconds):
    """MuJoCo C from home with zero control: states [T, nq], [T, nv] and the data at the end."""
    data = mujoco.MjData(scene.model)
    data.qpos[:], data.qvel[:] = scene.home()
    qpos, qvel = [], []
    for _ in range(round(seconds / scene.model.opt.timestep)):
        mujoco.mj_step(scene.model, data)
        qpos.append(data.qpos.copy())
        qvel.append(data.qvel.copy())
    return np.array(qpos), np.array(qvel), data


@pytest.mark.parametrize("name", shipped_scenes())
def test_shipped_scene_runs_for_five_seconds(name):
    scene = load_scene(name)
    qpos, qvel, data = rest(scene, 5.0)
    assert np.isfinite(qpos).all()
    assert np.abs(qvel).max() < 30  # m/s, rad/s: nothing is flung
    assert not data.warning.number.any()
    for key in range(scene.model.nkey):  # start poses are poses: unit quaternions
        for joint in np.flatnonzero(scene.model.jnt_type == int(mujoco.mjtJoint.mjJNT_FREE)):
            start = scene.model.jnt_qposadr[joint] + 3
            assert np.linalg.norm(scene.model.key_qpos[key, start : start + 4]) == pytest.approx(1, abs=1e-9)


def test_shipped_scenes_are_the_promised_ones():
    boxes = {"falling_box", "sliding_box", "pushed_box", "stacked_boxes", "thrown_cube"}
    joints = {"pendulum", "cartpole", "double_pendulum", "arm"}
    assert boxes | joints | {"snapping_rod", "glass"} <= set(shipped_scenes())


@pytest.mark.parametrize("name", ["glass", "snapping_rod", "stacked_boxes", "pushed_box"])
def test_what_stands_stays_standing(name):
    scene = load_scene(name)
    qpos, qvel, _ = rest(scene, 3.0)
    assert np.abs(qvel[-100:]).max() < 1e-3
    assert np.abs(qpos[-1] - scene.home()[0]).max() < 5e-3


@pytest.mark.parametrize("name", shipped_scenes())
def test_contacts_are_no_stiffer_than_the_step_can_follow(name):
    model = load_scene(name).model
    for solref in (*(pair.solref for pair in load_scene(name).pairs), *model.jnt_solref, *model.eq_solref):
        assert solref[0] >= 2 * model.opt.timestep


def test_glass_bonds():
    scene = load_scene("glass")
    assert [(b.name, b.kind, b.intact) for b in scene.bonds] == [("foot", "weld", True), ("stem", "weld", True)]
    assert scene.bond("stem").strength == (20.0, 0.06)
    ends = [scene.model.body(b).name for b in (scene.bond("stem").body1, scene.bond("stem").body2)]
    assert ends == ["neck", "tip"]
    assert scene.body("table").body == 0
    np.testing.assert_allclose(scene.body("table").pos, [-0.3, 0, 0.38])


# ---- one scene, one compilation ----


def test_equal_content_is_one_object(tmp_path):
    text = FUSED.format(cone="pyramidal")
    path = tmp_path / "fused.xml"
    path.write_text(text)
    scene = load_scene(text)
    assert load_scene(path) is scene
    assert load_scene(text.replace("<worldbody>", "<!-- a word -->\n<worldbody>")) is scene
    assert load_scene(text, contact_budget=3) != scene
    assert load_scene(text.replace("1.5", "1.6")) != scene
    assert load_scene(text.replace('name="sp"', 'name="sp2"')) != scene
    assert load_scene(text.replace("<worldbody>", '<statistic extent="2"/><worldbody>')) == scene


# ---- fusing ----


def rollout(model, steps):
    """Positions and sensors of a spinning start, with the constraints' diagonal computed exactly.

    By default MuJoCo estimates the diagonal from each body's inverse weight in the reference pose, and a fused body has
    one weight where its parts had several; with the exact diagonal the two models are the same problem.
    """
    model.opt.enableflags |= int(mujoco.mjtEnableBit.mjENBL_DIAGEXACT)
    data = mujoco.MjData(model)
    data.qvel[:] = 0.5 * np.random.default_rng(0).normal(size=model.nv)
    qpos, sensors, contacts = [], [], 0
    for _ in range(steps):
        mujoco.mj_step(model, data)
        qpos.append(data.qpos.copy())
        sensors.append(data.sensordata.copy())
        contacts += data.ncon
    return np.array(qpos), np.array(sensors), contacts


@pytest.mark.parametrize("cone", ["pyramidal", "elliptic"])
def test_fusing_changes_nothing(cone):
    text = FUSED.format(cone=cone)
    fused = load_scene(text).model
    original = mujoco.MjModel.from_xml_string(text)
    assert (original.nbody, fused.nbody, fused.njnt) == (11, 5, original.njnt)
    want, want_sensors, want_contacts = rollout(original, 400)
    got, got_sensors, got_contacts = rollout(fused.__copy__(), 400)
    assert want_contacts == got_contacts > 100
    np.testing.assert_allclose(got, want, atol=1e-9)
    np.testing.assert_allclose(got_sensors, want_sensors, atol=1e-9)


def test_fused_bodies_are_still_found():
    text = FUSED.format(cone="pyramidal")
    scene, original = load_scene(text), mujoco.MjModel.from_xml_string(text)
    old, new = mujoco.MjData(original), mujoco.MjData(scene.model)
    for model, data in ((original, old), (scene.model, new)):
        data.qpos[:] = np.random.default_rng(1).normal(size=model.nq)
        mujoco.mj_forward(model, data)
    for name in ("table", "block", *"abcmndef"):
        place = scene.body(name)
        pos = new.xpos[place.body] + new.xmat[place.body].reshape(3, 3) @ place.pos
        np.testing.assert_allclose(pos, old.body(name).xpos, atol=1e-12)
    with pytest.raises(ValueError, match="did you mean 'table'"):
        scene.body("tabel")


def test_fusing_keeps_which_geoms_touch():
    text = FUSED.format(cone="pyramidal")
    original = mujoco.MjModel.from_xml_string(text)

    def named(model, pairs):
        return {frozenset(model.geom(g).name for g in pair[:2]): pair[2:-1] for pair in pairs}

    scene = load_scene(text)
    assert named(scene.model, scene.pairs) == named(original, geom_pairs(original))


@pytest.mark.filterwarnings("ignore:compiler attribute 'settotalmass'")
def test_inferred_inertia_and_total_mass_survive_fusing():
    text = """<mujoco><compiler inertiafromgeom="true" settotalmass="5" boundinertia="0.01"/><worldbody><body><joint/>
    <inertial pos="0 0 0" mass="9" diaginertia="9 9 9"/><geom size=".1"/><body pos="0 0 1"><geom size=".1"/></body>
    <body pos="0 1 0"><joint/><geom size=".1"/></body></body></worldbody></mujoco>"""
    original, model = mujoco.MjModel.from_xml_string(text), load_scene(text).model
    assert model.body_mass.sum() == pytest.approx(5, rel=1e-12)
    full = [np.zeros((m.nv, m.nv)) for m in (original, model)]
    for m, out in zip((original, model), full, strict=True):
        data = mujoco.MjData(m)
        mujoco.mj_forward(m, data)
        mujoco.mj_fullM(m, data, out)
    np.testing.assert_allclose(full[1], full[0], rtol=1e-9)


# ---- which geoms may touch, and with what ----


def random_scene(rng):
    """Geoms that all overlap, with random masks, priorities, parameters, nesting, excludes and explicit pairs."""
    kinds = {"sphere": ".3", "capsule": ".25 .2", "box": ".3 .25 .3"}

    def geom(name, kind, size):
        direct = rng.random() < 0.3
        solref = (
            f"{-rng.uniform(100, 900):.3f} {-rng.uniform(1, 30):.3f}"
            if direct
            else f"{rng.uniform(0.02, 0.1):.4f} {rng.uniform(0.5, 1.5):.3f}"
        )
        return (
            f'<geom name="{name}" type="{kind}" size="{size}" margin="{rng.choice([0, 0.01])}" '
            f'contype="{rng.integers(4)}" conaffinity="{rng.integers(4)}" '
            f'condim="{rng.choice([1, 3])}" priority="{rng.integers(2)}" solmix="{rng.choice([0.0, 0.3, 1.0])}" '
            f'friction="{rng.choice([0, 0.2, 1.0])} {rng.uniform(0.001, 0.1):.4f} {rng.uniform(0, 0.1):.4f}" '
            f'solref="{solref}" solimp="{rng.uniform(0.5, 0.9):.3f} .95 {rng.uniform(0.001, 0.01):.4f}"/>'
        )

    bodies, text = [], ""
    for i in range(5):
        joint = "<freejoint/>" if i % 2 == 0 or not bodies else '<joint type="hinge"/>'
        kind = str(rng.choice(list(kinds)))
        inside = "".join(geom(f"g{i}{k}", kind, kinds[kind]) for k in range(rng.integers(1, 3)))
        joint = "" if rng.random() < 0.2 else joint
        body = f'<body name="b{i}" pos="{rng.uniform(-0.02, 0.02):.4f} 0 0.01">{joint}{inside}<!--{i}--></body>'
        if bodies and "freejoint" not in body:  # nested in an earlier body
            parent = int(rng.choice(bodies))
            text = text.replace(f"<!--{parent}-->", f"{body}<!--{parent}-->")
        else:
            text += body
        bodies.append(i)
    exclude = "".join(f'<exclude body1="b{i}" body2="b{j}"/>' for i, j in [(0, 1), (2, 4)] if rng.random() < 0.5)
    pair = (
        '<pair geom1="g20" geom2="floor" condim="3" friction="0.5 0.4 .01 .02 .03" solreffriction="-100 -5"/>'
        if rng.random() < 0.5
        else ""
    )
    text = geom("floor", "plane", "0 0 1") + text
    return f"<mujoco><worldbody>{text}</worldbody><contact>{exclude}{pair}</contact></mujoco>"


def test_pairs_are_the_contacts_of_mujoco():
    seen = 0
    for seed in range(150):
        model = mujoco.MjModel.from_xml_string(random_scene(np.random.default_rng(seed)))
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        pairs = {(pair.geom1, pair.geom2): pair for pair in geom_pairs(model)}
        # A listed pair of two geoms that cannot move against each other is a contact without force: no pair of ours.
        weld = model.body_weldid[model.geom_bodyid]
        contacts = [c for c in data.contact if weld[c.geom1] != weld[c.geom2]]
        assert {(c.geom1, c.geom2) for c in contacts} == set(pairs), seed
        for contact in contacts:
            pair = pairs[contact.geom1, contact.geom2]
            assert contact.dim == pair.condim
            for name in ("friction", "solref", "solreffriction", "solimp"):
                np.testing.assert_allclose(
                    getattr(contact, name), getattr(pair, name), rtol=1e-12, err_msg=f"{seed} {name}"
                )
            seen += 1
    assert seen > 1000


# ---- refusals ----

BODY = '<body name="ball"><joint name="j"/><geom name="g" size=".1"/>{more}</body>'


def scene_text(body="", more="", option="", joint=""):
    inside = BODY.replace("{more}", body).replace("<joint ", f"<joint {joint} ")
    return f'<mujoco>{option}<worldbody><geom type="plane" size="0 0 1"/>{inside}</worldbody>{more}</mujoco>'


STEM = '<equality><weld name="stem" body1="ball"/></equality>'
REFUSED = {
    "tendon 'x'": scene_text(more='<tendon><fixed name="x"><joint joint="j" coef="1"/></fixed></tendon>'),
    "actuator 'm': dynamics 'muscle'": scene_text(
        more='<actuator><muscle name="m" joint="j" lengthrange="0 1"/></actuator>'
    ),
    "actuator 'm': gain 'fixed' with bias 'user'": scene_text(
        more='<actuator><general name="m" joint="j" biastype="user"/></actuator>'
    ),
    "actuator 'm': actrange": scene_text(
        more='<actuator><general name="m" joint="j" dyntype="integrator" actlimited="true" actrange="0 1"/></actuator>'
    ),
    "actuator 'm': transmission to a site": scene_text(
        body='<site name="s"/>', more='<actuator><motor name="m" site="s"/></actuator>'
    ),
    "joint 'j': frictionloss below 0": scene_text(joint='frictionloss="-0.1"'),
    "numeric 'joint_friction': give 1": scene_text(more='<custom><numeric name="joint_friction" data="2"/></custom>'),
    "joint 'j': actuatorfrcrange": scene_text(joint='actuatorfrcrange="-1 1"'),
    "gap is not simulated": scene_text(option='<default><geom gap="0.01"/></default>'),
    "condim=6 is not simulated": scene_text(option='<default><geom condim="6"/></default>'),
    "a colliding cylinder": scene_text(body='<geom name="c" type="cylinder" size=".1 .1"/>'),
    "a colliding ellipsoid": scene_text(body='<geom name="c" type="ellipsoid" size=".1 .1 .2"/>'),
    "body 'p': mocap": scene_text().replace("</worldbody>", '<body name="p" mocap="true"/></worldbody>'),
    "body 'ball': gravcomp": scene_text().replace('name="ball"', 'name="ball" gravcomp="1"'),
    "option density": scene_text(option='<option density="1.2"/>'),
    "option wind": scene_text(option='<option wind="1 0 0"/>'),
    "option integrator=implicitfast": scene_text(option='<option integrator="implicitfast"/>'),
    "option noslip_iterations": scene_text(option='<option noslip_iterations="3"/>'),
    "flag gravity='disable'": scene_text(option='<option><flag gravity="disable"/></option>'),
    "flag eulerdamp='disable'": scene_text(option='<option><flag eulerdamp="disable"/></option>'),
    "flag override='enable'": scene_text(option='<option><flag override="enable"/></option>'),
    "flag sleep='enable'": scene_text(option='<option><flag sleep="enable"/></option>'),
    "sensor 't': touch": scene_text(body='<site name="s"/>', more='<sensor><touch name="t" site="s"/></sensor>'),
    "sensor 't': user": scene_text(more='<sensor><user name="t" dim="2"/></sensor>'),
    "equality 'e': joint": scene_text(more='<equality><joint name="e" joint1="j"/></equality>'),
    "<extension>": scene_text(more='<extension><plugin plugin="mujoco.pid"/></extension>'),
    "<composite> 'rope'": scene_text(body='<composite prefix="r" name="rope" type="cable" count="9 1 1"/>'),
    "numeric 'bond:stm': no weld or connect has this name; did you mean 'stem'": scene_text(
        more=STEM + '<custom><numeric name="bond:stm" data="1 1"/></custom>'
    ),
    "numeric 'bond:stem': give two positive": scene_text(
        more=STEM + '<custom><numeric name="bond:stem" data="1"/></custom>'
    ),
    "nothing moves": '<mujoco><worldbody><body><geom size="1"/></body></worldbody></mujoco>',
    "its two ends are on one body": scene_text(
        body='<body name="nose"/>', more='<equality><weld name="stem" body1="ball" body2="nose"/></equality>'
    ),
    "springs on free and ball": scene_text(joint='type="ball" stiffness="1"'),
    "contact_budget": scene_text(more='<custom><numeric name="contact_budget" data="0"/></custom>'),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refused_by_name(reason):
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        load_scene(REFUSED[reason])
    assert "\n" not in str(caught.value)


ALLOWED = {
    "visual mesh": scene_text(
        body='<geom type="mesh" mesh="m" contype="0" conaffinity="0"/>',
        more='<asset><mesh name="m" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset>',
    ),
    "visual cylinder": scene_text(body='<geom type="cylinder" size=".1 .1" contype="0" conaffinity="0"/>'),
    "filter": scene_text(more='<actuator><general joint="j" dyntype="filterexact" dynprm=".1"/></actuator>'),
    "position": scene_text(
        more='<actuator><position joint="j" kp="5" kv="1" ctrlrange="-1 1" forcerange="-2 2"/></actuator>'
    ),
    "velocity": scene_text(more='<actuator><velocity joint="j" kv="5"/></actuator>'),
    "elliptic, direct solref": scene_text(
        option='<default><geom solref="-900 -30"/></default><option cone="elliptic"/>'
    ),
    "replicate": scene_text(body='<replicate count="4" offset=".1 0 0"><body><geom size=".1"/></body></replicate>'),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name):
    assert load_scene(ALLOWED[name]).model.nv == 1


def test_bond_and_permanent_weld_and_broken_bond():
    text = scene_text(
        more='<equality><weld body1="ball"/><connect name="c" body1="ball" anchor="0 0 0" active="false"/></equality>'
    )
    (bond,) = load_scene(text).bonds
    assert (bond.name, bond.kind, bond.eq_id, bond.intact, bond.strength, bond.body2) == (
        "c",
        "connect",
        1,
        False,
        None,
        0,
    )


def test_contact_budget_is_declared_or_given():
    text = scene_text(more='<custom><numeric name="contact_budget" data="7"/></custom>')
    assert load_scene(text).contact_budget == 7
    assert load_scene(text, contact_budget=3).contact_budget == 3
    assert load_scene(scene_text()).contact_budget is None
    with pytest.raises(ValueError, match="contact_budget=0"):
        load_scene(text, contact_budget=0)


# ---- inspection ----


def test_inspection_counts():
    found = inspect("pushed_box", timing=False)
    assert found.supported
    assert (found.bodies, found.dofs, found.controls, found.contacts) == (2, 7, 1, 6)
    assert found.rows == 6 * 4  # pyramidal, condim 3
    assert inspect("thrown_cube", timing=False).rows == 4 * 3  # elliptic
    glass = inspect("glass", timing=False)
    assert [bond.name for bond in glass.bonds] == ["foot", "stem"]
    assert glass.rows == glass.contacts * 4 + 2 + 2 * 6  # two limited slides, two welds


def test_inspection_and_engine_agree_on_geoms_with_margins_of_their_own():
    """A plank of a near and a far-reaching ball: each contact begins at its own margin, in the engine as in MuJoCo C."""
    text = """<mujoco><option timestep="0.004"/><worldbody><geom type="plane" size="1 1 1"/>
    <body pos="0 0 .052"><freejoint/><geom size=".05" pos=".2 0 0" margin=".01"/><geom size=".05" pos="-.2 0 0"/></body>
    </worldbody></mujoco>"""
    assert inspect(text, timing=False).supported
    scene = load_scene(text)
    engine, reference = brax_engine(scene), Reference(scene)
    state = engine.init(nominal(scene), *scene.home())
    reference.reset(*scene.home())
    last, _ = jax.jit(engine.rollout)(nominal(scene), state, np.zeros((40, 0)))
    for _ in range(40):
        reference.step(np.zeros(0))
    found = reference.state().qpos
    assert found[2] > 0.0525  # held up on one side
    np.testing.assert_allclose(last.qpos, found, atol=1e-5)


def test_inspection_names_every_reason():
    text = scene_text(
        body='<geom name="c" type="cylinder" size=".1 .1"/>',
        joint='actuatorfrcrange="-1 1"',
        option='<option integrator="RK4" density="1"/>',
    )
    found = inspect(text)
    assert not found.supported
    for reason in ("integrator=rk4", "density", "joint 'j': actuatorfrcrange", "geom 'c': a colliding cylinder"):
        assert any(reason in line for line in found.reasons), reason
    with pytest.raises(ValueError, match="and 3 more"):
        load_scene(text)


def test_plans_are_what_the_cost_allows():
    plans = Inspection(name="x", cost_us=2.0).plans()
    assert plans[50] == 200  # 20 ms = 2 µs × 200 samples × 50 steps
    assert Inspection(name="x").plans() == {}


def test_documentation_names_what_is_shipped_and_computed():
    text = (Path(__file__).parent.parent / "docs" / "scenes.md").read_text()
    for word in (*shipped_scenes(), *refusals.SENSORS, *refusals.DYNAMICS, *refusals.COLLIDING):
        assert f"`{word}`" in text
