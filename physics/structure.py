"""Static facts of a scene's constraints: who may touch whom, which dofs belong together, and the solver's layout."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from physics import bonds, collision, cones
from physics.pairs import GeomPair
from physics.solver import Layout
from physics.tree import Tree

Array = jax.Array


class Group(NamedTuple):
    """All contacts between two bodies with one condim: static facts."""

    bodies: tuple[int, int]
    pairs: tuple[GeomPair, ...]
    slots: int
    keep: int  # slots kept, the deepest
    condim: int
    bond: int  # the breakable bond that joins the two bodies, −1 if none


class Structure:
    """Static facts of a scene's constraints, and the solver's layout."""

    def __init__(self, scene: Any, tree: Tree) -> None:
        model: mujoco.MjModel = scene.model
        self.model, self.tree, self.scene = model, tree, scene
        blocks = tree.blocks()
        self.spans = tuple((b[0], b[-1] + 1) for b in blocks)
        self.tree_of = {dof: t for t, block in enumerate(blocks) for dof in block}
        self.ids = [b.eq_id for b in scene.bonds]
        self.equalities = [int(e) for e in range(model.neq)]
        self.pieces = bonds.pieces(model, self.equalities) if model.neq else None
        self.groups = self._groups()
        self.limited = [j for j in range(model.njnt) if model.jnt_limited[j]]
        elliptic = model.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC
        friction = cones.elliptic if elliptic else cones.pyramidal
        self.elliptic = elliptic
        self.sides = tuple(self._trees(g.bodies) for g in self.groups)
        self.friction = friction
        self.rubbing: tuple[int, ...] = scene.rubbing
        limits = [(int(model.jnt_dofadr[j]), sign) for j in self.limited for sign in (1.0, -1.0)]
        double = jnp.result_type(float) == jnp.float64
        self.layout = Layout(
            trees=self.spans,
            sides=self.sides,
            cones=tuple(self.cone(g) for g in self.groups),
            singles=(*limits, *((dof, 1.0) for dof in self.rubbing)),
            iterations=50 if double else 20,
            tolerance=1e-12 if double else 1e-6,
        )

    def tree_of_body(self, body: int) -> int | None:
        """Kinematic tree of a body; None if it cannot move."""
        chain = self.tree.chain[body]
        return self.tree_of[chain[0]] if chain else None

    def cone(self, group: Group) -> cones.Cone:
        """The cost of a group's contacts."""
        return cones.frictionless if group.condim == 1 else self.friction

    def own(self, body: int, t: int, rows: Array) -> Array:
        """Rows [..., n, W] on the dofs of tree t, zero at those that do not move the body. W stands for all trailing axes."""
        i, j = self.spans[t]
        mask = np.array([d in self.tree.chain[body] for d in range(i, j)], float)
        axis = rows.shape.index(j - i, 1 if rows.ndim < 4 else 2)
        return rows if mask.all() else rows * mask.reshape((-1,) + (1,) * (rows.ndim - axis - 1)).astype(rows.dtype)

    def _trees(self, bodies: tuple[int, int]) -> tuple[int, ...]:
        found = [self.tree_of_body(b) for b in bodies]
        return tuple(dict.fromkeys(t for t in found if t is not None))

    def _groups(self) -> list[Group]:
        gathered: dict[tuple[int, int, int], list[GeomPair]] = {}
        owner = self.model.geom_bodyid
        for pair in self.scene.pairs:
            gathered.setdefault((int(owner[pair.geom1]), int(owner[pair.geom2]), pair.condim), []).append(pair)
        joined = {frozenset(map(int, self.pieces.bodies[e])): i for i, e in enumerate(self.ids)} if self.pieces else {}
        out = []
        for (b1, b2, condim), pairs in gathered.items():
            slots = sum(slots_of(self.model, p) for p in pairs)
            keep = min(slots, self.scene.contact_budget or slots)
            out.append(Group((b1, b2), tuple(pairs), slots, keep, condim, joined.get(frozenset((b1, b2)), -1)))
        return out


def slots_of(model: mujoco.MjModel, pair: GeomPair) -> int:
    """Contact slots of a geom pair."""
    kinds = (int(model.geom_type[pair.geom1]), int(model.geom_type[pair.geom2]))
    return collision.SLOTS[kinds]
