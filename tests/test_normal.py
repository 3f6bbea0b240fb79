"""Intervals of identified unknowns: never negative, as wide as episodes disagree, and as any step that is still asked for."""

import numpy as np
import pytest

from hybridwm.learning.normal import Sums, belief, costs, posterior
from hybridwm.learning.sensitivity import Look


def _found(data, pull):
    """Windows that say `data` [p, p] of z and pull [W, p] at it."""
    return Sums(data, pull, np.zeros((0, len(pull))), np.zeros((0, len(data), len(pull))))


def test_intervals_cover_what_episodes_disagree_about():
    """A mean of 400 numbers from 20 episodes that share an offset each: the spread of such means, not of independent numbers."""
    rng, episode, inside, means, std = np.random.default_rng(0), np.repeat(np.arange(20), 20), 0, [], 0.0
    for _ in range(200):
        values = rng.standard_normal(20)[episode] + 0.3 * rng.standard_normal(400)
        means.append(values.mean())
        pull = (means[-1] - values)[:, None] / 0.3**2
        std = np.sqrt(posterior(_found(np.array([[400 / 0.3**2]]), pull), np.ones(1), episode, 1e-7)[0, 0])
        inside += abs(means[-1]) < 1.96 * std
    assert inside >= 180  # 95 % asked; fewer than 180 of 200 has a chance of 0.3 %
    assert std == pytest.approx(np.std(means), rel=0.4)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e16])
def test_no_variance_is_negative_however_blind_the_logs(scale):
    rng = np.random.default_rng(1)
    half = rng.standard_normal((6, 2)) * [1.0, 1e-3]
    found = _found(scale * half @ half.T, scale * rng.standard_normal((50, 6)))
    covariance = posterior(found, np.ones(6), np.arange(50), 1e-7)
    assert (np.linalg.eigvalsh(covariance) >= -1e-9 * np.trace(covariance)).all()
    assert (np.diag(covariance) > 0).all()


def test_a_step_that_cannot_be_taken_widens_the_interval():
    told = (_found(np.array([[1e8]]), np.zeros((4, 1))), np.ones(1), np.arange(4), 1e-7)
    assert posterior(*told)[0, 0] < 1e-7
    assert posterior(*told, np.array([0.3]))[0, 0] == pytest.approx(0.09, rel=1e-3)


def test_rows_past_a_jump_are_not_looked_at():
    smooth = np.array([1.0, 1.0, 0.0])[:, None, None]
    errors = np.array([0.0, 1.0, np.inf])[:, None, None]
    at = Look(np.zeros(1), np.zeros((1, 1)), errors, np.zeros((1, 3, 1, 1)), smooth)
    kappa = belief(at, np.ones(1))
    assert kappa[:, 0, 0].tolist() == [1.0, 1.0, 0.0]
    assert costs(errors, np.ones(1), kappa).tolist() == [0.5]
