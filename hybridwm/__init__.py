"""hybridwm: a world model whose body is a physics engine.

    import hybridwm as hw

is the one import a user needs. The names below are found on first use, so that importing the package starts no JAX
backend and `hybridwm --help` answers at once. `_HOMES` and the imports under TYPE_CHECKING say the same thing twice,
once for Python and once for editors; a test keeps them equal.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from physics import Bond as Bond
    from physics import Engine as Engine
    from physics import Reference as Reference
    from physics import Scene as Scene
    from physics import State as State
    from physics import Unstable as Unstable
    from physics import brax_engine as brax_engine
    from physics import load_scene as load_scene
    from physics import mjx_engine as mjx_engine
    from physics import nominal as nominal
    from physics import shipped_scenes as shipped_scenes
    from planners import Background as Background
    from planners import Contingency as Contingency
    from planners import Controller as Controller
    from planners import Cost as Cost
    from planners import Goal as Goal
    from planners import Info as Info
    from planners import Model as Model
    from planners import Params as Params
    from planners import Plan as Plan
    from planners import Planner as Planner
    from planners import Plant as Plant
    from planners import Problem as Problem
    from planners import Record as Record
    from planners import Risk as Risk
    from planners import Spline as Spline
    from planners import Status as Status
    from planners import adam as adam
    from planners import annealed_mppi as annealed_mppi
    from planners import cem as cem
    from planners import cubic as cubic
    from planners import cvar as cvar
    from planners import describe as describe
    from planners import hold as hold
    from planners import joint as joint
    from planners import least_squares as least_squares
    from planners import linear as linear
    from planners import mean as mean
    from planners import mixture as mixture
    from planners import mppi as mppi
    from planners import predictive_sampling as predictive_sampling
    from planners import run as run
    from planners import simulate as simulate
    from planners import simulated_plant as simulated_plant
    from planners import worst as worst

_HOMES = {
    "physics": (
        "Bond",
        "Engine",
        "Reference",
        "Scene",
        "State",
        "Unstable",
        "brax_engine",
        "load_scene",
        "mjx_engine",
        "nominal",
        "shipped_scenes",
    ),
    "planners": (
        "Background",
        "Contingency",
        "Controller",
        "Cost",
        "Goal",
        "Info",
        "Model",
        "Params",
        "Plan",
        "Planner",
        "Plant",
        "Problem",
        "Record",
        "Risk",
        "Spline",
        "Status",
        "adam",
        "annealed_mppi",
        "cem",
        "cubic",
        "cvar",
        "describe",
        "hold",
        "joint",
        "least_squares",
        "linear",
        "mean",
        "mixture",
        "mppi",
        "predictive_sampling",
        "run",
        "simulate",
        "simulated_plant",
        "worst",
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(_home(_HOME[name]), name)
    return value


def _home(package: str) -> ModuleType:
    from hybridwm.shadows import shadow

    if hidden := shadow():
        raise ImportError(hidden)
    return import_module(package)


def __dir__() -> list[str]:
    return sorted(_HOME)
