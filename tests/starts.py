"""Hard starts for the engine against MuJoCo C: tumbling, on an edge, on a corner, sunk in, pressed, sliding, toppled.

The free bodies of a scene are turned and moved as one; several of them are then shaken by 0.1 mm, 1 mrad and 2 cm/s, for
bodies that lie flush or hang together leave it to rounding whether they touch. Scenes without free bodies start far off.
"""

import mujoco
import numpy as np
from narrowphase import after, turn

EDGES = (([1, 0, 0], np.pi / 4), ([1, 1, 0], np.arctan(np.sqrt(2))), ([0, 1, 0], 0.3), ([1, 2, 0], 0.01))
TOPPLED = (([0, 1, 0], np.pi / 2), ([0, -1, 0], np.pi / 2), ([1, 0, 0], np.pi / 2), ([0, 1, 0], np.pi / 2 - 0.05))


class Free:
    """The free bodies of a model, which stand on something of height `top` (m)."""

    def __init__(self, model, home, top):
        self.model, self.home, self.top = model, home, top
        joints = np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)
        self.at = [slice(a, a + 3) for a in model.jnt_qposadr[joints]]
        self.dofs = [slice(d, d + 3) for d in model.jnt_dofadr[joints]]
        self.moved = {int(b) for b in model.jnt_bodyid[joints]}

    def turned(self, axis, angle):
        """Home, turned as one about the first body."""
        out, rotation, matrix = self.home.copy(), turn(axis, angle), np.zeros(9)
        mujoco.mju_quat2Mat(matrix, rotation)
        centre = self.home[self.at[0]]
        for at in self.at:
            out[at] = centre + matrix.reshape(3, 3) @ (self.home[at] - centre)
            quat = slice(at.stop, at.stop + 4)
            out[quat] = after(rotation, self.home[quat])
        return out

    def lowered(self, qpos, depth):
        """Moved as one until the lowest point is `depth` below the top."""
        out, data = qpos.copy(), mujoco.MjData(self.model)
        data.qpos[:] = qpos
        mujoco.mj_kinematics(self.model, data)
        lowest = min(self._bottom(data, g) for g in range(self.model.ngeom) if self.model.geom_bodyid[g] in self.moved)
        for at in self.at:
            out[at.start + 2] += self.top - depth - lowest
        return out

    def _bottom(self, data, geom):
        size, z = self.model.geom_size[geom], np.abs(data.geom_xmat[geom].reshape(3, 3)[2])
        kind = mujoco.mjtGeom(self.model.geom_type[geom])
        reach = {
            mujoco.mjtGeom.mjGEOM_BOX: z @ size,
            mujoco.mjtGeom.mjGEOM_SPHERE: size[0],
            mujoco.mjtGeom.mjGEOM_CAPSULE: size[0] + z[2] * size[1],
        }
        return data.geom_xpos[geom, 2] - reach[kind]

    def pressed(self, share):
        """Every body moved towards the first by a share of the way."""
        out = self.home.copy()
        for at in self.at[1:]:
            out[at] += share * (self.home[self.at[0]] - self.home[at])
        return out

    def moving(self, linear, angular=0.0):
        """Velocities [nv] of the bodies: m/s, rad/s, random within ±angular."""
        out, rng = np.zeros(self.model.nv), np.random.default_rng(1)
        for dofs in self.dofs:
            out[dofs] = linear
            out[dofs.stop : dofs.stop + 3] = angular * rng.uniform(-1, 1, 3)
        return out

    def shake(self, rng):
        """A small change [nv] of every body's place (m) and turn (rad)."""
        out = np.zeros(self.model.nv)
        for dofs in self.dofs:
            out[dofs], out[dofs.stop : dofs.stop + 3] = 1e-4 * rng.normal(size=3), 1e-3 * rng.normal(size=3)
        return out


def hard_starts(scene, top=0.0):
    """qpos [nq W], qvel [nv W], intact [nb W]; bonds: all hold, none, all but the first, all but the last, in turn."""
    model, rng = scene.model, np.random.default_rng(8)
    home, rest = scene.home()
    free = Free(model, home, top)
    starts = list(_free_starts(free, rng) if free.at else _far_starts(model, home, rng))
    if len(free.at) > 1:
        for qpos, qvel in starts:
            mujoco.mj_integratePos(model, qpos, free.shake(rng), 1.0)
            qvel += 0.02 * rng.normal(size=model.nv)
    qpos, qvel = (np.stack(x, -1) for x in zip(*starts, strict=True))
    intact = np.ones((len(scene.bonds), len(starts)))
    intact[:, 1::4] = intact[:1, 2::4] = intact[-1:, 3::4] = 0.0
    return qpos, rest[:, None] + qvel, intact


def _free_starts(free, rng):
    for _ in range(3):
        speed = [*rng.uniform(-2, 2, 2), -2.0]
        yield free.lowered(free.turned(rng.normal(size=3), rng.uniform(0, 3)), -0.02), free.moving(speed, 10.0)
    for turned in EDGES:
        yield free.lowered(free.turned(*turned), 1e-4), free.moving(0.0)
    for turned in TOPPLED:
        yield free.lowered(free.turned(*turned), 1e-3), free.moving(0.0)
    for depth in (0.005, 0.02, 0.06):
        yield free.lowered(free.home, depth), free.moving(0.0)
    for share in (0.3, 0.6):
        yield free.lowered(free.pressed(share), 0.005), free.moving(0.0)
    for speed in ([2.0, 0.0, 0.0], [-1.0, 1.3, 0.0]):
        yield free.lowered(free.home, 1e-4), free.moving(speed)


def _far_starts(model, home, rng):
    for _ in range(6):
        qpos = home.copy()
        mujoco.mj_integratePos(model, qpos, 3 * rng.uniform(-1, 1, model.nv), 1.0)
        yield qpos, 10 * rng.uniform(-1, 1, model.nv)
