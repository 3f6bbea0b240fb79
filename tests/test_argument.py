"""The studies of the argument: what they measure is what they say, on cases with a known answer."""

import numpy as np
import pytest

import physics
from experiments.argument import lasting, possible, small
from experiments.argument.crowd import BODIES, CYCLE, PUSH, SLOT, Pushes, crowd, forces, pushes
from experiments.argument.endurance import at_rest, missing
from experiments.argument.lasting import LOOK, STEP_S, Looks, looked, sensible_s
from experiments.worlds.episodes import model_scene
from experiments.worlds.realities import ROD


@pytest.fixture(scope="module")
def six():
    return crowd()


def test_a_push_goes_towards_another_body_and_then_ends(six):
    qpos = np.repeat(six.home()[0][:, None], 2, 1)
    push = Pushes(np.array([0, 4]), np.array([3, 1]), np.array([1.0, 1.3]), np.array([False, True]))
    ctrl = forces(six, push, qpos).reshape(SLOT, BODIES, 3, 2)
    place = qpos[:, 0].reshape(BODIES, 7)[:, :3]
    way = (place[3] - place[0]) * (1, 1, 0)
    weight = six.model.body_mass[1:] * 9.81
    assert np.allclose(ctrl[0, 0, :, 0], weight[0] * way / np.linalg.norm(way))
    assert np.allclose(ctrl[0, 4, :, 1], (0, 0, 1.3 * weight[4]))
    assert np.count_nonzero(ctrl[0]) <= 4, "nobody else is pushed"
    assert np.all(ctrl[PUSH - 1] == ctrl[0])
    assert not ctrl[PUSH:].any()


def test_pushes_leave_peace_at_the_end_of_a_cycle():
    plan = pushes(np.random.default_rng(0), 2 * CYCLE, 50)
    sizes = np.array([push.size for push in plan])
    assert np.all(sizes[[5, 6, 7, 13, 14, 15]] == 0)
    assert np.all(sizes[:5] > 0)
    assert all(np.all(push.body != push.towards) for push in plan)


def looks(**changes):
    """Three looks at two worlds in which all is well, but for the changes."""
    well = {"depth": np.zeros((3, 2)), "speed": np.ones((3, 2)), "present": np.full((3, 2), BODIES)}
    for name, (look, value) in changes.items():
        well[name][look, 1] = value
    return well


@pytest.mark.parametrize(
    ("changes", "until"),
    [
        ({}, 3),
        ({"depth": (1, 0.021)}, 2),
        ({"depth": (1, 0.019)}, 3),
        ({"depth": (0, np.inf)}, 1),
        ({"speed": (2, 4.1)}, 3),
        ({"speed": (1, 4.1), "present": (0, BODIES - 1)}, 1),
    ],
)
def test_nonsense_is_the_first_look_at_it(changes, until):
    found = sensible_s(looks(**changes), fastest=2.0)
    assert found == pytest.approx([3 * LOOK * STEP_S, until * LOOK * STEP_S])


def test_a_look_sees_overlap_and_who_is_missing(six):
    qpos, qvel = (np.repeat(x[None, :, None], LOOK, 0) for x in six.home())
    qpos = np.concatenate([qpos] * 3, 2)
    qpos[:, 0:3, 1] = qpos[:, 21:24, 1] + (0, 0, 0.05)  # the first box into the first ball
    qpos[:, 9, 2] = -0.1  # the second box under the floor
    seen = looked(six, lasting.bookkeeping.Path(qpos, np.concatenate([qvel] * 3, 2)))
    assert isinstance(seen, Looks)
    assert seen.depth.shape == (1, 3)
    assert seen.depth[0, 0] < 1e-6
    assert seen.depth[0, 1] > 0.02
    assert seen.present.tolist() == [[BODIES, BODIES, BODIES - 1]]


def test_the_books_miss_what_nobody_paid():
    found = {"first": np.array([1.0]), "energy": np.array([[1.5], [2.2]]), "push": np.array([[1.0], [1.0]]),
             "contact": np.array([[-0.5], [-0.2]]), "damp": np.array([[0.0], [-0.1]])}  # fmt: skip
    assert missing(found) == pytest.approx([0.0])
    assert missing(found | {"energy": np.array([[1.5], [2.4]])}) == pytest.approx([0.1])


def test_only_what_rests_is_asked_for_its_overlap():
    count = CYCLE * SLOT // LOOK
    found = {"looks": {"speed": np.zeros((count, 2)), "depth": np.full((count, 2), 1e-4)}}
    found["looks"]["speed"][-1, 1] = 0.5
    assert np.allclose(at_rest(found), [[1e-4, np.nan]], equal_nan=True)


@pytest.fixture(scope="module")
def look():
    return possible.measurer(physics.brax_engine(model_scene(ROD)))


def test_what_a_weld_allows_and_what_not(look):
    home = model_scene(ROD).home()[0]
    qpos = np.repeat(np.repeat(home[None, :, None], possible.EVERY, 0), 4, 2)
    turn = 0.02
    qpos[:, 1, 1] += 0.005  # the outer link 5 mm aside
    qpos[:, 4:8, 2] = np.array([np.cos(turn / 2), 0, np.sin(turn / 2), 0])
    intact = np.ones((possible.EVERY, 1, 4))
    seen = look(qpos, intact)
    assert seen.apart[0, :2] == pytest.approx([0.0, 0.005], abs=1e-6)
    assert seen.turn[0, [0, 2]] == pytest.approx([0.0, turn], rel=1e-3, abs=1e-6)
    limit = possible.Limits(0.001, 0.01, 0.001)
    ways = possible.impossible(seen, limit)
    assert ways["pulled apart"].tolist() == [[False, True, True, False]]
    intact[..., 1:3], intact[..., 3] = 0.0, 0.5
    ways = possible.impossible(look(qpos, intact), limit)
    assert ways["pulled apart"].tolist() == [[False] * 4], "what is broken may be anywhere"
    assert ways["half broken"].tolist() == [[False, False, False, True]]
    assert ways["any"].tolist() == [[False, False, False, True]]


def fit_of(model, parameters, transitions, error, seconds):
    return {"model": model, "parameters": parameters, "transitions": transitions, "error_m": error, "cpu_s": seconds}


def test_small_compares_the_scarcest_hybrid_with_the_best_network():
    fits = [
        fit_of("hybrid", 1000, 9000, [0.010, 0.012], [20.0, 20.0]),
        fit_of("network alone", 1000, 9000, [0.080, 0.080], [5.0, 5.0]),
        fit_of("hybrid", 9000, 9000, [0.008, 0.008], [30.0, 30.0]),
        fit_of("network alone", 9000, 9000, [0.040, 0.040], [8.0, 8.0]),
        fit_of("hybrid", 9000, 2000, [0.030, 0.030], [10.0, 10.0]),
        fit_of("network alone", 9000, 2000, [0.050, 0.050], [4.0, 4.0]),
    ]
    said = {claim.id: claim.value for claim in small.claimed(fits)}
    assert said["everywhere"] == pytest.approx(0.6), "the pair with the least data"
    assert said["parameters"] == pytest.approx(0.011 / 0.040)
    assert said["transitions"] == pytest.approx(0.030 / 0.040)
    assert said["cpu"] == pytest.approx(10.0 / 8.0), "30 mm is good enough, and took 10 s"
