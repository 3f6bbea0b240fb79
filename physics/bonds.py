"""Bonds that break: when contacts between their two bodies count, and what a bond carries.

Bond e joins bodies 1 and 2 by a weld or a connect. The state knows two numbers of it:

    intact_e  ∈ {0, 1}    1 while it holds; its constraint rows exist exactly then; once 0 it stays 0
    overlap_e ≥ 0  [m]    the overlap of the two bodies that is forgiven; FAR while the bond holds

MuJoCo would collide welded bodies, so touching pieces fight their bond all the time and are flung when it goes. Every step,
after the narrow phase and before any constraint row is made, with r_c = dist_c − (margin − gap) of contact c and C_e the
contacts between the two bodies of e:

    depth_e    = max(0, −min_{c ∈ C_e} r_c)                             how deep the bodies overlap now (0 with no contact)
    overlap_e ← FAR                     if intact_e = 1                 (`forgive`)
                min(overlap_e, depth_e) if intact_e = 0
    dist_c    ← dist_c + max_{e : c ∈ C_e} overlap_e                    (`shift`); a contact with r_c ≥ 0 has no rows

While a bond holds, its contacts are FAR apart: masked. At the break the overlap is measured, and from then on only what is
*deeper* than the least overlap since the break is pushed back: pieces that came apart collide as usual (overlap = 0, for good),
pieces that the load had pressed into each other are neither flung (at release every r_c ≥ 0) nor sink through one another.
A state that starts broken measures on its first step: it too is given as overlap = FAR.

Load: the bond's rows J (of the velocity of body 1 against body 2) carry f, so body 1 feels Jᵀf and body 2 its opposite:

    force  F = f[0:3]                            [N]  world frame, on body 1, at the bond's anchor
    torque T = ½ s · vec(q₂ ⊗ (0, f[3:6]) ⊗ q₁⁻¹)  [Nm] world frame, on body 1, about the anchor; welds only

with s the weld's torquescale and q₁, q₂ the orientations whose difference vec(q₂⁻¹ ⊗ q₁) the weld holds at zero
(q₁ includes the weld's relpose): T is the transpose of that difference's rate, ½ vec(q₂⁻¹ ⊗ (0, ω₁−ω₂) ⊗ q₁).
"""

from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import mujoco
import numpy as np

FAR = 1e3  # [m] more than any scene's overlap; finite, so that products with masks stay finite


class Pieces(NamedTuple):
    """Which bodies the nb bonds of a scene join, as plain numbers."""

    eq: np.ndarray  # [nb] row of each bond in the model's equality list
    bodies: np.ndarray  # [nb 2] its two bodies
    weld: np.ndarray  # [nb] 1 for a weld, 0 for a connect


def pieces(model: mujoco.MjModel, eq_ids: tuple[int, ...]) -> Pieces:
    """The bodies that the equalities `eq_ids` join, through sites where they are given by sites."""
    eq = np.array(eq_ids, int)
    ends = np.stack([model.eq_obj1id[eq], model.eq_obj2id[eq]], 1)
    by_site = model.eq_objtype[eq] == mujoco.mjtObj.mjOBJ_SITE
    if by_site.any():
        ends[by_site] = model.site_bodyid[ends[by_site]]
    return Pieces(eq, ends, (model.eq_type[eq] == mujoco.mjtEq.mjEQ_WELD).astype(int))


def between(bodies: np.ndarray, body1: Any, body2: Any, *, xp: ModuleType = jnp) -> Any:
    """[nb nc] true where contact c, between body1[c] and body2[c], lies between the two bodies of bond e."""
    b1, b2 = xp.asarray(bodies[:, :1]), xp.asarray(bodies[:, 1:])
    return ((b1 == body1) & (b2 == body2)) | ((b1 == body2) & (b2 == body1))


def depth(mine: Any, gap: Any, *, xp: ModuleType = jnp) -> Any:
    """[nb] depth_e from mine [nb nc] (see `between`) and gap r_c [nc], in metres."""
    return xp.max(xp.where(mine, -gap, 0.0), axis=-1, initial=0.0)


def forgive(intact: Any, overlap: Any, depth: Any, *, xp: ModuleType = jnp) -> Any:
    """[nb] the overlap after this step's narrow phase."""
    return xp.where(intact > 0.5, FAR, xp.minimum(overlap, depth))


def shift(mine: Any, overlap: Any, *, xp: ModuleType = jnp) -> Any:
    """[nc] what to add to the distance of each contact."""
    return xp.max(xp.where(mine, overlap[:, None], 0.0), axis=0, initial=0.0)


def weld_torque(f: Any, q1: Any, q2: Any, torquescale: Any, *, xp: ModuleType = jnp) -> Any:
    """[3] the torque T on body 1 from the rotational rows f [3] and the quaternions q1, q2 [4]."""
    zero = 0.0 * f[:1]
    inverse = q1 * xp.asarray([1.0, -1.0, -1.0, -1.0], dtype=q1.dtype)
    return 0.5 * torquescale * _product(_product(q2, xp.concatenate([zero, f]), xp), inverse, xp)[1:]


def _product(a: Any, b: Any, xp: ModuleType) -> Any:
    """Quaternion product a ⊗ b, [4]."""
    (aw, ax, ay, az), (bw, bx, by, bz) = a, b
    return xp.stack([
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    ])
