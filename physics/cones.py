"""Friction as a convex cost s(u) of the contact-space acceleration u = B q̈ − a_ref: its force f = −∇s and its Hessian C.

u = (n, t₁, t₂): normal and two tangents. D is the inverse of the regularisation R of the normal row.

    frictionless     s = ½ D n²                                where n < 0
    pyramidal        s = ½ D Σ r²                              over the edges r = n ± μⱼ tⱼ with r < 0
    elliptic         with N = μ n, Tⱼ = μⱼ tⱼ, T = |(T₁, T₂)|, all in MuJoCo's scaling, μ = μ₁ / √impratio:
                     0                        where N ≥ μ T                  (inside the dual cone: no force)
                     ½ Σ D_k u_k²             where μ N + T ≤ 0              (sticking)
                     ½ D/(μ²(1+μ²)) (N − μT)² between                        (sliding: the force is on the cone)

Every quantity is [k, W]: k contacts, W worlds.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from physics.lanes import safe_sqrt

Array = jax.Array
Triple = tuple[Array, Array, Array]


class Sixth(NamedTuple):
    """Symmetric 3×3: the Hessian of a contact's cost."""

    nn: Array
    n1: Array
    n2: Array
    t11: Array
    t12: Array
    t22: Array


class Grip(NamedTuple):
    """What a cone needs beside u."""

    d: Any  # [k, W] inverse regularisation of the normal row; 0 switches a contact off
    d1: Any  # [k, W] of the first tangent (elliptic)
    d2: Any  # [k, W] of the second
    mu1: Any  # [k, W] friction along the first tangent
    mu2: Any  # [k, W]
    mu: Any  # [k, W] friction of the regularised cone (elliptic)


Cone = Callable[[Triple, Grip], tuple[Triple, Sixth]]


def frictionless(u: Triple, grip: Grip) -> tuple[Triple, Sixth]:
    """f and C: The normal alone."""
    zero = jnp.zeros_like(u[0])
    stiff = jnp.where(u[0] < 0, grip.d, 0)
    return (-stiff * u[0], zero, zero), Sixth(stiff, zero, zero, zero, zero, zero)


def pyramidal(u: Triple, grip: Grip) -> tuple[Triple, Sixth]:
    """f and C: Four edges n ± μⱼ tⱼ."""
    n, t1, t2 = u
    s1, s2 = grip.mu1 * t1, grip.mu2 * t2
    edges = (n + s1, n - s1, n + s2, n - s2)
    a, b, c, d = (jnp.where(r < 0, grip.d, 0) for r in edges)
    fa, fb, fc, fd = (-k * r for k, r in zip((a, b, c, d), edges, strict=True))
    force = (fa + fb + fc + fd, grip.mu1 * (fa - fb), grip.mu2 * (fc - fd))
    return force, Sixth(
        a + b + c + d,
        grip.mu1 * (a - b),
        grip.mu2 * (c - d),
        grip.mu1 * grip.mu1 * (a + b),
        jnp.zeros_like(n),
        grip.mu2 * grip.mu2 * (c + d),
    )


def elliptic(u: Triple, grip: Grip) -> tuple[Triple, Sixth]:
    """f and C: Free, sticking or sliding."""
    n, t1, t2 = u
    mu = grip.mu
    big_n, s1, s2 = mu * n, grip.mu1 * t1, grip.mu2 * t2
    big_t = safe_sqrt(s1 * s1 + s2 * s2)
    free = (big_n >= mu * big_t) | (grip.d == 0)
    stick = (mu * big_n + big_t <= 0) & ~free
    slide = ~free & ~stick
    safe_t = jnp.where(slide & (big_t > 0), big_t, 1)
    dm = grip.d / jnp.where(slide, mu * mu * (1 + mu * mu), 1)
    gap = big_n - mu * big_t  # negative while sliding
    e1, e2 = s1 / safe_t, s2 / safe_t
    fn = -dm * gap * mu
    ft = dm * gap * mu
    bend = -dm * gap * mu / safe_t  # curvature of the cone across the sliding direction
    pick = lambda sticking, sliding: jnp.where(stick, sticking, jnp.where(slide, sliding, 0))  # noqa: E731
    force = (
        pick(-grip.d * n, fn),
        pick(-grip.d1 * t1, ft * e1 * grip.mu1),
        pick(-grip.d2 * t2, ft * e2 * grip.mu2),
    )
    along = dm * mu * mu
    return force, Sixth(
        pick(grip.d, dm * mu * mu),
        pick(0, -along * e1 * grip.mu1),
        pick(0, -along * e2 * grip.mu2),
        pick(grip.d1, grip.mu1 * grip.mu1 * (along * e1 * e1 + bend * e2 * e2)),
        pick(0, grip.mu1 * grip.mu2 * (along - bend) * e1 * e2),
        pick(grip.d2, grip.mu2 * grip.mu2 * (along * e2 * e2 + bend * e1 * e1)),
    )
