"""The engine and MuJoCo C side by side: W worlds, each with its own start, θ, control and pushes, in one program."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from physics.engine import brax_engine
from physics.params import nominal
from physics.reference import Reference
from physics.types import Params


class Worlds(NamedTuple):
    """What W worlds are given."""

    theta: Params  # every leaf with the worlds last
    qpos: np.ndarray  # [nq W]
    qvel: np.ndarray  # [nv W]
    intact: np.ndarray  # [nb W]
    ctrl: np.ndarray  # [H nu W]
    force: np.ndarray  # [nv W]
    wrench: np.ndarray  # [B 6 W]


class Path(NamedTuple):
    """What they did, step by step: H steps, the start left out."""

    qpos: np.ndarray  # [H nq W]
    qvel: np.ndarray  # [H nv W]
    apart: np.ndarray  # [H nb W]
    load: np.ndarray  # [H nb 6 W]
    impulse: np.ndarray  # [H pairs 3 W] N s, world axes, on the second body of each pair of bodies
    contacts: Any  # of the last step: (bodies, position, impulse in world axes) per world; the engine's with distances
    weights: Any  # inverse inertias that soften the constraints: of bodies [B 2 W], of dofs [nv W]


def worlds(scene, count, *, horizon, seed=0, spread=0.3, speed=1.0, low=0.0, effort=1.0, theta=()):
    """Random starts about the home pose (world 0 is home itself); θ is nominal but for the edits, one world each."""
    model, rng = scene.model, np.random.default_rng(seed)
    home, rest = scene.home()
    qpos, qvel = np.repeat(home[:, None], count, 1), np.repeat(rest[:, None], count, 1)
    free = [
        int(a) for a, kind in zip(model.jnt_qposadr, model.jnt_type, strict=True) if kind == mujoco.mjtJoint.mjJNT_FREE
    ]
    for w in range(1, count):
        at = home.copy()
        mujoco.mj_integratePos(model, at, spread * rng.uniform(-1, 1, model.nv), 1.0)
        at[[adr + 2 for adr in free]] -= low
        qpos[:, w], qvel[:, w] = at, rest + speed * rng.uniform(-1, 1, model.nv)
    lowest, highest = np.where(model.actuator_ctrllimited[:, None], model.actuator_ctrlrange, (-1.0, 1.0)).T
    held = rng.uniform(effort * lowest[:, None], effort * highest[:, None], (horizon // 10 + 1, model.nu, count))
    holds = np.array([float(bond.intact) for bond in scene.bonds]).reshape(-1, 1)
    leaves = [nominal(scene)] * (count - len(theta)) + [edit(nominal(scene)) for edit in theta]
    return Worlds(
        theta=jax.tree.map(lambda *x: np.stack(x, -1), *leaves),
        qpos=qpos,
        qvel=qvel,
        intact=np.repeat(holds, count, 1),
        ctrl=np.repeat(held, 10, 0)[:horizon],
        force=np.zeros((model.nv, count)),
        wrench=np.zeros((model.nbody, 6, count)),
    )


def body_pairs(engine):
    """The pairs of bodies that may touch, in a fixed order."""
    return tuple(dict.fromkeys(engine.contact_bodies))


@cache
def program(scene, *, folded=False):
    """(θ, start, control, pushes, a given path, follow) -> the path; with `follow`, each step starts on the given path.

    Folded: nominal θ is part of the program, and what is given of it is not looked at.
    """
    engine, constant = brax_engine(scene), nominal(scene)
    pairs = body_pairs(engine)
    member = np.array([[float(slot == pair) for slot in engine.contact_bodies] for pair in pairs])

    @jax.jit
    def run(params, state, ctrl, force, wrench, path, follow):
        constants = engine.prepare(constant if folded else params)

        def step(state, given):
            u, *at = given
            qpos, qvel, apart = (
                jnp.where(follow, there, x) for x, there in zip((state.qpos, state.qvel, state.apart), at, strict=True)
            )
            state, info = engine.step(
                constants, state._replace(qpos=qpos, qvel=qvel, apart=apart), u, force=force, wrench=wrench
            )
            pull = jnp.einsum("ckxw,ckw->cxw", info.contact_frame, info.contact_impulse)
            total = jnp.einsum("pc,cxw->pxw", member, pull) if len(pairs) else pull
            seen = state.qpos, state.qvel, state.apart, info.bond_load, total
            return (state, info.contact_distance, info.contact_position, pull), seen

        def body(carry, given):
            return step(carry[0], given)

        slots, shape = len(engine.contact_bodies), state.qpos.shape[1:]
        blank = [jnp.zeros((slots, *middle, *shape), state.qpos.dtype) for middle in ((), (3,), (3,))]
        weights = constants.body_invweight, constants.dof_invweight
        return *jax.lax.scan(body, (state, *blank), (ctrl, *path)), weights

    return engine, run


def engine_path(scene, given, reference=None, *, folded=False):
    """The engine's path; with the states that the reference's steps began in, one step from each of them."""
    engine, run = program(scene, folded=folded)
    theta = jax.tree.map(jnp.asarray, given.theta)
    state = engine.init(theta, given.qpos, given.qvel, intact=given.intact)
    free = reference is None
    starts = (
        [np.zeros((len(given.ctrl), *x.shape)) for x in (state.qpos, state.qvel, state.apart)] if free else reference
    )
    dtype = state.qpos.dtype
    ctrl, force, wrench = (jnp.asarray(x, dtype) for x in (given.ctrl, given.force, given.wrench))
    path = tuple(jnp.asarray(x, dtype) for x in starts)
    (_, *contacts), seen, weights = run(theta, state, ctrl, force, wrench, path, jnp.asarray(not free))
    contacts = (np.array(engine.contact_bodies).reshape(-1, 2), *map(np.asarray, contacts))
    qpos, qvel, apart, load, impulse = map(np.asarray, seen)
    return Path(qpos, qvel, apart, load, impulse, contacts, tuple(map(np.asarray, weights)))


def mujoco_path(scene, given):
    """MuJoCo C's path, and the states that its steps began in: (qpos, qvel, apart), each [H n W]."""
    pairs = body_pairs(program(scene)[0])
    all_paths, all_starts, last, weights = [], [], [], []
    for w in range(given.qpos.shape[1]):
        reference = Reference(scene, params=jax.tree.map(lambda x: x[..., w], given.theta))  # noqa: B023
        _exactly(reference.model)
        reference.reset(given.qpos[:, w], given.qvel[:, w], given.intact[:, w])
        state, path, starts = reference.state(), [], []
        for u in given.ctrl[..., w]:
            starts.append((state.qpos, state.qvel, state.apart))
            state = reference.step(u, force=given.force[:, w], wrench=given.wrench[..., w])
            found = reference.contacts()
            pull = _pull(found)
            total = [sum(pull[(found.bodies == pair).all(1)], np.zeros(3)) for pair in pairs]
            path.append((state.qpos, state.qvel, state.apart, reference.bond_load(), np.array(total).reshape(-1, 3)))
        all_paths.append([np.array(x) for x in zip(*path, strict=True)])
        all_starts.append([np.array(x) for x in zip(*starts, strict=True)])
        found = reference.contacts()
        last.append((found.bodies, found.position, _pull(found)))
        weights.append((reference.model.body_invweight0, reference.model.dof_invweight0))
    qpos, qvel, apart, load, impulse = (np.stack(x, -1) for x in zip(*all_paths, strict=True))
    inverse = tuple(np.stack(x, -1) for x in zip(*weights, strict=True))
    return Path(qpos, qvel, apart, load, impulse, last, inverse), tuple(
        np.stack(x, -1) for x in zip(*all_starts, strict=True)
    )


def _exactly(model):
    """Let C iterate until nothing changes (1e-12 leaves 1e-10 m a step), and lose no contact shallower than 3e-7 m."""
    model.opt.tolerance = 0.0
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE)


def _pull(contacts):
    """Impulse of each contact in world axes [c 3]."""
    return np.einsum("ckx,ck->cx", contacts.frame, contacts.impulse)


def gap(model, one, two):
    """How far apart two paths of coordinates [... nq W] are: the largest (metres, radians)."""
    metres, radians = [np.zeros(())], [np.zeros(())]
    for j in range(model.njnt):
        adr, kind = int(model.jnt_qposadr[j]), model.jnt_type[j]
        if kind == mujoco.mjtJoint.mjJNT_FREE:
            metres.append(np.abs(one[..., adr : adr + 3, :] - two[..., adr : adr + 3, :]).max())
            adr += 3
        if kind in (mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtJoint.mjJNT_BALL):
            p, q = one[..., adr : adr + 4, :], two[..., adr : adr + 4, :]
            chord = np.minimum(np.linalg.norm(p - q, axis=-2), np.linalg.norm(p + q, axis=-2))
            radians.append(2 * chord.max())
        else:
            (metres if kind == mujoco.mjtJoint.mjJNT_SLIDE else radians).append(
                np.abs(one[..., adr, :] - two[..., adr, :]).max()
            )
    return float(np.max(metres)), float(np.max(radians))  # a NaN comes through, as it would not with `max`


def contact_gap(engine_contacts, mujoco_contacts):
    """Largest difference of one contact's impulse in the last step, over the world's largest impulse."""
    bodies, distance, position, pull = engine_contacts
    worst = 0.0
    for w, (theirs, where, impulse) in enumerate(mujoco_contacts):
        size = np.linalg.norm(impulse, axis=1).max(initial=0.0)
        for pair, at, expected in zip(theirs, where, impulse, strict=True):
            mine = np.flatnonzero((bodies == pair).all(1) & (distance[:, w] < 100))
            near = mine[np.argmin(np.linalg.norm(position[mine, :, w] - at, axis=1))]
            if size != 0:
                worst = np.maximum(worst, np.linalg.norm(pull[near, :, w] - expected) / size)
    return worst
