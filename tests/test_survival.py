"""Hazards learned from when things broke: a synthetic law is found again, and censoring counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybridwm.learning import survival as sv
from hybridwm.world import hazard

DT, T, R = 0.002, 150, 60


def law(count, seed):
    """Loads that swell and fade; the bond breaks when the force, filtered over 20 ms, reaches 30 N."""
    rng = np.random.default_rng(seed)
    time, size = np.arange(T)[:, None] * DT, rng.uniform(15, 60, count)
    force = size * np.sin(np.pi * time / rng.uniform(0.15, 0.6, count)).clip(0)
    felt = np.stack([force, 0 * force, 0.3 * force, 0 * force, 0.01 * force])[None]
    filtered, keep = np.zeros((T, count)), np.exp(-DT / 0.02)
    for t in range(T):
        now = np.hypot(force[t], 0.3 * force[t])
        filtered[t] = now + ((filtered[t - 1] if t else 0) - now) * keep
    over = filtered >= 30
    when, broke = np.where(over.any(0), over.argmax(0), T), over.any(0)
    return sv.Histories(
        jnp.asarray(felt, float), None, jnp.asarray([[40.0, 40, 40, 1.5, 1.5]]),
        jnp.asarray(np.where(broke, np.maximum(when - 1, 0), 0))[None],
        jnp.asarray(np.where(broke, np.minimum(when + 2, T), T))[None], jnp.asarray(broke.astype(int))[None],
    )  # fmt: skip


def untrained():
    first = hazard.nominal_hazard(np.array([[40.0, 40, 40, 1.5, 1.5]]), 3)
    return first._replace(delay=np.log([[0.002, 0.02, 0.09]]), life=np.log([100.0]))


@pytest.fixture(scope="module")
def fitted():
    training, validation = law(R, 0), law(R, 1)
    return sv.fit(untrained(), training, validation, DT, key=jax.random.key(0), starts=1, steps=40)


def test_a_law_is_found_again(fitted):
    test = law(200, 2)
    broke = np.asarray(test.happened[0]) > 0
    assert 0.3 < broke.mean() < 0.8
    (y,) = jax.jit(lambda p: sv.scores(p, test, DT, jnp.full_like(test.latest, T)))(fitted)
    assert np.mean((np.asarray(y[0]) > 0) == broke) > 0.95
    assert float(sv.loss(fitted, test, DT)) < 0.3 * float(sv.loss(sv.placed(untrained(), test, DT), test, DT))


def test_series_and_steps_agree(fitted):
    """The hazard of training, all steps at once, is the hazard of the model, step by step."""
    test = law(4, 3)

    def step(wear, felt):
        return hazard.advance(fitted, wear, felt, DT, limits=test.limits)

    begin = hazard.untouched(1, 3, (4,), jnp.float32)
    _, used = jax.jit(lambda: jax.lax.scan(step, begin, jnp.moveaxis(test.felt, 2, 0)))()
    (y,) = sv.scores(fitted, test, DT, jnp.full((1, 4), T))
    np.testing.assert_allclose(used[-1], jax.nn.softplus(y), rtol=2e-3, atol=1e-5)


def test_likelihood_of_breaks_and_of_censoring():
    given = law(3, 0)._replace(happened=jnp.array([[1, 0, -1]]))
    before, after = jnp.array([[-1.0, 5, 5]]), jnp.array([[2.0, 1.0, 9]])
    found = sv.log_likelihood(given, before, after)[0]
    sigma = lambda y: 1 / (1 + np.exp(-y))  # noqa: E731
    np.testing.assert_allclose(found, [np.log(sigma(2) - sigma(-1)), np.log(1 - sigma(1)), 0], atol=1e-5)


def test_calibration_lowers_the_loss_of_an_overconfident_hazard(fitted):
    validation = law(R, 4)
    too_sure = fitted._replace(slope=fitted.slope + 3, strength=fitted.strength + 0.03)
    mended = sv.calibrate(too_sure, validation, DT)
    assert float(sv.loss(mended, validation, DT)) < float(sv.loss(too_sure, validation, DT))
