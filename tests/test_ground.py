"""A ground whose friction differs from place to place: bodies turn on it, and logs tell where."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import physics
from hybridwm.learning import fitting
from hybridwm.learning.charting import charted
from hybridwm.learning.training import Batch
from hybridwm.learning.unknowns import Unknown
from hybridwm.world.ground import Ground, cell, factor
from hybridwm.world.model import ModelOptions, WorldParams, world_model

SLIDE = """<mujoco><option timestep="0.01"/>
<worldbody><geom name="floor" type="plane" size="5 5 .1" friction=".5"/>
<body name="box" pos="0 0 .02"><freejoint name="box"/>
<geom name="box" type="box" size=".1 .1 .02" mass="2" friction=".5"/></body></worldbody></mujoco>"""
STEPS, HIGH = 10, 0.3  # half of the ground, y < 0, is smoother
SMOOTH = Ground(jnp.asarray([-1.0, -1.0]), jnp.asarray(1.0), jnp.asarray([[np.log(0.4), 0.0]] * 3))


@cache
def slid():
    """The model of a sliding box, its θ, and its rollout."""
    scene = physics.load_scene(SLIDE)
    model = world_model(physics.brax_engine(scene), ModelOptions(hidden=(4,), members=1))
    theta = jax.tree.map(jnp.asarray, physics.nominal(scene))
    return model, WorldParams(theta=theta), jax.jit(partial(model.rollout, output=lambda s, i: (s.qpos, s.qvel)))


def rolled(params, y, speed, yaw: Any = 0.0):
    """[H, 7, W] poses and [H, 6, W] velocities of boxes at rest on the floor, pushed along x."""
    model, _, run = slid()
    flat = 0.0199 + 0 * np.asarray(y)
    yaw = yaw + 0 * flat
    qpos = np.array([0 * flat, y, flat, np.cos(yaw / 2), 0 * flat, 0 * flat, np.sin(yaw / 2)])
    qvel = np.zeros((6, len(flat)))
    qvel[0] = speed
    state = model.init(params, qpos, qvel)
    found = run(params, state, np.zeros((STEPS, 0, len(flat))))[1]
    return (np.concatenate([x[None], np.asarray(z)]) for x, z in zip((qpos, qvel), found, strict=True))


def test_every_place_has_its_cell_and_beyond_them_nothing_changes():
    ground = Ground(jnp.asarray([0.0, 1.0]), jnp.asarray(0.5), jnp.asarray([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]))
    places = jnp.asarray([[0.2, 1.1], [0.7, 2.4], [-0.1, 1.1], [0.2, 2.6], [np.nan, 1.1]])
    places = jnp.concatenate([places, jnp.zeros((5, 1))], 1)[..., None]  # [5, 3, 1]
    assert cell(ground, places)[:4, 0].tolist() == [0, 5, -1, -1]
    np.testing.assert_allclose(factor(ground, places)[:4, 0], [np.exp(0.1), np.exp(0.6), 1.0, 1.0], rtol=1e-6)


def test_a_box_on_two_grounds_turns_and_a_plain_ground_is_none():
    _, params, _ = slid()
    y, speed = np.array([0.0, 0.5, -0.5]), np.full(3, 0.8)
    poses, speeds = rolled(params._replace(ground=SMOOTH), y, speed)
    plain, still = rolled(params, y, speed)
    ones, alike = rolled(params._replace(ground=SMOOTH._replace(level=jnp.zeros((3, 2)))), y, speed)
    assert np.array_equal(ones, plain)
    assert np.array_equal(alike, still)
    assert speeds[-1, 5, 0] > 0.3  # the rougher side, y > 0, stays behind: it turns to the left
    assert np.abs(speeds[-1, 5, 1:]).max() < 1e-3
    smooth = params._replace(theta=params.theta._replace(geom_friction=0.4 * params.theta.geom_friction))
    for one, other in ((poses, plain), (speeds, still)):
        assert np.array_equal(one[..., 1], other[..., 1])
    np.testing.assert_allclose(speeds[..., 2], list(rolled(smooth, y, speed))[1][..., 2], atol=1e-5)
    assert poses[-1, 0, 2] > poses[-1, 0, 1]


def test_logs_tell_where_the_ground_is_smooth_and_what_the_body_is_like():
    """Single rows of boxes that slide anywhere: the friction of most of the ground goes to θ, and the other half stands out."""
    model, params, _ = slid()
    rng, count = np.random.default_rng(0), 300
    true = params._replace(ground=SMOOTH, theta=params.theta._replace(geom_friction=params.theta.geom_friction * 0.8))
    y = rng.uniform(-HIGH, 1.0 - HIGH, count)  # fewer on the smooth half
    q, v = rolled(true, y, rng.uniform(0.3, 1.0, count), yaw=rng.uniform(-3, 3, count))
    rows = [np.concatenate([x[t : t + 2] for t in (0, 3, 6)], -1) for x in (q, v)]
    given = Batch(rows[0], rows[1], *(np.zeros((*n, 3 * count)) for n in ((1, 0), (0,), (0, 0))))
    unknown = Unknown(leaf="geom_friction", names=("box", "floor"), prior_std=0.5, label="friction")
    found = charted(model, params, (unknown,), given)
    assert found.ground
    np.testing.assert_allclose(np.asarray(found.theta.geom_friction)[:, 0], 0.4, rtol=0.03)
    places = jnp.asarray([[0.05, y, 0.0] for y in (-0.25, -0.1, 0.1, 0.4)])[..., None]
    np.testing.assert_allclose(factor(found.ground, places)[:, 0], [0.4, 0.4, 1.0, 1.0], rtol=0.05)


def test_a_chart_that_is_no_better_is_refused(monkeypatch):
    """The fit falls back to the identified physics, and tells the number."""
    from test_fitting import OPTIONS, logs

    theta = jax.tree.map(jnp.asarray, physics.nominal(logs().scene))
    worse = WorldParams(theta=theta._replace(dof_damping=20 * theta.dof_damping))
    monkeypatch.setattr(fitting, "identified", lambda *_, **__: (WorldParams(theta=theta), None))
    monkeypatch.setattr(fitting, "charted", lambda *_: worse)
    options = fitting.FitOptions(**{**vars(OPTIONS), "stages": (), "ground": True})
    refused = fitting.fit(logs(), options)
    assert not refused.kept
    assert refused.worth
    assert refused.worth.interval[1] > 1
    assert refused.params.theta is theta


def test_a_ground_that_nothing_touches_is_no_question():
    from test_fitting import logs

    model = world_model(physics.brax_engine(logs().scene), ModelOptions())
    with pytest.raises(ValueError, match="no ground to chart"):
        charted(model, WorldParams(theta=physics.nominal(logs().scene)), (), Batch(*5 * (np.zeros((2, 1, 1)),)))
