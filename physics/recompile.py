"""A scene's own MuJoCo model with other θ, made by MuJoCo's own compiler: every derived constant follows.

The slow and certain way (milliseconds, Python): the reference steps such models, and `params.apply` is tested
against them.
"""

from collections.abc import Callable, Sequence

import mujoco
import numpy as np

from physics import checks
from physics.scene import Scene
from physics.types import PARAMS_NDIM, Params

Edit = Callable[[mujoco.MjSpec], None]


def recompile(scene: Scene, params: Params | None = None, *, edits: Sequence[Edit] = ()) -> mujoco.MjModel:
    """A new model of the scene, with θ = params (one world) and after `edits` of its MJCF; the scene is left alone.

    Damping, armature and dry friction are per dof, more than MJCF can say: they are written on the compiled model, and MuJoCo's own
    `mj_setConst` derives the rest anew. Bond strengths are no physics of the model.
    """
    spec = scene.spec.copy()
    _pin_inertias(spec, scene.model)
    if params is not None:
        params = Params(*(np.asarray(leaf, float) for leaf in params))
        _refuse_bad(params, scene)
        _write(spec, params)
    for edit in edits:
        edit(spec)
    model = spec.compile()
    if params is not None:
        model.dof_damping[:] = params.dof_damping
        model.dof_armature[:] = params.dof_armature
        model.dof_frictionloss[:] = params.dof_frictionloss
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def _pin_inertias(spec: mujoco.MjSpec, model: mujoco.MjModel) -> None:
    """Masses stand on the bodies, to the last digit; geoms no longer make any."""
    spec.compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_AUTO
    spec.compiler.settotalmass, spec.compiler.boundmass, spec.compiler.boundinertia = -1, 0, 0
    for body in spec.bodies[1:]:
        body.explicitinertial = True
        body.mass, body.inertia = model.body_mass[body.id], model.body_inertia[body.id]
        body.ipos, body.iquat = model.body_ipos[body.id], model.body_iquat[body.id]
        body.fullinertia = np.full(6, np.nan)
        body.ialt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT


def _write(spec: mujoco.MjSpec, params: Params) -> None:
    for body in spec.bodies[1:]:
        body.mass, body.inertia, body.ipos = (
            params.body_mass[body.id],
            params.body_inertia[body.id],
            params.body_ipos[body.id],
        )
    for geom in spec.geoms:
        geom.friction, geom.solref, geom.size = (
            params.geom_friction[geom.id],
            params.geom_solref[geom.id],
            params.geom_size[geom.id],
        )
    for actuator in spec.actuators:
        factor = params.actuator_gain[actuator.id]
        actuator.gainprm, actuator.biasprm = factor * np.array(actuator.gainprm), factor * np.array(actuator.biasprm)
    spec.option.gravity = params.gravity


def _refuse_bad(params: Params, scene: Scene) -> None:
    checks.theta(scene, params)
    for (name, x), ndim in zip(params._asdict().items(), PARAMS_NDIM, strict=True):
        if x.ndim != ndim:
            raise ValueError(f"params.{name} has shape {x.shape}: give one world of scene {scene.name!r}")
