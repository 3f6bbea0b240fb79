"""How deep bodies stand in one another, by MuJoCo C's narrow phase: a judge of any model's states, whoever made them."""

import mujoco
import numpy as np
from numpy.typing import ArrayLike

from physics.scene import Scene


def overlap(scene: Scene, qpos: ArrayLike) -> np.ndarray:
    """Depth of the deepest contact in poses qpos [nq, W], in m: [W]. 0 where nothing overlaps, infinite where not finite.

    Pairs that the scene excludes are left out; bodies at a bond are not.
    """
    places = np.asarray(qpos, float)
    if places.ndim != 2 or len(places) != scene.model.nq:
        raise ValueError(f"qpos has shape {places.shape}; this scene needs ({scene.model.nq}, W)")
    data = mujoco.MjData(scene.model)
    return np.array([_deepest(scene.model, data, place) for place in places.T])


def _deepest(model: mujoco.MjModel, data: mujoco.MjData, qpos: np.ndarray) -> float:
    if not np.isfinite(qpos).all() or np.abs(qpos).max(initial=0.0) > 1e6:
        return np.inf
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_collision(model, data)
    return max(0.0, -float(data.contact.dist.min(initial=0.0)))
