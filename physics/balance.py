"""Energy and momentum of the worlds, and what a wrench put into them: the quantities that nature keeps.

    T = ½ Σ v·I v + ½ Σ armature q̇²                  bodies and rotors
    V = −Σ m g·c + ½ Σ k (q − q_spring)²              gravity and joint springs
    P = Σ m ċ,    L = Σ (J ω + c × m ċ)               about the world's origin, rotors left out

A wrench (f, n) at a centre of mass c, its generalized force τ, held over a step from q̇ to q̇⁺, puts in

    W = h τ·½(q̇ + q̇⁺),    ∫f dt = h f,    ∫(n + c × f) dt = h (n + c × f)
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from physics import dynamics
from physics import lanes as ln
from physics.stage import fused
from physics.tree import Tree, forward
from physics.types import Engine, Params, State

Array = jax.Array


class Energy(NamedTuple):
    """Joules; kinematic trees first where they were asked for: [T, W]."""

    kinetic: Array  # [W]
    potential: Array  # [W]

    @property
    def total(self) -> Any:
        """Kinetic and potential together [W]."""
        return self.kinetic + self.potential


class Momentum(NamedTuple):
    """In world axes; kinematic trees first where they were asked for: [T, 3, W]."""

    linear: Array  # [3, W] kg m/s
    angular: Array  # [3, W] kg m²/s about the world's origin


class Supply(NamedTuple):
    """What wrenches put in during one step."""

    work: Array  # [W] J
    linear: Array  # [3, W] N s
    angular: Array  # [3, W] N m s about the world's origin


class _Theta(NamedTuple):
    """What of θ matters here, as lanes."""

    body_mass: Any
    body_inertia: Any
    body_ipos: Any
    dof_armature: Any
    gravity: Any


def energy(scene: Any, params: Params, state: State, *, per_tree: bool = False) -> Energy:
    """Energy of the system, or of each kinematic tree in the order of the dofs. An engine may stand for its scene."""
    found = Energy(*_of_trees(_energies, scene, params, state))
    return found if per_tree else jax.tree.map(lambda x: x.sum(0), found)


def momentum(scene: Any, params: Params, state: State, *, per_tree: bool = False) -> Momentum:
    """Momentum of the system, or of each kinematic tree in the order of the dofs. An engine may stand for its scene."""
    found = Momentum(*_of_trees(_momenta, scene, params, state))
    return found if per_tree else jax.tree.map(lambda x: x.sum(0), found)


def supplied(scene: Any, params: Params, before: State, after: State, wrench: Any) -> Supply:
    """What the wrench [B, 6, W], held from `before` to `after` one step later, put into the system."""
    tree, theta, like = _tree(scene), _theta(params), before.qpos[0] * 0
    rows = tuple(ln.lanes(row) for row in jnp.asarray(wrench))
    push, force, moment = fused(partial(_push, tree), theta.body_ipos, ln.lanes(before.qpos), rows)
    h, mean = float(tree.model.opt.timestep), 0.5 * (before.qvel + after.qvel)
    work = h * jnp.sum(ln.stack(push, like) * mean, 0)
    return Supply(work, h * ln.stack(force, like), h * ln.stack(moment, like))


def _of_trees(measure: Any, scene: Any, params: Params, state: State) -> list[Array]:
    """What `measure` finds in each kinematic tree, as arrays [T, ..., W]."""
    tree, like = _tree(scene), state.qpos[0] * 0
    found = fused(partial(measure, tree), _theta(params), ln.lanes(state.qpos), ln.lanes(state.qvel))
    return [jnp.stack([ln.stack(x, like) if isinstance(x, tuple) else like + x for x in kind]) for kind in found]


def _energies(tree: Tree, theta: _Theta, qpos: Any, qvel: Any) -> Any:
    """([T] kinetic, [T] potential)."""
    m, pose = tree.model, forward(tree, theta.body_ipos, qpos)
    inertias = dynamics.inertias(tree, pose, theta.body_mass, theta.body_inertia)
    motion = dynamics.velocities(tree, pose, qvel)
    kinetic, potential = {}, {}
    for b in tree.moving:
        spin, push = dynamics.momentum(inertias[b], motion[b])
        twice = ln.add(ln.dot(spin, motion[b][0]), ln.dot(push, motion[b][1]))
        fall = ln.mul(theta.body_mass[b], ln.dot(theta.gravity, pose.com[b]))
        _gather(kinetic, tree.root[b], ln.mul(0.5, twice))
        _gather(potential, tree.root[b], ln.mul(-1.0, fall))
    for d in range(m.nv):
        rotor = ln.mul(ln.mul(0.5, theta.dof_armature[d]), ln.mul(qvel[d], qvel[d]))
        _gather(kinetic, tree.root[m.dof_bodyid[d]], rotor)
    for j in np.flatnonzero(m.jnt_stiffness):
        adr, half = int(m.jnt_qposadr[j]), 0.5 * float(m.jnt_stiffness[j])
        stretch = ln.sub(qpos[adr], float(m.qpos_spring[adr]))
        _gather(potential, tree.root[m.jnt_bodyid[j]], ln.mul(half, ln.mul(stretch, stretch)))
    return _in_order(tree, kinetic), _in_order(tree, potential)


def _momenta(tree: Tree, theta: _Theta, qpos: Any, qvel: Any) -> Any:
    """([T] linear, [T] angular)."""
    pose = forward(tree, theta.body_ipos, qpos)
    inertias = dynamics.inertias(tree, pose, theta.body_mass, theta.body_inertia)
    motion = dynamics.velocities(tree, pose, qvel)
    linear, angular = {}, {}
    for b in tree.moving:
        spin, push = dynamics.momentum(inertias[b], motion[b])  # about O, the tree's reference point
        _gather(linear, tree.root[b], push, add=ln.vadd)
        _gather(angular, tree.root[b], ln.vadd(spin, ln.cross(pose.ref[b], push)), add=ln.vadd)
    return _in_order(tree, linear), _in_order(tree, angular)


def _push(tree: Tree, body_ipos: Any, qpos: Any, wrench: Any) -> Any:
    """Generalized force [nv], and the sums of the forces and of their moments about the world's origin."""
    pose = forward(tree, body_ipos, qpos)
    force, moment = ln.ZERO, ln.ZERO
    for b in tree.moving:
        f, n = tuple(wrench[b][:3]), tuple(wrench[b][3:])
        force, moment = ln.vadd(force, f), ln.vadd(moment, ln.vadd(n, ln.cross(pose.com[b], f)))
    return dynamics.body_force(tree, pose, wrench), force, moment


def _gather(into: dict[int, Any], root: Any, x: Any, *, add: Any = ln.add) -> None:
    into[int(root)] = add(into[int(root)], x) if int(root) in into else x


def _in_order(tree: Tree, by_root: dict[int, Any]) -> list[Any]:
    return [by_root[tree.root[int(tree.model.dof_bodyid[block[0]])]] for block in tree.blocks()]


def _tree(scene: Any) -> Tree:
    return Tree(scene.scene.model if isinstance(scene, Engine) else scene.model)


def _theta(params: Any) -> _Theta:
    """From θ, or from an engine's prepared constants, which carry it."""
    theta: Params = getattr(params, "params", params)
    ipos, inertia = (tuple(map(ln.lanes, ln.rows(x))) for x in (theta.body_ipos, theta.body_inertia))
    return _Theta(ln.lanes(theta.body_mass), inertia, ipos, ln.lanes(theta.dof_armature), ln.lanes(theta.gravity))
