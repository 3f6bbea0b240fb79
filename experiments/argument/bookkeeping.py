"""Where the energy of a crowd goes, step by step, from what the engine reports.

    E⁺ − E = W_push + W_contact + W_damp + r              r: what the books miss

    W_push      of the pushes (physics.supplied)
    W_contact   Σ over contacts of impulse · ½(ṽ + ṽ⁺), ṽ the speed of the second body against the first where they touch
    W_damp      −h D q̇⁺ · ½(q̇ + q̇⁺), the implicit damping of the balls' rolling

r has a part that takes itself back, ½ h m g (ż⁺ − ż): gravity is held over a step.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import physics
from experiments.argument.crowd import BODIES, wrench_of

Array = Any


class Books(NamedTuple):
    """Of one slot, [W] each."""

    energy: Array  # J, at its end
    push: Array  # J, since it began
    contact: Array
    damp: Array
    depth: Array  # m, deepest contact
    speed: Array  # m/s, fastest body
    last_speed: Array  # m/s, fastest body at its end


class Path(NamedTuple):
    """The states of one slot after each step."""

    qpos: Array  # [H, nq, W]
    qvel: Array  # [H, nv, W]


def keeper(engine: physics.Engine) -> Any:
    """(params, state, ctrl [H, 3 B, W]) -> (state, (Books, Path)): one slot with its books kept."""
    scene = engine.scene
    bodies = np.array(engine.contact_bodies)
    damping = jnp.asarray(scene.model.dof_damping)[:, None]
    h = float(scene.model.opt.timestep)

    def slot(params: Any, state: Any, ctrl: Array) -> Any:
        constants, zero = engine.prepare(params), jnp.zeros(state.time.shape)

        def one(carry: Any, u: Array) -> Any:
            before, sums = carry
            after, info = engine.step(constants, before, u)
            mean = 0.5 * (before.qvel + after.qvel)
            wrench = wrench_of(u, jnp)
            push = physics.supplied(scene, params, before, after, wrench).work
            damp = -h * jnp.sum(damping * after.qvel * mean, 0)
            contact = contact_work(before.qpos, mean, info, bodies)
            depth = jnp.maximum(sums[3], -jnp.min(info.contact_distance, 0))
            fast = fastest(after.qvel)
            sums = (sums[0] + push, sums[1] + contact, sums[2] + damp, depth, jnp.maximum(sums[4], fast))
            return (after, sums), Path(after.qpos, after.qvel)

        (state, sums), path = lax.scan(one, (state, (zero,) * 5), ctrl)
        energy = physics.energy(scene, params, state).total
        books = Books(energy, sums[0], sums[1], sums[2], sums[3], sums[4], fastest(state.qvel))
        return state, (books, path)

    return jax.jit(slot)


def contact_work(qpos: Array, qvel: Array, info: physics.Info, bodies: np.ndarray) -> Array:
    """W_contact [W] of one step; bodies [nc, 2], 0 for the floor."""
    impulse = jnp.einsum("caiw,caw->ciw", info.contact_frame, info.contact_impulse)  # on the second body, in world axes
    twice = [velocity_at(qpos, qvel, bodies[:, side], info.contact_position) for side in (0, 1)]
    return jnp.sum(impulse * (twice[1] - twice[0]), (0, 1))


def velocity_at(qpos: Array, qvel: Array, body: np.ndarray, point: Array) -> Array:
    """[nc, 3, W] velocity of each contact's body at its point."""
    poses, rates = qpos.reshape(BODIES, 7, -1), qvel.reshape(BODIES, 6, -1)
    mine = np.maximum(body - 1, 0)
    arm = point - poses[mine, :3]
    spin = _turned(poses[mine, 3:], rates[mine, 3:])
    moving = jnp.asarray(body > 0)[:, None, None]
    return jnp.where(moving, rates[mine, :3] + jnp.cross(spin, arm, axis=1), 0.0)


def _turned(quat: Array, vector: Array) -> Array:
    """Vectors [n, 3, W] turned by quaternions [n, 4, W]."""
    w, u = quat[:, :1], quat[:, 1:]
    across = 2 * jnp.cross(u, vector, axis=1)
    return vector + w * across + jnp.cross(u, across, axis=1)


def fastest(qvel: Array) -> Array:
    """[W] m/s."""
    return jnp.sqrt(jnp.max(jnp.sum(jnp.square(qvel.reshape(BODIES, 6, -1)[:, :3]), 1), 0))
