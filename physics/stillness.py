"""Controls that hold a pose still, as nearly as the motors can: what MuJoCo's inverse dynamics asks for.

τ(0) + Σᵢ uᵢ (τ(eᵢ) − τ(0)) ≈ τ_inverse(q, q̇ = 0, q̈ = 0)       least squares; forces of motors are affine in their controls
"""

import mujoco
import numpy as np

from physics.scene import Scene


def still(scene: Scene, qpos: np.ndarray) -> np.ndarray:
    """Controls [nu] that hold a pose still, within their limits."""
    model, data = scene.model, mujoco.MjData(scene.model)
    data.qpos[:] = qpos
    mujoco.mj_inverse(model, data)
    wanted, forces = data.qfrc_inverse.copy(), list[np.ndarray]()
    for ctrl in np.vstack([np.zeros(model.nu), np.eye(model.nu)]):
        data.ctrl[:] = ctrl
        mujoco.mj_fwdPosition(model, data)
        mujoco.mj_fwdVelocity(model, data)
        mujoco.mj_fwdActuation(model, data)
        forces.append(data.qfrc_actuator.copy())
    found = np.linalg.lstsq(np.array(forces[1:]).T - forces[0][:, None], wanted - forces[0], rcond=None)[0]
    low, high = model.actuator_ctrlrange.T
    limited = model.actuator_ctrllimited.astype(bool)
    return np.where(limited, np.clip(found, low, high), found)
