"""A block of lane arithmetic evaluated as one loop: the same numbers and derivatives as the plain arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics.stage import fused


def arithmetic(table, x, y):
    """Some lanes, nested, with a result that is known while the program is built."""
    a = jnp.sin(x) * y + table["shift"]
    b = jnp.where(y > 0, x / (1 + y * y), -x)
    return {"sum": (a + b, a * b), "known": 2.5, "copy": x}


def given(worlds):
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=worlds), jnp.float32) for _ in range(2))
    return {"shift": 0.5}, x, y


def numbers(result):
    return jax.tree.leaves(result)


@pytest.mark.parametrize("worlds", [(), (7,), (2, 3)])
def test_values_are_those_of_the_plain_arithmetic(worlds):
    plain, one = arithmetic(*given(worlds)), fused(arithmetic, *given(worlds))
    assert jax.tree.structure(plain) == jax.tree.structure(one)
    assert one["known"] == 2.5
    assert isinstance(one["known"], float)
    for a, b in zip(numbers(plain), numbers(one), strict=True):
        assert jnp.shape(a) == jnp.shape(b)
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_inputs_without_worlds_are_shared_by_all():
    table, x, y = given((7,))
    one = fused(arithmetic, table, x, y[0])
    np.testing.assert_allclose(one["sum"][1], arithmetic(table, x, y[0])["sum"][1], rtol=1e-6)


def pair(run):
    def of(x, y):
        out = run(arithmetic, {"shift": 0.5}, x, y) if run is fused else arithmetic({"shift": 0.5}, x, y)
        return out["sum"]

    return of


PLAIN, ONE = pair(None), pair(fused)


@pytest.mark.parametrize("which", ["both", "first"])
def test_derivatives_forward_and_backward(which):
    _, x, y = given((7,))
    dx, dy = jnp.cos(x), jnp.sin(y)
    results = []
    for run in (PLAIN, ONE):
        of = run if which == "both" else lambda x, run=run: run(x, y)
        at, along = ((x, y), (dx, dy)) if which == "both" else ((x,), (dx,))
        out, forward = jax.jvp(of, at, along)
        results.append((out, forward, jax.vjp(of, *at)[1](out)))
    for a, b in zip(*map(numbers, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_result_that_nobody_asks_for_costs_no_gradient():
    _, x, y = given((7,))
    slopes = [jax.grad(lambda x, run=run: run(x, y)[0].sum())(x) for run in (PLAIN, ONE)]
    np.testing.assert_allclose(*slopes, rtol=1e-5)


def test_second_derivatives():
    _, x, y = given((7,))
    ask = lambda run: jax.jacfwd(jax.grad(lambda x: jnp.sum(run(x, y)[1])))(x)  # noqa: E731
    np.testing.assert_allclose(ask(ONE), ask(PLAIN), rtol=1e-4, atol=1e-5)


def test_vmap_over_any_axis_in_value_and_gradient():
    _, x, y = given((4, 7))
    for axis in (0, 1):
        np.testing.assert_allclose(jax.vmap(ONE, axis, axis)(x, y)[1], ONE(x, y)[1], rtol=1e-6)
    shared = jax.vmap(ONE, (0, None))(x, y[0])[1]
    np.testing.assert_allclose(shared, ONE(x, y[:1])[1], rtol=1e-6)
    slope = jax.vmap(jax.grad(lambda x, y: jnp.sum(ONE(x, y)[1])))(x, y)
    np.testing.assert_allclose(slope, jax.grad(lambda x: jnp.sum(PLAIN(x, y)[1]))(x), rtol=1e-5, atol=1e-6)
