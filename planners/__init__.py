"""Search over any step function: what to do, and which events to let happen.

Knows neither `physics` nor `hybridwm`, and imports no brax, flax or mujoco. The names below are found on first use
(see `hybridwm/__init__.py`); to add one, add it to `_HOMES` and to the imports above it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planners.background import Background as Background
    from planners.branching import joint as joint
    from planners.controller import Controller as Controller
    from planners.controller import Record as Record
    from planners.gradient import adam as adam
    from planners.gradient import mixture as mixture
    from planners.knots import Spline as Spline
    from planners.knots import cubic as cubic
    from planners.knots import hold as hold
    from planners.knots import linear as linear
    from planners.mpc import Plant as Plant
    from planners.mpc import run as run
    from planners.mpc import simulate as simulate
    from planners.mpc import simulated_plant as simulated_plant
    from planners.problem import Contingency as Contingency
    from planners.problem import Cost as Cost
    from planners.problem import Goal as Goal
    from planners.problem import Model as Model
    from planners.problem import Plan as Plan
    from planners.problem import PlanInfo as PlanInfo
    from planners.problem import Planner as Planner
    from planners.problem import PlanParams as PlanParams
    from planners.problem import Problem as Problem
    from planners.problem import Status as Status
    from planners.problem import least_squares as least_squares
    from planners.problem import strong as strong
    from planners.riccati import ilqr as ilqr
    from planners.risk import Risk as Risk
    from planners.risk import cvar as cvar
    from planners.risk import mean as mean
    from planners.risk import worst as worst
    from planners.sampling import Rule as Rule
    from planners.sampling import annealed_mppi as annealed_mppi
    from planners.sampling import cem as cem
    from planners.sampling import mppi as mppi
    from planners.sampling import predictive_sampling as predictive_sampling
    from planners.sampling import sampling_planner as sampling_planner
    from planners.verdict import describe as describe
    from planners.verdict import in_case as in_case

_HOMES = {
    "planners.background": ("Background",),
    "planners.branching": ("joint",),
    "planners.gradient": ("adam", "mixture"),
    "planners.knots": ("Spline", "cubic", "hold", "linear"),
    "planners.controller": ("Controller", "Record"),
    "planners.mpc": ("Plant", "run", "simulate", "simulated_plant"),
    "planners.problem": (
        "Contingency",
        "Cost",
        "Goal",
        "Model",
        "Plan",
        "PlanInfo",
        "PlanParams",
        "Planner",
        "Problem",
        "Status",
        "least_squares",
        "strong",
    ),
    "planners.riccati": ("ilqr",),
    "planners.risk": ("Risk", "cvar", "mean", "worst"),
    "planners.sampling": ("Rule", "annealed_mppi", "cem", "mppi", "predictive_sampling", "sampling_planner"),
    "planners.verdict": ("describe", "in_case"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(_HOME)
