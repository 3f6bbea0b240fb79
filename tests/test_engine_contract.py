"""What every engine promises, on small scenes: shapes, worlds that do not see one another, bonds, inputs, θ, MuJoCo."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics.bonds import FAR
from physics.engine import brax_engine
from physics.mjx import mjx_engine
from physics.params import nominal
from physics.reference import Reference
from physics.scene import load_scene

# A box on the floor with a pusher; two bonded blocks, the upper one hit from the side.
PUSH = """<mujoco><option timestep="0.005" cone="elliptic"/>
<worldbody><geom type="plane" size="5 5 .1"/>
<body name="box" pos="0 0 .0995"><freejoint/><geom type="box" size=".1 .1 .1" mass="2"/></body>
<body name="pusher" pos="-.155 0 .1">
<joint name="push" type="slide" axis="1 0 0" damping="1"/><geom type="sphere" size=".05" mass="1"/></body>
</worldbody>
<actuator><motor joint="push" gear="30" ctrlrange="-1 1" ctrllimited="true"/></actuator></mujoco>"""
PAIR = """<mujoco><option timestep="0.004" cone="pyramidal"/>
<worldbody><geom type="plane" size="5 5 .1"/>
<body name="low" pos="0 0 .0995"><freejoint/><geom type="box" size=".1 .1 .1" mass="2"/></body>
<body name="high" pos="0 0 .25"><freejoint/><geom type="sphere" size=".05" mass="1"/></body>
</worldbody>
<equality><weld name="glue" body1="low" body2="high" anchor="0 0 -.05"/></equality></mujoco>"""
SCENES = {"push": PUSH, "pair": PAIR}
ENGINES = {"brax": brax_engine, "mjx": mjx_engine}
STEPS = 20


class Case:
    """One engine on one scene, its step compiled once for one world and once for three."""

    def __init__(self, engine, xml):
        self.scene = load_scene(xml)
        self.engine = ENGINES[engine](self.scene)
        self.params = jax.tree.map(jnp.asarray, nominal(self.scene))
        self.traces = 0
        self.step = jax.jit(self._step)
        model = self.scene.model
        rng = np.random.default_rng(0)
        self.ctrl = rng.uniform(-0.8, 1.0, (model.nu, 3))
        self.force = rng.uniform(-1, 1, (model.nv, 3))
        self.qpos = (
            np.repeat(self.scene.home()[0][:, None], 3, 1) + [[0.0, 1e-3, -1e-3]] * (np.arange(model.nq) == 0)[:, None]
        )
        self.qvel = np.zeros((model.nv, 3))

    def _step(self, params, state, ctrl, force):
        self.traces += 1
        return self.engine.step(params, state, ctrl, force=force)

    def start(self, worlds=slice(None)):
        return self.engine.init(self.params, self.qpos[:, worlds], self.qvel[:, worlds])

    def run(self, state, steps=STEPS, worlds=slice(None), params=None):
        info = None
        for _ in range(steps):
            state, info = self.step(params or self.params, state, self.ctrl[:, worlds], self.force[:, worlds])
        return state, info


@cache
def case(engine, scene):
    return Case(engine, SCENES[scene])


@pytest.fixture(params=[(engine, scene) for engine in ENGINES for scene in SCENES], ids="-".join)
def one(request):
    return case(*request.param)


@pytest.fixture(params=list(ENGINES))
def bonded(request):
    return case(request.param, "pair")


def test_shapes_of_one_world_and_of_a_batch(one):
    model, slots, bonds = one.scene.model, len(one.engine.contact_bodies), len(one.scene.bonds)
    for worlds, tail in ((0, ()), (slice(None), (3,))):
        state, info = one.run(one.start(worlds), 1, worlds)
        assert state.qpos.shape == (model.nq, *tail)
        assert state.qvel.shape == state.warmstart.shape == (model.nv, *tail)
        assert state.intact.shape == state.apart.shape == (bonds, *tail)
        assert state.time.shape == tail
        assert info.qacc.shape == (model.nv, *tail)
        assert info.contact_impulse.shape == (slots, 3, *tail)
        assert info.contact_frame.shape == (slots, 3, 3, *tail)
        assert info.bond_load.shape == (bonds, 6, *tail)
        assert jax.tree.all(jax.tree.map(lambda x: bool(jnp.isfinite(x).all()), (state, info)))


def test_a_batch_is_a_loop(one):
    # Float32 sums in another order: rounding of 1e-7 per step grows a little in 20 steps of contact.
    batch, _ = one.run(one.start())
    for world in range(2):
        alone, _ = one.run(one.start(world), worlds=world)
        np.testing.assert_allclose(alone.qpos, batch.qpos[:, world], atol=2e-5)


def test_follows_mujoco(one):
    # Same contacts, both solved: what is left is float32 (1e-7 per step) and MJX's own solver tolerance.
    batch, info = one.run(one.start())
    for world in range(2):
        reference = Reference(one.scene)
        reference.reset(one.qpos[:, world], one.qvel[:, world])
        for _ in range(STEPS):
            reference.step(one.ctrl[:, world], force=one.force[:, world])
        np.testing.assert_allclose(batch.qpos[:, world], reference.state().qpos, atol=1e-4)
        np.testing.assert_allclose(info.bond_load[..., world], reference.bond_load(), atol=0.02 * 9.81)
        ours = info.contact_impulse[:, 0, world].sum()
        np.testing.assert_allclose(ours, reference.contacts().impulse[:, 0].sum(), rtol=0.02)


@pytest.mark.parametrize("engine", ENGINES)
def test_control_is_clamped_as_mujoco_does(engine):
    push = case(engine, "push")
    state, still = push.start(), np.zeros_like(push.force)
    most, _ = push.step(push.params, state, np.ones_like(push.ctrl), still)
    more, _ = push.step(push.params, state, np.full_like(push.ctrl, 7.0), still)
    np.testing.assert_array_equal(most.qvel, more.qvel)
    assert (np.abs(np.asarray(most.qvel[6])) > 1e-3).all()


def test_force_enters_before_the_solve(one):
    """A push into the floor is carried by the floor, not by the box's speed."""
    down = np.zeros_like(one.force)
    down[2] = -50.0
    state, _ = one.run(one.start(), 2)
    rest, _ = one.step(one.params, state, one.ctrl, one.force)
    pushed, info = one.step(one.params, state, one.ctrl, one.force + down)
    dt, mass = one.scene.model.opt.timestep, 2.0
    assert (np.asarray(rest.qvel[2] - pushed.qvel[2]) < 0.3 * 50 * dt / mass).all()
    assert (np.asarray(info.contact_impulse[:, 0]).sum(0) > 0.7 * 50 * dt).all()


def test_a_broken_bond_stays_broken_and_lets_go(bonded):
    state, info = bonded.run(bonded.start(), 3)
    assert (np.abs(np.asarray(info.bond_load[0, 2])) > 5).all()
    state = state._replace(intact=state.intact.at[0, 1].set(0.0))
    state, info = bonded.run(state)
    np.testing.assert_array_equal(state.intact, [[1, 0, 1]])
    assert not np.asarray(info.bond_load[..., 1]).any()
    np.testing.assert_array_equal(state.apart[0, [0, 2]], FAR)
    # The sphere still rests on the box: contacts of the pair are on.
    assert state.qpos[9, 1] > 0.24
    assert state.apart[0, 1] < 1e-2
    touching = [set(pair) == {1, 2} for pair in bonded.engine.contact_bodies]
    normal = np.asarray(info.contact_impulse)[touching, 0]
    assert normal[:, 1].sum() > 0
    assert not normal[:, [0, 2]].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(one, bad):
    engine, params, state, ctrl = one.engine, one.params, one.start(), one.ctrl
    ctrls, spoiled = np.repeat(ctrl[None], 2, 0), one.force.copy()
    spoiled[2, 1] = bad
    with pytest.raises(ValueError, match=r"qpos.*finite"):
        engine.init(params, np.full_like(one.qpos, bad), one.qvel)
    for run, u in ((engine.step, ctrl), (engine.rollout, ctrls)):
        with pytest.raises(ValueError, match=r"qvel.*finite"):
            run(params, state._replace(qvel=state.qvel.at[0].set(bad)), u)
        with pytest.raises(ValueError, match=r"force\[2, 1\] is not finite"):
            run(params, state, u, force=spoiled)
        with pytest.raises(ValueError, match=r"wrench.*finite"):
            run(params, state, u, wrench=np.full((one.scene.model.nbody, 6), bad))
        with pytest.raises(ValueError, match=r"params.body_mass.*finite"):
            run(params._replace(body_mass=params.body_mass.at[1].set(bad)), state, u)
        if one.scene.model.nu:
            with pytest.raises(ValueError, match=r"ctrl.*finite"):
                run(params, state, np.full_like(u, bad))


def test_theta_that_no_body_has_is_refused(one):
    for name, value in (("body_mass", 0.0), ("body_inertia", -1.0), ("geom_friction", -0.1), ("dof_damping", -1.0)):
        x = np.array(getattr(one.params, name))
        x[1] = value
        with pytest.raises(ValueError, match=rf"params.{name}.*give a number"):
            one.engine.prepare(one.params._replace(**{name: x}))
    with pytest.raises(ValueError, match=r"params.gravity has shape"):
        one.engine.prepare(one.params._replace(gravity=np.zeros(2)))


def test_wrong_shapes_are_refused(one):
    with pytest.raises(ValueError, match="qpos"):
        one.engine.init(one.params, one.qpos[:-1], one.qvel)
    with pytest.raises(ValueError, match="ctrl"):
        one.engine.step(one.params, one.start(), np.zeros((one.scene.model.nu + 1, 3)))
    with pytest.raises(ValueError, match="force"):
        one.engine.step(one.params, one.start(), one.ctrl, force=one.force[1:])
    with pytest.raises(ValueError, match="wrench"):
        one.engine.rollout(one.params, one.start(), one.ctrl[None], wrench=np.zeros((6, 3)))


def test_theta_changes_without_a_new_trace_and_matters(one):
    state = one.start()
    one.step(one.params, state, one.ctrl, one.force)
    before = one.traces
    heavy = one.params._replace(body_mass=one.params.body_mass * 3.0, body_inertia=one.params.body_inertia * 3.0)
    light, _ = one.run(state)
    slow, _ = one.run(state, params=heavy)
    assert one.traces == before
    assert np.abs(np.asarray(light.qpos - slow.qpos)).max() > 1e-5
    reference = Reference(one.scene, params=jax.tree.map(np.asarray, heavy))
    reference.reset(one.qpos[:, 0], one.qvel[:, 0])
    for _ in range(STEPS):
        reference.step(one.ctrl[:, 0], force=one.force[:, 0])
    np.testing.assert_allclose(slow.qpos[:, 0], reference.state().qpos, atol=1e-4)
