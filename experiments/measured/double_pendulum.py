"""The double pendulum as published, with what may be identified, a residual torque, and a memory of what was missed.

M(q) q̈ + C(q, q̇) + G(q) + b q̇ + c atan(100 q̇) = τ + w          q₁ from hanging down, q₂ relative to the upper arm

θ = log (I₁ + m₂l₁², I₂, m₂l₁r₂, g(m₁r₁ + m₂l₁), g m₂r₂, armatures, b₁ b₂, c₁ c₂)      [11], all that motion can tell
w = g r_φ(q, q̇, τ, m)  bounded; 0 before training; g: trust, 1 while learning, then as runs set aside say (pendulum_trust)
m   torques of the last 10 and 60 ms; torque that was missing over the last 50 and 200 ms (inverse dynamics of the
    log up to now), which is held during a forecast while its age is told; Runge–Kutta of order 4
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.measured.pendulum_set import DESIGNS, STEP, Run

GEAR, G = 6.0, 9.81
BOUND, WIDTH = 1.5, 48  # N m; units of each hidden layer
TORQUE_TIMES, MISSED_TIMES, AGES = (0.0133, 0.057), (0.05, 0.2), (0.06, 0.4)  # s
PUBLISHED = {  # m1 m2 l1 r1 r2 I1 I2 c1 c2
    "A.0": (0.608, 0.630, 0.3, 0.275, 0.166, 0.0547, 0.0252, 0.093, 0.186),
    "C.0": (0.642, 0.564, 0.2, 0.2, 0.3213, 0.0267, 0.0539, 0.093, 0.078),
    "C.1": (0.523, 0.626, 0.2, 0.2, 0.2557, 0.0319, 0.0509, 0.16, 0.12),
}
ROTOR, VISCOUS = 6.29e-5, 0.001


class Memory(NamedTuple):
    """m at one moment: recent torques and what was missed, [4, W] each; how fresh that is, [2, W]."""

    torque: jax.Array
    missed: jax.Array
    fresh: jax.Array


class Window(NamedTuple):
    """W stretches of H steps, worlds last."""

    q: jax.Array  # [H+1, 2, W]
    v: jax.Array  # [H+1, 2, W]
    u: jax.Array  # [H, 2, W]
    memory: Memory
    design: jax.Array  # [W]


def published() -> np.ndarray:
    """θ of each design, [3, 11]."""
    rows = []
    for name in DESIGNS:
        m1, m2, l1, r1, r2, i1, i2, c1, c2 = PUBLISHED[name]
        bodies = (i1 + m2 * l1**2, i2, m2 * l1 * r2, G * (m1 * r1 + m2 * l1), G * m2 * r2)
        rows.append([*bodies, GEAR**2 * ROTOR, GEAR**2 * ROTOR, VISCOUS, VISCOUS, c1, c2])
    return np.log(rows)


def equation(theta: jax.Array, q: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """M₁₁, M₁₂, M₂₂ [W] and all other torques [2, W]; θ [11, W] or [11]."""
    one, two, both, g1, g2, arm1, arm2, b1, b2, c1, c2 = jnp.exp(theta)
    c, s = jnp.cos(q[1]), jnp.sin(q[1])
    m11 = one + two + 2 * both * c + arm1 * (1 + 1 / GEAR**2)
    m12, m22 = two + both * c - arm2 / GEAR, two + arm2
    low = g2 * jnp.sin(q[0] + q[1])
    h1 = -both * s * (2 * v[0] * v[1] + v[1] ** 2) + g1 * jnp.sin(q[0]) + low
    h2 = both * s * v[0] ** 2 + low
    lost = jnp.stack([b1 * v[0] + c1 * jnp.arctan(100 * v[0]), b2 * v[1] + c2 * jnp.arctan(100 * v[1])])
    return m11, m12, m22, jnp.stack([h1, h2]) + lost


def acceleration(theta: jax.Array, q: jax.Array, v: jax.Array, torque: jax.Array) -> jax.Array:
    """q̈ [2, W]."""
    m11, m12, m22, other = equation(theta, q, v)
    t1, t2 = torque - other
    return jnp.stack([m22 * t1 - m12 * t2, m11 * t2 - m12 * t1]) / (m11 * m22 - m12 * m12)


def missing(theta: jax.Array, q: jax.Array, v: jax.Array, u: jax.Array) -> jax.Array:
    """The torque [2, H] that is missing at each step of a log, q and v [2, H+1]."""
    middle, speed, a = (q[:, 1:] + q[:, :-1]) / 2, (v[:, 1:] + v[:, :-1]) / 2, jnp.diff(v) / STEP
    m11, m12, m22, other = equation(theta, middle, speed)
    return jnp.clip(jnp.stack([m11 * a[0] + m12 * a[1], m12 * a[0] + m22 * a[1]]) + other - u, -3.0, 3.0)


class Residual(nnx.Module):
    """r_φ: two hidden layers beside a linear part, all zero before training."""

    def __init__(self, rngs: nnx.Rngs, *, width: int = WIDTH) -> None:
        zero = nnx.initializers.zeros
        inputs = 30 + len(DESIGNS)
        self.straight = nnx.Linear(inputs, 2, kernel_init=zero, rngs=rngs)
        self.first = nnx.Linear(inputs, width, rngs=rngs)
        self.second = nnx.Linear(width, width, rngs=rngs)
        self.last = nnx.Linear(width, 2, kernel_init=zero, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[inputs, W] -> [2, W]."""
        x = x.T
        return (self.straight(x) + self.last(jnp.tanh(self.second(jnp.tanh(self.first(x)))))).T


def features(q: jax.Array, v: jax.Array, u: jax.Array, memory: Memory, design: jax.Array) -> jax.Array:
    """What the network sees, [inputs, W]: no angle beyond a turn, friction's scales of speed."""
    both = q[:1] + q[1:]
    state = (jnp.sin(q), jnp.cos(q), jnp.sin(both), jnp.cos(both), v / 8, jnp.tanh(v / 0.15), jnp.tanh(v / 1.5))
    torque = (u / 3, u - memory.torque[:2], u - memory.torque[2:], memory.torque[2:] / 3)
    missed, which = memory.missed / 0.3, jax.nn.one_hot(design, len(DESIGNS), axis=0)
    return jnp.concatenate([*state, *torque, missed, missed * memory.fresh[:1], memory.fresh, which])


Law = Callable[[jax.Array, jax.Array, jax.Array, Memory, jax.Array], tuple[jax.Array, jax.Array]]


def hybrid(theta: jax.Array, residual: Residual | None, trust: Any = 1.0) -> Law:
    """One step of the physics with θ [3, 11], and of the residual where there is one: (q, v, u, m, design) -> (q, v)."""

    def law(q: jax.Array, v: jax.Array, u: jax.Array, m: Memory, design: jax.Array) -> tuple[jax.Array, jax.Array]:
        own = theta[design].T
        if residual is not None:
            u = u + trust * BOUND * jnp.tanh(residual(features(q, v, u, m, design)) / BOUND)
        h, f = STEP, lambda q, v: acceleration(own, q, v, u)
        a1 = f(q, v)
        v2 = v + h / 2 * a1
        a2 = f(q + h / 2 * v, v2)
        v3 = v + h / 2 * a2
        a3 = f(q + h / 2 * v2, v3)
        v4 = v + h * a3
        a4 = f(q + h * v3, v4)
        return q + h / 6 * (v + 2 * v2 + 2 * v3 + v4), v + h / 6 * (a1 + 2 * a2 + 2 * a3 + a4)

    return law


def network_alone(network: Residual) -> Law:
    """The network gives the acceleration itself, in 30 rad/s²."""

    def law(q: jax.Array, v: jax.Array, u: jax.Array, m: Memory, design: jax.Array) -> tuple[jax.Array, jax.Array]:
        after = v + STEP * 30 * network(features(q, v, u, m, design))
        return q + STEP / 2 * (v + after), after

    return law


def rollout(law: Law, given: Window) -> tuple[jax.Array, jax.Array]:
    """q and v after each step, [H, 2, W], from the first row and the torques."""
    rate = jnp.repeat(1 - jnp.exp(-STEP / jnp.array(TORQUE_TIMES)), 2)[:, None]
    fade = jnp.exp(-STEP / jnp.array(AGES))[:, None]

    def step(carry: tuple, u: jax.Array) -> tuple[tuple, tuple[jax.Array, jax.Array]]:
        q, v, m = carry
        q, v = law(q, v, u, m, given.design)
        torque = m.torque + rate * (jnp.concatenate([u, u]) - m.torque)
        return (q, v, Memory(torque, m.missed, m.fresh * fade)), (q, v)

    return jax.lax.scan(step, (given.q[0], given.v[0], given.memory), given.u)[1]


def running(x: np.ndarray, time: float) -> np.ndarray:
    """Exponential mean [H+1, 2] of all steps before each row, of x [H, 2]."""
    rate = 1 - np.exp(-STEP / time)
    kernel = rate * (1 - rate) ** np.arange(int(8 * time / STEP) + 1)
    mean = np.column_stack([np.convolve(x[:, j], kernel)[: len(x)] for j in range(2)])
    return np.concatenate([np.zeros((1, 2)), mean])


def memories(run: Run, theta: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Torques and what was missed before each row of a run, [H+1, 4] each; without θ, accelerations in 10 rad/s²."""
    torque = np.column_stack([running(run.u, time) for time in TORQUE_TIMES])
    if theta is None:
        missed = np.diff(run.v, axis=0) / STEP / 30
    else:
        arrays = (jnp.asarray(x.T, jnp.float32) for x in (run.q, run.v, run.u))
        missed = np.asarray(missing(jnp.asarray(theta[run.design], jnp.float32), *arrays)).T
    return torque, np.column_stack([running(missed, time) for time in MISSED_TIMES])
