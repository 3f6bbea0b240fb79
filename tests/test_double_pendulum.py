"""The published equation of the double pendulum against MuJoCo C, its residual, its memory, and the filter over seats."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from flax import nnx

from experiments import doublepend
from experiments.measured import double_pendulum as dp
from experiments.measured import pendulum_fit, pendulum_replay, pendulum_trust, seat
from experiments.measured.options import Doublepend
from experiments.measured.pendulum_set import DESIGNS, STEP, Run
from physics.scene import load_scene


def scene_theta(model):
    """θ of the shipped scene: inertias about the joints, no armature, no friction."""
    m, r = model.body_mass[1:], np.abs(model.body_ipos[1:, 2])
    inertia = model.body_inertia[1:].max(1) + m * r**2
    length = 0.3
    bodies = (inertia[0] + m[1] * length**2, inertia[1], m[1] * length * r[1], 9.81 * (m[0] * r[0] + m[1] * length))
    return np.log([*bodies, 9.81 * m[1] * r[1], *[1e-12] * 6])


def test_the_equation_is_mujocos():
    model = load_scene("double_pendulum").model
    data, theta = mujoco.MjData(model), jnp.asarray(scene_theta(model), jnp.float32)
    rng = np.random.default_rng(0)
    for _ in range(5):
        q, v, u = rng.uniform(-1.5, 1.5, 2), rng.uniform(-4, 4, 2), rng.uniform(-2, 2, 2)
        data.qpos[:], data.qvel[:], data.ctrl[:] = q, v, u
        mujoco.mj_forward(model, data)
        ours = dp.acceleration(theta, *(jnp.asarray(x, jnp.float32)[:, None] for x in (q, v, u)))
        np.testing.assert_allclose(ours[:, 0], data.qacc_smooth, rtol=2e-4, atol=2e-3)


def swinging(seconds=3.0, design=2, kind="a", torque=0.3, seed=0):
    """A run of the published physics under a slow torque."""
    steps = round(seconds / STEP)
    time = np.arange(steps) * STEP
    u = torque * np.stack([np.sin(3 * time + seed), np.cos(2 * time + seed)], -1)
    nothing = dp.Memory(jnp.zeros((4, 1)), jnp.zeros((4, 1)), jnp.ones((2, 1)))
    start = jnp.asarray([[0.4], [0.2]])
    given = dp.Window(start[None], 0 * start[None], jnp.asarray(u)[..., None], nothing, jnp.array([design]))
    q, v = jax.jit(lambda given: dp.rollout(dp.hybrid(jnp.asarray(dp.published()), None), given))(given)
    full = lambda first, rest: np.concatenate([np.asarray(first[None]), np.asarray(rest)])[..., 0]  # noqa: E731
    return Run(design, kind, full(start, q), full(0 * start, v), u, True, False)


@pytest.fixture(scope="module")
def run():
    return swinging()


def test_what_follows_the_physics_misses_no_torque(run):
    missed = dp.missing(jnp.asarray(dp.published()[2]), *(jnp.asarray(x.T) for x in (run.q, run.v, run.u)))
    assert np.median(np.abs(missed)) < 2e-3  # friction turns within a step now and then


def test_before_training_the_hybrid_is_the_physics(run):
    theta, weights = dp.published(), pendulum_fit.graph_of("hybrid")[1]
    places = [(0, 60), (0, 100)]
    given = pendulum_fit.cut([run], places, 50, theta)
    residual = nnx.merge(pendulum_fit.graph_of("hybrid")[0], weights)
    plain, _ = dp.rollout(dp.hybrid(jnp.asarray(theta, jnp.float32), None), given)
    learned, _ = dp.rollout(dp.hybrid(jnp.asarray(theta, jnp.float32), residual), given)
    np.testing.assert_array_equal(plain, learned)
    np.testing.assert_allclose(plain, given.q[1:], atol=2e-3)


def test_memory_looks_back_only(run):
    theta = dp.published()
    later = run._replace(q=run.q.copy(), u=run.u.copy())
    later.q[300:] += 0.5
    later.u[300:] += 1.0
    for one, two in zip(dp.memories(run, theta), dp.memories(later, theta), strict=True):
        np.testing.assert_array_equal(one[:300], two[:300])
        assert not np.array_equal(one[301:], two[301:])


def test_folds_hide_whole_controllers_and_overlap_nowhere(run, tmp_path):
    runs = [run._replace(kind=kind) for kind in ("sysid", "sysid", *"aaabbbccdde")]
    options, hidden = Doublepend(data=tmp_path), set()
    for split in doublepend.splits(runs, options):
        learned, chosen, asked = set(split.learned), set(split.chosen), set(split.asked)
        assert not learned & asked
        assert not chosen & asked
        never = {runs[i].kind for i, new in zip(split.asked, split.unseen, strict=True) if new}
        assert not never & {runs[i].kind for i in learned | chosen}
        hidden |= never
    assert hidden == set("abcde")
    with pytest.raises(ValueError, match="at least two are needed"):
        list(doublepend.splits(runs[:4], options))


def test_the_network_of_a_finished_part_comes_back(run):
    state = pendulum_fit.graph_of("network", 3)[1]
    part = {"theta": dp.published(), **doublepend._packed("network", state), **doublepend._packed("residual", None)}
    models = doublepend.unpacked(part)
    assert models.residual is None
    for one, two in zip(jax.tree.leaves(models.network), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(one, two)
    assert len(DESIGNS) == len(models.theta)


def test_the_filter_learns_from_a_seat_where_the_thread_lies():
    memory = seat.Memory(1)
    uses, holes = 5, 2
    seats = np.array([[0.5] * holes] + [[-0.15, 0.75]] * (uses - 1))  # one thread lies early, one late
    zeros = np.zeros((uses, holes))
    given = seat.Holes(*(jnp.asarray(x, jnp.float32) for x in (seats, zeros, zeros, zeros[..., None], zeros + 1)))
    lost, chance = jax.jit(lambda given: memory(given))(given)
    assert np.isfinite(lost).all()
    assert chance[0, 0] == pytest.approx(float(chance[0, 1]))  # nothing known yet
    assert chance[-1, 0] > 1.5 * chance[-1, 1]
    assert ((chance > 0) & (chance < 1)).all()
    density = np.exp(memory.log_density(seat.KNOTS))
    assert density.sum() * (seat.KNOTS[1] - seat.KNOTS[0]) == pytest.approx(1, rel=1e-4)


def test_trust_of_a_kind_of_driving_is_the_best_on_runs_set_aside():
    still = np.zeros((1, 2))
    groups = [Run(0, kind, still, still, still, True, False) for kind in ("sysid", "sysid0812", "swing")]
    at = [0, 0, 1, 1, 2, 2]
    error = np.ones((len(pendulum_trust.GRID), 6))
    error[2, :4], error[4, :4] = 0.8, 1.2  # half is best for identification
    error[4, 4:] = 0.3
    assert pendulum_trust._best(error, groups, at, "identification") == 0.5
    assert pendulum_trust._best(error, groups, at, "controller") == 1.0
    assert pendulum_trust._best(error[:, :4], groups, at[:4], "controller") == 1.0  # nothing set aside
    assert [pendulum_trust.kind_of(run) for run in groups] == ["identification", "identification", "controller"]


def test_without_trust_the_hybrid_is_the_physics(run):
    theta = jnp.asarray(dp.published(), jnp.float32)
    given = pendulum_fit.cut([run], [(0, 60), (0, 100)], 20, dp.published())
    residual = nnx.merge(pendulum_fit.graph_of("hybrid")[0], pendulum_fit.graph_of("hybrid")[1])
    residual.last.bias[...] = jnp.ones(2)
    plain, doubted, learned = (
        dp.rollout(law, given)[0]
        for law in (
            dp.hybrid(theta, None),
            dp.hybrid(theta, residual, jnp.array([0.0, 1.0])),
            dp.hybrid(theta, residual),
        )
    )
    np.testing.assert_allclose(doubted[..., 0], plain[..., 0], atol=1e-5)
    np.testing.assert_allclose(doubted[..., 1], learned[..., 1], atol=1e-5)
    assert np.abs(plain - learned).max() > 1e-3


def test_forecasts_follow_the_physics_they_come_from_and_can_be_looked_at(run, tmp_path):
    weights, theta, places = pendulum_fit.graph_of("network")[1], dp.published(), [(0, 60), (0, 100)]
    truth = pendulum_fit.measured([run], places)
    said = pendulum_fit.forecasts("identified", theta, None, [run], places)
    np.testing.assert_array_equal(said[:, 0], truth[:, 0].astype(np.float32))
    np.testing.assert_allclose(said, truth, atol=0.02)
    error = pendulum_fit.errors("identified", theta, None, [run], places)
    last = [round(h / STEP) for h in pendulum_fit.HORIZONS_S]
    np.testing.assert_allclose(error, np.sqrt(np.mean((said - truth)[:, last] ** 2, -1)))
    pendulum_replay.write([run], pendulum_fit.Models(theta, None, weights), lambda run: 1.0, tmp_path)
    (page,) = (tmp_path / "replays").iterdir()
    assert page.name == f"{DESIGNS[run.design]}.html"
    assert pendulum_replay.pendulum("A.0").model.body("lower").pos[2] == -0.3
