"""Derivatives run along what moves and keep little: looked at in the programs, not timed."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxprs import equations

from physics import moving
from physics.engine import brax_engine
from physics.params import nominal
from physics.scene import load_scene

WORLDS = 7


def test_numbers_stay_numbers():
    tree = {"a": 1.5, "b": jnp.ones(2), "c": (None, jnp.zeros(2))}
    xs, again = moving.arrays(tree)
    assert len(xs) == 2
    other = again([x + 1 for x in xs])
    assert other["a"] == 1.5
    np.testing.assert_array_equal(other["c"][1], np.ones(2))


def test_the_derivative_along_what_moves():
    calls = []

    @jax.custom_jvp
    def f(x, y):
        return x * y

    def rule(primals, tangents):
        calls.append([type(t).__name__ for t in tangents])
        return f(*primals), moving.along(lambda xs: xs[0] * xs[1], primals, tangents)

    f.defjvp(rule, symbolic_zeros=True)
    at = jnp.float32(2), jnp.float32(3)
    np.testing.assert_allclose(jax.grad(f)(*at), 3.0)
    assert "SymbolicZero" in calls[-1]
    np.testing.assert_allclose(jax.grad(f, (0, 1))(*at), (3.0, 2.0))


def step_of(name):
    scene = load_scene(name)
    engine, theta = brax_engine(scene), nominal(scene)
    state = engine.init(theta, *(np.repeat(x[:, None], WORLDS, 1) for x in scene.home()))

    def step(qvel, theta):
        return engine.step(theta, state._replace(qvel=qvel), np.zeros((scene.model.nu, WORLDS)))[0].qpos

    return step, state.qvel, jax.tree.map(jnp.asarray, theta)


def test_theta_that_stands_still_costs_nothing():
    """No stage of the reverse pass has a result for θ where only the velocity is asked for."""
    step, qvel, theta = step_of("pushed_box")
    program = jax.make_jaxpr(lambda v, t: jax.grad(lambda v: step(v, t).sum())(v))(qvel, theta)
    results = [len(e.outvars) for e in equations(program.jaxpr) if e.primitive.name == "lane_stage"]
    assert results
    assert max(results) < 60  # with θ they would be 100 and more


def test_a_step_keeps_little_for_its_gradient():
    """Numbers per world that reverse mode carries from a step to its way back."""
    step, qvel, theta = step_of("stacked_boxes")
    _, back = jax.eval_shape(lambda v: jax.vjp(lambda v: step(v, theta), v), qvel)
    kept = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(back) if WORLDS in x.shape) / WORLDS
    assert kept < 1500  # 2,900 with all that the collision computes
