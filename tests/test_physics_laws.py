"""Laws of physics in float32: what nature keeps is kept, and motions with a closed form follow it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics.balance import energy, momentum, supplied
from physics.engine import brax_engine
from physics.params import nominal
from physics.scene import load_scene

G = 9.81
BRICK = """<mujoco><option timestep="0.002" gravity="0 0 0"/><worldbody><body pos="1 2 3"><freejoint/>
<inertial pos=".1 -.05 .2" mass="2" diaginertia=".02 .05 .06"/><geom type="box" size=".1 .2 .3" contype="0"
conaffinity="0"/></body></worldbody></mujoco>"""


def simulate(scene, steps, qpos, qvel, output, *, wrench=None, ctrl=0.0):
    """Outputs along a rollout under one control, from one start or worlds of them."""
    engine, params = brax_engine(scene), nominal(scene)

    @jax.jit
    def run(qpos, qvel):
        state = engine.init(params, qpos, qvel)
        ctrls = jnp.full((steps, scene.model.nu, *state.qpos.shape[1:]), ctrl)
        read = lambda state, info: output(engine, params, state)  # noqa: E731
        return read(state, None), engine.rollout(params, state, ctrls, output=read, wrench=wrench)[1]

    first, rest = run(jnp.asarray(qpos), jnp.asarray(qvel))
    return jax.tree.map(lambda a, b: np.concatenate([a[None], b]), first, rest)


def test_a_free_body_keeps_its_momentum():
    """An asymmetric body, far from the origin, spinning about an unstable axis at 3 rad/s: 2 s at 2 ms, within 5e-3."""
    scene = load_scene(BRICK)
    spin = 3.0 * np.array([0.1, 1.0, 0.1]) / np.linalg.norm([0.1, 1.0, 0.1])
    qvel = np.array([0.5, -0.2, 0.3, *spin])
    path = simulate(scene, 1000, scene.home()[0], qvel, lambda *given: momentum(*given))
    for kept in path:
        drift = np.linalg.norm(kept - kept[0], axis=1).max() / np.linalg.norm(kept[0])
        assert drift < 5e-3


def swing(timestep):
    """The double pendulum for 2 s: the largest change of its energy over the range of its potential energy.

    A wide swing (home) over the whole range, hanging to upright, and a narrow one over the range that it sweeps itself.
    """
    spec = load_scene("double_pendulum").spec.copy()
    spec.option.timestep = timestep
    scene = load_scene(spec.to_xml())
    wide, hanging, upright = (1.2, 0.5), (0.0, 0.0), (np.pi, 0.0)
    qpos = np.transpose([wide, (0.6, 0.3), hanging, upright])
    path = simulate(scene, round(2 / timestep), qpos, np.zeros((2, 4)), lambda *given: energy(*given))
    change = np.abs(path.total - path.total[0]).max(0)
    whole = path.potential[0, 3] - path.potential[0, 2]
    return np.array([change[0] / whole, change[1] / np.ptp(path.potential[:, 1])])


def test_the_double_pendulum_keeps_its_energy_the_better_the_finer_the_step():
    coarse, fine = swing(0.002), swing(0.001)
    assert (coarse < 2.5e-2).all()
    assert (coarse / fine > 1.8).all()


@pytest.fixture(scope="module")
def falls():
    """Two falling boxes for 2 s: one high up and not turning, one thrown on the floor. Position and energy in time."""
    scene = load_scene("falling_box")
    qpos, qvel = (np.repeat(x[:, None], 2, 1) for x in scene.home())
    qpos[2, 0], qvel[:3, 0] = 2.0, [0.3, 0.0, 1.0]
    qvel[:, 1] = [1.0, 0.5, 0.0, 2.0, -3.0, 1.0]
    return simulate(scene, 500, qpos, qvel, lambda *given: (given[2].qpos[:3], energy(*given).total))


def test_free_fall(falls):
    """z = z₀ + v t − g t (t + h)/2 in Euler's own time, which is the parabola to first order in h."""
    path, h = falls[0][:101, :, 0], 0.004
    t = np.arange(101) * h
    expected = np.stack([0.3 * t, 0 * t, 2.0 + t - 0.5 * G * t * (t + h)], 1)
    np.testing.assert_allclose(path, expected, atol=2e-5)
    np.testing.assert_allclose(path[:, 2], 2.0 + t - 0.5 * G * t**2, atol=0.5 * G * t[-1] * h + 1e-5)


def test_the_floor_takes_energy_and_gives_none(falls):
    """The thrown box comes to rest; soft contact stores energy for a moment, but never above what there was."""
    path = falls[1][:, 1]
    assert path.max() < path[0] * (1 + 1e-5)
    rest = float(load_scene("falling_box").model.body_mass.sum()) * G * 0.06
    np.testing.assert_allclose(path[-1], rest, rtol=1e-2)


def test_the_period_of_a_pendulum():
    """From 60° the period is T₀ / agm(1, cos 30°), T₀ = 2π √(I/(m g l)): within 0.1 %."""
    scene, start = load_scene("pendulum"), np.pi / 3
    path = simulate(scene, 1300, [start], [0.0], lambda engine, params, state: (state.qpos[0], state.qvel[0]))
    angle, _ = path
    m, h = scene.model, float(scene.model.opt.timestep)
    arm = float(-m.body_ipos[1, 2])
    inertia = float(m.body_inertia[1, 0] + m.body_mass[1] * arm**2)
    a, b = 1.0, np.cos(start / 2)
    for _ in range(6):
        a, b = (a + b) / 2, np.sqrt(a * b)
    expected = 2 * np.pi * np.sqrt(inertia / (m.body_mass[1] * G * arm)) / a
    falling = np.flatnonzero((angle[:-1] > 0) & (angle[1:] <= 0))
    crossing = h * (falling + angle[falling] / (angle[falling] - angle[falling + 1]))
    periods = np.diff(crossing)
    assert len(periods) >= 3
    np.testing.assert_allclose(periods, expected, rtol=1e-3)


def test_the_stop_distance_of_a_sliding_box():
    """v²/(2 μ g) on an elliptic cone at 2 ms: within 1 %."""
    scene = load_scene("sliding_box")
    assert scene.model.opt.timestep == 0.002
    friction = float(scene.model.geom_friction[0, 0])
    speeds = np.array([0.7, 1.0, 1.5])
    qpos, qvel = (np.repeat(x[:, None], 3, 1) for x in scene.home())
    qpos[2] = 0.05 - 2e-5  # where the floor carries its weight
    qvel[0] = speeds
    path = simulate(scene, 400, qpos, qvel, lambda engine, params, state: state.qpos[0])
    stop = (speeds / (friction * G * 0.002)).astype(int) + 5  # creep on soft contact comes after the stop
    reached = path[stop, np.arange(3)]
    np.testing.assert_allclose(reached, speeds**2 / (2 * friction * G), rtol=1e-2)


def test_what_a_wrench_puts_in_is_found_again():
    """Work and impulse of a wrench on the free brick are its gain of energy and momentum, step by step."""
    scene = load_scene(BRICK)
    engine, params = brax_engine(scene), nominal(scene)
    wrench = np.zeros((2, 6))
    wrench[1] = [3.0, -1.0, 2.0, 0.2, 0.1, -0.3]

    @jax.jit
    def step(before):
        after, _ = engine.step(params, before, jnp.zeros(0), wrench=jnp.asarray(wrench))
        share = supplied(engine, params, before, after, wrench)
        gain = [
            jnp.array([energy(scene, params, at).total, *jnp.concatenate(momentum(scene, params, at))])
            for at in (before, after)
        ]
        return after, gain[1] - gain[0], jnp.concatenate([share.work[None], share.linear, share.angular])

    state = engine.init(params, scene.home()[0], [0.5, 0, 0, 0.2, -0.3, 0.1])
    gained, given = np.zeros(7), np.zeros(7)
    for _ in range(50):
        state, gain, share = step(state)
        gained, given = gained + gain, given + share
    # Euler's step in the coordinates of a body that turns about another point than its centre of mass is first order:
    # at 2 ms and up to 1 rad/s about 1 % of what a push of 0.1 s gives.
    np.testing.assert_allclose(gained, given, rtol=1e-2, atol=5e-3)


def test_of_trees_the_sum_is_the_whole():
    scene = load_scene("pushed_box")
    engine, params = brax_engine(scene), nominal(scene)
    rng = np.random.default_rng(0)
    qvel = rng.normal(size=(scene.model.nv, 4))
    state = engine.init(params, np.repeat(scene.home()[0][:, None], 4, 1), qvel)
    for measure in (energy, momentum):
        whole, parts = (jax.jit(partial(measure, scene, per_tree=each))(params, state) for each in (False, True))
        for a, b in zip(whole, parts, strict=True):
            assert b.shape == (2, *a.shape)
            np.testing.assert_allclose(a, b.sum(0), rtol=1e-6)
    pusher = 0.5 * scene.model.body_mass[2] * qvel[6] ** 2
    kinetic = energy(scene, params, state, per_tree=True).kinetic
    np.testing.assert_allclose(kinetic[1], pusher, rtol=1e-5)


RUBBING = """<mujoco><option timestep="0.002" gravity="0 0 0"/><worldbody><body><joint name="x" type="slide" axis="1 0 0"
frictionloss="2" solreffriction="0.004 1" solimpfriction=".99 .99 .001"/><geom size=".1" mass="4"/></body></worldbody>
<actuator><motor joint="x"/></actuator></mujoco>"""


@pytest.mark.parametrize("push", [0.0, 1.5, 5.0])
def test_dry_friction_brakes_evenly_and_holds_what_is_weaker(push):
    """m dv/dt = push − 2 N while it slides at 1 m/s; what is pushed less than that comes to rest and stays."""
    scene = load_scene(RUBBING)
    speed = simulate(scene, 2500, np.zeros(1), np.ones(1), lambda engine, params, state: state.qvel[0], ctrl=push)
    stops = 4.0 / (2.0 - push) if push < 2 else np.inf
    t = np.arange(len(speed)) * 0.002
    sliding = t < min(stops, 5.0) - 0.1
    assert sliding.sum() > 900
    np.testing.assert_allclose(speed[sliding], 1 + (push - 2) / 4 * t[sliding], atol=2e-4)
    if t[-1] > stops + 0.2:
        assert np.abs(speed[t > stops + 0.2]).max() < 0.002 * 2  # a held joint creeps by what its softness lets through


def test_friction_where_the_scene_has_none_is_refused():
    scene = load_scene(RUBBING.replace('frictionloss="2"', ""))
    theta = nominal(scene)._replace(dof_frictionloss=np.array([1.0]))
    with pytest.raises(ValueError, match=r"dof_frictionloss\[0\] is 1: give 0, or .* joint_friction"):
        brax_engine(scene).prepare(theta)
