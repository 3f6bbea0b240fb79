"""θ and what follows from it: the same as numbers, traced, mapped or with a value per world."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics.engine import brax_engine
from physics.params import nominal
from physics.recompile import recompile
from physics.scene import load_scene
from physics.types import PARAMS_NDIM, Params

# A chain on a slide, a free box, a slider alone (which MuJoCo weighs by its mass only), a motor and a bond.
SCENE = """<mujoco><worldbody>
<body pos="0 0 1"><joint type="slide" axis="1 0 0"/><geom type="sphere" size=".1" mass="1" pos=".1 0 0"/>
<body pos=".3 0 0"><joint name="elbow" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 .3 0 0" size=".03" mass=".5"/>
</body></body>
<body name="box" pos="0 0 2"><freejoint/><geom type="box" size=".1 .2 .3" mass="2"/></body>
<body pos="0 3 1"><joint type="slide" axis="0 1 0"/><geom type="sphere" size=".1" mass="3"/></body>
<body name="rider" pos="0 0 2.5"><freejoint/><geom type="sphere" size=".1" mass="1"/></body></worldbody>
<equality><weld name="glue" body1="box" body2="rider"/></equality>
<actuator><motor joint="elbow"/></actuator></mujoco>"""
WORLDS = 3


@pytest.fixture(scope="module")
def scene():
    return load_scene(SCENE)


@pytest.fixture(scope="module")
def prepare(scene):
    return jax.jit(brax_engine(scene).prepare)


def varied(scene):
    """θ of three worlds: as modelled, three times as heavy, and with rotors."""
    theta = nominal(scene)
    heavy = theta._replace(body_mass=3 * theta.body_mass, body_inertia=3 * theta.body_inertia)
    geared = theta._replace(dof_armature=theta.dof_armature + 0.2)
    return [theta, heavy, geared]


def together(thetas):
    return jax.tree.map(lambda *x: jnp.asarray(np.stack(x, -1)), *thetas)


def test_nominal_is_the_models_and_a_copy(scene):
    theta = nominal(scene)
    for name, ndim in zip(Params._fields, PARAMS_NDIM, strict=True):
        assert getattr(theta, name).ndim == ndim
        if hasattr(scene.model, name):
            np.testing.assert_array_equal(getattr(theta, name), getattr(scene.model, name))
    np.testing.assert_array_equal(theta.gravity, scene.model.opt.gravity)
    np.testing.assert_array_equal(theta.bond_strength, [[np.inf, np.inf]])
    theta.body_mass[:] = 7
    assert nominal(scene).body_mass[1] == 1


def test_worlds_and_single_thetas_and_vmap_agree(scene, prepare):
    thetas = varied(scene)
    worlds = prepare(together(thetas))
    assert worlds.body_invweight.shape == (scene.model.nbody, 2, WORLDS)
    front = jax.vmap(prepare)(jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *thetas))
    for w, theta in enumerate(thetas):
        alone, model = prepare(theta), recompile(scene, theta)
        for name, expected in (("body_invweight", model.body_invweight0), ("dof_invweight", model.dof_invweight0)):
            for got in (getattr(alone, name), getattr(worlds, name)[..., w], getattr(front, name)[w]):
                np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6, err_msg=name)


def test_theta_as_numbers_gives_the_same(scene, prepare):
    theta = nominal(scene)
    folded = jax.jit(lambda: brax_engine(scene).prepare(theta))()
    for got, expected in zip(folded[1:], prepare(theta)[1:], strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_what_is_prepared_passes_through(scene, prepare):
    constants = prepare(nominal(scene))
    assert brax_engine(scene).prepare(constants) is constants


def test_derived_constants_differentiate(scene, prepare):
    """Twice the mass and inertia, half the weights: so Σ θ ∂w/∂θ over both is −w."""
    theta = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), nominal(scene))
    scale = theta._replace(**{name: jnp.zeros_like(x) for name, x in theta._asdict().items()})
    scale = scale._replace(body_mass=theta.body_mass, body_inertia=theta.body_inertia)
    value, slope = jax.jvp(lambda t: prepare(t)[1:], (theta,), (scale,))
    for w, dw in zip(value, slope, strict=True):
        np.testing.assert_allclose(dw, -w, rtol=1e-4, atol=1e-5)
