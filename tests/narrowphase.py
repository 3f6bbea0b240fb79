"""Pairs of geoms in MuJoCo C, and how a contact set of ours is held against its own."""

import mujoco
import numpy as np


class Pair:
    """Two free geoms (a plane is fixed) in MuJoCo C: where it sees them, and the contacts it finds."""

    def __init__(self, geom1, geom2, margin=0.0):
        body = "<body>{}<geom {} margin='{}' mass='1'/></body>"
        geoms = [("" if "plane" in geom else "<freejoint/>", geom) for geom in (geom1, geom2)]
        bodies = "".join(body.format(*geom, margin / 2) for geom in geoms)
        self.model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{bodies}</worldbody></mujoco>")
        self.data = mujoco.MjData(self.model)

    def collide(self, qpos, axes=1):
        """Poses pos [2, 3], rot [2, 3, 3], and the contacts (distance, position, normal and further axes of the frame)."""
        self.data.qpos[:] = qpos
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_collision(self.model, self.data)
        contacts = [np.r_[c.dist, c.pos, c.frame[: 3 * axes]] for c in self.data.contact[: self.data.ncon]]
        return self.data.geom_xpos.copy(), self.data.geom_xmat.reshape(2, 3, 3).copy(), contacts


def ours(narrow, poses, *sizes, **margin):
    """Contacts per world of a narrow phase on lanes; `sizes` are given per geom, `poses` as `collide` returns them."""
    pos, rot = (np.stack([pose[k] for pose in poses], -1) for k in (0, 1))
    lanes = [(tuple(pos[g]), tuple(map(tuple, rot[g])), *sizes[g]) for g in (0, 1)]
    distance, position, normal = map(np.asarray, narrow(*lanes[0], *lanes[1], **margin))
    normal = np.broadcast_to(normal, position.shape)
    rows = np.concatenate([distance[:, None], position, normal], 1)
    assert np.isfinite(rows).all()
    return [list(rows[rows[:, 0, w] < 100, :, w]) for w in range(rows.shape[-1])]


def gap(a, b):
    """Largest difference between two contact sets, whatever their order; infinite where their numbers differ."""
    if len(a) != len(b):
        return np.inf
    largest, left = 0.0, list(b)
    for contact in a:
        errors = [np.abs(contact - other).max() for other in left]
        largest = max(largest, min(errors))
        left.pop(int(np.argmin(errors)))
    return largest


def turn(axis, angle):
    """Unit quaternion of a rotation about an axis (of any length)."""
    axis = np.asarray(axis, float) / np.linalg.norm(axis)
    return np.r_[np.cos(angle / 2), np.sin(angle / 2) * axis]


def after(p, q):
    """Quaternion product p q."""
    out = np.zeros(4)
    mujoco.mju_mulQuat(out, np.asarray(p, float), np.asarray(q, float))
    return out
