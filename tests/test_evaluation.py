"""Numbers of an evaluation against cases whose answer is known, and figures that are written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import physics
from hybridwm.judging import evaluation as ev
from hybridwm.judging import figures
from hybridwm.judging.evaluation import Breaks, Prediction
from hybridwm.learning.measure import lengths, worth
from hybridwm.logs import tangent
from hybridwm.logs.recordings import Windows
from hybridwm.world.model import WorldParams, world_model

H, W = 20, 6


def windows_of(name, **changes):
    scene = physics.load_scene(name)
    qpos, qvel = (np.broadcast_to(x[:, None], (H + 1, len(x), W)).copy() for x in scene.home())
    nb = len(scene.bonds)
    given = Windows(
        qpos, qvel, np.zeros((H, scene.model.nu, W)), np.ones((H + 1, nb, W)), np.zeros((0, scene.model.nu, W)),
        np.arange(W) // 2, np.zeros(W, int),
    )  # fmt: skip
    return scene, given._replace(**changes)


def test_a_hinge_off_by_an_angle_errs_by_its_length():
    scene, given = windows_of("double_pendulum")
    moved = given.qpos[1:].copy()
    moved[:, 1] += 0.01
    found = Prediction(moved, given.qvel[1:], given.intact[1:], np.zeros((0, W)))
    error = ev.errors(scene, given, found)
    length = lengths(scene)
    assert length[0] > length[1] > 0.2  # the first link carries the second
    np.testing.assert_allclose(error["position (m)"], 0.01 * length[1], rtol=1e-5)
    assert not error["velocity (m/s)"].any()
    assert "turn (rad)" not in error


def test_a_turned_body_errs_by_the_angle_and_by_how_far_it_reaches():
    scene, given = windows_of("falling_box")
    step = np.zeros((6, W))
    step[3:] = 0.3 * np.array([[1.0], [2.0], [2.0]]) / 3
    moved = np.stack([tangent.advance(scene.model, q, step) for q in given.qpos[1:]])
    error = ev.errors(scene, given, Prediction(moved, given.qvel[1:], given.intact[1:], np.zeros((0, W))))
    np.testing.assert_allclose(error["turn (rad)"], 0.3, rtol=1e-6)
    np.testing.assert_allclose(error["position (m)"], 0.3 * lengths(scene)[3], rtol=1e-5)
    assert lengths(scene)[3] == pytest.approx(scene.model.geom("box").rbound[0])


def test_a_scene_without_bonds_is_foretold_too():
    scene, given = windows_of("pendulum")
    model = world_model(physics.brax_engine(scene))
    theta = jax.tree.map(jnp.asarray, physics.nominal(scene))
    found = ev.predict(ev.Subject(model, WorldParams(theta=theta)), given)
    assert found.chance.shape == (0, W)
    assert found.qpos.shape == given.qpos[1:].shape


def test_explained_shares_add_up():
    shares = ev.explained({"given": np.full(4, 2.0), "identified": np.full(4, 1.0), "hybrid": np.full(4, 0.5)})
    assert shares == pytest.approx({"identified": 0.75, "hybrid": 0.1875, "left": 0.0625})
    assert sum(shares.values()) == pytest.approx(1)


def test_breaks_match_within_two_steps_and_count_once():
    never = 100
    said = Breaks(
        np.array([10, 12, 13, never, 50, never]), np.array([10, 10, 10, 10, never, never]), np.zeros(6), np.arange(6)
    )
    scores = ev.event_scores(said, never)
    assert scores["f1"] == pytest.approx(2 * 2 / (4 + 4))  # hits at 0 and 2 steps; of four claimed and four true
    assert scores["timing_steps"] == 2
    assert scores["breaking"] == pytest.approx(4 / 6)


def test_breaks_leave_out_bonds_that_were_broken_before():
    _, given = windows_of("glass")
    intact = given.intact.copy()
    intact[:, 0, 1] = 0
    intact[5:, 1, 2] = 0
    given = given._replace(intact=intact)
    found = Prediction(given.qpos[1:], given.qvel[1:], intact[1:], np.full((2, W), 0.5))
    said = ev.breaks(given, found)
    assert len(said.true) == 2 * W - 1
    assert (said.found == said.true).all()
    assert sorted(said.true)[:2] == [4, H]
    assert ev.mended(given, found) == 0
    again = intact[1:].copy()
    again[12:, 1, 2] = 1
    assert ev.mended(given, found._replace(intact=again)) == 1


def test_calibration_error_is_unbiased_where_the_plain_one_is_not():
    rng = np.random.default_rng(0)
    chance = rng.uniform(0, 1, (300, 200))
    happened = rng.uniform(size=chance.shape) < chance
    squares = [ev.calibration_error(p, y) for p, y in zip(chance, happened, strict=True)]
    plain = []
    for p, y in zip(chance, happened, strict=True):
        mean, share, n = ev.reliability(p, y).T
        plain.append(np.sum(n * np.abs(mean - share)) / len(p))
    assert np.median(squares) < 0.03 < np.median(plain)
    wrong = np.clip(chance * 0.6, 0, 1)
    assert ev.calibration_error(wrong.ravel(), happened.ravel()) > 0.15


def test_the_threshold_rule_finds_the_load_that_matters():
    rng = np.random.default_rng(1)
    load = rng.uniform(0, 1, (2, 400))
    broke = load[1] > 0.6
    rule = ev.threshold_rule(load[:, :200], broke[:200])
    assert ev.log_loss(rule(load[:, 200:]), broke[200:]) < 0.15
    assert ev.log_loss(np.full(200, broke[:200].mean()), broke[200:]) > 0.5


def test_worth_and_its_interval():
    rng = np.random.default_rng(2)
    episode, base = np.repeat(np.arange(30), 4), rng.uniform(1, 10, 120)
    same = worth(base, base, episode)
    assert same.ratio == pytest.approx(1)
    assert same.interval == pytest.approx((1, 1))
    assert worth(0.5 * base, base, episode).ratio == pytest.approx(0.53, abs=0.02)  # a twentieth is given to both
    found = worth(base * rng.uniform(0.2, 0.8, 120), base, episode)
    assert found.interval[0] < found.ratio < found.interval[1] < found.interval[0] + 0.15


def test_figures_are_written(tmp_path):
    rng = np.random.default_rng(0)
    one = {"position (m)": rng.uniform(0.1, 1, (H, W)), "velocity (m/s)": rng.uniform(0.1, 1, (H, W))}
    figures.horizon({"a": one, "b": one}, 0.01, tmp_path / "horizon.png")
    figures.shares({"physics": 0.8, "residual": 0.15, "left": 0.05}, tmp_path / "shares.png")
    chance = rng.uniform(size=500)
    table = ev.reliability(chance, rng.uniform(size=500) < chance)
    figures.reliability({"a": table}, tmp_path / "reliability.png")
    figures.timing({"a": rng.integers(-3, 4, 50)}, tmp_path / "timing.png")
    assert all(
        (tmp_path / f"{name}.png").stat().st_size > 5000 for name in ("horizon", "shares", "reliability", "timing")
    )
