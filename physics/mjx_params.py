"""θ in an MJX model: the values that vary, and what MuJoCo derives from them at the reference pose qpos0.

subtreemass_b   = Σ masses at and below body b dof_invweight0  = diag M⁻¹, averaged over the three translations
and the three rotations of a free or ball joint body_invweight0 = (tr J M⁻¹ Jᵀ) / 3 for the translation, and for
the rotation, of b's centre of mass;
                  (1 / mass, 0) for a body that only slides along its own axes, and 1 / mass for its dofs;
                  otherwise never one of the two zero
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from physics.brax_import import quietly
from physics.types import Params

with quietly():
    from mujoco import mjx
    from mujoco.mjx._src.smooth import solve_m  # not exported

Array = Any  # one world's values, traced or not

PARAM_RANKS = Params(1, 2, 2, 1, 1, 1, 2, 2, 2, 1, 1, 2)  # axes of each leaf in one world


class Constants(NamedTuple):
    """What of the MJX model follows θ; accepted wherever `Params` are. A trailing axis is one of worlds."""

    body_mass: Array  # [B] kg
    body_inertia: Array  # [B 3] kg m²
    body_ipos: Array  # [B 3] m
    body_subtreemass: Array  # [B] kg
    body_invweight0: Array  # [B 2]
    dof_damping: Array  # [nv]
    dof_armature: Array  # [nv]
    dof_frictionloss: Array  # [nv]
    dof_invweight0: Array  # [nv]
    geom_friction: Array  # [G 3]
    geom_solref: Array  # [G 2]
    geom_size: Array  # [G 3] m
    actuator_gainprm: Array  # [nu 10]
    actuator_biasprm: Array  # [nu 10]
    gravity: Array  # [3] m/s²


CONSTANT_RANKS = Constants(1, 2, 2, 1, 2, 1, 1, 1, 1, 2, 2, 2, 2, 2, 1)


def derive(model: Any, blank: Any, params: Params) -> Constants:
    """All constants of one world from θ."""
    gain = params.actuator_gain[:, None]
    constants = Constants(
        body_mass=params.body_mass,
        body_inertia=params.body_inertia,
        body_ipos=params.body_ipos,
        body_subtreemass=_below(model) @ params.body_mass,
        body_invweight0=model.body_invweight0,
        dof_damping=params.dof_damping,
        dof_armature=params.dof_armature,
        dof_frictionloss=params.dof_frictionloss,
        dof_invweight0=model.dof_invweight0,
        geom_friction=params.geom_friction,
        geom_solref=params.geom_solref,
        geom_size=params.geom_size,
        actuator_gainprm=gain * model.actuator_gainprm,
        actuator_biasprm=gain * model.actuator_biasprm,
        gravity=params.gravity,
    )
    body, dof = _invweights(write(model, constants), blank)
    return constants._replace(body_invweight0=body, dof_invweight0=dof)


def write(model: Any, constants: Constants) -> Any:
    """The MJX model with these values."""
    values = constants._asdict()
    gravity = values.pop("gravity")
    return model.replace(opt=model.opt.replace(gravity=gravity), **values)


def _below(model: Any) -> np.ndarray:
    """[B B] 1 where the column's body is the row's, or below it."""
    below = np.eye(model.nbody)
    for body in range(model.nbody - 1, 0, -1):
        below[model.body_parentid[body]] += below[body]
    return below


def _invweights(model: Any, blank: Any) -> tuple[Array, Array]:
    """(body_invweight0 [B 2], dof_invweight0 [nv]) at qpos0."""
    data = mjx.com_pos(model, mjx.kinematics(model, blank.replace(qpos=jnp.asarray(model.qpos0))))
    data = mjx.factor_m(model, mjx.tendon_armature(model, mjx.crb(model, mjx.tendon(model, data))))
    inverse = jax.vmap(lambda column: solve_m(model, data, column))(jnp.eye(model.nv))

    def of_body(body: Array, centre: Array) -> Array:
        jacobians = jnp.stack(mjx.jac(model, data, centre, body))  # [2 nv 3] translation, rotation
        return jnp.einsum("kix,ij,kjx->k", jacobians, inverse, jacobians) / 3

    fixed = (model.body_weldid == 0)[:, None]
    body = jnp.where(fixed, 0.0, jax.vmap(of_body)(jnp.arange(model.nbody), data.xipos))
    tiny = mujoco.mjMINVAL
    body = jnp.where((body < tiny) & (body[:, ::-1] > tiny), body[:, ::-1], body)
    slider = jnp.stack([1 / jnp.maximum(model.body_mass, tiny), jnp.zeros(model.nbody)], axis=1)
    body = jnp.where((model.body_simple == 2)[:, None], slider, body)
    slides = model.body_simple[model.dof_bodyid] == 2
    return body, jnp.where(slides, slider[model.dof_bodyid, 0], _averaging(model) @ jnp.diag(inverse))


def _averaging(model: Any) -> np.ndarray:
    """[nv nv] mean over each joint's translations, and over its rotations."""
    mean = np.eye(model.nv)
    width = {mujoco.mjtJoint.mjJNT_FREE: 6, mujoco.mjtJoint.mjJNT_BALL: 3}
    for kind, start in zip(model.jnt_type, model.jnt_dofadr, strict=True):
        for block in range(start, start + width.get(int(kind), 0), 3):
            mean[block : block + 3, block : block + 3] = 1 / 3
    return mean
