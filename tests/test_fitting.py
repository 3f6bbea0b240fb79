"""Fitting: what the physics lacks is learned, the same twice, resumed as if never interrupted, refused where it is no good."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import physics
from hybridwm.learning import training
from hybridwm.learning.contenders import GIVEN
from hybridwm.learning.fitting import FitOptions, fit, prepared, with_weights
from hybridwm.learning.identification import Identified
from hybridwm.learning.measure import paired, worth
from hybridwm.learning.training import Stage
from hybridwm.logs.recordings import Dataset, Recording
from hybridwm.logs.stepping import stepped
from hybridwm.world.model import ModelOptions, WorldParams, world_model

PENDULUM = """<mujoco><option timestep="0.01"/><worldbody><body name="arm">
<joint name="hinge" type="hinge" axis="0 1 0" damping="0.05"/>
<geom name="arm" type="capsule" fromto="0 0 0 0 0 -.5" size=".02" mass="1" contype="0" conaffinity="0"/></body></worldbody>
<actuator><motor name="torque" joint="hinge" ctrlrange="-3 3" ctrllimited="true"/></actuator></mujoco>"""
STAGES = (
    Stage(horizon=1, updates=60, batch=32, learning_rate=1e-2),
    Stage(horizon=4, updates=20, batch=16, learning_rate=3e-3),
)
OPTIONS = FitOptions(
    model=ModelOptions(hidden=(16,), members=2), stages=STAGES, lag=False, validate_s=0.5, validation=0.25
)


@cache
def logs():
    """Twelve swings of a pendulum that feels a spring and drag which its scene does not have."""
    scene = physics.load_scene(PENDULUM)
    rng, dt, steps, kept = np.random.default_rng(0), 0.01, 150, []
    reference = physics.Reference(scene, substeps=1)
    t = np.arange(steps) * dt
    for number in range(12):
        ctrl = 1.5 * np.sin(2 * np.pi * rng.uniform(0.2, 1.5) * t + rng.uniform(0, 6))[:, None]
        reference.reset(rng.uniform(-1, 1, 1), rng.normal(0, 1, 1))
        rows = [reference.state()]
        for command in ctrl:
            q, v = rows[-1].qpos[0], rows[-1].qvel[0]
            rows.append(reference.step(command, force=[-0.8 * np.sin(3 * q) - 0.1 * v * abs(v)]))
        qpos, qvel = (np.array([getattr(row, name) for row in rows]) for name in ("qpos", "qvel"))
        kept.append(Recording(str(number), qpos, qvel, ctrl, np.ones((steps + 1, 0))))
    return Dataset(scene, dt, tuple(kept), {})


@pytest.fixture
def _no_identification(monkeypatch):
    """θ as given: identification has tests of its own."""
    theta = jax.tree.map(jnp.asarray, physics.nominal(logs().scene))
    nothing = Identified(**dict.fromkeys(Identified._fields, ()) | {"params": WorldParams(theta=theta)})  # type: ignore
    monkeypatch.setattr("hybridwm.learning.fitting.identified", lambda *_, **__: (WorldParams(theta=theta), nothing))


class Memory:
    """A training log in memory that stops everything after some chunks."""

    def __init__(self, stop=10**9):
        self.kept, self.stop = [], stop

    def save(self, epoch, now):
        self.kept.append((epoch, now))
        if len(self.kept) == self.stop:
            raise KeyboardInterrupt

    def latest(self, like):
        return self.kept[-1] if self.kept else None


@pytest.mark.usefixtures("_no_identification")
def test_what_the_physics_lacks_is_learned_twice_alike_and_after_a_stop():
    first = fit(logs(), OPTIONS)
    assert first.kept
    assert first.worth
    assert first.worth.ratio < 0.5
    assert first.worth.interval[1] < 1.0
    stopped = Memory(stop=2)
    with pytest.raises(KeyboardInterrupt):
        fit(logs(), OPTIONS, log=stopped)
    stopped.stop = 10**9
    resumed = fit(logs(), OPTIONS, log=stopped)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, first.params, resumed.params)))


@pytest.mark.usefixtures("_no_identification")
def test_a_residual_that_is_no_better_is_refused(monkeypatch):
    noise = lambda model, params, stages: training.Training(  # noqa: E731
        jax.tree.map(lambda x: x + 1.0, params.residual.weights), (), jax.tree.map(lambda x: x + 1.0, params.residual.weights),
        jnp.asarray(jnp.inf), jnp.int32(9), jnp.int32(0),
    )  # fmt: skip
    monkeypatch.setattr(training, "begin", noise)
    monkeypatch.setattr(training, "train", lambda *_, **__: iter(()))
    spoiled = fit(logs(), OPTIONS)
    assert not spoiled.kept
    assert spoiled.worth
    assert spoiled.worth.interval[1] > 1.0
    assert spoiled.params.residual is None


def test_stepped_velocities_are_those_of_the_engine():
    dataset = stepped(logs())
    recording = dataset.recordings[0]
    moved = np.diff(recording.qpos, axis=0) / dataset.dt
    assert np.allclose(recording.qvel[1:], moved)
    assert len(recording.qvel) == len(recording.qpos)


def test_the_split_is_by_episode_and_the_ratio_is_one_where_nothing_happens():
    train_set, held_out = prepared(logs(), OPTIONS)
    names = [{r.name for r in part.recordings} for part in (train_set, held_out)]
    assert not names[0] & names[1]
    assert len(names[1]) == 3
    assert np.allclose(paired(np.zeros(3), np.zeros(3)), 1.0)
    found = worth(np.full(40, 0.5), np.full(40, 1.0), np.arange(40) % 8)
    assert found.interval[0] <= found.ratio <= found.interval[1] < 0.6


def test_trained_weights_replace_the_fresh_ones():
    scene = logs().scene
    model = world_model(physics.brax_engine(scene), OPTIONS.model)
    fresh = model.residual.fresh(jax.random.key(0))
    other = jax.tree.map(lambda x: x + 1, fresh.weights)
    replaced = with_weights(WorldParams(theta=physics.nominal(scene), residual=fresh), other).residual
    assert replaced
    assert replaced.weights is other


def test_theta_that_logs_led_astray_is_not_planned_with(monkeypatch):
    """Where θ as given foretells held-out episodes better than what was identified, it is what the model stands on."""
    nominal = physics.nominal(logs().scene)
    astray = WorldParams(theta=jax.tree.map(jnp.asarray, nominal._replace(dof_damping=np.zeros(1))))
    found = Identified(**dict.fromkeys(Identified._fields, ()) | {"params": astray})  # type: ignore
    monkeypatch.setattr("hybridwm.learning.fitting.identified", lambda *_, **__: (astray, found))
    fitted = fit(logs(), FitOptions(model=OPTIONS.model, stages=(), lag=False, validate_s=0.5, validation=0.25))
    assert fitted.report["stands_on"] == GIVEN
    assert not fitted.kept
    assert np.allclose(fitted.params.theta.dof_damping, nominal.dof_damping)
