"""θ: the physical quantities that may vary, their values in a scene, and everything that follows from them.

MuJoCo softens a constraint by the inverse inertia it sees at the reference pose q₀,

    w_body = ⅓ tr (J M⁻¹ Jᵀ) for the velocity and for the rotation of its centre of mass,    w_dof = (M⁻¹)_dd,

(free and ball joints average over their three axes), computed once when it compiles. They follow a changed mass here.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from physics import dynamics, smallmat
from physics import lanes as ln
from physics.constraints import Constants
from physics.tree import BALL, FREE, Tree, forward
from physics.types import Params

Array = jax.Array
_SLIDER = 2  # MuJoCo's body_simple: only axis-aligned slides move the body; it takes 1/m for such a body and its dofs


def nominal(scene: Any) -> Params:
    """θ as the scene's MJCF gives it, as numpy: pass it as an argument to trace it, close over it to fold it in."""
    m = scene.model
    return Params(
        body_mass=m.body_mass.copy(),
        body_inertia=m.body_inertia.copy(),
        body_ipos=m.body_ipos.copy(),
        dof_damping=m.dof_damping.copy(),
        dof_armature=m.dof_armature.copy(),
        dof_frictionloss=m.dof_frictionloss.copy(),
        geom_friction=m.geom_friction.copy(),
        geom_solref=m.geom_solref.copy(),
        geom_size=m.geom_size.copy(),
        actuator_gain=np.ones(m.nu),
        gravity=m.opt.gravity.copy(),
        bond_strength=np.array([b.strength or (np.inf, np.inf) for b in scene.bonds]).reshape(-1, 2),
    )


def apply(tree: Tree, params: Params) -> Constants:
    """θ with its derived constants."""
    m = tree.model
    qpos0 = ln.static(m.qpos0)
    pose = forward(tree, tuple(ln.lanes(r) for r in ln.rows(params.body_ipos)), qpos0)
    moments = [ln.lanes(r) for r in ln.rows(params.body_inertia)]
    bodies = dynamics.inertias(tree, pose, ln.lanes(params.body_mass), moments)
    lower = dynamics.mass_matrix(tree, pose, bodies, ln.lanes(params.dof_armature))
    if not m.nv:
        return Constants(params, jnp.zeros((m.nbody, 2)), jnp.zeros(0))
    like = sum(x for row in lower for x in row if not isinstance(x, float)) * 0.0 + jnp.zeros(())
    mass = jnp.stack([ln.stack([lower[max(i, j)][min(i, j)] for j in range(m.nv)], like) for i in range(m.nv)])
    rows, identity = _motion_rows(tree, pose, like), _eye(m.nv, like)
    factor = smallmat.cholesky(mass)
    wide = smallmat.Factor(factor.columns[:, :, None], factor.inverse[:, None])
    right = jnp.concatenate([rows, identity], 1)  # [nv, 6 B' + nv, W]
    diagonal = jnp.sum(right * smallmat.solve(wide, right), 0)
    per_body = jnp.mean(diagonal[: rows.shape[1]].reshape(len(tree.moving), 2, 3, *like.shape), 2)
    zero = jnp.zeros_like(per_body[0])
    slot = {b: i for i, b in enumerate(tree.moving)}
    weights = [per_body[slot[b]] if b in slot else zero for b in range(m.nbody)]
    dofs = _average(tree, diagonal[rows.shape[1] :])
    for b in np.flatnonzero(m.body_simple == _SLIDER):
        light = 1 / (like + params.body_mass[b])
        weights[b] = jnp.stack([light, 0 * light])
        for d in tree.dofs[b]:
            dofs[d] = light
    return Constants(params, jnp.stack(weights), jnp.stack(dofs))


def _eye(n: int, like: Array) -> Array:
    return jnp.eye(n, dtype=like.dtype).reshape((n, n) + (1,) * like.ndim) + like


def _motion_rows(tree: Tree, pose: Any, like: Array) -> Array:
    """Transposed Jacobians of every moving body's centre of mass: [nv, 6 B', W]."""
    columns = []
    for b in tree.moving:
        arm = ln.vsub(pose.com[b], pose.ref[b])
        chain = set(tree.chain[b])
        linear = [ln.vadd(v, ln.cross(w, arm)) if d in chain else ln.ZERO for d, (w, v) in enumerate(pose.axis)]
        angular = [w if d in chain else ln.ZERO for d, (w, _) in enumerate(pose.axis)]
        columns += [ln.stack([c[i] for c in kind], like) for kind in (linear, angular) for i in range(3)]
    return jnp.stack(columns, 1)


def _average(tree: Tree, diagonal: Array) -> list[Array]:
    m, out = tree.model, [diagonal[d] for d in range(tree.model.nv)]
    for j in range(m.njnt):
        start = int(m.jnt_dofadr[j])
        triples = {FREE: (start, start + 3), BALL: (start,)}.get(int(m.jnt_type[j]), ())
        for i in triples:
            out[i : i + 3] = [jnp.mean(diagonal[i : i + 3], 0)] * 3
    return out
