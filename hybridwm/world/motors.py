"""What the motors make of the commands, where learning says that they are late: a delay of whole steps, then a first-order lag.

    y_{k+1} = u + (y_k − u) e^{−h/τ}                                  at the end of a step
    ū       = u + (y_k − u) (τ/h) (1 − e^{−h/τ})                       its mean over the step: what the engine is given
    y_0     = Σ_j (1 − e^{−h/τ}) e^{−jh/τ} u_{−1−j}                    from the commands before (zero before the first one)

u is the command of `delay` steps ago.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def keep(lag_s: Array, dt: float) -> Array:
    """e^{−h/τ} [nu]; 0 for τ = 0."""
    return jnp.where(lag_s > 0, jnp.exp(-dt / jnp.where(lag_s > 0, lag_s, 1.0)), 0.0)


def settled(lag_s: Array, dt: float, past: Array) -> Array:
    """y_0 [nu, W] after the commands past [D, nu, W], newest last."""
    stay = _wide(keep(lag_s, dt), past.ndim - 1)
    age = jnp.arange(past.shape[0])[::-1].reshape(-1, *[1] * (past.ndim - 1))
    return jnp.sum((1 - stay) * stay**age * past, 0)


def follow(lag_s: Array, dt: float, lagged: Array, ctrl: Array) -> tuple[Array, Array]:
    """(y at the end of the step, ū over the step), each [nu, W]."""
    stay, tau = (_wide(x, ctrl.ndim) for x in (keep(lag_s, dt), lag_s))
    gap = lagged - ctrl
    return ctrl + gap * stay, ctrl + gap * (tau / dt) * (1 - stay)


def _wide(x: Array, ndim: int) -> Array:
    """[nu] or, of time constants that vary from world to world, [nu, W], beside commands of so many axes."""
    return x.reshape(*x.shape, *[1] * (ndim - x.ndim))
