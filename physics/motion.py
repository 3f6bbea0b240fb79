"""One pass over the tree, and the step of the coordinates: the parts of a step that know nothing of constraints.

M(q), τ − c(q, q̇), contacts and bonds of this instant      →  Motion
q ⊕ h q̇                                                    quaternions turn by the exponential map
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from physics import collision, dynamics
from physics import lanes as ln
from physics.equalities import Hold, holds
from physics.imbalance import Inputs
from physics.structure import Structure
from physics.tree import BALL, FREE, Pose, forward

Array = jax.Array


class Motion(NamedTuple):
    """What one pass over the tree gives, as lanes."""

    pose: Pose
    mass: list[list[Any]]  # lower triangle of M
    tau: list[Any]  # all forces but the constraints'
    act: list[Any]  # activations after the step
    contacts: list[Any]  # per geom pair its contacts, None where the narrow phase works on arrays
    geoms: list[Any]
    holds: list[Hold]


def motion(structure: Structure, given: Inputs) -> Motion:
    """Kinematics, dynamics and the narrow phases that work on lanes."""
    tree, m, params = structure.tree, structure.model, given.params
    pose = forward(tree, params.body_ipos, given.qpos)
    bodies = dynamics.inertias(tree, pose, params.body_mass, params.body_inertia)
    mass = dynamics.mass_matrix(tree, pose, bodies, params.dof_armature)
    tau, late = dynamics.applied(tree, pose, given)
    tau = ln.vsub(tau, dynamics.bias(tree, pose, bodies, given.qvel, params.gravity))
    geoms = collision.geom_poses(m, pose, params.geom_size)
    contacts = collision.simple(m, structure.scene.pairs, geoms)
    return Motion(
        pose, mass, list(tau), late, contacts, geoms, holds(structure, given.body_invweight, pose, given.qvel)
    )


def block(mass: list[list[Any]], a: int, b: int, like: Array) -> Array:
    """One tree's symmetric block of M."""
    return jnp.stack([ln.stack([mass[max(i, j)][min(i, j)] for j in range(a, b)], like) for i in range(a, b)])


def integrate(m: Any, q: Any, v: Any, *, h: float) -> list[Any]:
    """q ⊕ h v."""
    out: list[Any] = list(q)
    for j in range(m.njnt):
        adr, dof, kind = int(m.jnt_qposadr[j]), int(m.jnt_dofadr[j]), int(m.jnt_type[j])
        if kind == FREE:
            for i in range(3):
                out[adr + i] = q[adr + i] + h * v[dof + i]
            adr, dof = adr + 3, dof + 3
        if kind in (FREE, BALL):
            out[adr : adr + 4] = _turn(tuple(q[adr : adr + 4]), tuple(v[dof : dof + 3]), h)
        else:
            out[adr] = q[adr] + h * v[dof]
    return out


def _turn(q: Any, w: Any, h: float) -> Any:
    """q ⊗ exp(h w / 2), with a series where w is small: no division by zero, in the value or the gradient."""
    squared = (0.5 * h) ** 2 * ln.dot(w, w)
    small = squared < 1e-6
    angle = jnp.sqrt(jnp.where(small, 1.0, squared))
    sinc = jnp.where(small, 1 - squared / 6 + squared * squared / 120, jnp.sin(angle) / angle)
    cosine = jnp.where(small, 1 - squared / 2 + squared * squared / 24, jnp.cos(angle))
    return ln.quat_unit(ln.quat_mul(q, (cosine, *ln.scale(0.5 * h * sinc, w))))
