"""Identification of θ: truth within its own uncertainty, and plain words about what logs cannot tell."""

import numpy as np
import pytest

from hybridwm.learning.identification import identify
from hybridwm.learning.unknowns import Unknown
from hybridwm.logs import tangent
from hybridwm.logs.recordings import Dataset, Recording, windows
from physics import Reference, brax_engine, load_scene, nominal

BOX = """<mujoco><option timestep="0.01" iterations="100" tolerance="1e-10"/><worldbody>
<geom name="floor" type="plane" size="3 3 1"/>
<body name="box"><joint name="x" type="slide" axis="1 0 0"/><joint name="z" type="slide" axis="0 0 1"/>
<geom name="box" type="box" size=".1 .1 .1" density="1000"/></body></worldbody>
<actuator><motor name="push" joint="x" gear="30" ctrllimited="true" ctrlrange="-3 3"/></actuator>
<keyframe><key qpos="0 0.0999"/></keyframe></mujoco>"""
LOOSE = {"scale": "linear", "prior_std": 1.0}


def changed(params, leaf, index, value):
    new = np.array(getattr(params, leaf))
    new[index] = value
    return params._replace(**{leaf: new})


def logs(scene, true, amplitude, *, episodes=4, steps=200, noise=0.0, seed=0, home=None):
    """Episodes of MuJoCo C with parameters `true` under slow random controls, seen with noise."""
    rng, model = np.random.default_rng(seed), scene.model
    t = np.arange(steps)[:, None, None] * model.opt.timestep
    hz, phase = rng.uniform(0.3, 1.5, (2, 3, model.nu, episodes)) * np.array([1, 4])[:, None, None, None]
    ctrl = amplitude * sum(np.sin(2 * np.pi * h * t + p) for h, p in zip(hz, phase, strict=True)) / 2
    qpos, qvel = (np.repeat(np.asarray(x, float)[:, None], episodes, 1) for x in (home or scene.home()))
    run = Reference(scene, params=true).rollout(qpos, qvel, ctrl)
    qpos = np.stack([tangent.advance(model, q, noise * rng.standard_normal((model.nv, episodes))) for q in run.qpos])
    qvel = run.qvel + 5 * noise * rng.standard_normal(run.qvel.shape)
    cut = [
        Recording(str(e), qpos[..., e], qvel[..., e], ctrl[..., e], np.ones((steps + 1, 0))) for e in range(episodes)
    ]
    return Dataset(scene, float(model.opt.timestep), tuple(cut), {})


def within(found, label, truth, sigmas=3.0):
    return abs(found.estimate[label] - truth) <= sigmas * found.std[label]


@pytest.fixture(scope="module")
def pendulum():
    return brax_engine(load_scene("pendulum"))


@pytest.fixture(scope="module")
def swung(pendulum):
    """A pendulum 40 % too heavy, and damped."""
    true = nominal(pendulum.scene)
    true = true._replace(body_mass=1.4 * true.body_mass, body_inertia=1.4 * true.body_inertia)
    return changed(true, "dof_damping", 0, 0.05)


SWUNG = (
    Unknown(leaf="body_mass", names=("link",)),
    Unknown(leaf="dof_damping", names=("hinge",), **LOOSE),
)


@pytest.mark.parametrize("noise", [0.0, 2e-3])
def test_pendulum_within_three_sigma(pendulum, swung, noise):
    found = identify(pendulum, windows(logs(pendulum.scene, swung, 2.0, noise=noise), 20), SWUNG)
    assert within(found, "mass of link", 1.4 * 1.1), found.report
    assert within(found, "damping of hinge", 0.05), found.report
    assert found.std["mass of link"] < 0.03
    assert not found.confounded
    assert float(found.params.dof_damping[0]) == pytest.approx(found.estimate["damping of hinge"])
    if noise:
        assert found.noise_std == pytest.approx([noise, 5 * noise], rel=0.15)


def test_inertia_follows_mass(pendulum, swung):
    found = identify(pendulum, windows(logs(pendulum.scene, swung, 2.0), 20), SWUNG)
    given = nominal(pendulum.scene)
    ratio = found.params.body_inertia[1] / given.body_inertia[1]
    assert ratio == pytest.approx(np.full(3, found.params.body_mass[1] / given.body_mass[1]), rel=1e-5)


def test_mass_and_gain_without_gravity_are_told_apart_by_nothing(pendulum):
    params = nominal(pendulum.scene)._replace(gravity=np.zeros(3))
    data = logs(pendulum.scene, params, 1.0, noise=1e-3)
    asked = (SWUNG[0], Unknown(leaf="actuator_gain", names=("torque",)))
    found = identify(pendulum, windows(data, 20), asked, params=params)
    assert "mass of link and gain of torque: only their ratio is determined" in found.confounded[0]
    assert found.correlation[0, 1] > 0.98
    assert found.std["mass of link"] > 0.5


def test_what_is_never_moved_is_not_identifiable(pendulum):
    resting = logs(pendulum.scene, nominal(pendulum.scene), 0.0, noise=1e-3)
    found = identify(pendulum, windows(resting, 20), (Unknown(leaf="actuator_gain", names=("torque",)),))
    assert found.confounded == (
        "gain of torque: not identifiable from this data (the data leaves 100% of the prior's spread)",
    )


def test_bounds_hold_and_are_told(pendulum, swung):
    asked = (Unknown(leaf="body_mass", names=("link",), low=1.0, high=1.3), SWUNG[1])
    found = identify(pendulum, windows(logs(pendulum.scene, swung, 2.0), 20), asked)
    assert found.estimate["mass of link"] == pytest.approx(1.3)
    assert "mass of link stands at its bound 1.3" in found.warnings


def test_the_same_twice(pendulum, swung):
    cut = windows(logs(pendulum.scene, swung, 2.0, noise=2e-3), 20)
    one, two = (identify(pendulum, cut, SWUNG) for _ in range(2))
    np.testing.assert_array_equal(one.z, two.z)
    np.testing.assert_array_equal(one.covariance, two.covariance)


def test_rows_of_several_steps(pendulum, swung):
    data = logs(pendulum.scene, swung, 2.0, steps=100)
    every = tuple(
        Recording(r.name, r.qpos[::2], r.qvel[::2], r.ctrl[::2], r.intact[::2])
        for r in (rec._replace(ctrl=np.repeat(rec.ctrl[::2], 2, 0)) for rec in data.recordings)
    )
    slow = logs_again(pendulum.scene, swung, every)
    found = identify(pendulum, windows(Dataset(pendulum.scene, 0.01, slow, {}), 20), SWUNG, every=2)
    assert within(found, "mass of link", 1.4 * 1.1), found.report
    assert found.std["mass of link"] < 0.03


def logs_again(scene, true, recordings):
    """The same controls held over two steps."""
    out = []
    for r in recordings:
        run = Reference(scene, params=true).rollout(
            r.qpos[0][:, None], r.qvel[0][:, None], np.repeat(r.ctrl, 2, 0)[..., None]
        )
        out.append(r._replace(qpos=run.qpos[::2, :, 0], qvel=run.qvel[::2, :, 0]))
    return tuple(out)


@pytest.fixture(scope="module")
def box():
    return brax_engine(load_scene(BOX))


PUSHED = (
    Unknown(leaf="body_mass", names=("box",)),
    Unknown(leaf="geom_friction", names=("box", "floor"), label="friction"),
)


@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_pushed_box_within_three_sigma(box, noise):
    true = nominal(box.scene)
    true = true._replace(body_mass=1.3 * true.body_mass, body_inertia=1.3 * true.body_inertia)
    true = changed(true, "geom_friction", (slice(None), 0), 0.6)
    found = identify(box, windows(logs(box.scene, true, 3.0, noise=noise), 10), PUSHED)
    assert within(found, "mass of box", 10.4), found.report
    assert within(found, "friction", 0.6), found.report
    assert found.std["friction"] < 0.01


def test_what_is_asked_wrongly_is_refused(pendulum):
    cut = windows(logs(pendulum.scene, nominal(pendulum.scene), 1.0), 20)
    cases = {
        "no body 'lnk' in the scene; did you mean 'link'": Unknown(leaf="body_mass", names=("lnk",)),
        "leaf 'mass': not among the parameters": Unknown(leaf="mass", names=("link",)),
        "the scene says 0, which no factor changes": Unknown(leaf="dof_damping", names=("hinge",)),
    }
    for words, unknown in cases.items():
        with pytest.raises(ValueError, match=words):
            identify(pendulum, cut, (unknown,))
    with pytest.raises(ValueError, match="give the lower one first"):
        Unknown(leaf="body_mass", low=2.0, high=1.0)
    with pytest.raises(ValueError, match="not finite"):
        identify(pendulum, cut._replace(qvel=cut.qvel * np.nan), SWUNG)


@pytest.mark.slow
def test_intervals_cover(pendulum, swung):
    """95 % intervals hold the truth in 95 % of cases: of 30 seeds and 2 unknowns at least 52 of 60 (chance of fewer: 0.3 %)."""
    truth = {"mass of link": 1.4 * 1.1, "damping of hinge": 0.05}
    inside = 0
    for seed in range(30):
        cut = windows(logs(pendulum.scene, swung, 2.0, noise=2e-3, seed=seed), 20)
        found = identify(pendulum, cut, SWUNG)
        inside += sum(low <= truth[name] <= high for name, (low, high) in found.interval.items())
    assert inside >= 52
