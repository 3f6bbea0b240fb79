"""The engine protocol over MJX: the way for scenes beyond our own engine, at MJX's speed.

One world takes MJX's own step, cut open once: between the narrow phase and the constraint rows the contacts of
bonds are shifted as `physics.bonds` says. Bonds are released through `eq_active`. Worlds stand in the last axis
and are mapped over.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from physics import checks
from physics.bonds import FAR, Pieces, between, depth, forgive, pieces, quat_product, shift, weld_torque
from physics.brax_import import quietly
from physics.mjx_params import CONSTANT_RANKS, PARAM_RANKS, Constants, derive, write
from physics.recompile import recompile
from physics.scene import Scene
from physics.types import Engine, Info, Params, State

with quietly():
    from mujoco import mjx

_STATE_RANKS = State(1, 1, 1, 1, 1, 1, 0)  # type: ignore[arg-type]


class World(NamedTuple):
    """What is static about one world."""

    scene: Scene
    model: Any  # mjx.Model
    blank: Any  # mjx.Data
    joined: Pieces
    load_rows: np.ndarray  # [nb] first constraint row of each bond
    contact_bodies: np.ndarray  # [nc 2]


def mjx_engine(scene: Scene) -> Engine:
    """Engine over MJX with the scene's own solver options; no contact budget: every pair has its slots."""
    world = _world(scene)

    def prepare(params: Params | Constants) -> Constants:
        """Every constant that follows θ; leaves of `params` may have a trailing axis of worlds."""
        if isinstance(params, Constants):
            return params
        checks.theta(scene, params)
        params = Params(*(jnp.asarray(leaf, float) for leaf in params))
        return _mapped(lambda one: derive(world.model, world.blank, one), (params,), (PARAM_RANKS,))

    def init(params: Params | Constants, qpos: Any, qvel: Any, *, act: Any = None, intact: Any = None) -> State:
        """At qpos [nq W], qvel [nv W], time 0; bonds are as the scene has them unless intact [nb W] says otherwise."""
        del params
        return _start(world, qpos, qvel, act, intact)

    def step(
        params: Params | Constants, state: State, ctrl: Any, *, force: Any = None, wrench: Any = None
    ) -> tuple[State, Info]:
        """One step under ctrl [nu W], a generalized force [nv W], a wrench [B 6 W] on the centres of mass."""
        checks.inputs(scene, state, ctrl, force, wrench)
        ctrl = jnp.asarray(ctrl, float)
        force = jnp.zeros(world.model.nv) if force is None else jnp.asarray(force, float)
        wrench = jnp.zeros((world.model.nbody, 6)) if wrench is None else jnp.asarray(wrench, float)
        one = lambda *inputs: _step(world, *inputs)  # noqa: E731
        return _mapped(one, (prepare(params), state, ctrl, force, wrench), (CONSTANT_RANKS, _STATE_RANKS, 1, 1, 2))

    def rollout(
        params: Any, state: State, ctrls: Any, *, output: Callable[..., Any] | None = None, **inputs: Any
    ) -> tuple[State, Any]:
        """(last state, output(state, info) after each of the H steps, by default the state) under ctrls [H nu W]."""
        checks.inputs(scene, state, ctrls, inputs.get("force"), inputs.get("wrench"), horizon=np.shape(ctrls)[:1])
        constants, read = prepare(params), output or (lambda state, info: state)

        def advance(state: State, ctrl: Any) -> tuple[State, Any]:
            state, info = step(constants, state, ctrl, **inputs)
            return state, read(state, info)

        return jax.lax.scan(advance, state, ctrls)

    bodies = tuple((int(one), int(two)) for one, two in world.contact_bodies)
    return Engine(init, step, rollout, prepare, bodies, scene)


def _world(scene: Scene) -> World:
    source = recompile(scene, edits=(_off_centre,))
    rubbing = list(scene.rubbing)
    source.dof_frictionloss[rubbing] = np.maximum(
        source.dof_frictionloss[rubbing], 1.0
    )  # MJX makes rows for these; θ follows
    for limit in ("max_contact_points", "max_geom_pairs"):
        if mujoco.mj_name2id(source, mujoco.mjtObj.mjOBJ_NUMERIC, limit) >= 0:
            raise ValueError(
                f"numeric {limit!r}: contacts would change places from step to step; remove it to run over MJX"
            )
    try:
        model: Any = mjx.put_model(source)
        blank: Any = mjx.make_data(source)
    except NotImplementedError as error:
        raise ValueError(f"scene {scene.name!r}: MJX says {error}") from None
    placed: Any = mjx.collision(model, mjx.com_pos(model, mjx.kinematics(model, blank)))
    contact = placed._impl.contact
    joined = pieces(source, [bond.eq_id for bond in scene.bonds])
    bodies = source.geom_bodyid[np.asarray(contact.geom, int).reshape(-1, 2)]
    return World(scene, model, blank, joined, _load_rows(source, joined), bodies)


def _off_centre(spec: mujoco.MjSpec) -> None:
    """Move centres of mass a micrometre, so that no zero of the mass matrix is taken for granted: θ may move them."""
    for body in spec.bodies[1:]:
        if any(joint.type != mujoco.mjtJoint.mjJNT_SLIDE for joint in body.joints):
            body.ipos = np.array(body.ipos) + 1e-6


def _load_rows(model: mujoco.MjModel, joined: Pieces) -> np.ndarray:
    """MJX makes the rows of all connects first (3 each), then those of all welds (6 each)."""
    connects = model.eq_type == mujoco.mjtEq.mjEQ_CONNECT
    welds = model.eq_type == mujoco.mjtEq.mjEQ_WELD
    rows = np.where(welds, 3 * connects.sum() + 6 * (np.cumsum(welds) - 1), 3 * (np.cumsum(connects) - 1))
    return rows[joined.eq]


def _start(world: World, qpos: Any, qvel: Any, act: Any, intact: Any) -> State:
    model, bonds = world.model, world.scene.bonds
    qpos, qvel = jnp.asarray(qpos, float), jnp.asarray(qvel, float)
    tail = qpos.shape[1:]
    checks.array("qpos", qpos, (model.nq,), tail[:1])
    checks.array("qvel", qvel, (model.nv, *tail), ())

    def spread(values: Any) -> Any:
        column = jnp.asarray(values, qpos.dtype).reshape(-1, *(1 for _ in tail))
        return jnp.broadcast_to(column, (len(values), *tail))

    def chosen(name: str, values: Any, own: Any) -> Any:
        if values is None:
            return spread(own)
        checks.array(name, values, (len(own),), tail)
        return jnp.asarray(values, float)

    return State(
        qpos=qpos,
        qvel=qvel,
        act=chosen("act", act, np.zeros(model.na)),
        intact=chosen("intact", intact, [float(bond.intact) for bond in bonds]),
        apart=spread(np.full(len(bonds), FAR)),
        warmstart=spread(np.zeros(model.nv)),
        time=jnp.zeros(tail, qpos.dtype),
    )


def _step(world: World, constants: Constants, state: State, ctrl: Any, force: Any, wrench: Any) -> tuple[State, Info]:
    """One world."""
    model = write(world.model, constants)
    active = jnp.asarray(world.blank.eq_active)
    data: Any = world.blank.replace(
        qpos=state.qpos,
        qvel=state.qvel,
        act=state.act,
        ctrl=ctrl,
        time=state.time,
        qfrc_applied=force,
        xfrc_applied=wrench,
        qacc_warmstart=state.warmstart,
        eq_active=active.at[world.joined.eq].set((state.intact > 0.5).astype(active.dtype)),
    )
    for place in (
        mjx.kinematics,
        mjx.com_pos,
        mjx.camlight,
        mjx.tendon,
        mjx.crb,
        mjx.tendon_armature,
        mjx.factor_m,
        mjx.collision,
    ):
        data = place(model, data)
    data, apart = _shift_contacts(world, data, state)
    for stage in (mjx.make_constraint, mjx.transmission, mjx.fwd_velocity, mjx.fwd_actuation, mjx.fwd_acceleration):
        data = stage(model, data)
    solved: Any = mjx.solve(model, data) if data._impl.efc_J.size else data.replace(qacc=data.qacc_smooth)
    after = mjx.euler(model, solved)
    new = State(after.qpos, after.qvel, after.act, state.intact, apart, solved.qacc, after.time)
    return new, _info(world, model, solved)


def _shift_contacts(world: World, data: Any, state: State) -> tuple[Any, Any]:
    contact = data._impl.contact
    if not world.scene.bonds or not len(world.contact_bodies):
        return data, state.apart
    mine = between(world.joined.bodies, *world.contact_bodies.T)
    apart = forgive(state.intact, state.apart, depth(mine, contact.dist - contact.includemargin))
    contact = contact.replace(dist=contact.dist + shift(mine, apart))
    return data.tree_replace({"_impl.contact": contact}), apart


def _info(world: World, model: Any, data: Any) -> Info:
    contact = data._impl.contact
    slots = len(world.contact_bodies)
    return Info(
        qacc=data.qacc,
        contact_distance=contact.dist[:slots],
        contact_position=contact.pos[:slots],
        contact_frame=contact.frame[:slots],
        contact_impulse=_contact_force(world, model, data) * model.opt.timestep,
        bond_load=_bond_load(world, model, data),
        iterations=data._impl.solver_niter,
        residual=jnp.zeros(()),
    )


def _contact_force(world: World, model: Any, data: Any) -> Any:
    """[nc 3] N along the rows of each contact's frame, on the second body."""
    dims, rows, force = data._impl.contact.dim, data._impl.contact.efc_address, data._impl.efc_force
    out = jnp.zeros((len(world.contact_bodies), 3))
    for dim in np.unique(dims):
        which = np.flatnonzero(dims == dim)
        if dim == 1 or model.opt.cone == mjx.ConeType.ELLIPTIC:
            found = force[rows[which][:, None] + np.arange(min(dim, 3))]
        else:
            edges = force[rows[which][:, None] + np.arange(2 * (dim - 1))].reshape(len(which), dim - 1, 2)
            slip = (edges[..., 0] - edges[..., 1])[:, :2] * data._impl.contact.friction[which, :2]
            found = jnp.concatenate([edges.sum((1, 2))[:, None], slip], axis=1)
        out = out.at[which, : found.shape[1]].set(found)
    return out


def _bond_load(world: World, model: Any, data: Any) -> Any:
    """[nb 6] force (N) and torque (N m) on each bond's second body."""
    load = jnp.zeros((len(world.scene.bonds), 6))
    for bond, (row, weld) in enumerate(zip(world.load_rows, world.joined.weld, strict=True)):
        f = data._impl.efc_force[row : row + 6 if weld else row + 3]
        torque = _torque(world, model, data, bond, f[3:]) if weld else [0.0] * 3
        load = load.at[bond].set(jnp.stack([*(-f[:3]), *torque]))
    return load


def _torque(world: World, model: Any, data: Any, bond: int, f: Any) -> list[Any]:
    eq, by_site = world.joined.eq[bond], world.joined.by_site[bond]
    q1, q2 = (list(data.xquat[body]) for body in world.joined.bodies[bond])
    if by_site:
        q2 = quat_product(q2, list(model.site_quat[model.eq_obj2id[eq]]))
    inner = model.site_quat[model.eq_obj1id[eq]] if by_site else model.eq_data[eq, 6:10]
    return weld_torque(list(f), quat_product(q1, list(inner)), q2, model.eq_data[eq, 10])


def _mapped(one: Callable[..., Any], inputs: tuple[Any, ...], ranks: tuple[Any, ...]) -> Any:
    """`one` over the trailing axis of worlds that some leaves have, or directly where none has."""
    axes = jax.tree.map(lambda leaf, rank: -1 if jnp.ndim(leaf) > rank else None, inputs, ranks)
    if not any(axis == -1 for axis in jax.tree.leaves(axes)):
        return one(*inputs)
    return jax.vmap(one, in_axes=axes, out_axes=-1)(*inputs)
