"""States that the intact bonds allow, as near as can be to those that were logged.

    min ½ δᵀ M δ   s.t.  r(q ⊕ δ) = 0        by Gauss–Newton:  δ = −M⁻¹ Jᵀ (J M⁻¹ Jᵀ)⁻¹ r,   q ← q ⊕ δ
    q̇ ← q̇ − M⁻¹ Jᵀ (J M⁻¹ Jᵀ)⁻¹ J q̇

r are the gaps of the welds and connects that hold (m; rad for the turn of a weld), J their Jacobian by q. A log holds poses with
noise in them; a weld is a stiff spring, and reads a load of stiffness × noise into a pair of bodies that the noise has moved apart.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hybridwm.logs import tangent
from physics import dynamics, equalities, smallmat
from physics import lanes as ln
from physics.structure import Structure
from physics.tree import Tree, forward
from physics.types import Engine

Array = jax.Array
_SOFT = 1e-7  # of the largest diagonal entry: what holds twice is solved in the least-squares sense


class Projection:
    """Projects states of one scene: built once, called inside jit."""

    def __init__(self, engine: Engine, *, iterations: int = 4) -> None:
        self.engine, self.model, self.iterations = engine, engine.scene.model, iterations
        self.tree = Tree(self.model)
        self.structure = Structure(engine.scene, self.tree)

    def __call__(self, params: Any, qpos: Array, qvel: Array, intact: Array) -> tuple[Array, Array]:
        """(qpos [nq, W], qvel [nv, W]) that satisfy the bonds which hold; intact [nb, W], params θ or prepared."""
        if not self.structure.equalities:
            return qpos, qvel
        theta = self.engine.prepare(params).params
        rows = self._holding(intact, qpos)

        def nearer(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            """A step for the pose, and the velocity that fits before it: exact once the pose stands still."""
            pose, speed = carry
            j, mass = self._jacobian(pose) * rows[:, None], self._mass(theta, pose)
            both = jnp.stack([self.gap(pose) * rows, jnp.sum(j * speed, 1)], 1)
            shift = _correction(mass, j, both)
            return tangent.advance(self.model, pose, -shift[:, 0], xp=jnp), speed - shift[:, 1]

        qpos, qvel = lax.fori_loop(0, self.iterations, nearer, (qpos, qvel))
        return tangent.unit(self.model, qpos, xp=jnp), qvel

    def _holding(self, intact: Array, qpos: Array) -> Array:
        """[m, W] 1 for every row of an equality that holds."""
        slot, like = {eq: i for i, eq in enumerate(self.structure.ids)}, qpos[0] * 0
        on = [intact[slot[e]] if e in slot else like + self.model.eq_active0[e] for e in self.structure.equalities]
        assert self.structure.pieces is not None
        counts = np.where(self.structure.pieces.weld, 6, 3).tolist()
        return jnp.stack([jnp.where(x > 0.5, 1.0, like) for x, n in zip(on, counts, strict=True) for _ in range(n)])

    def gap(self, qpos: Array) -> Array:
        """r [m, W]: of each equality the points apart in m, then of a weld half the sine of its turn."""
        m = self.model
        pose = forward(self.tree, tuple(ln.static(row) for row in m.body_ipos), ln.lanes(qpos))
        weights = ln.static(m.body_invweight0)
        found: list[Any] = []
        for hold in equalities.holds(self.structure, weights, pose, (0.0,) * m.nv):
            found += ln.vsub(*hold.points)
            if hold.twist:
                found += ln.quat_mul(ln.quat_conj(hold.q2), hold.q1)[1:]
        return ln.stack(found, qpos[0])

    def _jacobian(self, qpos: Array) -> Array:
        """J [m, nv, W]: one derivative along each dof."""
        still = jnp.zeros((self.model.nv, *qpos.shape[1:]), qpos.dtype)

        def along(dof: Array) -> Array:
            moved = lambda v: self.gap(tangent.advance(self.model, qpos, v, xp=jnp))  # noqa: E731
            return jax.jvp(moved, (still,), (still.at[dof].set(1.0),))[1]

        return jax.vmap(along, out_axes=1)(jnp.arange(self.model.nv))

    def _mass(self, theta: Any, qpos: Array) -> Array:
        """M [nv, nv, W]."""
        ipos, inertia = (tuple(ln.lanes(row) for row in ln.rows(x)) for x in (theta.body_ipos, theta.body_inertia))
        pose = forward(self.tree, ipos, ln.lanes(qpos))
        bodies = dynamics.inertias(self.tree, pose, ln.lanes(theta.body_mass), inertia)
        lower = dynamics.mass_matrix(self.tree, pose, bodies, ln.lanes(theta.dof_armature))
        full = [
            ln.stack([lower[max(i, k)][min(i, k)] for k in range(self.model.nv)], qpos[0]) for i in range(self.model.nv)
        ]
        return jnp.stack(full)


def _correction(mass: Array, j: Array, r: Array) -> Array:
    """M⁻¹ Jᵀ (J M⁻¹ Jᵀ)⁻¹ r [nv, K, W] for J [m, nv, W] and K right sides r [m, K, W]; rows of zeros ask for nothing."""
    lazy = smallmat.solve(_wide(smallmat.cholesky(mass)), jnp.swapaxes(j, 0, 1))  # [nv, m, W] M⁻¹ Jᵀ
    gram = jnp.sum(j[:, :, None] * lazy[None], 1)
    diagonal = jnp.stack([gram[i, i] for i in range(len(j))])
    lift = jnp.where(diagonal > 0, _SOFT * jnp.max(diagonal, 0), 1.0)
    eye = jnp.eye(len(j), dtype=r.dtype).reshape((len(j), len(j)) + (1,) * (r.ndim - 2))
    push = smallmat.solve(_wide(smallmat.cholesky(gram + eye * lift)), r)
    return jnp.sum(lazy[:, :, None] * push[None], 1)


def _wide(factor: smallmat.Factor) -> smallmat.Factor:
    """The factor for right sides with an axis of their own before the worlds."""
    return smallmat.Factor(factor.columns[:, :, None], factor.inverse[:, None])
