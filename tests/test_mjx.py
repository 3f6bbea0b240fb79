"""What is special about the engine over MJX: its derived constants, and the scenes it refuses."""

import jax
import numpy as np
import pytest

from physics.mjx import mjx_engine
from physics.params import nominal
from physics.recompile import recompile
from physics.scene import load_scene

SCENE = """<mujoco>{extra}<worldbody><geom type="plane" size="5 5 .1"/>
<body pos="0 0 .1"><freejoint/><geom type="box" size=".1 .1 .1" mass="8"/></body>
<body pos="-1 0 .1"><joint type="slide" axis="1 0 0"/><geom type="sphere" size=".05" mass="1"/></body>
<body pos="1 0 1"><joint type="hinge" axis="0 1 0"/><geom type="sphere" size=".05" pos=".3 0 .1" mass="2"/>
<body pos=".5 0 0"><joint type="ball"/><geom type="sphere" size=".05" pos=".2 .1 0" mass="1"/></body></body>
</worldbody></mujoco>"""


@pytest.fixture(scope="module")
def scene():
    return load_scene(SCENE.format(extra=""))


@pytest.fixture(scope="module")
def prepare(scene):
    return jax.jit(mjx_engine(scene).prepare)


@pytest.mark.parametrize("change", ["nothing", "masses", "centres", "armature"])
def test_derived_constants_are_those_of_mujocos_compiler(scene, prepare, change):
    theta = nominal(scene)
    if change == "masses":
        theta = theta._replace(body_mass=theta.body_mass * 3, body_inertia=theta.body_inertia * [1.0, 1.2, 1.4])
    if (
        change == "centres"
    ):  # all but the slider's: MuJoCo's rule for a body that only slides ends where its centre leaves 0
        theta = theta._replace(body_ipos=theta.body_ipos + 0.01 * (np.arange(scene.model.nbody) != 2)[:, None])
    if change == "armature":
        theta = theta._replace(dof_armature=theta.dof_armature + 0.1)
    ours, model = prepare(theta), recompile(scene, theta)
    for name in ("body_invweight0", "dof_invweight0", "body_subtreemass"):
        # Float32; the centres of mass of MJX's model stand 1e-6 m off.
        np.testing.assert_allclose(getattr(ours, name), getattr(model, name), rtol=2e-4, atol=1e-5, err_msg=name)


def test_contacts_that_change_places_are_refused():
    limit = '<custom><numeric name="max_contact_points" data="4"/></custom>'
    with pytest.raises(ValueError, match="max_contact_points"):
        mjx_engine(load_scene(SCENE.format(extra=limit)))
