"""The engine: one step of rigid bodies with contacts, limits and bonds that can break.

    M(q) q̈ + c(q, q̇) = τ + Σ Jᵀ f            f from the convex problem of solver.py
    q̇⁺ = q̇ + h (M + h D)⁻¹ M q̈               Euler, implicit in the joints' damping D
    q⁺ = q ⊕ h q̇⁺                             quaternions turn by the exponential map

Structure first, worlds last; every function broadcasts over the worlds. θ is an argument, all else of the scene is closed over.
"""

from functools import partial
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from physics import bonds, collision, constraints, dynamics, solver
from physics import lanes as ln
from physics import params as theta
from physics.constraints import Constants, Structure
from physics.damping import damped
from physics.equalities import Hold, bond_loads, bond_rows, holds
from physics.imbalance import Inputs, imbalance
from physics.stage import fused
from physics.tree import BALL, FREE, Pose, Tree, forward
from physics.types import PARAMS_NDIM, Engine, Info, Params, State

Array = jax.Array


def brax_engine(scene: Any) -> Engine:
    """The engine of a scene."""
    tree = Tree(scene.model)
    structure = Structure(scene, tree)

    def prepare(params: Params | Constants) -> Constants:
        return params if isinstance(params, Constants) else theta.apply(tree, params)

    def init(params: Any, qpos: Any, qvel: Any, *, act: Any = None, intact: Any = None) -> State:
        return _start(scene, qpos, qvel, act, intact)

    def step(params: Any, state: State, ctrl: Any, *, force: Any = None, wrench: Any = None) -> tuple[State, Info]:
        return _step(structure, prepare(params), state, jnp.asarray(ctrl, state.qpos.dtype), force, wrench)

    def rollout(params: Any, state: State, ctrls: Any, *, output: Callable | None = None, **inputs: Any) -> Any:
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
    if qpos.shape[:1] != (m.nq,) or qvel.shape != (m.nv, *qpos.shape[1:]):
        raise ValueError(f"qpos {qpos.shape} and qvel {qvel.shape}: give [{m.nq}, ...worlds] and [{m.nv}, ...worlds]")
    worlds = qpos.shape[1:]
    holds = np.array([float(b.intact) for b in scene.bonds])
    bonded = jnp.broadcast_to(_column(jnp.asarray(holds if intact is None else intact, dtype), len(worlds)), (len(holds), *worlds))
    active = jnp.zeros((m.na, *worlds), dtype) if act is None else jnp.broadcast_to(_column(jnp.asarray(act, dtype), len(worlds)), (m.na, *worlds))
    _finite(qpos=qpos, qvel=qvel, act=active)
    far = jnp.full_like(bonded, bonds.FAR)
    return State(qpos, qvel, active, bonded, far, jnp.zeros_like(qvel), jnp.zeros(worlds, dtype))


def _column(x: Array, worlds: int) -> Array:
    return x.reshape(x.shape + (1,) * (worlds + 1 - x.ndim))


def _finite(**arrays: Array) -> None:
    for name, x in arrays.items():
        if not isinstance(x, jax.core.Tracer) and not np.isfinite(np.asarray(x)).all():
            where = np.argwhere(~np.isfinite(np.asarray(x)))[0].tolist()
            raise ValueError(f"{name} has a value that is not finite at {where}: give finite numbers")


def _step(structure: Structure, constants: Constants, state: State, ctrl: Array, force: Any, wrench: Any) -> tuple[State, Info]:
    m = structure.model
    h, like = float(m.opt.timestep), state.qpos[0] * 0
    _check(structure, state, ctrl)
    motion = fused(partial(_motion, structure), _lanes(constants.params), ln.table(constants.body_invweight), *map(ln.lanes, (state.qpos, state.qvel, state.act, ctrl)), ln.table(wrench))
    pose, smooth = motion.pose, ln.stack(motion.tau, like)
    blocks = [_block(motion.mass, a, b, like) for a, b in structure.spans]
    if force is not None:
        smooth = smooth + force

    axes = constraints.axes(structure, pose, like)
    problem, touches, bonded, apart = _problem(structure, constants, state, motion, axes, blocks, smooth, like)
    given = Inputs(
        _lanes(constants.params), ln.table(constants.body_invweight), ln.lanes(constants.dof_invweight),
        *map(ln.lanes, (state.qpos, state.qvel, state.act, ctrl)), None if force is None else ln.lanes(jnp.asarray(force)), ln.table(wrench),
        ln.lanes(state.intact), ln.lanes(apart), _found_by_arrays(structure, touches),
    )  # fmt: skip
    balance = lambda given, x: ln.stack(fused(partial(imbalance, structure), ln.lanes(x), given), like)  # noqa: E731
    qacc, count, error = solver.solve(structure.layout, problem, state.warmstart, balance, given)
    impulse = [h * f for f in solver.contact_forces(structure.layout, problem, qacc)]

    speed = state.qvel + h * damped(structure, blocks, given.params, given.qpos, qacc)
    qpos = fused(partial(_integrate, m, h=h), ln.lanes(state.qpos), ln.lanes(speed))
    late = ln.stack(motion.act, like) if motion.act else state.act
    new = State(ln.stack(qpos, like), speed, late, state.intact, apart, lax.stop_gradient(qacc), state.time + h)
    empty = jnp.zeros((0, *like.shape), like.dtype)
    join = lambda parts, *middle: jnp.concatenate(parts) if parts else empty.reshape(0, *middle, *like.shape)  # noqa: E731
    info = Info(
        qacc=qacc,
        contact_distance=join([t.distance for t in touches]),
        contact_position=join([t.position for t in touches], 3),
        contact_frame=join([t.frame for t in touches], 3, 3),
        contact_impulse=join(impulse, 3),
        bond_load=bond_loads(structure, bonded, qacc, like),
        iterations=count + jnp.zeros(like.shape, jnp.int32),
        residual=error,
    )
    return new, info


class Motion(NamedTuple):
    """What one pass over the tree gives, as lanes."""

    pose: Pose
    mass: list[list[Any]]  # lower triangle of M
    tau: list[Any]  # all forces but the constraints'
    act: list[Any]  # activations after the step
    contacts: list[Any]  # per geom pair its contacts, None where the narrow phase works on arrays
    geoms: list[Any]
    holds: list[Hold]


def _motion(structure: Structure, params: Params, weights: Any, qpos: Any, qvel: Any, act: Any, ctrl: Any, wrench: Any) -> Motion:
    """Kinematics, dynamics and the simple narrow phases."""
    tree, m = structure.tree, structure.model
    pose = forward(tree, params.body_ipos, qpos)
    bodies = dynamics.inertias(tree, pose, params.body_mass, params.body_inertia)
    mass = dynamics.mass_matrix(tree, pose, bodies, params.dof_armature)
    push, late = dynamics.actuation(tree, qpos, qvel, act, ctrl, params.actuator_gain)
    tau: Any = ln.vadd(dynamics.passive(tree, qpos, qvel, params.dof_damping), push)
    tau = ln.vsub(tau, dynamics.bias(tree, pose, bodies, qvel, params.gravity))
    if wrench is not None:
        tau = ln.vadd(tau, dynamics.body_force(tree, pose, wrench))
    geoms = collision.geom_poses(m, pose, params.geom_size)
    contacts = collision.simple(m, structure.scene.pairs, geoms)
    return Motion(pose, mass, list(tau), late, contacts, geoms, holds(structure, weights, pose, qvel))


def _lanes(params: Params) -> Params:
    """θ as lanes."""
    return Params(*(ln.table(x) if n == 2 else ln.lanes(x) for x, n in zip(params, PARAMS_NDIM, strict=True)))


def _block(mass: list[list[Any]], a: int, b: int, like: Array) -> Array:
    """One tree's symmetric block of M."""
    return jnp.stack([ln.stack([mass[max(i, j)][min(i, j)] for j in range(a, b)], like) for i in range(a, b)])


def _check(structure: Structure, state: State, ctrl: Array) -> None:
    worlds = state.qpos.shape[1:]
    if ctrl.shape != (structure.model.nu, *worlds):
        raise ValueError(f"ctrl {ctrl.shape}: give [{structure.model.nu}] controls for {worlds or 'one'} world(s), {(structure.model.nu, *worlds)}")
    _finite(ctrl=ctrl, qpos=state.qpos, qvel=state.qvel)


def _problem(structure: Structure, constants: Constants, state: State, motion: Motion, axes: Any, blocks: Any, smooth: Array, like: Array) -> Any:
    """The convex problem of this instant, its contacts, its bonds, and the bonds' new `apart`."""
    touches = constraints.touches(structure, constants, motion.contacts, motion.geoms, like)
    apart, shifts = _apart(structure, state, touches)
    bonded = bond_rows(structure, state, motion.holds, axes, like)
    a, b = solver.assemble(structure.layout, blocks, smooth, bonded)
    groups = tuple(
        constraints.contact_rows(structure, constants, g, t, axes, state.qvel, s)
        for g, t, s in zip(structure.groups, touches, shifts, strict=True)
    )
    limits = constraints.limit_rows(structure, constants, ln.lanes(state.qpos), ln.lanes(state.qvel), like)
    return solver.Problem(a, b, groups, limits), touches, bonded, apart


def _found_by_arrays(structure: Structure, touches: Any) -> list[Any]:
    """Lanes of the contacts that `imbalance` cannot find on lanes again."""
    out: list[Any] = []
    for group, touch in zip(structure.groups, touches, strict=True):
        again = group.keep == group.slots and all(collision.on_lanes(structure.model, p) for p in group.pairs)
        slots = range(group.keep)
        out.append(None if again else (
            ln.lanes(touch.distance), ln.table(touch.position), [ln.table(touch.frame[k]) for k in slots], ln.table(touch.mu), ln.lanes(touch.pair),
        ))  # fmt: skip
    return out


def _apart(structure: Structure, state: State, touches: Any) -> tuple[Array, list[Any]]:
    """Contacts between the bodies of a bond: masked while it holds, forgiven their overlap at the break (bonds.py)."""
    depth = [jnp.zeros_like(state.apart[0]) for _ in structure.ids]
    for group, touch in zip(structure.groups, touches, strict=True):
        if group.bond >= 0:
            r = touch.distance - constraints.margin_of(group)
            depth[group.bond] = jnp.maximum(depth[group.bond], jnp.max(jnp.maximum(-r, 0), 0))
    if not structure.ids:
        return state.apart, [0.0 for _ in structure.groups]
    apart = lax.stop_gradient(bonds.forgive(state.intact, state.apart, jnp.stack(depth)))
    return apart, [apart[g.bond] if g.bond >= 0 else 0.0 for g in structure.groups]


def _integrate(m: Any, q: Any, v: Any, *, h: float) -> list[Any]:
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
