"""Physics as a planner's model: the engine's own steps, and bonds whose chance to break depends on their peak load."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import physics
from hybridwm.world.physics_model import SPREAD, SURE, nominal_model, repeated
from planners import PlanInfo

STEPS, EVERY = 150, 5
TORQUE = np.array([5.0, 4.2, 2.0, 5.0])
"""Four worlds: the rod snaps, comes close, is safe, and is held by force."""


@pytest.fixture(scope="module")
def rod():
    """The rod under a constant torque, in four worlds, one compilation: (states `[T, ..., 4]`, infos)."""
    scene = physics.load_scene("snapping_rod")
    plan = nominal_model(physics.brax_engine(scene), every=EVERY)
    forced = jnp.asarray([[-1, -1, -1, 0]], jnp.int8)

    @jax.jit
    def roll(params, state):
        def step(state, _):
            state, info = plan.model.step(params, state, jnp.asarray(TORQUE[None], float), forced=forced)
            return state, (state, info)

        return jax.lax.scan(step, state, None, length=STEPS // EVERY)[1]

    qpos, qvel = (np.repeat(np.asarray(part)[:, None], 4, axis=1) for part in scene.home())
    return plan, roll(plan.params, plan.init(plan.params, qpos, qvel))


def test_a_bond_breaks_by_the_load_that_mujoco_measures(rod):
    """The filtered share of the strength, step by step, beside MuJoCo C's loads; 2 % for a weld in float32."""
    plan, (states, _) = rod
    reference = physics.Reference(physics.load_scene("snapping_rod"))
    load, path = 0.0, []
    for _ in range(STEPS):
        reference.step([TORQUE[2]])
        force, torque = np.split(reference.bond_load()[0], 2)
        share = np.hypot(np.linalg.norm(force) / 40, np.linalg.norm(torque) / 1.5)
        load = share + np.exp(-0.002 / 0.01) * (load - share)
        path.append(load)
    np.testing.assert_allclose(states.load[:, 0, 2], path[EVERY - 1 :: EVERY], rtol=0.02)
    assert 0.3 < max(path) < 0.9
    assert plan.model.events == ("weld",)


def test_the_chance_depends_on_the_peak_alone(rod):
    plan, (states, infos) = rod
    happened = 1 - np.prod(1 - np.asarray(infos.event_probability[:, 0]), axis=0)
    peak = np.asarray(states.peak[-1, 0])
    np.testing.assert_allclose(happened, 1 / (1 + peak ** (-1 / SPREAD)), atol=1e-4)
    last = jax.tree.map(lambda leaf: leaf[-1], states)
    np.testing.assert_allclose(plan.chance(last)[0, 1:], happened[1:], atol=1e-4)
    assert happened[0] > SURE - 0.01
    assert happened[2] < 1e-3


def test_what_breaks_stays_broken_and_what_is_held_holds(rod):
    _, (states, infos) = rod
    intact = np.asarray(states.intact[:, 0])
    assert (intact[-1] == [0, 1, 1, 1]).all()
    assert (np.diff(intact, axis=0) <= 0).all()
    broken = intact[:, 0] == 0
    assert (np.asarray(infos.event_probability)[1:, 0, 0][broken[:-1]] == 0).all(), "nothing breaks twice"
    assert np.asarray(states.peak)[-1, 0, 3] > np.asarray(states.peak)[-1, 0, 0], "held, it feels more"


def test_without_events_it_is_the_engine_bit_for_bit():
    scene = physics.load_scene("pendulum")
    engine = physics.brax_engine(scene)
    plan = nominal_model(engine, every=3)
    ctrl = jnp.asarray([[1.0, -2.0]])
    state = plan.init(plan.params, np.array([[0.3, 1.0]]), np.zeros((1, 2)))

    @jax.jit
    def three(params, body):
        return jax.lax.scan(lambda body, _: (engine.step(params, body, ctrl)[0], None), body, None, length=3)[0]

    after, info = jax.jit(plan.model.step)(plan.params, state, ctrl)
    assert info is None
    assert plan.model.events == ()
    assert plan.model.dt == pytest.approx(0.015)
    for one, other in zip(after.body, three(plan.params, state.body), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_scene_without_limits_on_its_motors_is_refused():
    free = "<mujoco><worldbody><body><joint name='j'/><geom size='.1' contype='0' conaffinity='0'/></body></worldbody>"
    scene = physics.load_scene(free + "<actuator><motor name='m' joint='j'/></actuator></mujoco>")
    with pytest.raises(ValueError, match="actuator 'm' has no ctrlrange"):
        nominal_model(physics.brax_engine(scene))


def test_several_steps_tell_as_one():
    def step(params, state, ctrl):
        return state + 1, PlanInfo(event_probability=jnp.full((1, 1), 0.5), spread=state, trust=-state, valid=state < 2)

    state, info = repeated(step, 3)(None, jnp.zeros(1), jnp.zeros((1, 1)))
    assert state == 3
    told = (info.event_probability, info.spread, info.trust, info.valid)
    assert [float(np.ravel(part)[0]) for part in told] == [0.875, 2.0, -2.0, 0.0]
    assert info.fired is None
    assert repeated(step, 1)(None, jnp.zeros(1), jnp.zeros((1, 1)))[0] == 1
