"""How the engine's velocity answers a small correction, row by row: what makes the first stage of training cheap.

    v⁺(c) ≈ v⁺(0) + R c            c = (force per dof in its own frame, factor − 1 on θ), held over the row
    missed = v_log⁺ − v⁺(0)        what c has to explain

R is exact where no contact switches: the engine is linear in a force there, and where it slides in the friction. It is computed
once, by forward derivatives; after that a network is fitted without the engine: missed ≈ R c(z).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hybridwm.world.residual import Correction
from physics.rollout import gradient_options

Array = jax.Array
CHUNK = 8192


class Response(NamedTuple):
    """N rows, as the loss takes them."""

    raw: Any  # [F, N] features at the start of the row
    missed: Any  # [nv, N]
    gain: Any  # [nv, C, N] R


def respond(model: Any, params: Any, given: Any) -> Response:
    """R and what was missed, for one-row windows (a `training.Batch`)."""
    count = given.qpos.shape[-1]
    width = min(CHUNK, count)
    run = jax.jit(partial(_respond, model), compiler_options=gradient_options())
    parts = []
    for first in range(0, count, width):
        index = np.arange(first, first + width) % count  # the last chunk is filled up
        found = run(params, jax.tree.map(lambda x: jnp.asarray(x[..., index]), given))  # noqa: B023
        keep = min(width, count - first)
        parts.append(jax.tree.map(lambda x: x[..., :keep], found))  # noqa: B023
    return jax.tree.map(lambda *xs: jnp.concatenate(xs, -1), *parts)


def _respond(model: Any, params: Any, given: Any) -> Response:
    state = model.init(params, given.qpos[0], given.qvel[0], intact=given.intact, past=given.past)
    raw = model.features(params, state, given.ctrl[0])
    nv, width = given.qvel.shape[1], given.qvel.shape[-1]
    count = nv + len(model.residual.targets)

    def after(correction: Array) -> Array:
        held = jnp.zeros((len(model.spec.names), width), jnp.int8)
        fixed = Correction(correction[:nv], correction[nv:])

        def one(state: Any, ctrl: Array) -> Any:
            return model.step(params, state, ctrl, forced=held, correction=fixed)[0], None

        first = one(state, given.ctrl[0])[0]  # by itself: what does not move yet costs nothing in its derivative
        return (jax.lax.scan(one, first, given.ctrl[1:])[0] if len(given.ctrl) > 1 else first).qvel

    zero = jnp.zeros((count, width), given.qvel.dtype)
    each = jnp.broadcast_to(jnp.eye(count, dtype=zero.dtype)[..., None], (count, count, width))
    reached, change = jax.vmap(lambda t: jax.jvp(after, (zero,), (t,)), out_axes=(None, 0))(each)
    return Response(raw, given.qvel[1] - reached, jnp.moveaxis(change, 0, 1))


def unexplained(model: Any, params: Any, given: Response) -> Array:
    """missed − R c [nv, N], the rows in M groups, each with its own member's c."""
    force, factor = model.residual.own(params, given.raw)
    force = force if model.residual.forced else jnp.zeros_like(given.missed)
    return given.missed - jnp.sum(given.gain * jnp.concatenate([force, jnp.expm1(factor)])[None], 1)
