"""Our kinematics and dynamics beside Brax's own, on the scenes that Brax can load without contacts."""

import numpy as np
import pytest

import physics
from physics import dynamics
from physics import lanes as ln
from physics.brax_view import brax_state, brax_system
from physics.tree import Tree, forward


@pytest.fixture(scope="module", params=["arm", "double_pendulum"])
def both(request):
    scene = physics.load_scene(request.param)
    params = physics.nominal(scene)
    rng = np.random.default_rng(3)
    qpos, qvel = 0.4 * rng.normal(size=scene.model.nq), rng.normal(size=scene.model.nv)
    state = physics.brax_engine(scene).init(params, qpos, qvel)
    tree = Tree(scene.model)
    pose = forward(tree, ln.table(params.body_ipos), ln.lanes(state.qpos))
    bodies = dynamics.inertias(tree, pose, ln.lanes(params.body_mass), ln.table(params.body_inertia))
    lower = dynamics.mass_matrix(tree, pose, bodies, ln.lanes(params.dof_armature))
    return pose, np.array(lower, float), brax_state(scene, state)


def test_links_stand_where_brax_has_them(both):
    pose, _, brax = both
    ours = np.array([[float(x) for x in p] for p in pose.pos[1:]])
    # Brax's links sit at their joints' anchors; in these scenes the body frames do too. float32: 1e-5 m over 1 m of arm.
    np.testing.assert_allclose(ours, np.asarray(brax.x.pos), atol=1e-5)


def test_mass_matrix_is_braxs(both):
    _, lower, brax = both
    # float32 sums of products up to the largest entry
    scale = np.abs(lower).max()
    np.testing.assert_allclose(lower, np.tril(np.asarray(brax.mass_mx)), atol=1e-5 * scale)


def test_the_loader_leaves_our_model_alone():
    scene = physics.load_scene("double_pendulum")
    before = scene.model.jnt_range.copy()
    brax_system(scene)
    np.testing.assert_array_equal(scene.model.jnt_range, before)


def test_many_worlds_are_refused():
    scene = physics.load_scene("pendulum")
    state = physics.brax_engine(scene).init(physics.nominal(scene), np.zeros((1, 2)), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="one world"):
        brax_state(scene, state)
