"""Many worlds at once in MuJoCo C, on all cores: what `Reference.rollout` runs.

Worlds are sorted by which bonds hold; each kind gets a copy of the model with exactly those welds active and
those pairs excluded, and MuJoCo's thread pool does the rest. Worlds whose broken pieces still overlap need the
narrow phase corrected at each step (`physics.bonds`) and are stepped one by one.
"""

import copy
import os
from typing import Any, NamedTuple

import mujoco
import numpy as np
from mujoco.rollout import Rollout

_CTRL, _FORCE = mujoco.mjtState.mjSTATE_CTRL.value, mujoco.mjtState.mjSTATE_QFRC_APPLIED.value


class Unstable(RuntimeError):
    """MuJoCo warned: a state or acceleration not finite or absurdly large, or no room for contacts."""


class Trajectories(NamedTuple):
    """H steps of W worlds, the start included: time in front, worlds last."""

    time: np.ndarray  # [H+1 W] s
    qpos: np.ndarray  # [H+1 nq W]
    qvel: np.ndarray  # [H+1 nv W]
    act: np.ndarray  # [H+1 na W]
    sensors: np.ndarray  # [H ns W] as MuJoCo reads them while it takes the (last fine) step
    steps: np.ndarray  # [W] steps that went well; after one that did not, the world stands still


def run(
    reference: Any, qpos: np.ndarray, qvel: np.ndarray, ctrl: np.ndarray, intact: np.ndarray, force: np.ndarray
) -> Trajectories:
    """qpos [nq W], qvel [nv W], ctrl [H nu W], intact [nb W], force [H nv W] or none [0 nv W]: float, finite."""
    model, worlds, horizon = reference.model, qpos.shape[-1], len(ctrl)
    start = np.concatenate([np.zeros((1, worlds)), qpos, qvel, np.zeros((model.na, worlds))]).T
    drive = ctrl if not len(force) else np.concatenate([ctrl, force], axis=1)
    drive = np.repeat(
        np.ascontiguousarray(np.moveaxis(drive, -1, 0)), reference.substeps, axis=1
    )  # [W H·substeps nu(+nv)]
    states = np.empty((worlds, horizon * reference.substeps, start.shape[1]))
    sensors = np.empty((worlds, horizon * reference.substeps, model.nsensordata))
    for kind in np.unique(intact, axis=1).T:
        mine = np.flatnonzero((intact == kind[:, None]).all(0))
        single = [w for w in mine if _overlaps(reference, qpos[:, w], qvel[:, w], kind)]
        for w in single:
            states[w], sensors[w] = _alone(reference, start[w], drive[w], kind)
        together = np.setdiff1d(mine, single)
        if len(together):
            spec = _CTRL | _FORCE if len(force) else _CTRL
            states[together], sensors[together] = _pool(_held(reference, kind), start[together], drive[together], spec)
    return _read(reference, start, states, sensors)


def _pool(model: mujoco.MjModel, start: np.ndarray, drive: np.ndarray, spec: int) -> tuple[np.ndarray, np.ndarray]:
    """MuJoCo's threads: (states [W T 1+nq+nv+na], sensors [W T ns])."""
    threads = min(os.cpu_count() or 1, len(start))
    datas = [mujoco.MjData(model) for _ in range(threads)]
    with Rollout(nthread=threads if threads > 1 else 0) as pool:
        return pool.rollout(model, datas, start, drive, control_spec=spec, nstep=drive.shape[1])  # type: ignore[no-any-return]


def _held(reference: Any, intact: np.ndarray) -> mujoco.MjModel:
    """A copy of the model in which exactly these bonds hold."""
    model = copy.copy(reference.model)
    model.eq_active0[reference.joined.eq] = intact > 0.5
    model.exclude_signature[:] = reference.excluded(intact)
    return model


def _overlaps(reference: Any, qpos: np.ndarray, qvel: np.ndarray, intact: np.ndarray) -> bool:
    """Whether the pieces of some broken bond overlap at the start."""
    if intact.all():
        return False
    reference.reset(qpos, qvel, intact)
    return reference.measure()


def _alone(reference: Any, start: np.ndarray, drive: np.ndarray, intact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One world, step by step; it stands still after a step that MuJoCo warns of."""
    model, data = reference.model, reference.data
    states, sensors = np.empty((len(drive), len(start))), np.empty((len(drive), model.nsensordata))
    reference.reset(start[1 : 1 + model.nq], start[1 + model.nq : 1 + model.nq + model.nv], intact)
    good = True
    for i, inputs in enumerate(drive):
        data.ctrl[:] = inputs[: model.nu]
        data.qfrc_applied[:] = inputs[model.nu :] if len(inputs) > model.nu else 0.0
        try:
            if good:
                reference.fine_step()
        except Unstable:
            good = False
        states[i] = np.concatenate([[data.time], data.qpos, data.qvel, data.act])
        sensors[i] = data.sensordata
    return states, sensors


def _read(reference: Any, start: np.ndarray, states: np.ndarray, sensors: np.ndarray) -> Trajectories:
    model, every = reference.model, reference.substeps
    path = np.moveaxis(np.concatenate([start[:, None], states], axis=1), 0, -1)  # [1+H·substeps n W]
    went = (np.diff(path[:, 0], axis=0) > 0).sum(0) // every
    path = path[::every]
    cuts = np.cumsum([1, model.nq, model.nv])
    time, qpos, qvel, act = np.split(path, cuts, axis=1)
    return Trajectories(time[:, 0], qpos, qvel, act, np.moveaxis(sensors[:, every - 1 :: every], 0, -1), went)
