"""What an engine is given: arrays of the right shape whose numbers are finite, or one sentence about what is wrong.

Inside jit values are not known yet, so only shapes are checked there; what was folded into the program is still looked at.
"""

from typing import Any

import numpy as np
from jax.core import Tracer

from physics.types import PARAMS_NDIM, Params

_POSITIVE = ("body_mass", "body_inertia", "geom_size")  # where the scene's own are
_NOT_NEGATIVE = ("dof_damping", "dof_armature", "dof_frictionloss", "geom_friction", "bond_strength")


def array(name: str, x: Any, wanted: tuple[int, ...], worlds: tuple[int, ...] | None = None) -> None:
    """x is finite and [wanted] or [wanted worlds]; where worlds are not known yet, any axes may follow."""
    shape = np.shape(x)
    fits = shape[: len(wanted)] == wanted if worlds is None else shape in (wanted, wanted + worlds)
    if not fits:
        more = "" if not worlds else f" or {wanted + worlds}"
        raise ValueError(f"{name} has shape {shape}: give {wanted}{' and the worlds' if worlds is None else more}")
    finite(name, x)


def finite(name: str, x: Any) -> None:
    """Every number of x that is known is finite."""
    if not isinstance(x, Tracer) and not np.isfinite(np.asarray(x)).all():
        where = np.argwhere(~np.isfinite(np.asarray(x)))[0].tolist()
        raise ValueError(f"{name}{where or ''} is not finite: give finite numbers")


def inputs(scene: Any, state: Any, ctrl: Any, force: Any, wrench: Any, *, horizon: tuple[int, ...] = ()) -> None:
    """State, control [horizon nu W], force [nv] or [nv W] and wrench [B 6] or [B 6 W] of one step or of all."""
    model, worlds = scene.model, np.shape(state.qpos)[1:]
    for name, count in (("qpos", model.nq), ("qvel", model.nv), ("act", model.na), ("intact", len(scene.bonds))):
        array(name, getattr(state, name), (count, *worlds), ())
    array("ctrl", ctrl, (*horizon, model.nu, *worlds), ())
    if force is not None:
        array("force", force, (model.nv,), worlds)
    if wrench is not None:
        array("wrench", wrench, (model.nbody, 6), worlds)


def theta(scene: Any, params: Params) -> None:
    """θ has the scene's shapes, worlds after them, and values that a body can have."""
    model = scene.model
    counts = {"actuator_gain": (model.nu,), "gravity": (3,), "bond_strength": (len(scene.bonds), 2)}
    for (name, x), ndim in zip(params._asdict().items(), PARAMS_NDIM, strict=True):
        own: Any = getattr(model, name, None)
        wanted: tuple[int, ...] = counts[name] if name in counts else np.shape(own)
        if np.shape(x)[:ndim] != wanted:
            raise ValueError(f"params.{name} has shape {np.shape(x)}: scene {scene.name!r} has {wanted}")
        if isinstance(x, Tracer):
            continue
        if name != "bond_strength":  # a bond that never breaks has infinite strength
            finite(f"params.{name}", x)
        x = np.asarray(x)
        if name in _POSITIVE:
            there = np.asarray(own).reshape(wanted + (1,) * (x.ndim - ndim)) > 0
            _refuse(name, x, (there & ~(x > 0)) | (x < 0), "a number above 0")
        if name in _NOT_NEGATIVE:
            _refuse(name, x, ~(x >= 0), "a number of 0 or more")
        if name == "dof_frictionloss":
            rubs = np.isin(np.arange(model.nv), scene.rubbing).reshape(-1, *[1] * (x.ndim - 1))
            _refuse(
                name, x, (x > 0) & ~rubs, "0, or give the joint frictionloss or the scene the numeric joint_friction=1"
            )


def _refuse(name: str, x: np.ndarray, bad: np.ndarray, allowed: str) -> None:
    if bad.any():
        where = np.argwhere(bad)[0].tolist()
        raise ValueError(f"params.{name}{where} is {x[tuple(where)]:g}: give {allowed}")
