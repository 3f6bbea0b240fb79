"""State estimation against the linear Kalman filter, where everything is known; and θ, delays and mismatch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxprs import lapack_primitives

from hybridwm import estimate
from hybridwm.estimate import (
    adapting,
    delayed,
    fresh_mismatch,
    gaussian_sum,
    joint_space,
    unscented,
    vector_space,
    watch,
)

A = np.array([[1.0, 0.1, 0.0], [-0.2, 0.95, 0.05], [0.0, 0.0, 0.9]])
B = np.array([[0.0], [0.1], [0.3]])
C = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 1.0]])
PROCESS, NOISE = np.array([0.01, 0.1, 0.05]), np.array([0.05, 0.2])
WORLDS = 64


def step(params, x, ctrl):
    return jnp.tensordot(jnp.asarray(params, x.dtype), x, 1) + jnp.tensordot(jnp.asarray(B, x.dtype), ctrl, 1)


def sense(params, x, ctrl):
    return jnp.tensordot(jnp.asarray(C, x.dtype), x, 1)


def history(steps, worlds=WORLDS, matrix=A, seed=0):
    """(states [H+1, 3, W], ctrls [H, 1, W], readings [H+1, 2, W]) of the linear system."""
    rng = np.random.default_rng(seed)
    x, ctrls = [rng.normal(size=(3, worlds))], rng.normal(size=(steps, 1, worlds))
    for u in ctrls:
        x.append(matrix @ x[-1] + B @ u + PROCESS[:, None] * rng.normal(size=(3, worlds)))
    y = [C @ state + NOISE[:, None] * rng.normal(size=(2, worlds)) for state in x]
    return np.array(x), ctrls, np.array(y)


def kalman(ctrls, readings):
    """The textbook's filter in float64: (means [H+1, 3, W], covariance [3, 3]) after each reading."""
    mean, cov, means = np.zeros_like(readings[0][:1].repeat(3, 0)), np.eye(3), []
    for h, y in enumerate(readings):
        if h:
            mean, cov = A @ mean + B @ ctrls[h - 1], A @ cov @ A.T + np.diag(PROCESS**2)
        gain = cov @ C.T @ np.linalg.inv(C @ cov @ C.T + np.diag(NOISE**2))
        mean, cov = mean + gain @ (y - C @ mean), (np.eye(3) - gain @ C) @ cov
        means.append(mean)
    return np.array(means), cov


@pytest.fixture(scope="module")
def linear():
    return unscented(step, sense, space=vector_space(3), process_std=PROCESS, noise_std=NOISE)


def track(tracker, params, ctrls, readings, late=0):
    """Run a tracker on readings that come `late` steps after what they tell; (beliefs about now, innovations, last)."""
    see, act = jax.jit(tracker.see), jax.jit(tracker.act)
    tracking = tracker.init(jnp.zeros((3, WORLDS)), np.ones(3))
    nows, told = [], []
    for h in range(late, len(ctrls)):
        tracking, now, innovation = see(params, tracking, jnp.asarray(readings[h - late], jnp.float32))
        tracking = act(params, tracking, jnp.asarray(ctrls[h], jnp.float32))
        nows.append(now)
        told.append(innovation)
    return nows, told


def test_linear_systems_are_filtered_as_kalman_does(linear):
    _, ctrls, readings = history(40)
    means, cov = kalman(ctrls, readings)
    nows, _ = track(delayed(linear, delay=0, nu=1), A, ctrls, readings)
    for h in (0, 5, 39):
        np.testing.assert_allclose(nows[h].mean, means[h], atol=2e-4)  # float32, values of a few units
    final = np.asarray(nows[39].cov) * PROCESS[:, None, None] * PROCESS[None, :, None]
    settled = kalman(ctrls[:39], readings[:40])[1]
    np.testing.assert_allclose(final, np.repeat(settled[..., None], WORLDS, -1), atol=1e-5)
    assert cov.shape == (3, 3)


def test_late_readings_are_carried_to_now(linear):
    """The belief about now is the textbook's belief of D steps ago, moved on with the commands given since."""
    late = 2
    _, ctrls, readings = history(30)
    tracker = delayed(linear, delay=late, nu=1)
    see, act = jax.jit(tracker.see), jax.jit(tracker.act)
    tracking = tracker.init(jnp.zeros((3, WORLDS)), np.ones(3))
    now = tracking.belief
    for u in ctrls[:late]:  # nothing is seen yet: the commands wait
        tracking = tracking._replace(past=jnp.concatenate([tracking.past[1:], jnp.asarray(u, jnp.float32)[None]]))
    for h in range(late, 30):
        tracking, now, _ = see(A, tracking, jnp.asarray(readings[h - late], jnp.float32))
        tracking = act(A, tracking, jnp.asarray(ctrls[h], jnp.float32))
    want = kalman(ctrls, readings[: 30 - late])[0][-1]
    for u in ctrls[27:29]:
        want = A @ want + B @ u
    np.testing.assert_allclose(now.mean, want, atol=3e-4)


def test_errors_are_as_large_as_the_filter_says(linear):
    states, ctrls, readings = history(60)
    nows, told = track(delayed(linear, delay=0, nu=1), A, ctrls, readings)
    errors = np.array([(now.mean - x) / linear.std(now) for now, x in zip(nows, states, strict=False)][10:])
    assert 0.9 < np.sqrt(np.mean(errors**2)) < 1.1  # 50 x 64 x 3 errors, correlated in time
    assert 1.85 < np.mean([t.squared for t in told[10:]]) < 2.15  # two readings: the mean of chi-square is 2


def test_a_wrong_model_is_noticed_and_a_right_one_is_not(linear):
    wrong = A * np.array([[1.0, 1.0, 1.0], [4.0, 1.0, 1.0], [1.0, 1.0, 1.0]])  # a spring four times as stiff
    shares = {}
    for name, params in (("right", A), ("wrong", wrong)):
        _, ctrls, readings = history(120)
        _, told = track(delayed(linear, delay=0, nu=1), params, ctrls, readings)
        mismatch, trusts = fresh_mismatch(WORLDS), []
        for innovation in told:
            mismatch, trust = watch(mismatch, innovation)
            trusts.append(trust)
        shares[name] = np.mean(np.array(trusts[30:]) < 0.5)
    assert shares["right"] < 0.02
    assert shares["wrong"] > 0.9


def test_theta_is_found_while_running_with_its_uncertainty():
    """A rate that differs from world to world, known to within half of itself at first."""
    truth = np.random.default_rng(3).uniform(0.5, 1.5, WORLDS)

    def move(rate, x, ctrl):
        return 0.95 * x + rate * ctrl

    joint = adapting(move, lambda rate, x, ctrl: x, lambda rate, z: rate * jnp.exp(z[0]))
    found = unscented(
        *joint, space=joint_space(vector_space(1), vector_space(1)),
        process_std=[0.01, 0.0], noise_std=[0.1], scale=[0.1, 0.1],
    )  # fmt: skip
    tracker = delayed(found, delay=1, nu=1)
    see, act = jax.jit(tracker.see), jax.jit(tracker.act)
    rng, x = np.random.default_rng(4), np.zeros((1, WORLDS))
    tracking, late = tracker.init((jnp.zeros((1, WORLDS)), jnp.zeros((1, WORLDS))), [0.01, 0.4]), x
    now = tracking.belief
    for _ in range(100):
        reading, late = late + 0.1 * rng.normal(size=x.shape), x
        tracking, now, _ = see(1.0, tracking, jnp.asarray(reading, jnp.float32))
        u = rng.normal(size=(1, WORLDS))
        tracking = act(1.0, tracking, jnp.asarray(u, jnp.float32))
        x = 0.95 * x + truth * u + 0.01 * rng.normal(size=x.shape)
    std = found.std(now)[1]
    error = np.asarray(now.mean[1][0]) - np.log(truth)
    assert float(jnp.max(std)) < 0.05
    assert 0.7 < np.sqrt(np.mean((error / std) ** 2)) < 1.3


def test_a_sum_of_narrow_beliefs_is_the_broad_one_where_all_is_linear(linear):
    """Eleven pieces of a Gaussian are a Gaussian to some per cent, and so is what each of them is told."""
    _, ctrls, readings = history(40)
    means, _ = kalman(ctrls, readings)
    many = gaussian_sum(linear, axis=1, count=11, width=3.0)
    nows, told = track(delayed(many, delay=0, nu=1), A, ctrls, readings)
    alone, once = track(delayed(linear, delay=0, nu=1), A, ctrls, readings)
    for h in (0, 5, 39):
        np.testing.assert_allclose(nows[h].mean, means[h], atol=0.03)
        np.testing.assert_allclose(many.std(nows[h]), linear.std(alone[h]), rtol=0.05)
        np.testing.assert_allclose(told[h].log_likelihood, once[h].log_likelihood, atol=0.1)
        np.testing.assert_allclose(told[h].error, once[h].error, atol=0.06)


def test_a_seat_that_shows_itself_only_when_reached_is_found_by_a_sum_and_missed_by_a_broad_belief():
    """A pointer runs at a known pace and is pushed back beyond an unknown seat; one broad belief grows sure of it too early."""
    seats = np.random.default_rng(5).uniform(-1.7, 1.7, WORLDS)
    single = unscented(
        lambda params, x, ctrl: x.at[0].add(0.05), lambda params, x, ctrl: jnp.maximum(x[:1] - x[1:], 0),
        space=vector_space(2), process_std=[1e-3, 1e-4], noise_std=[0.05], scale=[0.1, 0.1],
    )  # fmt: skip
    found = {}
    for name, filter_ in (("broad", single), ("sum", gaussian_sum(single, axis=1, count=13))):
        tracker, rng = delayed(filter_, delay=0, nu=1), np.random.default_rng(6)
        see, act = jax.jit(tracker.see), jax.jit(tracker.act)
        tracking, place = tracker.init(jnp.zeros((2, WORLDS)).at[0].set(-3.0), [1e-3, 1.0]), -3.0
        now = tracking.belief
        for _ in range(110):
            reading = np.maximum(place - seats, 0) + 0.05 * rng.normal(size=(1, WORLDS))
            tracking, now, _ = see(None, tracking, jnp.asarray(reading, jnp.float32))
            tracking, place = act(None, tracking, jnp.zeros((1, WORLDS))), place + 0.05
        error = np.asarray(now.mean[1]) - seats
        found[name] = np.sqrt(np.mean(error**2)), np.sqrt(np.mean((error / filter_.std(tracking.belief)[1]) ** 2))
    assert found["sum"][0] < 0.5 * found["broad"][0], found
    assert found["sum"][1] < 1.5 < found["broad"][1], found


def test_an_alternative_that_is_not_finite_counts_no_more(linear):
    """One of five is NaN in every world: what the others hold is what is told, now and after the next reading."""
    many = gaussian_sum(linear, axis=1, count=5)
    held = many.init(jnp.zeros((3, 4)), np.ones(3))
    spoilt = held._replace(belief=held.belief._replace(mean=held.belief.mean.at[:, 4:8].set(jnp.nan)))
    for _ in range(2):
        spoilt, innovation = many.update(A, spoilt, jnp.ones((2, 4)), jnp.zeros((1, 4)))
        assert all(np.isfinite(x).all() for x in innovation)
        assert (np.exp(spoilt.log_weight[1]) == 0).all()
        assert all(np.isfinite(x).all() for x in many.whole(spoilt))
        assert np.isfinite(many.std(spoilt)).all()


@pytest.mark.parametrize(("axis", "count", "words"), [(0, 1, "at least 2"), (3, 5, "3 coordinates"), (0, 3, "too few")])
def test_a_sum_that_is_none_is_refused(linear, axis, count, words):
    with pytest.raises(ValueError, match=words):
        gaussian_sum(linear, axis=axis, count=count)


@pytest.mark.parametrize("width", [0.0, -1.0, np.nan, np.inf])
def test_a_sum_without_width_is_refused(linear, width):
    with pytest.raises(ValueError, match="no width"):
        gaussian_sum(linear, axis=0, count=9, width=width)


def test_a_certain_direction_stays_certain():
    cov = jnp.asarray(np.diag([1.0, 0.0, 4.0]) + np.outer([1, 0, 1], [1, 0, 1]), jnp.float32)[..., None]
    low = estimate.root(cov)[..., 0]
    np.testing.assert_allclose(low @ low.T, cov[..., 0], atol=1e-5)
    assert not np.any(np.asarray(low)[1])


def test_nothing_calls_lapack(linear):
    belief = linear.init(jnp.zeros((3, 4)), np.ones(3))
    for function, args in ((linear.predict, (belief, jnp.zeros((1, 4)))),
                           (linear.update, (belief, jnp.zeros((2, 4)), jnp.zeros((1, 4))))):  # fmt: skip
        assert not lapack_primitives(jax.make_jaxpr(function)(A, *args))


@pytest.mark.parametrize("scale", [None, [1.0, 0.0], [1.0, np.nan]])
def test_a_scale_that_is_no_size_is_refused(scale):
    with pytest.raises(ValueError, match="numbers above 0"):
        unscented(step, sense, space=vector_space(2), process_std=[0.1, 0.0], noise_std=[1.0], scale=scale)


def test_a_delay_that_is_no_count_is_refused(linear):
    with pytest.raises(ValueError, match="whole number"):
        delayed(linear, delay=-1, nu=1)
