"""Jointless bodies become part of the body that carries them.

Brax links are joined by joints, so a body without one has no place there. For a moving body r and the bodies b fixed
to it, each with mass m_b, centre c_b and inertia I_b about its centre, all in r's frame,

    m = Σ m_b      c = Σ m_b c_b / m      I = Σ I_b + m_b (|d_b|² 1 − d_b d_bᵀ),   d_b = c_b − c.

Geoms, sites and child bodies keep their place. What named a fused body is told the new one: welds and connects (with
their anchors and relative pose), sensors of frames (through a site in the old frame), excludes (with explicit pairs
where an exclude of the whole body would say too much). Bodies fixed in the world become part of the world.
"""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np

from physics.pairs import GeomPair, geom_pairs

_BODIES = (mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_XBODY)


class Place(NamedTuple):
    """A frame fixed to a moving body (or the world, body 0): `pos` [3] m, `quat` [4] w first, in its frame."""

    body: int
    pos: np.ndarray
    quat: np.ndarray


def fuse(spec: mujoco.MjSpec, model: mujoco.MjModel) -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """Fuse the jointless bodies of `spec` in place; `model` is its compilation.

    Returns for every body name the name of the body that now carries it, and its pose there.
    """
    places = [place_of(model, body) for body in range(model.nbody)]
    bodies = {body.id: body for body in spec.bodies}
    fused = [body for body in range(1, model.nbody) if places[body].body != body]
    if fused:
        carriers = {places[body].body for body in fused}
        for body in carriers - {0}:
            bodies[body].name = bodies[body].name or f"body{body}"
        names = [bodies[place.body].name if place.body else "world" for place in places]
        _move_equalities(spec, model, places, names)
        _move_sensors(spec, model, bodies, places)
        _move_excludes(spec, model, places, names)
        _retarget(spec, model, places, names)
        for body in reversed(fused):
            bodies[body].to_frame()
        _pin_inertia(spec, model, bodies, places)  # last: to_frame adds explicit inertias up by itself
    else:
        names = [body.name for body in (bodies[i] for i in range(model.nbody))]
    return {
        model.body(b).name: (names[b], places[b].pos, places[b].quat) for b in range(model.nbody) if model.body(b).name
    }


def place_of(model: mujoco.MjModel, body: int) -> Place:
    """Where a body sits in the moving body that carries it; a moving body sits at its own origin."""
    pos, quat = np.zeros(3), np.array([1.0, 0, 0, 0])
    while body and model.body_jntnum[body] == 0:
        pos, quat = compose(model.body_pos[body], model.body_quat[body], pos, quat)
        body = int(model.body_parentid[body])
    return Place(body, pos, quat)


def compose(pos1: np.ndarray, quat1: np.ndarray, pos2: np.ndarray, quat2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pose 2, given in frame 1, in the frame where pose 1 is given."""
    return pos1 + _matrix(quat1) @ pos2, _product(quat1, quat2)


def _point(place: Place, point: np.ndarray) -> np.ndarray:
    return place.pos + _matrix(place.quat) @ point


def _product(quat1: np.ndarray, quat2: np.ndarray) -> np.ndarray:
    out = np.zeros(4)
    mujoco.mju_mulQuat(out, quat1, quat2)
    return out


def _matrix(quat: np.ndarray) -> np.ndarray:
    flat = np.zeros(9)
    mujoco.mju_quat2Mat(flat, quat)
    return flat.reshape(3, 3)


def _pin_inertia(spec: mujoco.MjSpec, model: mujoco.MjModel, bodies: dict, places: list[Place]) -> None:
    """Write the merged inertia on every moving body; nothing is inferred from geoms any more."""
    spec.compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_AUTO
    spec.compiler.settotalmass, spec.compiler.boundmass, spec.compiler.boundinertia = -1, 0, 0
    for root in {place.body for place in places} - {0}:
        parts = [b for b, place in enumerate(places) if place.body == root and model.body_mass[b] > 0]
        body = bodies[root]
        body.explicitinertial = True
        if parts == [root]:
            body.mass, body.ipos, body.iquat = model.body_mass[root], model.body_ipos[root], model.body_iquat[root]
            body.inertia, body.fullinertia = model.body_inertia[root], np.full(6, np.nan)
        else:
            body.mass, body.ipos, body.fullinertia = _merge(model, parts, places)
            body.iquat, body.inertia = [1, 0, 0, 0], [0, 0, 0]
        body.ialt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT


def _merge(model: mujoco.MjModel, parts: list[int], places: list[Place]) -> tuple[float, np.ndarray, np.ndarray]:
    """Mass, centre and inertia [xx yy zz xy xz yz] about it of several bodies, in the frame of their carrier."""
    poses = [compose(places[b].pos, places[b].quat, model.body_ipos[b], model.body_iquat[b]) for b in parts]
    masses = model.body_mass[parts]
    mass = masses.sum()
    centre = sum(m * pos for m, (pos, _) in zip(masses, poses, strict=True)) / mass
    total = np.zeros((3, 3))
    for b, m, (pos, quat) in zip(parts, masses, poses, strict=True):
        axes, d = _matrix(quat), pos - centre
        total += axes @ np.diag(model.body_inertia[b]) @ axes.T + m * (d @ d * np.eye(3) - np.outer(d, d))
    return float(mass), centre, total[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]


def _move_equalities(spec: mujoco.MjSpec, model: mujoco.MjModel, places: list[Place], names: list[str]) -> None:
    for eq in spec.equalities:
        if eq.objtype not in _BODIES or model.eq_objtype[eq.id] != mujoco.mjtObj.mjOBJ_BODY:
            continue
        one, two = (places[int(ids[eq.id])] for ids in (model.eq_obj1id, model.eq_obj2id))
        eq.name1, eq.name2 = names[int(model.eq_obj1id[eq.id])], names[int(model.eq_obj2id[eq.id])]
        if one.body == two.body:
            raise ValueError(f"equality {eq.name!r}: its two ends are on one body ({eq.name1!r}); join two bodies")
        data = model.eq_data[eq.id].copy()
        if eq.type == mujoco.mjtEq.mjEQ_CONNECT:  # the anchor is given in body 1; MuJoCo finds it in body 2
            data[:3] = _point(one, data[:3])
        else:  # anchor in body 2, anchor in body 1, body 2's orientation in body 1
            data[:3], data[3:6] = _point(two, data[:3]), _point(one, data[3:6])
            data[6:10] = _product(_product(one.quat, data[6:10]), two.quat * [1, -1, -1, -1])
        eq.data = data


def _move_sensors(spec: mujoco.MjSpec, model: mujoco.MjModel, bodies: dict, places: list[Place]) -> None:
    """Frame sensors of a fused body read a site that sits where the body's frame was."""
    ids = {model.body(b).name: b for b in range(model.nbody)}
    for sensor in spec.sensors:
        for kind, name in (("objtype", "objname"), ("reftype", "refname")):
            objtype, body = getattr(sensor, kind), ids.get(getattr(sensor, name), 0)
            if objtype not in _BODIES or places[body].body == body:
                continue
            if sensor.type == mujoco.mjtSensor.mjSENS_SUBTREECOM:
                fixed = model.body(body).name
                raise ValueError(
                    f"sensor {sensor.name!r}: subtreecom of {fixed!r}, which has no joint; name one that has"
                )
            setattr(sensor, name, _frame_site(spec, model, bodies, body, centred=objtype == mujoco.mjtObj.mjOBJ_BODY))
            setattr(sensor, kind, mujoco.mjtObj.mjOBJ_SITE)


def _frame_site(spec: mujoco.MjSpec, model: mujoco.MjModel, bodies: dict, body: int, *, centred: bool) -> str:
    """Name of a site in a body's frame (or, `centred`, in the frame of its inertia)."""
    name = f"{model.body(body).name}:{'inertia' if centred else 'frame'}"
    if spec.site(name) is None:
        pos, quat = (model.body_ipos[body], model.body_iquat[body]) if centred else (np.zeros(3), [1, 0, 0, 0])
        bodies[body].add_site(name=name, pos=pos, quat=quat, size=[1e-3, 0, 0], group=5)
    return name


def _move_excludes(spec: mujoco.MjSpec, model: mujoco.MjModel, places: list[Place], names: list[str]) -> None:
    """Exclude the carrying bodies, and list one by one the pairs of theirs that still may touch."""
    roots = [place.body for place in places]
    moved = []
    for exclude in list(spec.excludes):
        pair = [model.body(name).id for name in (exclude.bodyname1, exclude.bodyname2)]
        if any(roots[b] != b for b in pair):
            moved.append(tuple(sorted(roots[b] for b in pair)))
            spec.delete(exclude)
    for one, two in sorted({pair for pair in moved if pair[0] != pair[1]}):
        spec.add_exclude(bodyname1=names[one], bodyname2=names[two])
    for pair in geom_pairs(model):
        carriers = sorted(roots[model.geom_bodyid[geom]] for geom in pair[:2])
        if pair.explicit < 0 and tuple(carriers) in moved:
            _list_pair(spec, pair)


def _list_pair(spec: mujoco.MjSpec, pair: GeomPair) -> None:
    geoms = [next(geom for geom in spec.geoms if geom.id == i) for i in pair[:2]]
    for geom in geoms:
        geom.name = geom.name or f"geom{geom.id}"
    spec.add_pair(
        geomname1=geoms[0].name,
        geomname2=geoms[1].name,
        condim=pair.condim,
        friction=pair.friction,
        solref=pair.solref,
        solimp=pair.solimp,
        margin=pair.margin,
        gap=pair.gap,
    )


def _retarget(spec: mujoco.MjSpec, model: mujoco.MjModel, places: list[Place], names: list[str]) -> None:
    """Cameras and lights that follow a fused body follow the body that carries it."""
    ids = {model.body(b).name: b for b in range(model.nbody)}
    for eye in [*spec.cameras, *spec.lights]:
        body = ids.get(eye.targetbody, 0)
        if places[body].body != body:
            eye.targetbody = names[body]
