"""Bonds that break: when contacts between their two bodies count, and what a bond carries.

Bond e joins bodies 1 and 2 by a weld or a connect. The state knows two numbers of it:

    intact_e  ∈ {0, 1}    1 while it holds; its constraint rows exist exactly then; once 0 it stays 0
    apart_e ≥ 0  [m]      how much further apart than they are its bodies look to the solver; FAR while it holds

MuJoCo would collide welded bodies, so touching pieces fight their bond all the time and are flung when it goes.
Every step, after the narrow phase and before any constraint row is made, with r_c = dist_c − (margin − gap) of
contact c and C_e the contacts between the two bodies of e:

    depth_e    = max(0, −min_{c ∈ C_e} r_c)             how deep the bodies overlap now (0 with no contact)
    apart_e   ← FAR                     if intact_e = 1                 (`forgive`)
                min(apart_e, depth_e)   if intact_e = 0
    dist_c    ← dist_c + max_{e : c ∈ C_e} apart_e                      (`shift`); a contact with r_c ≥ 0 has no rows

While a bond holds, its contacts are FAR apart: masked. At the break the overlap is measured, and from then on
only what is *deeper* than the least overlap since the break is pushed back: pieces that came apart collide as
usual (apart = 0, for good), pieces that the load had pressed into each other are neither flung (at release
every r_c ≥ 0) nor sink through one another. A state that starts broken measures on its first step: it too is
given as apart = FAR.

Load: the bond's rows J (of the velocity of body 1 against body 2) carry f: body 1 feels Jᵀf, body 2 its
opposite, and that is the load:

    force  F = −f[0:3]                              [N]   world frame, on body 2, at the bond's anchor
    torque T = −½ s · vec(q₂ ⊗ (0, f[3:6]) ⊗ q₁⁻¹)  [Nm]  world frame, on body 2, about the anchor; zero for a connect

with s the weld's torquescale and q₁, q₂ the orientations whose difference vec(q₂⁻¹ ⊗ q₁) the weld holds at zero
(q₁ includes the weld's relpose): −T is the transpose of that difference's rate, ½ vec(q₂⁻¹ ⊗ (0, ω₁−ω₂) ⊗ q₁).
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import mujoco
import numpy as np

from physics.types import State

FAR = 1e3  # [m] more than any scene's overlap; finite, so that products with masks stay finite


class Pieces(NamedTuple):
    """Which bodies the nb bonds of a scene join, as plain numbers."""

    eq: np.ndarray  # [nb] row of each bond in the model's equality list
    bodies: np.ndarray  # [nb 2] its two bodies
    weld: np.ndarray  # [nb] true for a weld, false for a connect
    by_site: np.ndarray  # [nb] true where the bond was given by two sites


def pieces(model: mujoco.MjModel, eq_ids: Sequence[int]) -> Pieces:
    """The bodies that the equalities `eq_ids` join, through sites where they are given by sites."""
    eq = np.array(eq_ids, int)
    ends = np.stack([model.eq_obj1id[eq], model.eq_obj2id[eq]], 1)
    by_site = model.eq_objtype[eq] == mujoco.mjtObj.mjOBJ_SITE
    if by_site.any():
        ends[by_site] = model.site_bodyid[ends[by_site]]
    return Pieces(eq, ends, model.eq_type[eq] == mujoco.mjtEq.mjEQ_WELD, by_site)


def between(bodies: np.ndarray, body1: Any, body2: Any) -> Any:
    """[nb nc] true where contact c, between body1[c] and body2[c], lies between the two bodies of bond e."""
    b1, b2 = bodies[:, :1], bodies[:, 1:]
    return ((body1 == b1) & (body2 == b2)) | ((body1 == b2) & (body2 == b1))


def depth(mine: Any, r: Any, *, xp: ModuleType = jnp) -> Any:
    """[nb] depth_e from mine [nb nc] (see `between`) and r_c [nc], in metres."""
    return xp.max(xp.where(mine, -r, 0.0), axis=-1, initial=0.0)


def forgive(intact: Any, apart: Any, depth: Any, *, xp: ModuleType = jnp) -> Any:
    """[nb] apart_e after this step's narrow phase, in metres."""
    return xp.where(intact > 0.5, FAR, xp.minimum(apart, depth))


def shift(mine: Any, apart: Any, *, xp: ModuleType = jnp) -> Any:
    """[nc] what to add to the distance of each contact."""
    return xp.max(xp.where(mine, apart[:, None], 0.0), axis=0, initial=0.0)


def weld_torque(f: Sequence[Any], q1: Sequence[Any], q2: Sequence[Any], torquescale: Any) -> list[Any]:
    """The components of T from the rotational rows f (3) and the quaternions q1, q2 (4 each): numbers or arrays."""
    w, x, y, z = q1
    return [-0.5 * torquescale * t for t in quat_product(quat_product(q2, (0.0, *f)), (w, -x, -y, -z))[1:]]


def quat_product(a: Sequence[Any], b: Sequence[Any]) -> tuple[Any, Any, Any, Any]:
    """Quaternion product a ⊗ b by components."""
    (aw, ax, ay, az), (bw, bx, by, bz) = a, b
    return (
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    )


def release(state: State, bond: int, *, where: Any = True) -> State:
    """The state with bond number `bond` broken, for good, in the worlds `where` [W] is true (all if not given)."""
    held = state.intact[bond]
    return state._replace(intact=state.intact.at[bond].set(jnp.where(where, jnp.zeros_like(held), held)))
