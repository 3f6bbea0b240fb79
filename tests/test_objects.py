"""Objects that stand apart: which they are, that alike ones share a network, and that none feels what is another's."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import physics
from hybridwm.learning.response import respond
from hybridwm.learning.training import Batch, Rows, normalisation
from hybridwm.world.features import Features
from hybridwm.world.model import ModelOptions, WorldParams, world_model
from hybridwm.world.objects import kinds, pooled

PUCK = """<body name="{0}"><joint name="{0}.x" type="slide" axis="1 0 0" damping=".1"/>
<joint name="{0}.y" type="slide" axis="0 1 0" damping=".1"/>
<geom name="{0}" type="sphere" size="{1}" mass=".2" condim="1"/></body>"""
PUCKS = (
    '<mujoco><option gravity="0 0 0"/><worldbody>'
    + "".join(PUCK.format(name, size) for name, size in (("driven", 0.05), ("a", 0.05), ("b", 0.05), ("small", 0.03)))
    + '</worldbody><actuator><motor name="push" joint="driven.x"/></actuator></mujoco>'
)
STATE = np.random.default_rng(0).normal(size=(2, 8, 3))  # poses and speeds of four pucks in three worlds
MEMBERS = 2


@cache
def model(apart=True):
    options = ModelOptions(hidden=(8,), members=MEMBERS, corrections=("damping", "gain"), apart=apart)
    return world_model(physics.brax_engine(physics.load_scene(PUCKS)), options)


@cache
def weights():
    fresh = model().residual.fresh(jax.random.key(0))
    leaves, tree = jax.tree.flatten(fresh.weights)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [x + jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return fresh._replace(weights=jax.tree.unflatten(tree, noisy))


def said(qpos, qvel, push=0.3):
    """Forces and factors of every member."""
    seen, push = model().residual.features, jnp.full((1, qpos.shape[-1]), push)
    raw = seen(jnp.asarray(qpos, float), jnp.asarray(qvel, float), push, push, push[:0])
    found = model().residual(weights(), raw)
    return np.asarray(found.force), np.asarray(found.factor)


def exchanged(x, a, b):
    """Two pucks in one another's place."""
    order = np.arange(8).reshape(4, 2)
    order[[a, b]] = order[[b, a]]
    return x[..., order.ravel(), :]


def test_alike_pucks_are_one_kind_and_others_kinds_of_their_own():
    found = model().residual.kinds
    assert [one.dofs.tolist() for one in found] == [[[0, 1]], [[2, 3], [4, 5]], [[6, 7]]]
    names = np.array(model().residual.features.names)
    assert names[found[0].features[0]].tolist() == ["driven.x.speed", "driven.y.speed", "ctrl:push", "motor:push"]
    assert names[found[1].features[1]].tolist() == ["b.x.speed", "b.y.speed"]
    assert [len(one.targets[0]) for one in found] == [3, 2, 2]


def test_what_alike_pucks_feel_is_exchanged_when_they_are():
    force, factor = said(*STATE)
    swapped, other = said(*exchanged(STATE, 1, 2))
    np.testing.assert_allclose(swapped, exchanged(force, 1, 2), rtol=1e-5, atol=1e-6)
    assert np.abs(swapped - force).max() > 1e-2
    # of the gain of the motor, then of each dof's damping
    np.testing.assert_allclose(other[:, [0, 1, 2, 5, 6, 3, 4, 7, 8]], factor, rtol=1e-5, atol=1e-6)
    wrong, _ = said(*exchanged(STATE, 1, 3))  # another size: another network
    assert np.abs(wrong - exchanged(force, 1, 3)).max() > 1e-2


@pytest.mark.parametrize("puck", range(4))
def test_no_puck_feels_the_speed_of_another(puck):
    qpos, qvel = STATE
    changed = qvel.copy()
    changed[2 * puck : 2 * puck + 2] += 1.0
    apart = np.abs(said(qpos, changed)[0] - said(qpos, qvel)[0]).max((0, 2)).reshape(4, 2).max(1)
    assert apart[puck] > 1e-3
    assert np.all(np.delete(apart, puck) == 0)


def test_each_member_by_itself_says_what_it_says_among_all():
    qpos, qvel = (np.repeat(x[..., :1], MEMBERS, -1) for x in STATE)
    push = jnp.full((1, MEMBERS), 0.3)
    raw = model().residual.features(jnp.asarray(qpos, float), jnp.asarray(qvel, float), push, push, push[:0])
    every, own = model().residual(weights(), raw), model().residual.own(weights(), raw)
    for m in range(MEMBERS):
        np.testing.assert_allclose(own.force[:, m], every.force[m, :, m], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(own.factor[:, m], every.factor[m, :, m], rtol=1e-5, atol=1e-6)


def test_untrained_it_says_nothing():
    seen = model().residual.features
    raw = jnp.asarray(np.random.default_rng(1).normal(size=(len(seen.names), 5)), float)
    assert not np.any(np.asarray(model().residual(model().residual.fresh(jax.random.key(0)), raw).force))


def test_bodies_held_by_a_bond_are_one_object_and_nothing_stands_apart_unless_asked():
    bonded = physics.load_scene("snapping_rod")
    targets = [("dof_damping", (i,)) for i in range(bonded.model.nv)]
    (whole,) = kinds(Features(bonded), targets, apart=True)
    assert whole.dofs.shape == (1, bonded.model.nv)
    seen = Features(physics.load_scene(PUCKS))
    (one,) = kinds(seen, [], apart=False)
    assert one.features.tolist() == [list(range(len(seen.names)))]


def test_an_equality_without_a_name_joins_too():
    glued = PUCKS.replace("<actuator>", '<equality><weld body1="a" body2="small"/></equality><actuator>')
    found = kinds(Features(physics.load_scene(glued)), [], apart=True)
    assert [one.dofs.tolist() for one in found] == [[[0, 1]], [[2, 3, 6, 7]], [[4, 5]]]


def two(first="", second="", *, joints=("", ""), body="", more=""):
    """Two pucks, alike but for what is given."""
    page = '<body name="{0}" {3}><joint name="{0}.x" type="slide" {1}/><joint name="{0}.y" type="slide" axis="0 1 0"/>{2}</body>'
    geom = '<geom type="sphere" size=".05" mass=".2" {}/>'
    pucks = page.format("a", joints[0], geom.format(first), "") + page.format("b", joints[1], geom.format(second), body)
    return physics.load_scene(f'<mujoco><option gravity="0 0 0"/><worldbody>{pucks}</worldbody>{more}</mujoco>')


MOTORS = '<actuator><motor joint="a.x" gear="{}"/><motor joint="{}" gear="1"/></actuator>'
UNLIKE = {
    "friction": two('friction=".5"'),
    "a shape out of the middle": two('pos="0 0 .01"'),
    "a rail with ends": two(joints=('limited="true" range="-1 1"', "")),
    "damping": two(joints=('damping="1"', "")),
    "turned": two(body='euler="0 0 90"'),
    "a motor on another joint": two(more=MOTORS.format(1, "b.y")),
    "a stronger motor": two(more=MOTORS.format(50, "b.x")),
    "one motor": two(more='<actuator><motor joint="a.x"/></actuator>'),
}


@pytest.mark.parametrize("what", UNLIKE)
def test_what_differs_in_anything_is_another_kind(what):
    scene = UNLIKE[what]
    targets = [("dof_damping", (d,)) for d in range(scene.model.nv) if scene.model.dof_damping[d] > 0]
    assert [one.dofs.tolist() for one in kinds(Features(scene), targets, apart=True)] == [[[0, 1]], [[2, 3]]]


def test_place_matters_only_where_it_is_seen():
    count = lambda scene, **seen: len(kinds(Features(scene, **seen), [], apart=True))  # noqa: E731
    elsewhere = two(body='pos="1 0 0"')
    assert (count(two()), count(elsewhere), count(elsewhere, place=True)) == (1, 1, 2)
    railed = two(joints=('limited="true" range="-1 1"',) * 2, body='pos="1 0 0"')
    assert count(railed) == 2


def test_each_sees_its_own_motor_and_its_own_activation():
    acting = '<general joint="{}.x" dyntype="filter" dynprm=".02"/>'
    scene = two(more=f"<actuator>{acting.format('b')}{acting.format('a')}</actuator>")
    seen = Features(scene)
    (one,) = kinds(seen, [], apart=True)
    names = np.array(seen.names)
    assert names[one.features].tolist() == [
        ["a.x.speed", "a.y.speed", "ctrl:1", "motor:1", "act:1"],
        ["b.x.speed", "b.y.speed", "ctrl:0", "motor:0", "act:0"],
    ]


def test_free_bodies_apart_do_not_see_their_neighbours():
    ball = '<body pos="{0} 0 .2"><freejoint name="{0}"/><geom type="sphere" size=".05" mass=".2"/></body>'
    rail = '<body pos="0 1 0"><joint name="rail" type="slide"/><geom type="sphere" size=".05" mass=".2"/></body>'
    bodies = ball.format(0) + rail + ball.format(1)
    seen = Features(
        physics.load_scene(f'<mujoco><worldbody><geom type="plane" size="5 5 1"/>{bodies}</worldbody></mujoco>')
    )
    assert any(">" in name for name in seen.names)
    balls, other = kinds(seen, [], apart=True)
    names = np.array(seen.names)[balls.features]
    assert not any(">" in name for name in names.ravel())
    assert [name.removeprefix("0") for name in names[0]] == [name.removeprefix("1") for name in names[1]]
    assert other.dofs.tolist() == [[6]]


def test_alike_objects_have_their_mean_of_numbers():
    groups = [kind.dofs for kind in model().residual.kinds]
    assert pooled(groups, np.arange(8.0)).tolist() == [0, 1, 3, 4, 3, 4, 6, 7]


def test_statistics_of_training_are_those_of_all_alike_objects():
    rng = np.random.default_rng(2)
    qpos, qvel = (rng.normal(size=(2, 8, 40)) * np.repeat([1.0, 0.2, 3.0, 1.0], 2)[:, None] for _ in range(2))
    given = Batch(qpos, qvel, rng.normal(size=(1, 1, 40)), np.ones((0, 40)), np.zeros((0, 1, 40)))
    params = WorldParams(theta=jax.tree.map(jnp.asarray, physics.nominal(model().engine.scene)), residual=weights())
    answer = respond(model(), params, Batch(*(jnp.asarray(x, jnp.float32) for x in given)))
    found = normalisation(model(), params, Rows(answer, np.zeros(40), 0.002)).residual
    assert found
    centre, width, scale = (np.asarray(x) for x in (found.centre, found.width, found.scale))
    names = list(model().residual.features.names)
    a, b, small = (names.index(f"{name}.x.speed") for name in ("a", "b", "small"))
    both = np.concatenate([qvel[0, 2], qvel[0, 4]])
    np.testing.assert_allclose(centre[[a, b]], both.mean(), rtol=1e-4)
    np.testing.assert_allclose(width[[a, b]], both.std(), rtol=1e-4)
    np.testing.assert_allclose(width[small], qvel[0, 6].std(), rtol=1e-4)
    assert scale[2] == scale[4] != scale[6]
