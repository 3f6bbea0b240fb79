"""The parts of the study `toss`: symmetric features, the untrained hybrid, scale from flight and rest, folds without leaks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.measured.tosses import DT, HALF_WIDTH
from experiments.toss import corners, fits, models, scale, things, tilt, turning, windows
from experiments.toss.sets import Set

ROWS, G, FACTOR = 45, 9.6, 0.98


@pytest.fixture(scope="module")
def cube():
    return things.cube()


def spun(rng, n):
    quat = rng.normal(size=(4, n))
    return quat / np.linalg.norm(quat, axis=0)


def states(n=6, seed=0):
    rng = np.random.default_rng(seed)
    qpos = np.concatenate([rng.uniform(-1, 1, (2, n)), rng.uniform(0.05, 0.2, (1, n)), spun(rng, n)])
    return jnp.asarray(qpos, jnp.float32), jnp.asarray(rng.normal(size=(6, n)), jnp.float32)


def ahead(n):
    return jnp.stack([jnp.ones(n), jnp.zeros(n)])


def seen(thing, qpos, qvel):
    low = corners.lowest(corners.all_corners(thing, qpos, qvel))
    return np.asarray(corners.features(thing, qpos, qvel, low))


def test_features_do_not_know_heading_or_the_cubes_own_axes(cube):
    qpos, qvel = states()
    yaw = jnp.asarray([np.cos(0.4), 0, 0, np.sin(0.4)])[:, None] + 0 * qpos[:4]
    turned = jnp.concatenate([turning.turned(yaw, qpos[:3]), turning.product(yaw, qpos[3:])])
    spun_vel = jnp.concatenate([turning.turned(yaw, qvel[:3]), qvel[3:]])
    np.testing.assert_allclose(seen(cube, turned, spun_vel), seen(cube, qpos, qvel), atol=2e-5)
    quarter = jnp.asarray([np.sqrt(0.5), np.sqrt(0.5), 0, 0])[:, None] + 0 * qpos[:4]
    back = quarter * jnp.asarray([1, -1, -1, -1])[:, None]
    relabelled = jnp.concatenate([qpos[:3], turning.product(qpos[3:], quarter)])
    own = jnp.concatenate([qvel[:3], turning.turned(back, qvel[3:])])
    np.testing.assert_allclose(seen(cube, relabelled, own), seen(cube, qpos, qvel), atol=2e-5)


def test_corner_speeds_are_derivatives_of_corner_places():
    thing, rng, h = things.elbow(), np.random.default_rng(1), 1e-3
    qpos = np.concatenate([rng.normal(size=(3, 4)), spun(rng, 4), rng.normal(size=(1, 4))])
    qvel = rng.normal(size=(7, 4))
    quat = qpos[3:7] + h / 2 * np.asarray(
        turning.product(jnp.asarray(qpos[3:7]), jnp.concatenate([jnp.zeros((1, 4)), qvel[3:6]]))
    )
    later = np.concatenate([qpos[:3] + h * qvel[:3], quat / np.linalg.norm(quat, axis=0), qpos[7:] + h * qvel[6:]])
    one, two = (corners.all_corners(thing, jnp.asarray(q), jnp.asarray(qvel)) for q in (qpos, later))
    moved = (np.asarray(two.arm - one.arm) + (later - qpos)[None, :3]) / h
    np.testing.assert_allclose(moved, np.asarray(one.vel), atol=5e-3)


def fallen(n=12, seed=0):
    """Throws that fall freely with g = 9.6 and lie flat at 0.98 of the half width afterwards."""
    rng, throws = np.random.default_rng(seed), []
    for _ in range(n):
        vel, height = rng.normal(size=3) * 0.3, 0.2
        rows = [np.array([0, 0, height, 1, 0, 0, 0])]
        for _ in range(ROWS):
            vel = vel - np.array([0, 0, G * DT])
            place = rows[-1][:3] + DT * vel
            place[2] = max(place[2], FACTOR * HALF_WIDTH)
            rows.append(np.concatenate([place, [1, 0, 0, 0]]))
        throws.append(np.array(rows + rows[-1:] * 3))
    return windows.throws_of(throws, [np.concatenate([(t[1, :3] - t[0, :3]) / DT, np.zeros(3)]) for t in throws])


def test_scale_comes_from_the_fall_and_from_rest(cube):
    g, factor = scale.scale(cube, fallen())[:2]
    assert g == pytest.approx(G, rel=2e-3)
    assert factor == pytest.approx(FACTOR, rel=1e-4)


def test_velocities_of_later_rows_are_those_of_the_poses():
    throws = fallen()
    np.testing.assert_allclose(throws.qpos[1:, :3] - throws.qpos[:-1, :3], DT * throws.qvel[1:, :3], atol=1e-6)
    turn = np.array([np.cos(0.1), 0, np.sin(0.1), 0])[:, None]
    still = np.array([0, 0, 0, 1.0, 0, 0, 0])[:, None]
    other = np.concatenate([still[:3], -turn])  # the other sign of the same orientation
    np.testing.assert_allclose(windows.difference(still[None], other[None])[0, :, 0], [0, 0, 0, 0, 0.2, 0], atol=1e-9)


def test_the_untrained_hybrid_is_the_physics_bit_for_bit(cube):
    start = models.Start(*states(4), ahead(4))
    phi = jnp.asarray(cube.guess, jnp.float32)[:, None]
    hybrid = models.hybrid(cube)
    alone, _ = models.physics(cube).rollout(models.Fitted(phi, None), start, 30)
    both, _ = hybrid.rollout(models.Fitted(phi, (hybrid.fresh(jax.random.key(0), 1),)), start, 30)
    np.testing.assert_array_equal(alone, both)


def test_no_group_is_asked_about_a_throw_that_it_knows():
    data = Set(tuple("abcdefghijkl"), fallen(), "")
    groups = fits.groups_of(data, None, 4, seed=3)
    assert sorted(np.concatenate(groups.asked)) == list(range(12))
    assert all(not set(k) & set(a) for k, a in zip(groups.known, groups.asked, strict=True))
    few, more = groups.parts(4)[0].qpos, groups.parts(8)[0].qpos
    np.testing.assert_array_equal(few, more[..., :4])
    aside = fits.groups_of(data, Set(("x",), fallen(5, 1), ""), 3, seed=0)
    assert all(len(k) == 12 for k in aside.known)
    assert aside.ask_about.number == 5


def test_leaving_the_boards_frame_undoes_entering_it(cube):
    qpos, qvel = states(5)
    phi = jnp.asarray(cube.guess, jnp.float32)[:, None] + jnp.zeros((1, 5))
    for name, value in (("pull_across", 0.14), ("slope_along", -0.004), ("slope_across", 0.009)):
        phi = phi.at[cube.place(name)].set(value)
    found = tilt.tilt_of(cube, phi, ahead(5))
    moved, _ = tilt.entered(found, qpos, qvel)
    np.testing.assert_allclose(tilt.left(found, moved[None])[0], qpos, atol=1e-6)
    normal = jnp.asarray([-0.004, 0.009, 1.0])[:, None] + jnp.zeros((1, 5))
    np.testing.assert_allclose(turning.turned(found.turn, normal)[:2], 0, atol=1e-5)
    np.testing.assert_allclose(found.gravity[1], 0.14 + 9.81 * 0.009, rtol=1e-3)


def test_tilt_comes_from_the_fall_and_from_rest(cube):
    """The same throws, seen by cameras that lean: gravity pulls sideways and the board slopes."""
    throws, lean = fallen(), 0.01
    turn = jnp.asarray([np.cos(lean / 2), np.sin(lean / 2), 0, 0], jnp.float32)[:, None] + jnp.zeros((1, throws.number))
    qpos = throws.qpos + np.array([-0.3, 0, 0, 0, 0, 0, 0])[:, None]
    leaning = np.stack([np.asarray(tilt._turned(turn, jnp.asarray(q))) for q in qpos])
    found = scale.scale(cube, throws._replace(qpos=leaning.astype(np.float32)))
    assert found.slope_across == pytest.approx(-lean, rel=0.15)
    assert found.pull_across == pytest.approx(G * lean, rel=0.25)
    assert found.slope_along == pytest.approx(0, abs=2e-3)


def test_a_thrown_body_rests_at_the_height_that_was_asked_for(cube):
    phi = jnp.asarray(cube.guess, jnp.float32)[:, None] + jnp.zeros((1, 2))
    phi = phi.at[cube.place("stiffness")].set(jnp.log(jnp.array([1500.0, 4000.0])))
    qpos = jnp.zeros((7, 2)).at[2].set(HALF_WIDTH + 1e-3).at[3].set(1.0)
    start = models.Start(qpos, jnp.zeros((6, 2)), ahead(2))
    found, _ = models.physics(cube).rollout(models.Fitted(phi, None), start, 60)
    np.testing.assert_allclose(found[-1, 2], HALF_WIDTH, atol=2e-5)
