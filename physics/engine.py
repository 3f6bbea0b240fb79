"""The engine: one step of rigid bodies with contacts, limits, dry friction and bonds that can break.

    M(q) q̈ + c(q, q̇) = τ + Σ Jᵀ f            f from the convex problem of solver.py
    q̇⁺ = q̇ + h (M + h D)⁻¹ M q̈               Euler, implicit in the joints' damping D
    q⁺ = q ⊕ h q̇⁺                             quaternions turn by the exponential map

Structure first, worlds last; every function broadcasts over the worlds. θ is an argument, all else of the scene is closed over.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from physics import bonds, checks, constraints, solver
from physics import lanes as ln
from physics import params as theta
from physics.constraints import Constants
from physics.equalities import bond_loads, bond_rows
from physics.imbalance import Inputs, spots
from physics.implicit import accelerations
from physics.motion import Motion, block, integrate, motion
from physics.stage import fused
from physics.structure import Structure
from physics.tree import Tree
from physics.types import PARAMS_NDIM, Engine, Info, Params, State

Array = jax.Array


def brax_engine(scene: Any) -> Engine:
    """The engine of a scene."""
    tree = Tree(scene.model)
    structure = Structure(scene, tree)

    def prepare(params: Params | Constants) -> Constants:
        if isinstance(params, Constants):
            return params
        checks.theta(scene, params)
        return theta.apply(tree, params)

    def init(params: Any, qpos: Any, qvel: Any, *, act: Any = None, intact: Any = None) -> State:
        return _start(scene, qpos, qvel, act, intact)

    def step(
        params: Any, state: State, ctrl: Any, *, force: Any = None, wrench: Any = None, grip: Any = None
    ) -> tuple[State, Info]:
        checks.inputs(scene, state, ctrl, force, wrench)
        return _step(structure, prepare(params), state, jnp.asarray(ctrl, state.qpos.dtype), force, wrench, grip)

    def rollout(params: Any, state: State, ctrls: Any, *, output: Callable | None = None, **inputs: Any) -> Any:
        checks.inputs(scene, state, ctrls, inputs.get("force"), inputs.get("wrench"), horizon=np.shape(ctrls)[:1])
        constants, read = prepare(params), output or (lambda state, info: state)

        def body(state: State, ctrl: Any) -> Any:
            state, info = step(constants, state, ctrl, **inputs)
            return state, read(state, info)

        return lax.scan(body, state, ctrls)

    bodies = tuple(g.bodies for g in structure.groups for _ in range(g.keep))
    return Engine(init, step, rollout, prepare, bodies, scene)


def _start(scene: Any, qpos: Any, qvel: Any, act: Any, intact: Any) -> State:
    m, dtype = scene.model, jnp.result_type(float)
    qpos, qvel = jnp.asarray(qpos, dtype), jnp.asarray(qvel, dtype)
    checks.array("qpos", qpos, (m.nq,))
    worlds = qpos.shape[1:]
    checks.array("qvel", qvel, (m.nv, *worlds), ())
    holding = np.array([float(b.intact) for b in scene.bonds]) if intact is None else intact
    active = np.zeros(m.na) if act is None else act
    bonded, active = (
        jnp.broadcast_to(_column(jnp.asarray(x, dtype), len(worlds)), (n, *worlds))
        for x, n in ((holding, len(scene.bonds)), (active, m.na))
    )
    checks.finite("act", active)
    checks.finite("intact", bonded)
    far = jnp.full_like(bonded, bonds.FAR)
    return State(qpos, qvel, active, bonded, far, jnp.zeros_like(qvel), jnp.zeros(worlds, dtype))


def _column(x: Array, worlds: int) -> Array:
    return x.reshape(x.shape + (1,) * (worlds + 1 - x.ndim))


def _step(
    structure: Structure, constants: Constants, state: State, ctrl: Array, force: Any, wrench: Any, grip: Any
) -> tuple[State, Info]:
    h, like = float(structure.model.opt.timestep), state.qpos[0] * 0
    given = _inputs(constants, state, ctrl, force, wrench)
    now = fused(partial(motion, structure), given)
    blocks = [block(now.mass, a, b, like) for a, b in structure.spans]
    problem, touches, bonded, apart = _problem(structure, constants, state, now, blocks, grip, like)
    given = given._replace(apart=ln.lanes(apart), spots=spots(structure, touches, now.contacts))
    qacc, slowed, count, error = accelerations(structure, problem, blocks, state.warmstart, given)
    qvel = state.qvel + h * slowed
    qpos = ln.stack(fused(partial(integrate, structure.model, h=h), given.qpos, ln.lanes(qvel)), like)
    act = ln.stack(now.act, like) if now.act else state.act
    forces = solver.contact_forces(structure.layout, problem, qacc)
    loads = bond_loads(structure, bonded, qacc, like)
    info = _info(touches, [h * f for f in forces], loads, qacc, count + jnp.zeros(like.shape, jnp.int32), error, like)
    return State(qpos, qvel, act, state.intact, apart, lax.stop_gradient(qacc), state.time + h), info


def _inputs(constants: Constants, state: State, ctrl: Array, force: Any, wrench: Any) -> Inputs:
    """Everything a step depends on, as lanes."""
    params = Params(
        *(ln.table(x) if n == 2 else ln.lanes(x) for x, n in zip(constants.params, PARAMS_NDIM, strict=True))
    )
    return Inputs(
        params=params,
        body_invweight=ln.table(constants.body_invweight),
        dof_invweight=ln.lanes(constants.dof_invweight),
        qpos=ln.lanes(state.qpos),
        qvel=ln.lanes(state.qvel),
        act=ln.lanes(state.act),
        ctrl=ln.lanes(ctrl),
        force=None if force is None else ln.lanes(jnp.asarray(force)),
        wrench=None if wrench is None else ln.table(jnp.asarray(wrench)),
        intact=ln.lanes(state.intact),
        apart=ln.lanes(state.apart),
    )


def _info(touches: Any, impulse: Any, loads: Array, qacc: Array, count: Array, error: Array, like: Array) -> Info:
    def join(parts: list[Array], *middle: int) -> Array:
        return jnp.concatenate(parts) if parts else jnp.zeros((0, *middle, *like.shape), like.dtype)

    return Info(
        qacc=qacc,
        contact_distance=join([t.distance for t in touches]),
        contact_position=join([t.position for t in touches], 3),
        contact_frame=join([t.frame for t in touches], 3, 3),
        contact_impulse=join(impulse, 3),
        bond_load=loads,
        iterations=count,
        residual=error,
    )


def _problem(
    structure: Structure, constants: Constants, state: State, now: Motion, blocks: list[Array], grip: Any, like: Array
) -> Any:
    """The convex problem of this instant, its contacts, its bonds, and the bonds' new `apart`."""
    axes = constraints.axes(structure, now.pose, like)
    touches = constraints.touches(structure, constants, now.contacts, now.geoms, like)
    touches = touches if grip is None else constraints.gripping(structure, touches, grip)
    apart, shifts = _apart(structure, state, touches)
    bonded = bond_rows(structure, state, now.holds, axes, like)
    a, b = solver.assemble(structure.layout, blocks, ln.stack(now.tau, like), bonded)
    groups = tuple(
        constraints.contact_rows(structure, constants, g, t, axes, state.qvel, s)
        for g, t, s in zip(structure.groups, touches, shifts, strict=True)
    )
    singles = constraints.single_rows(structure, constants, ln.lanes(state.qpos), ln.lanes(state.qvel), like)
    return solver.Problem(a, b, groups, singles), touches, bonded, apart


def _apart(structure: Structure, state: State, touches: Any) -> tuple[Array, list[Any]]:
    """Contacts between the bodies of a bond: masked while it holds, forgiven their overlap at the break (bonds.py)."""
    depth = [jnp.zeros_like(state.apart[0]) for _ in structure.ids]
    for group, touch in zip(structure.groups, touches, strict=True):
        if group.bond >= 0:
            r = touch.distance - constraints.margin_of(group, touch.pair)
            depth[group.bond] = jnp.maximum(depth[group.bond], jnp.max(jnp.maximum(-r, 0), 0))
    if not structure.ids:
        return state.apart, [0.0 for _ in structure.groups]
    apart = bonds.forgive(state.intact, state.apart, jnp.stack(depth))
    return apart, [apart[g.bond] if g.bond >= 0 else 0.0 for g in structure.groups]
