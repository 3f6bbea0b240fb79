"""Shift, causes and generations: what they ask, and how they count."""

import numpy as np
import pytest

from experiments.argument import balls, causes, generations, shift, table
from experiments.argument.learned_options import Generations, Shift
from experiments.seeds import over_seeds, spread, upper


@pytest.mark.parametrize("d", [0.003, 10.0])
def test_an_episode_lies_as_far_outside_as_it_says(d):
    rng = np.random.default_rng(0)
    e = shift.shifted("position", d, rng)
    assert e.place[e.present, 0].max() == pytest.approx(-table.BOX * (1 + d))
    e = shift.shifted("speed", d, rng)
    assert np.linalg.norm(e.speed, axis=1).max() == pytest.approx(table.SPEED * (1 + d))
    assert shift.shifted("mass", d, rng).factor.max() == pytest.approx(table.HEAVIEST * (1 + d))
    assert np.abs(shift.shifted("command", d, rng).ctrl).max() == pytest.approx(table.FORCE * (1 + d))


@pytest.mark.parametrize("pairs", shift.TOUCHING)
def test_as_many_pairs_touch_as_asked(pairs):
    e = shift.shifted("contacts", pairs - 1, np.random.default_rng(1))
    place = e.place[e.present]
    apart = np.linalg.norm(place[:, None] - place[None], axis=-1)[np.triu_indices(len(place), 1)]
    assert (apart < 2 * table.RADIUS + 1e-9).sum() == pairs


def test_episodes_are_the_same_twice_and_every_cell_has_some():
    one, two = (shift.episodes(Shift(quick=True))[1] for _ in range(2))
    assert all(
        np.array_equal(a.place, b.place) and np.array_equal(a.ctrl, b.ctrl) for a, b in zip(one, two, strict=True)
    )
    where = shift.episodes(Shift(windows=2))[0]
    assert {w: where.count(w) for w in where}[("contacts", 8.0)] == 2


def asked(qpos):
    """Four worlds of one scene: the driven puck and the glass one."""
    present = np.zeros((table.PUCKS, 4), bool)
    present[:2] = True
    return table.Asked(qpos, 0 * qpos[0], np.zeros((len(qpos) - 1, 8, 4)), np.ones((table.PUCKS, 4)), present)


def test_questions_are_answered_from_places():
    qpos = np.zeros((41, table.PUCKS, 2, 4))
    qpos[:, 1, 0, 0] = np.linspace(0, 0.5, 41)  # leaves the square, evenly
    qpos[:, 1, 0, 1] = 0.1 * (np.arange(41) > 20)  # jumps
    qpos[:, 1, 0, 2] = 0.2
    qpos[:, 1, 0, 3] = np.nan
    goal = np.array([[9.0, 9.0, 0.2, 9.0], [0.0] * 4])
    falls, breaks, reaches = causes.answers(qpos.reshape(41, -1, 4), asked(qpos.reshape(41, -1, 4)), goal)
    assert falls.tolist() == [True, False, False, False]
    assert breaks.tolist() == [False, True, False, False]
    assert reaches.tolist() == [False, False, True, False]


def test_an_effect_that_is_told_is_right_and_none_is_wholly_wrong():
    qpos = np.random.default_rng(2).normal(size=(3, 2 * table.PUCKS, 4))
    given = asked(qpos)
    assert causes.effect_errors(qpos[-1], given) == pytest.approx(np.zeros((1, 3)))
    same = np.repeat(qpos[-1][:, :1], 4, 1)
    assert causes.effect_errors(same, given) == pytest.approx(np.ones((1, 3)))
    assert np.isfinite(causes.effect_errors(np.full_like(same, np.nan), given)).all()


def test_an_absent_puck_stands_aside():
    case = causes.case(np.random.default_rng(3), 4)
    before, after = case.episodes[0], case.episodes[causes.WORLDS.index("absent")]
    gone = before.present & ~after.present
    assert gone.sum() == 1
    assert not gone[0]
    assert np.array_equal(after.place[gone], table.parked()[gone])
    assert not after.speed[gone].any()


def test_gravity_is_read_from_flight():
    t = np.arange(60)[:, None] * balls.STEP_S
    qpos, qvel = np.zeros((60, 6, 1)), np.zeros((60, 6, 1))
    for b, x in enumerate((-0.5, 0.5)):
        qpos[:, 3 * b], qpos[:, 3 * b + 2] = x, 1 - 0.5 * 3.7 * t**2
        qvel[:, 3 * b + 2] = -3.7 * t
    assert balls.gravity(qpos, qvel) == pytest.approx(3.7)
    assert np.isnan(balls.gravity(0 * qpos, qvel))  # nothing flies


def test_claims_of_seeds():
    assert spread([1.0, 3.0])[1] == pytest.approx((2 - 12.706, 2 + 12.706), abs=1e-2)
    assert upper("a", "b", [0.9, 1.0, 1.1], 1.05).value == pytest.approx(1 + 4.303 * 0.1 / 3**0.5, abs=1e-3)
    gone = over_seeds("a", "b", [1.0, np.inf], 2.0)
    assert gone.value is None
    assert not gone.holds


def test_a_line_that_decays_is_a_miss():
    size = (2, 3)
    keys = ("error_m", "gravity", "energy", "momentum", "penetration_mm")
    steady = {k: np.ones(size) * 9.8 for k in keys}
    worse = {k: np.outer([1.0, 1.0], [1.0, 2.0, 4.0]) for k in keys}
    numbers = {"physics": steady, "network": worse, "hybrid": worse, "gravity_seen": 9.8}
    assert not next(c for c in generations.claims(numbers) if c.id == "hybrid_keeps").holds
    numbers["hybrid"] = steady
    assert next(c for c in generations.claims(numbers) if c.id == "hybrid_keeps").holds


def test_options_are_checked():
    with pytest.raises(ValueError, match="--seed is -1"):
        Generations(seed=-1)
    assert list(Shift(seed=3, seeds=2).each) == [3, 4]
    assert len(Shift(quick=True).each) == 1
