"""What the engine cannot honour: each row looks at one kind of thing and says what is wrong and what to do instead.

`of_spec` is asked before MuJoCo compiles (some of these would make compiling slow or impossible), `of_model` after it,
when every default and class is settled. Each answer is one sentence: the thing by name, the reason, the alternatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import mujoco
import numpy as np

from physics.pairs import geom_name, geom_pairs, pair_name

CONDIMS = frozenset({1, 3})
COLLIDING = ("plane", "sphere", "capsule", "box")
SENSORS = (
    *("jointpos", "jointvel", "actuatorpos", "actuatorvel", "subtreecom"),
    *("framepos", "framequat", "framexaxis", "frameyaxis", "framezaxis", "framelinvel", "frameangvel"),
)
DYNAMICS = ("none", "integrator", "filter", "filterexact")
MAX_GEOMS, MAX_BODIES, MAX_DOFS = 1000, 500, 200
MAX_TIMESTEP_S = 0.1
_SCALAR = (mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE)

_MIXED = "solref mixes its two forms; give (time constant, damping ratio) above 0, or (−stiffness, −damping)"

# Flags that leave the converged physics as it is.
_HARMLESS_OFF = ("warmstart", "midphase", "nativeccd", "multiccd", "island", "sensor", "autoreset", "filterparent")
_HARMLESS_ON = ("energy", "fwdinv", "invdiscrete")


def of_spec(spec: mujoco.MjSpec) -> list[str]:
    """Reasons that can be told before compiling; empty when there is none."""
    return [reason for row in _BEFORE for reason in row(spec)]


def of_model(model: mujoco.MjModel) -> list[str]:
    """Reasons that need the compiled model; empty when there is none."""
    return [reason for row in _AFTER for reason in row(model)]


# ---- before compiling ----


def _tendons(spec: mujoco.MjSpec) -> Iterator[str]:
    for i, tendon in enumerate(spec.tendons):
        yield f"{_named('tendon', tendon, i)}: tendons are not simulated; use joints, or weld and connect constraints"


def _flexes(spec: mujoco.MjSpec) -> Iterator[str]:
    for i, flex in enumerate(spec.flexes):
        yield f"{_named('flex', flex, i)}: flexes are not simulated; use rigid bodies and joints"


def _mocap(spec: mujoco.MjSpec) -> Iterator[str]:
    for i, body in enumerate(spec.bodies):
        if body.mocap:
            yield f"{_named('body', body, i)}: mocap bodies are not simulated; use joints with position actuators"


def _equalities(spec: mujoco.MjSpec) -> Iterator[str]:
    for i, eq in enumerate(spec.equalities):
        if eq.type not in (mujoco.mjtEq.mjEQ_WELD, mujoco.mjtEq.mjEQ_CONNECT):
            yield f"{_named('equality', eq, i)}: {_word(eq.type)} is not simulated; only weld and connect are"


def _actuators(spec: mujoco.MjSpec) -> Iterator[str]:
    for i, actuator in enumerate(spec.actuators):
        for reason in _actuator(actuator):
            yield f"{_named('actuator', actuator, i)}: {reason}"


def _actuator(a: mujoco.MjsActuator) -> Iterator[str]:
    if a.trntype != mujoco.mjtTrn.mjTRN_JOINT:
        yield f"transmission to a {_word(a.trntype)} is not simulated; act on a hinge or slide joint"
    if _word(a.dyntype) not in DYNAMICS:
        yield f"dynamics '{_word(a.dyntype)}' is not simulated; only {', '.join(DYNAMICS)}"
    if _word(a.gaintype) not in ("fixed", "affine") or _word(a.biastype) not in ("none", "affine"):
        gain, bias = _word(a.gaintype), _word(a.biastype)
        yield f"gain '{gain}' with bias '{bias}' is not simulated; use motor, position, velocity or an affine general"
    if a.actlimited == mujoco.mjtLimited.mjLIMITED_TRUE or a.actrange[0] != a.actrange[1]:
        yield "actrange is not simulated; limit the control (ctrlrange) or the force (forcerange)"
    if a.actearly:
        yield "actearly is not simulated; leave it out"
    if a.nsample or a.delay:
        yield "delay is not simulated here; leave out nsample and delay"
    if np.any(a.damping) or a.armature:
        yield "damping and armature are not simulated on actuators; give them to the joint"


def _sensors(spec: mujoco.MjSpec) -> Iterator[str]:
    for i, sensor in enumerate(spec.sensors):
        if _word(sensor.type) not in SENSORS:
            yield f"{_named('sensor', sensor, i)}: {_word(sensor.type)} is not computed; only {', '.join(SENSORS)}"
        if sensor.nsample or sensor.delay or any(sensor.interval):
            yield f"{_named('sensor', sensor, i)}: delay is not simulated; leave out nsample, delay and interval"
        if sensor.cutoff:
            yield f"{_named('sensor', sensor, i)}: cutoff is not applied; leave it out"


def _plugins(spec: mujoco.MjSpec) -> Iterator[str]:
    owners = [("body", spec.bodies), ("geom", spec.geoms), ("actuator", spec.actuators), ("sensor", spec.sensors)]
    for kind, elements in owners:
        for i, element in enumerate(elements):
            if element.plugin.active:
                yield f"{_named(kind, element, i)}: plugins are not simulated; remove it"


def _alignment(spec: mujoco.MjSpec) -> Iterator[str]:
    if spec.compiler.alignfree:
        yield "compiler alignfree: not supported, it moves the body's frame; leave it out"
    for i, joint in enumerate(spec.joints):
        if joint.align == mujoco.mjtAlignFree.mjALIGNFREE_TRUE:
            yield f"{_named('joint', joint, i)}: align is not supported, it moves the body's frame; leave it out"


# ---- after compiling ----


def _options(model: mujoco.MjModel) -> Iterator[str]:
    opt = model.opt
    if not 0 < opt.timestep <= MAX_TIMESTEP_S:
        yield f"option timestep={opt.timestep:g}: give seconds above 0 and at most {MAX_TIMESTEP_S:g}"
    if opt.integrator != mujoco.mjtIntegrator.mjINT_EULER:
        yield f"option integrator={_word(mujoco.mjtIntegrator(opt.integrator))}: not simulated; use Euler"
    for name in ("density", "viscosity"):
        if getattr(opt, name):
            yield f"option {name}={getattr(opt, name):g}: fluid forces are not simulated; set it to 0"
    if opt.wind.any():
        yield "option wind: fluid forces are not simulated; set it to 0 0 0"
    if opt.noslip_iterations:
        yield "option noslip_iterations: not simulated; set it to 0 and raise impratio, or use cone='elliptic'"
    if opt.impratio <= 0:
        yield f"option impratio={opt.impratio:g}: give a number above 0"
    if opt.disableactuator:
        yield "option actuatorgroupdisable: not simulated; remove the actuators instead"


def _flags(model: mujoco.MjModel) -> Iterator[str]:
    for bit in mujoco.mjtDisableBit.__members__.values():
        word = bit.name.removeprefix("mjDSBL_").lower()
        if model.opt.disableflags & bit.value and bit.name.startswith("mjDSBL_") and word not in _HARMLESS_OFF:
            instead = "set gravity to 0 0 0" if word == "gravity" else "remove the flag"
            yield f"flag {word}='disable': not honoured; {instead}"
    for bit in mujoco.mjtEnableBit.__members__.values():
        word = bit.name.removeprefix("mjENBL_").lower()
        if model.opt.enableflags & bit.value and bit.name.startswith("mjENBL_") and word not in _HARMLESS_ON:
            yield f"flag {word}='enable': not honoured; remove the flag"


def _bodies(model: mujoco.MjModel) -> Iterator[str]:
    for count, limit, what in (
        (model.nbody, MAX_BODIES, "bodies"),
        (model.ngeom, MAX_GEOMS, "geoms"),
        (model.nv, MAX_DOFS, "dofs"),
    ):
        if count > limit:
            yield f"scene: {count} {what}; at most {limit}"
    if model.nv == 0:
        yield "scene: nothing moves; give at least one body a joint"
    for body in np.flatnonzero(model.body_gravcomp):
        yield f"{_at('body', model, int(body))}: gravcomp is not simulated; set it to 0"


def _joints(model: mujoco.MjModel) -> Iterator[str]:
    for j in range(model.njnt):
        for reason in _joint(model, j):
            yield f"{_at('joint', model, j)}: {reason}"


def _joint(model: mujoco.MjModel, j: int) -> Iterator[str]:
    kind = mujoco.mjtJoint(model.jnt_type[j])
    scalar = kind in _SCALAR
    start = model.jnt_dofadr[j]
    dofs = slice(start, start + (1 if scalar else 6 if kind == mujoco.mjtJoint.mjJNT_FREE else 3))
    if np.any(model.jnt_stiffnesspoly[j]) or np.any(model.dof_dampingpoly[dofs]):
        yield "stiffness and damping are linear here; give one coefficient each"
    if not scalar and model.jnt_stiffness[j]:
        yield "springs on free and ball joints are not simulated; use hinge or slide joints"
    if not scalar and model.jnt_limited[j]:
        yield "limits on ball joints are not simulated; use hinge joints"
    for name, values in (
        ("damping", model.dof_damping),
        ("armature", model.dof_armature),
        ("frictionloss", model.dof_frictionloss),
    ):
        if (values[dofs] < 0).any():
            yield f"{name} below 0 adds energy; give 0 or more"
    if model.jnt_stiffness[j] < 0:
        yield "stiffness below 0 adds energy; give 0 or more"
    if model.jnt_limited[j] and _mixed(model.jnt_solref[j]):
        yield _MIXED
    if model.jnt_actfrclimited[j]:
        yield "actuatorfrcrange is not simulated; use the actuator's forcerange"
    if model.jnt_actgravcomp[j]:
        yield "actuatorgravcomp is not simulated; set it to false"


def _driven(model: mujoco.MjModel) -> Iterator[str]:
    for a in range(model.nu):
        joint = model.actuator_trnid[a, 0]
        if mujoco.mjtJoint(model.jnt_type[joint]) not in _SCALAR:
            yield f"{_at('actuator', model, a)}: acts on a free or ball joint; act on a hinge or slide joint"


def _constraints(model: mujoco.MjModel) -> Iterator[str]:
    for eq in range(model.neq):
        if _mixed(model.eq_solref[eq]):
            yield f"{_at('equality', model, eq)}: {_MIXED}"


def _collisions(model: mujoco.MjModel) -> Iterator[str]:
    for geom in range(model.ngeom):
        if (model.geom_friction[geom] < 0).any():
            yield f"geom '{geom_name(model, geom)}': friction below 0; give 0 or more"
        if model.geom_surfacevel[geom].any() or model.geom_adhesion[geom]:
            yield f"geom '{geom_name(model, geom)}': surface velocity and adhesion are not simulated; leave them out"
    if model.ngeom > MAX_GEOMS:
        return
    blamed: set[int] = set()
    for pair in geom_pairs(model):
        for geom in {pair.geom1, pair.geom2} - blamed:
            if (kind := _word(mujoco.mjtGeom(model.geom_type[geom]))) not in COLLIDING:
                blamed.add(geom)
                instead = f"use {', '.join(COLLIDING)}, or make it visual only (contype='0' conaffinity='0')"
                yield f"geom '{geom_name(model, geom)}': a colliding {kind} is not simulated; {instead}"
        if pair.condim not in CONDIMS:
            allowed = " or ".join(map(str, sorted(CONDIMS)))
            yield f"contact '{pair_name(model, pair)}': condim={pair.condim} is not simulated; use {allowed}"
        if _mixed(pair.solref):
            yield f"contact '{pair_name(model, pair)}': {_MIXED}"
        if any(pair.solreffriction):
            yield f"contact '{pair_name(model, pair)}': solreffriction is not simulated; friction follows solref"
        if pair.gap:
            yield f"contact '{pair_name(model, pair)}': gap is not simulated; set it to 0"
        if pair.explicit >= 0 and model.pair_adhesion[pair.explicit]:
            yield f"contact '{pair_name(model, pair)}': adhesion is not simulated; leave it out"


def _finite(model: mujoco.MjModel) -> Iterator[str]:
    for name in dir(model):
        value = getattr(model, name, None) if not name.startswith("_") else None
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not np.isfinite(value).all():
            yield f"scene: {name} of the compiled model is not finite; some number in it is far out of range"
            return


_BEFORE: tuple[Callable[[mujoco.MjSpec], Iterator[str]], ...] = (
    _tendons,
    _flexes,
    _mocap,
    _equalities,
    _actuators,
    _sensors,
    _plugins,
    _alignment,
)
_AFTER: tuple[Callable[[mujoco.MjModel], Iterator[str]], ...] = (
    _finite,
    _options,
    _flags,
    _bodies,
    _joints,
    _driven,
    _constraints,
    _collisions,
)


def _mixed(solref: Sequence[float] | np.ndarray) -> bool:
    return bool((solref[0] > 0) != (solref[1] > 0))


def _named(kind: str, element: object, index: int) -> str:
    name = getattr(element, "name", "")
    return f"{kind} '{name}'" if name else f"{kind} number {index}"


def _at(kind: str, model: mujoco.MjModel, index: int) -> str:
    return _named(kind, getattr(model, kind)(int(index)), int(index))


def _word(value: object) -> str:
    """MuJoCo's enum member in the words of MJCF: mjSENS_TOUCH is touch."""
    return getattr(value, "name", str(value)).split("_", 1)[-1].lower()
