"""What a scene looks like: its geoms as triangles, and where they are at given poses. For replays, not for dynamics.

shape in its geom's frame: box, sphere, ellipsoid, capsule, cylinder, mesh;   a plane has no triangles
"""

from typing import NamedTuple

import mujoco
import numpy as np

from physics.scene import Scene

_AROUND, _ALONG = 24, 12


class Shape(NamedTuple):
    """One geom."""

    name: str
    kind: str  # plane, sphere, capsule, ellipsoid, cylinder, box, mesh
    moving: bool
    size: np.ndarray  # [3] MuJoCo's half sizes, m
    rgba: np.ndarray  # [4] 0 to 1
    vertices: np.ndarray  # [V, 3] m, in the geom's own frame; none for a plane
    faces: np.ndarray  # [F, 3]


class Poses(NamedTuple):
    """Where every geom and every bond is, T times."""

    position: np.ndarray  # [T, G, 3] m
    quaternion: np.ndarray  # [T, G, 4] w first
    bond: np.ndarray  # [T, nb, 3] m: each bond's anchor on its second body


def shapes(scene: Scene) -> tuple[Shape, ...]:
    """Every geom of the scene, in MuJoCo's order."""
    return tuple(_shape(scene.model, geom) for geom in range(scene.model.ngeom))


def poses(scene: Scene, qpos: np.ndarray) -> Poses:
    """Where everything is at qpos [T, nq]. Rows that are not finite stay as NaN."""
    model, data = scene.model, mujoco.MjData(scene.model)
    count, bonds = len(qpos), len(scene.bonds)
    found = Poses(
        *(np.full(shape, np.nan) for shape in ((count, model.ngeom, 3), (count, model.ngeom, 4), (count, bonds, 3)))
    )
    for t, row in enumerate(np.asarray(qpos, float)):
        if not np.isfinite(row).all():
            continue
        data.qpos[:] = row
        mujoco.mj_kinematics(model, data)
        found.position[t] = data.geom_xpos
        for geom in range(model.ngeom):
            mujoco.mju_mat2Quat(found.quaternion[t, geom], data.geom_xmat[geom])
        for b, bond in enumerate(scene.bonds):
            anchor = model.eq_data[bond.eq_id, :3] if bond.kind == "weld" else model.eq_data[bond.eq_id, 3:6]
            found.bond[t, b] = data.xpos[bond.body2] + data.xmat[bond.body2].reshape(3, 3) @ anchor
    return found


def _shape(model: mujoco.MjModel, geom: int) -> Shape:
    kind = mujoco.mjtGeom(model.geom_type[geom]).name.removeprefix("mjGEOM_").lower()
    size = model.geom_size[geom].copy()
    vertices, faces = _mesh(model, geom) if kind == "mesh" else _solid(kind, size)
    return Shape(
        name=model.geom(geom).name or f"geom{geom}",
        kind=kind,
        moving=bool(model.body_weldid[model.geom_bodyid[geom]]),
        size=size,
        rgba=model.geom_rgba[geom].copy(),
        vertices=vertices.astype(np.float32),
        faces=faces.astype(np.uint32),
    )


def _mesh(model: mujoco.MjModel, geom: int) -> tuple[np.ndarray, np.ndarray]:
    mesh = int(model.geom_dataid[geom])
    v, f = int(model.mesh_vertadr[mesh]), int(model.mesh_faceadr[mesh])
    return model.mesh_vert[v : v + model.mesh_vertnum[mesh]], model.mesh_face[f : f + model.mesh_facenum[mesh]]


def _solid(kind: str, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A profile (radius, height) from pole to pole, turned around z; a box by its corners."""
    if kind == "box":
        corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * size
        faces = [(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1), (2, 3, 7), (2, 7, 6), (0, 2, 6),
                 (0, 6, 4), (1, 5, 7), (1, 7, 3)]  # fmt: skip
        return corners, np.array(faces)
    arc = np.linspace(-np.pi / 2, np.pi / 2, _ALONG + 1)
    ball = np.stack([np.cos(arc), np.sin(arc)], 1)
    if kind == "sphere":
        return _turned(ball * size[0])
    if kind == "ellipsoid":
        vertices, faces = _turned(ball)
        return vertices * size, faces
    if kind == "capsule":
        half = _ALONG // 2 + 1
        ends = np.concatenate([ball[:half] * size[0] - (0, size[1]), ball[half - 1 :] * size[0] + (0, size[1])])
        return _turned(ends)
    if kind == "cylinder":
        return _turned(np.array([(0, -1), (1, -1), (1, 1), (0, 1)]) * (size[0], size[1]))
    return np.zeros((0, 3)), np.zeros((0, 3), int)


def _turned(profile: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """profile [P, 2] (radius, z) around the z axis."""
    angle = np.linspace(0, 2 * np.pi, _AROUND, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1)
    flat = profile[:, None, :1] * ring
    vertices = np.concatenate([flat, np.broadcast_to(profile[:, None, 1:], (len(profile), _AROUND, 1))], -1)
    i, j = np.meshgrid(np.arange(len(profile) - 1), np.arange(_AROUND), indexing="ij")
    here, beside = i * _AROUND + j, i * _AROUND + (j + 1) % _AROUND
    faces = np.concatenate([
        np.stack([here, beside, beside + _AROUND], -1), np.stack([here, beside + _AROUND, here + _AROUND], -1)
    ])  # fmt: skip
    return vertices.reshape(-1, 3), faces.reshape(-1, 3)
