"""Logged states brought onto the bonds that hold, by the least change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxprs import lapack_primitives

import physics
from hybridwm.learning.projection import Projection
from hybridwm.logs import tangent

W = 4


@pytest.fixture(scope="module")
def noisy():
    """The snapping rod with noise on every pose and speed, projected; the bond of world 3 is broken."""
    scene = physics.load_scene("snapping_rod")
    project, rng = Projection(physics.brax_engine(scene)), np.random.default_rng(0)
    qpos, qvel = (np.repeat(x[:, None], W, 1) for x in scene.home())
    qpos = tangent.advance(scene.model, qpos, rng.normal(0, 1e-3, (scene.model.nv, W)))
    qvel = rng.normal(0, 0.1, qvel.shape)
    given = tuple(jnp.asarray(x, float) for x in (qpos, qvel, np.array([[1, 1, 1, 0]])))
    run = jax.jit(lambda *given: project(physics.nominal(scene), *given))
    return scene, project, run, given, run(*given)


def apart(qpos):
    """(m, rad) between the two ends of the rod's weld, from its geometry alone."""
    hinge, at, quat = qpos[0], qpos[1:4], qpos[4:8]
    end = np.stack([-0.3 * np.sin(hinge), 0 * hinge, 0.9 - 0.3 * np.cos(hinge)])
    whole = np.stack([np.cos(hinge / 2), 0 * hinge, np.sin(hinge / 2), 0 * hinge])
    return np.linalg.norm(at - end, axis=0), 2 * np.arccos(np.clip(np.abs((quat * whole).sum(0)), 0, 1))


def test_welds_meet_and_broken_ones_are_left_alone(noisy):
    _, _, _, (qpos, qvel, _), (found, speed) = noisy
    metres, radians = (x[:3] for x in apart(np.asarray(found, float)))
    assert max(x[:3].min() for x in apart(np.asarray(qpos, float))) > 3e-4
    assert metres.max() < 1e-6
    assert radians.max() < 2e-3  # arccos in float32 sees no less
    np.testing.assert_allclose(found[:, 3], qpos[:, 3], atol=1e-6)
    np.testing.assert_allclose(speed[:, 3], qvel[:, 3], atol=1e-6)


def test_velocities_keep_the_welds_together(noisy):
    scene, _, _, _, (found, speed) = noisy
    later = tangent.advance(scene.model, np.asarray(found, float), 1e-3 * np.asarray(speed, float))
    assert apart(later)[0][:3].max() < 1e-5  # of second order in the time step


def test_the_change_is_least_in_mass(noisy):
    """No direction that keeps the weld lowers δᵀ M δ: M δ is a combination of the rows of J."""
    scene, project, _, (qpos, qvel, _), (found, speed) = noisy
    theta = project.engine.prepare(physics.nominal(scene)).params
    both = jax.jit(lambda qpos: (project._mass(theta, qpos), project._jacobian(qpos)))(found)
    mass, rows = (np.asarray(x, float)[..., 0] for x in both)
    for change in (
        tangent.difference(scene.model, np.asarray(found, float), np.asarray(qpos, float))[:, 0],
        np.asarray(qvel - speed)[:, 0],
    ):
        asked = mass @ change
        left = asked - rows.T @ np.linalg.lstsq(rows.T, asked, rcond=1e-6)[0]
        assert np.linalg.norm(left) < 0.02 * np.linalg.norm(asked)


def test_a_state_on_the_bonds_stays(noisy):
    _, _, run, (_, _, intact), (found, speed) = noisy
    again = run(found, speed, intact)
    np.testing.assert_allclose(again[0], found, atol=2e-6)
    np.testing.assert_allclose(again[1], speed, atol=2e-5)


def test_projection_uses_no_lapack(noisy):
    scene, project, _, given, _ = noisy
    assert not lapack_primitives(jax.make_jaxpr(lambda *x: project(physics.nominal(scene), *x))(*given))
