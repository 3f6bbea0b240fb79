"""The glass: its reality breaks as it says, its tasks judge as they say, and what a study keeps comes back as it was."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import physics
from experiments.glass import comparing, keeping, reality, tasks
from experiments.glass.driving import Driven
from experiments.glass.options import Glass
from experiments.glass.walking import rigid
from hybridwm.judging import evaluation
from hybridwm.learning.contenders import Subject
from hybridwm.logs.recordings import Dataset, windows
from hybridwm.logs.stepping import ready
from hybridwm.results import Claim
from hybridwm.world.model import WorldParams, world_model


@pytest.fixture(scope="module")
def wish():
    return tasks.wish("carry", np.random.default_rng(0))


@pytest.fixture(scope="module")
def still(wish):
    hold = np.tile(wish.start.qpos[6:], (60, 1))
    return reality.reality().episode(hold, seed=0, qpos=wish.start.qpos, qvel=wish.start.qvel)


def test_a_glass_left_alone_stands_and_is_not_where_it_should_be(wish, still):
    assert still.failure is None
    assert not still.breaks
    outcome = tasks.judge(wish, still)
    assert (outcome.good, outcome.state, outcome.reached_s) == (False, "whole", None)
    assert outcome.off == pytest.approx(abs(wish.start.qpos[0] - wish.goal.mark), abs=1e-3)
    there = wish._replace(goal=wish.goal._replace(mark=wish.start.qpos[0]))
    assert tasks.judge(there, still).good
    assert tasks.judge(there, still).reached_s == 0


def test_exploration_breaks_some_and_not_all():
    found = reality.explored(12, 0)
    assert found.meta["bad"] == 0
    assert 0 < reality.broke(found) < 12


def test_walks_are_episodes(wish, still):
    walk = reality.reality().walk(60, seed=0, qpos=wish.start.qpos, qvel=wish.start.qvel)
    seen = [next(walk), *(walk.send(wish.start.qpos[6:]) for _ in range(59))]
    with pytest.raises(StopIteration) as end:
        walk.send(wish.start.qpos[6:])
    assert np.array_equal(end.value.value.qpos, still.qpos)
    assert np.array_equal([one.qpos for one in seen], still.qpos[:-1])


def test_batches_come_back_as_they_were(tmp_path, wish, still):
    rng = np.random.default_rng(0)
    one = Driven(wish, still._replace(breaks=(("neck", 0.3),)), tasks.judge(wish, still), rng.random((12, 40, 8)),
                 rng.random(12), rng.random((12, 40, 2)), rng.random(12))  # fmt: skip
    keeping.write_batch(tmp_path / "a.npz", [one, one])
    back = keeping.read_batch(tmp_path / "a.npz", [wish, wish])[1]
    assert np.array_equal(back.promised, one.promised)
    assert np.array_equal(back.episode.qpos, still.qpos)
    assert back.episode.breaks == one.episode.breaks
    assert back.outcome.state == "broken"
    with pytest.raises(ValueError, match="holds 2 episodes"):
        keeping.read_batch(tmp_path / "a.npz", [wish])


def test_a_neck_that_is_one_with_the_body():
    qpos, qvel = np.zeros((1, 8)), np.zeros((1, 8))
    qpos[0, 2], qvel[0, 2] = 0.3, 1.0
    pose, speed = rigid(qpos, qvel)
    later, _ = rigid(qpos + 1e-6 * qvel, qvel)
    assert (later - pose) / 1e-6 == pytest.approx(speed, abs=1e-5)


def test_claims_say_what_was_missed(still, wish):
    best = comparing.numbers({"hybrid": [Driven(wish, still, tasks.judge(wish, still), np.zeros((1, 1, 8)),
                                                np.zeros(1), np.zeros((1, 1, 2)), np.zeros(2))] * 3})["hybrid"]  # fmt: skip
    assert best["success"] == 0
    assert best["loss"] == 0
    claim = comparing._success("carry", best, 0.95)
    assert isinstance(claim, Claim)
    assert not claim.holds


def test_mistakes_in_options_are_one_sentence():
    mistakes: list[dict[str, Any]] = [{"seeds": 0}, {"episodes": 0}, {"only": ("cary",)}, {"seed": -1}]
    for wrong in mistakes:
        with pytest.raises(ValueError, match=r"must be at least|the tasks are"):
            Glass(**wrong)


@pytest.mark.slow
def test_a_restart_from_any_pose_of_a_carry_breaks_nothing(wish):
    """Told the true masses, lag and strength: what holds in reality holds in the model, wherever it begins."""
    way = wish.start.qpos[6] + np.clip(0.4 * 0.01 * np.arange(110), 0, 0.35)
    carried = reality.reality().episode(np.stack([way, 0 * way], 1), seed=0, qpos=wish.start.qpos, qvel=wish.start.qvel)
    assert not carried.breaks
    dataset = Dataset(reality.scene(), 0.01, (reality.recording("carry", carried),), {"settled": True})
    given = windows(ready(dataset), 10, stride=3, past=40)
    model = world_model(physics.brax_engine(dataset.scene))
    theta = reality.truth(physics.nominal(dataset.scene))._replace(bond_strength=np.array([[3.0, 0.012]]))
    told = evaluation.predict(Subject(model, WorldParams(theta, jnp.full(2, 0.04))), given, project=False)
    assert (told.intact > 0.5).all()
    assert np.median(np.abs(told.qpos - given.qpos[1:])[:, :2]) < 1e-3
