"""Velocities as the engine means them.

    q_{k+1} = q_k ⊕ h v_{k+1}        the engine's step, so        v_k = (q_k ⊖ q_{k−1}) / h

A velocity measured at the instant k is not that v_k: it differs by half a step of acceleration, and a model that starts from it
goes astray by h a / 2 for all time. Poses of a log, if they are clean, give the engine's velocities exactly; the first row goes.
"""

from hybridwm import tangent
from hybridwm.recordings import Dataset, Recording


def stepped(dataset: Dataset) -> Dataset:
    """The dataset with its velocities replaced by backward differences of its poses, one row shorter."""
    model, dt = dataset.scene.model, dataset.dt

    def one(recording: Recording) -> Recording:
        moved = tangent.difference(model, recording.qpos[:-1].T, recording.qpos[1:].T).T / dt
        return recording._replace(
            qpos=recording.qpos[1:], qvel=moved, ctrl=recording.ctrl[1:], intact=recording.intact[1:]
        )

    return dataset._replace(recordings=tuple(one(r) for r in dataset.recordings if len(r.ctrl) > 1))
