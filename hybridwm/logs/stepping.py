"""Velocities as the engine means them.

    q_{k+1} = q_k ⊕ h v_{k+1}        the engine's step, so        v_k = (q_k ⊖ q_{k−1}) / h

A velocity measured at the instant k is not that v_k: it differs by half a step of acceleration, and a model that starts from it
goes astray by h a / 2 for all time. Poses of a log, if they are clean, give the engine's velocities exactly. The first row has
no row before it: v_0 = 2 v_1 − v_2.
"""

import numpy as np

from hybridwm.logs import tangent
from hybridwm.logs.recordings import Dataset, Recording


def stepped(dataset: Dataset) -> Dataset:
    """The dataset with the velocities of its poses; episodes of fewer than two steps go."""
    model, dt = dataset.scene.model, dataset.dt

    def one(recording: Recording) -> Recording:
        moved = tangent.difference(model, recording.qpos[:-1].T, recording.qpos[1:].T).T / dt
        first = 2 * moved[:1] - moved[1:2]
        return recording._replace(qvel=np.concatenate([first, moved]))

    return dataset._replace(recordings=tuple(one(r) for r in dataset.recordings if len(r.ctrl) > 1))


def ready(dataset: Dataset) -> Dataset:
    """The dataset with the velocities that a model of its engine should start from: `stepped` where a row is one step."""
    return stepped(dataset) if dataset.substeps == 1 else dataset
