"""Rigid bodies: scenes, the Brax engine, contacts, bonds, parameters, and MuJoCo C as the reference.

The only package that names brax, mjx or mujoco. It knows neither `planners` nor `hybridwm`. The names below are found
on first use (see `hybridwm/__init__.py`); to add one, add it to `_HOMES` and to the imports above it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from physics.balance import energy as energy
    from physics.balance import momentum as momentum
    from physics.balance import supplied as supplied
    from physics.brax_view import brax_state as brax_state
    from physics.brax_view import brax_system as brax_system
    from physics.effects import Backlash as Backlash
    from physics.effects import Effect as Effect
    from physics.effects import GroundPatch as GroundPatch
    from physics.effects import MotorDelay as MotorDelay
    from physics.effects import MotorLag as MotorLag
    from physics.effects import QuadraticDrag as QuadraticDrag
    from physics.effects import SensorDelay as SensorDelay
    from physics.effects import SensorNoise as SensorNoise
    from physics.effects import SensorRounding as SensorRounding
    from physics.effects import StribeckFriction as StribeckFriction
    from physics.engine import brax_engine as brax_engine
    from physics.mjx import mjx_engine as mjx_engine
    from physics.params import nominal as nominal
    from physics.reality import Episode as Episode
    from physics.reality import Reality as Reality
    from physics.reference import Reference as Reference
    from physics.reference import Unstable as Unstable
    from physics.rollout import gradient_options as gradient_options
    from physics.rollout import sharded_rollout as sharded_rollout
    from physics.rollout import use_cpu_devices as use_cpu_devices
    from physics.scene import Bond as Bond
    from physics.scene import Scene as Scene
    from physics.scene import load_scene as load_scene
    from physics.scene import shipped_scenes as shipped_scenes
    from physics.sensing import sensors as sensors
    from physics.types import Engine as Engine
    from physics.types import Info as Info
    from physics.types import Params as Params
    from physics.types import State as State
    from physics.wear import ImpulseBreak as ImpulseBreak
    from physics.wear import LoadBreak as LoadBreak
    from physics.wear import without_luck as without_luck

_HOMES = {
    "physics.balance": ("energy", "momentum", "supplied"),
    "physics.brax_view": ("brax_state", "brax_system"),
    "physics.effects": (
        "Backlash",
        "Effect",
        "GroundPatch",
        "MotorDelay",
        "MotorLag",
        "QuadraticDrag",
        "SensorDelay",
        "SensorNoise",
        "SensorRounding",
        "StribeckFriction",
    ),
    "physics.engine": ("brax_engine",),
    "physics.mjx": ("mjx_engine",),
    "physics.params": ("nominal",),
    "physics.reality": ("Episode", "Reality"),
    "physics.reference": ("Reference", "Unstable"),
    "physics.rollout": ("gradient_options", "sharded_rollout", "use_cpu_devices"),
    "physics.scene": ("Bond", "Scene", "load_scene", "shipped_scenes"),
    "physics.sensing": ("sensors",),
    "physics.types": ("Engine", "Info", "Params", "State"),
    "physics.wear": ("ImpulseBreak", "LoadBreak", "without_luck"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(_HOME)
