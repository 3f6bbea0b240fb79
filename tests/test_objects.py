"""Objects that stand apart: which they are, that alike ones share a network, and that none feels what is another's."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import physics
from hybridwm.world.features import Features
from hybridwm.world.model import ModelOptions, world_model
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


def test_alike_objects_have_their_mean_of_numbers():
    values = np.arange(8.0)
    assert pooled(model().residual.kinds, values, "dofs").tolist() == [0, 1, 3, 4, 3, 4, 6, 7]
