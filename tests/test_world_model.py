"""The world model: the engine while nothing is learned, bounded where it is, the same in every way of asking it."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import physics
from hybridwm.world import motors
from hybridwm.world.features import Features
from hybridwm.world.model import ModelOptions, WorldParams, matched, world_model
from hybridwm.world.residual import BOUND, into_world
from hybridwm.world.trust import everywhere, support, trust

PUSH = """<mujoco><option timestep="0.005"/>
<worldbody><geom name="floor" type="plane" size="5 5 .1"/>
<body name="box" pos="0 0 .1"><freejoint name="box"/><geom name="box" type="box" size=".1 .1 .1" mass="2"/></body>
<body name="pusher" pos="-.16 0 .1">
<joint name="push" type="slide" axis="1 0 0" damping="1"/><geom name="pusher" type="sphere" size=".05" mass="1"/></body>
</worldbody>
<actuator><motor name="push" joint="push" gear="30" ctrlrange="-1 1" ctrllimited="true"/></actuator></mujoco>"""
MEMBERS, WORLDS, STEPS = 2, 4, 20


@cache
def pushed():
    """The model, its parameters before training, a state of four worlds, and commands."""
    scene = physics.load_scene(PUSH)
    model = world_model(
        physics.brax_engine(scene), ModelOptions(hidden=(8, 8), members=MEMBERS, corrections=("damping",))
    )
    theta = jax.tree.map(jnp.asarray, physics.nominal(scene))
    residual = model.residual.fresh(jax.random.key(0))
    rng = np.random.default_rng(0)
    qpos, qvel = (np.repeat(np.asarray(x)[:, None], WORLDS, 1) for x in scene.home())
    qvel = qvel + 0.1 * rng.standard_normal(qvel.shape)
    ctrl = jnp.asarray(rng.uniform(-1, 1, (STEPS, 1, WORLDS)), jnp.float32)
    return model, WorldParams(theta=theta, residual=residual), (qpos, qvel), ctrl


@cache
def roll(grouped=False):
    model = pushed()[0]
    return jax.jit(partial(model.rollout, output=lambda s, i: (s.qpos, s.qvel, i), grouped=grouped))


def trained(size=1.0, seed=1, **changes):
    """Random weights in place of training; `changes` to the rest of the residual."""
    _, params, _, _ = pushed()
    fresh = params.residual
    assert fresh
    leaves, tree = jax.tree.flatten(fresh.weights)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noisy = [x + size * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return params._replace(residual=fresh._replace(weights=jax.tree.unflatten(tree, noisy), **changes))


def test_untrained_is_the_engine_bit_for_bit():
    model, params, start, ctrl = pushed()
    state = model.init(params, *start)
    qpos, qvel, info = roll()(params, state, ctrl)[1]
    engine = model.engine
    plain = jax.jit(partial(engine.rollout, output=lambda s, i: (s.qpos, s.qvel)))(
        params.theta, engine.init(params.theta, *start), ctrl
    )[1]
    assert np.array_equal(qpos, plain[0])
    assert np.array_equal(qvel, plain[1])
    assert not np.any(info.residual)


def test_physics_with_room_for_all_that_was_learned_is_the_physics_bit_for_bit():
    model, params, start, ctrl = pushed()
    plain = WorldParams(theta=params.theta)
    everything = trained()._replace(lag_s=jnp.full(1, 0.1), trust=everywhere(len(model.residual.features.names)))
    made = matched(plain, everything)
    assert jax.tree.structure(made) == jax.tree.structure(everything)
    told = [
        model.rollout(p, model.init(p, *start), ctrl, output=lambda s, i: (s.qpos, s.qvel))[1] for p in (plain, made)
    ]
    for one, other in zip(*told, strict=True):
        assert np.array_equal(one, other)
    assert jax.tree.all(jax.tree.map(np.array_equal, matched(everything, plain), everything))


def test_a_wrong_residual_pushes_at_its_bound_and_the_floor_pushes_back():
    model, _, start, ctrl = pushed()
    params = trained(1e3, scale=jnp.asarray([20.0] * 3 + [0.5] * 4))  # the box weighs 20 N
    qpos, _, info = roll()(params, model.init(params, *start), ctrl)[1]
    force = np.linalg.norm(np.asarray(info.residual)[:, :3], axis=1)
    assert np.isfinite(qpos).all()
    assert force.max() <= BOUND * 20.0 * np.sqrt(3) * 1.001
    assert force.max() > 20.0
    assert np.asarray(info.engine.contact_distance).min() > -0.005


def test_far_from_the_data_the_model_is_the_engine():
    model, params, start, ctrl = pushed()
    wrong, count = trained(), len(model.residual.features.names)
    elsewhere = support(jnp.full((count, 2), 1e3), reach=0.5, limit=1.0)
    state = model.init(params, *start)
    far = roll()(wrong._replace(trust=elsewhere), state, ctrl)[1]
    near = roll()(wrong._replace(trust=support(jnp.asarray([[-1e6, 1e6]] * count), reach=0.5, limit=1e6)), state, ctrl)[
        1
    ]
    plain = roll()(params, state, ctrl)[1]
    assert np.array_equal(far[0], plain[0])
    assert np.abs(near[0] - plain[0]).max() > 1e-3
    assert np.allclose(near[2].trust, 1.0)


def test_trust_falls_smoothly_from_one_to_zero():
    z = jnp.stack([jnp.linspace(-3, 3, 601), jnp.zeros(601)])
    g = np.asarray(trust(support(jnp.asarray([[-1.0, 1.0], [-1.0, 1.0]]), reach=1.0, limit=1.0), z, jnp.zeros(601)))
    assert np.allclose(g[np.abs(z[0]) <= 1], 1.0)
    assert np.all(g[np.abs(z[0]) > 2.01] == 0.0)
    assert np.abs(np.diff(g)).max() < 0.03
    assert trust(support(jnp.asarray([[-1.0, 1.0]]), reach=1.0, limit=0.5), jnp.zeros((1, 1)), jnp.ones(1))[0] == 0.0


@pytest.mark.parametrize("angle", [0.7, -2.0])
def test_features_do_not_see_where_on_the_floor_or_which_way(angle):
    scene = physics.load_scene(
        PUSH.replace('type="slide" axis="1 0 0"', 'type="free"').replace(' damping="1"', "").split("<actuator>")[0]
        + "</mujoco>"
    )
    blind, seeing = Features(scene), Features(scene, place=True)
    rng = np.random.default_rng(3)
    quats = rng.standard_normal((2, 4))
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    qpos = np.concatenate([[0.1, 0.2, 0.3], quats[0], [0.5, -0.2, 0.4], quats[1]])
    qvel = rng.standard_normal(12)
    turn = np.array([np.cos(angle / 2), 0, 0, np.sin(angle / 2)])
    matrix = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    moved, speed = qpos.copy(), qvel.copy()
    for q, v in ((0, 0), (7, 6)):
        moved[q : q + 3] = matrix @ qpos[q : q + 3] + [1.0, -2.0, 0.0]
        moved[q + 3 : q + 7] = _product(turn, qpos[q + 3 : q + 7])
        speed[v : v + 3] = matrix @ qvel[v : v + 3]
    none = np.zeros(0)
    here, there = (
        np.asarray(blind(*(jnp.asarray(x, jnp.float32) for x in (p, s, none, none, none))))
        for p, s in ((qpos, qvel), (moved, speed))
    )
    assert np.allclose(here, there, atol=2e-5)
    assert len(seeing.names) > len(blind.names)


def _product(a, b):
    w, x, y, z = a
    return np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]]) @ b


def test_a_force_in_the_box_turns_with_the_box():
    model, _, _, _ = pushed()
    qpos = jnp.asarray([0, 0, 0, np.cos(np.pi / 4), 0, 0, np.sin(np.pi / 4), 0.0])[:, None]
    force = into_world(model.residual.features, qpos, jnp.asarray([1.0, 0, 0, 0, 0, 0, 5.0])[:, None])
    assert np.allclose(force[:, 0], [0, 1, 0, 0, 0, 0, 5], atol=1e-6)


def test_members_answer_alone_in_groups_and_on_average():
    model, _, start, ctrl = pushed()
    params = trained(0.3)
    owner = jnp.arange(WORLDS) // (WORLDS // MEMBERS)
    alone = roll()(params, model.init(params, *start, member=owner), ctrl)[1][0]
    groups = roll(grouped=True)(params, model.init(params, *start), ctrl)[1][0]
    assert np.allclose(alone, groups, atol=1e-5)
    state = model.init(params, *start)
    raw = model.features(params, state, ctrl[0])
    assert params.residual
    every = model.residual(params.residual, raw)
    told = jax.jit(model.step)(params, state, ctrl[0])[1]
    mean = into_world(model.residual.features, state.qpos, jnp.mean(every.force, 0))
    assert np.allclose(told.residual, mean, rtol=1e-5, atol=1e-6)
    assert np.all(np.asarray(told.spread) > 0)


def test_an_answer_that_is_held_is_asked_every_so_many_steps():
    """The same path as one that is asked only then, step by step; the last block is shorter."""
    model, _, begin, ctrl = pushed()
    params, hold, steps = trained(0.3), 3, 8
    lazy = world_model(model.engine, model.options.__class__(**{**vars(model.options), "hold": hold}))
    read = lambda s, i: (s.qpos, i.residual)  # noqa: E731
    _, (path, force) = jax.jit(partial(lazy.rollout, output=read))(params, lazy.init(params, *begin), ctrl[:steps])
    assert path.shape == (steps, 8, WORLDS)
    state, one = model.init(params, *begin), jax.jit(model.step)
    for t in range(hold):
        state, info = one(params, state, ctrl[t])
        if t == 0:
            np.testing.assert_allclose(path[0], state.qpos, atol=1e-6)
            np.testing.assert_allclose(force[0], info.residual, rtol=1e-5, atol=1e-5)
    turned = np.abs(np.asarray(force[1:]) - np.asarray(force[:-1])).max((1, 2))  # a held force turns with the box only
    assert turned[[2, 5]].min() > 20 * turned[[0, 1, 3, 4, 6]].max()


def test_late_motors_follow_the_same_law_from_a_log_and_in_a_rollout():
    rng, lag, dt = np.random.default_rng(0), jnp.asarray([0.02, 0.0]), 0.005
    past = jnp.asarray(rng.standard_normal((200, 2, 3)), jnp.float32)
    lagged = arrived = jnp.zeros((2, 3))
    for command in past:
        lagged, arrived = motors.follow(lag, dt, lagged, command)
    assert np.allclose(motors.settled(lag, dt, past), lagged, atol=1e-5)
    assert np.array_equal(lagged[1], past[-1, 1])  # no lag: at once
    fine, y = [], np.asarray(motors.settled(lag, dt, past[:-1]))[0]
    for _ in range(1000):
        y = y + (np.asarray(past[-1, 0]) - y) * (1 - np.exp(-dt / 1000 / 0.02))
        fine.append(y)
    assert np.allclose(arrived[0], np.mean(fine, 0), atol=1e-3)


def test_every_world_may_have_its_own_lag():
    rng, lag, dt = np.random.default_rng(1), jnp.asarray([[0.02, 0.0, 0.1], [0.0, 0.05, 0.03]]), 0.005
    past = jnp.asarray(rng.standard_normal((20, 2, 3)), jnp.float32)
    start, command = jnp.asarray(rng.standard_normal((2, 3)), jnp.float32), past[-1]
    together = (motors.settled(lag, dt, past), *motors.follow(lag, dt, start, command))
    for w in range(3):
        one = slice(w, w + 1)
        alone = (
            motors.settled(lag[:, w], dt, past[..., one]),
            *motors.follow(lag[:, w], dt, start[:, one], command[:, one]),
        )
        for a, b in zip(together, alone, strict=True):
            assert np.array_equal(a[:, one], b)


def test_commands_arrive_whole_steps_late():
    scene = physics.load_scene("cartpole")
    model = world_model(physics.brax_engine(scene), ModelOptions(delay=2, members=1, hidden=(4,)))
    params = WorldParams(theta=physics.nominal(scene))
    qpos, qvel = scene.home()
    state, step, seen = model.init(params, qpos, qvel), jax.jit(model.step), []
    for command in (1.0, 0.0, 0.0, 0.0):
        state, info = step(params, state, jnp.asarray([command]))
        seen.append(bool(np.abs(np.asarray(info.engine.qacc)).max() > 1e-3))
    at_home = physics.brax_engine(scene)
    still = at_home.step(physics.nominal(scene), at_home.init(physics.nominal(scene), qpos, qvel), jnp.zeros(1))[1]
    assert np.abs(np.asarray(still.qacc)).max() < 1e-3
    assert seen[:3] == [False, False, True]
