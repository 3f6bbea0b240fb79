"""What the networks see of the world: numbers that do not change when the world is moved along the ground or turned about gravity.

    hinge        sin q, cos q, q̇                          (the angle itself where the scene says that place matters)
    slide        q where the rail has ends, q̇
    ball         Rᵀ g, ω
    free body    Rᵀ g, Rᵀ v, ω, height; towards every body it may touch  Rᵀ (p′ − p), Rᵀ (v′ − v)
    everywhere   ū and y of the motors (motors.py), act

With `place` also the absolute x and y of free bodies, the heading of whatever turns freely, every angle and rail coordinate: for a
floor with patches, a thread that wears. `<custom><numeric name="place" data="1"/>` in the MJCF says the same.
"""

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from physics import lanes as ln
from physics.collision import BOX
from physics.scene import Scene
from physics.stage import fused
from physics.tree import FREE, HINGE, SLIDE, Pose, Tree, forward

Array = jax.Array
Named = Iterator[tuple[str, Any]]


class Features:
    """The features of one scene; `names` [F] says what they are, `origins` [F] where they come from.

    An origin is ("joint", its number, what of it), ("towards", that of a free body's joint, whom), or ("ctrl", "motor" or "act",
    the motor's number, "").
    """

    def __init__(self, scene: Scene, *, place: bool = False) -> None:
        self.scene, self.tree, self.place = scene, Tree(scene.model), place or says_place(scene)
        self.neighbours = _neighbours(scene, self.tree)
        self.corners = _corners(scene) if self.place else {}
        m = scene.model
        self.names: tuple[str, ...] = ()
        self.origins: tuple[tuple[str, int, str], ...] = ()
        jax.eval_shape(lambda *xs: self(*xs), *(jnp.zeros(n) for n in (m.nq, m.nv, m.nu, m.nu, m.na)))

    def __call__(self, qpos: Array, qvel: Array, ctrl: Array, motor: Array, act: Array) -> Array:
        """[F, W] from qpos [nq, W], qvel [nv, W], ū and y of the motors [nu, W], act [na, W]."""
        found = fused(partial(self._lanes), ln.lanes(qpos), ln.lanes(qvel))
        return jnp.concatenate([ln.stack(found, qpos[0] * 0), ctrl, motor, act])

    def _lanes(self, qpos: Any, qvel: Any) -> list[Any]:
        model = self.tree.model
        pose = forward(self.tree, tuple(ln.static(r) for r in model.body_ipos), qpos)
        velocity = {b: _velocity(self.tree, pose, qvel, b) for b in {b for pair in self.neighbours for b in pair}}
        found = [(j, *one) for j in range(model.njnt) for one in self._joint(j, pose, qpos, qvel, velocity)]
        motors = [model.actuator(i).name or str(i) for i in range(model.nu)]
        told = [(kind, i) for kind in ("ctrl", "motor") for i in range(model.nu)]
        acting = [i for i in range(model.nu) for _ in range(int(model.actuator_actnum[i]))]
        self.names = (
            *[name for _, name, _ in found],
            *[f"{kind}:{motors[i]}" for kind, i in told],
            *[f"act:{i}" for i in range(model.na)],
        )
        self.origins = (
            *[self._origin(j, name) for j, name, _ in found],
            *[(kind, i, "") for kind, i in told],
            *[("act", i, "") for i in acting],
        )
        return [lane for _, _, lane in found]

    def _origin(self, joint: int, name: str) -> tuple[str, int, str]:
        word = name.removeprefix(_named(self.tree.model, joint))
        return ("towards" if word.startswith(">") else "joint"), joint, word

    def _joint(self, j: int, pose: Pose, qpos: Any, qvel: Any, velocity: dict[int, Any]) -> Named:
        model = self.tree.model
        kind, name = int(model.jnt_type[j]), _named(model, j)
        at, dof, body = int(model.jnt_qposadr[j]), int(model.jnt_dofadr[j]), int(model.jnt_bodyid[j])
        if kind == HINGE:
            yield from _hinge(name, qpos[at], qvel[dof], self.place)
        elif kind == SLIDE:
            yield from _slide(name, qpos[at], qvel[dof], self.place or bool(model.jnt_limited[j]))
        else:
            yield from _xyz(f"{name}.down", ln.rows(pose.rot[body])[2])
            yield from _xyz(f"{name}.turn", qvel[dof + 3 : dof + 6] if kind == FREE else qvel[dof : dof + 3])
            if self.place and kind != FREE:
                yield from _heading(name, pose.rot[body])
        if kind == FREE:
            yield from self._free(name, body, pose, qvel[dof : dof + 3], velocity)

    def _free(self, name: str, body: int, pose: Pose, speed: Any, velocity: dict[int, Any]) -> Named:
        into = ln.transpose(pose.rot[body])
        yield from _xyz(f"{name}.speed", ln.matvec(into, speed))
        yield f"{name}.height", pose.pos[body][2]
        if self.place:
            yield f"{name}.x", pose.pos[body][0]
            yield f"{name}.y", pose.pos[body][1]
            yield from _heading(name, pose.rot[body])
            for i, corner in enumerate(self.corners.get(body, ())):
                at = ln.vadd(pose.pos[body], ln.matvec(pose.rot[body], ln.static(corner)))
                yield f"{name}.corner{i}.x", at[0]
                yield f"{name}.corner{i}.y", at[1]
        for a, b in self.neighbours:
            if a == body:
                other = self.tree.model.body(b).name or f"body {b}"
                yield from _xyz(f"{name}>{other}.at", ln.matvec(into, ln.vsub(pose.pos[b], pose.pos[body])))
                yield from _xyz(f"{name}>{other}.speed", ln.matvec(into, ln.vsub(velocity[b], velocity[body])))


def _named(model: Any, joint: int) -> str:
    return model.joint(joint).name or f"joint {joint}"


def _corners(scene: Scene) -> dict[int, np.ndarray]:
    """Of free bodies with one box that collides: its lowest four corners at home [4, 3], in the body's frame."""
    model, qpos = scene.model, scene.home()[0]
    out = {}
    for j in np.flatnonzero(model.jnt_type == FREE):
        body, at = int(model.jnt_bodyid[j]), int(model.jnt_qposadr[j])
        geoms = np.flatnonzero((model.geom_bodyid == body) & (model.geom_contype > 0))
        if len(geoms) == 1 and model.geom_type[geoms[0]] == BOX:
            signs = np.array(list(product((-1, 1), repeat=3)))
            corners = (
                model.geom_pos[geoms[0]] + (signs * model.geom_size[geoms[0]]) @ _turn(model.geom_quat[geoms[0]]).T
            )
            height = corners @ _turn(qpos[at + 3 : at + 7])[2]
            out[body] = corners[np.sort(np.argsort(height, kind="stable")[:4])]
    return out


def _turn(quat: np.ndarray) -> np.ndarray:
    w, x, y, z = quat.tolist()
    return np.array(ln.quat_mat(ln.quat_unit((w, x, y, z))), float)


def says_place(scene: Scene) -> bool:
    """Whether the MJCF says that absolute place matters."""
    model = scene.model
    given = {model.numeric(i).name: model.numeric(i).data for i in range(model.nnumeric)}
    return "place" in given and bool(given["place"][0])


def _neighbours(scene: Scene, tree: Tree) -> list[tuple[int, int]]:
    """(free body, moving body of another tree that it may touch while nothing is broken)."""
    model = scene.model
    free = {int(model.jnt_bodyid[j]) for j in range(model.njnt) if model.jnt_type[j] == FREE}
    bonded = {frozenset((bond.body1, bond.body2)) for bond in scene.bonds}
    touching = {tuple(int(model.geom_bodyid[g]) for g in (pair.geom1, pair.geom2)) for pair in scene.pairs}
    either = {(a, b) for pair in touching for a, b in (pair, pair[::-1])}
    return sorted(
        (a, b)
        for a, b in either
        if a in free and b in tree.moving and tree.root[a] != tree.root[b] and frozenset((a, b)) not in bonded
    )


def _velocity(tree: Tree, pose: Pose, qvel: Any, body: int) -> Any:
    """Velocity of a body's origin in the world's axes."""
    arm, out = ln.vsub(pose.pos[body], pose.ref[body]), ln.ZERO
    for dof in tree.chain[body]:
        angular, linear = pose.axis[dof]
        out = ln.vadd(out, ln.scale(qvel[dof], ln.vadd(linear, ln.cross(angular, arm))))
    return out


def _heading(name: str, rot: Any) -> Named:
    yield f"{name}.heading_cos", rot[0][0]
    yield f"{name}.heading_sin", rot[1][0]


def _hinge(name: str, angle: Any, speed: Any, place: bool) -> Named:
    cos, sin = ln.cos_sin(angle)
    yield f"{name}.sin", sin
    yield f"{name}.cos", cos
    yield f"{name}.speed", speed
    if place:
        yield f"{name}.angle", angle


def _slide(name: str, position: Any, speed: Any, known: bool) -> Named:
    if known:
        yield f"{name}.position", position
    yield f"{name}.speed", speed


def _xyz(name: str, vector: Any) -> Named:
    for axis, lane in zip("xyz", vector, strict=True):
        yield f"{name}.{axis}", lane
