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
    from hybridwm.estimate import adapting as adapting
    from hybridwm.estimate import delayed as delayed
    from hybridwm.estimate import gaussian_sum as gaussian_sum
    from hybridwm.estimate import unscented as unscented
    from hybridwm.judging.evaluation import Prediction as Prediction
    from hybridwm.judging.evaluation import predict as predict
    from hybridwm.learning.checkpoint import Saved as Saved
    from hybridwm.learning.checkpoint import TrainingLog as TrainingLog
    from hybridwm.learning.checkpoint import load_model as load_model
    from hybridwm.learning.checkpoint import load_saved as load_saved
    from hybridwm.learning.checkpoint import save_model as save_model
    from hybridwm.learning.contenders import Subject as Subject
    from hybridwm.learning.fitting import FitOptions as FitOptions
    from hybridwm.learning.fitting import Fitted as Fitted
    from hybridwm.learning.fitting import fit as fit
    from hybridwm.learning.identification import Identified as Identified
    from hybridwm.learning.identification import identify as identify
    from hybridwm.learning.measure import worth as worth
    from hybridwm.learning.survival import learn_events as learn_events
    from hybridwm.learning.training import Stage as Stage
    from hybridwm.learning.unknowns import Unknown as Unknown
    from hybridwm.logs.archive import read_recordings as read_recordings
    from hybridwm.logs.archive import write_recordings as write_recordings
    from hybridwm.logs.collecting import collect as collect
    from hybridwm.logs.exploring import Exploration as Exploration
    from hybridwm.logs.importing import import_csv as import_csv
    from hybridwm.logs.importing import read_map as read_map
    from hybridwm.logs.recordings import Dataset as Dataset
    from hybridwm.logs.recordings import Recording as Recording
    from hybridwm.logs.recordings import Windows as Windows
    from hybridwm.logs.recordings import split as split
    from hybridwm.logs.recordings import windows as windows
    from hybridwm.tasks.certificate import Certificate as Certificate
    from hybridwm.tasks.certificate import certify as certify
    from hybridwm.tasks.certificate import certify_controls as certify_controls
    from hybridwm.tasks.certificate import witness as witness
    from hybridwm.tasks.closed_loop import Drive as Drive
    from hybridwm.tasks.closed_loop import drive as drive
    from hybridwm.tasks.closed_loop import driver as driver
    from hybridwm.tasks.plan import PlannedTask as PlannedTask
    from hybridwm.tasks.plan import plan_task as plan_task
    from hybridwm.tasks.setting import Setting as Setting
    from hybridwm.tasks.setting import build_task as build_task
    from hybridwm.tasks.task import Task as Task
    from hybridwm.tasks.task import load_task as load_task
    from hybridwm.tasks.task import shipped_tasks as shipped_tasks
    from hybridwm.world.events import Event as Event
    from hybridwm.world.events import EventMemory as EventMemory
    from hybridwm.world.events import EventParams as EventParams
    from hybridwm.world.events import EventSpec as EventSpec
    from hybridwm.world.events import event_spec as event_spec
    from hybridwm.world.model import ModelOptions as ModelOptions
    from hybridwm.world.model import StepInfo as StepInfo
    from hybridwm.world.model import WorldModel as WorldModel
    from hybridwm.world.model import WorldParams as WorldParams
    from hybridwm.world.model import WorldState as WorldState
    from hybridwm.world.model import world_model as world_model
    from hybridwm.world.physics_model import PlanModel as PlanModel
    from hybridwm.world.physics_model import nominal_model as nominal_model
    from physics import Backlash as Backlash
    from physics import Bond as Bond
    from physics import Effect as Effect
    from physics import Engine as Engine
    from physics import Episode as Episode
    from physics import GroundPatch as GroundPatch
    from physics import ImpulseBreak as ImpulseBreak
    from physics import Info as Info
    from physics import LoadBreak as LoadBreak
    from physics import MotorDelay as MotorDelay
    from physics import MotorLag as MotorLag
    from physics import Params as Params
    from physics import QuadraticDrag as QuadraticDrag
    from physics import Reality as Reality
    from physics import Reference as Reference
    from physics import Scene as Scene
    from physics import SensorDelay as SensorDelay
    from physics import SensorNoise as SensorNoise
    from physics import SensorRounding as SensorRounding
    from physics import State as State
    from physics import StribeckFriction as StribeckFriction
    from physics import Unstable as Unstable
    from physics import brax_engine as brax_engine
    from physics import brax_state as brax_state
    from physics import brax_system as brax_system
    from physics import energy as energy
    from physics import gradient_options as gradient_options
    from physics import load_scene as load_scene
    from physics import mjx_engine as mjx_engine
    from physics import momentum as momentum
    from physics import nominal as nominal
    from physics import sensors as sensors
    from physics import sharded_rollout as sharded_rollout
    from physics import shipped_scenes as shipped_scenes
    from physics import supplied as supplied
    from physics import use_cpu_devices as use_cpu_devices
    from physics import without_luck as without_luck
    from planners import Background as Background
    from planners import Contingency as Contingency
    from planners import Controller as Controller
    from planners import Cost as Cost
    from planners import Goal as Goal
    from planners import Model as Model
    from planners import Plan as Plan
    from planners import PlanInfo as PlanInfo
    from planners import Planner as Planner
    from planners import PlanParams as PlanParams
    from planners import Plant as Plant
    from planners import Problem as Problem
    from planners import Record as Record
    from planners import Risk as Risk
    from planners import Rule as Rule
    from planners import Spline as Spline
    from planners import Status as Status
    from planners import adam as adam
    from planners import annealed_mppi as annealed_mppi
    from planners import cem as cem
    from planners import cubic as cubic
    from planners import cvar as cvar
    from planners import describe as describe
    from planners import hold as hold
    from planners import ilqr as ilqr
    from planners import in_case as in_case
    from planners import joint as joint
    from planners import least_squares as least_squares
    from planners import linear as linear
    from planners import mean as mean
    from planners import mixture as mixture
    from planners import mppi as mppi
    from planners import predictive_sampling as predictive_sampling
    from planners import run as run
    from planners import sampling_planner as sampling_planner
    from planners import simulate as simulate
    from planners import simulated_plant as simulated_plant
    from planners import strong as strong
    from planners import worst as worst

_HOMES = {
    "hybridwm.learning.survival": ("learn_events",),
    "hybridwm.estimate": ("adapting", "delayed", "gaussian_sum", "unscented"),
    "hybridwm.judging.evaluation": ("Prediction", "predict"),
    "hybridwm.learning.contenders": ("Subject",),
    "hybridwm.learning.measure": ("worth",),
    "hybridwm.tasks.certificate": ("Certificate", "certify", "certify_controls", "witness"),
    "hybridwm.learning.checkpoint": ("Saved", "TrainingLog", "load_model", "load_saved", "save_model"),
    "hybridwm.tasks.closed_loop": ("Drive", "drive", "driver"),
    "hybridwm.world.physics_model": ("PlanModel", "nominal_model"),
    "hybridwm.tasks.plan": ("PlannedTask", "plan_task"),
    "hybridwm.tasks.setting": ("Setting", "build_task"),
    "hybridwm.tasks.task": ("Task", "load_task", "shipped_tasks"),
    "hybridwm.learning.fitting": ("FitOptions", "Fitted", "fit"),
    "hybridwm.world.model": ("ModelOptions", "StepInfo", "WorldModel", "WorldParams", "WorldState", "world_model"),
    "hybridwm.learning.training": ("Stage",),
    "hybridwm.learning.identification": ("Identified", "identify"),
    "hybridwm.learning.unknowns": ("Unknown",),
    "hybridwm.logs.archive": ("read_recordings", "write_recordings"),
    "hybridwm.logs.collecting": ("collect",),
    "hybridwm.logs.exploring": ("Exploration",),
    "hybridwm.logs.importing": ("import_csv", "read_map"),
    "hybridwm.logs.recordings": ("Dataset", "Recording", "Windows", "split", "windows"),
    "hybridwm.world.events": ("Event", "EventMemory", "EventParams", "EventSpec", "event_spec"),
    "physics": (
        "Backlash",
        "Bond",
        "Effect",
        "Engine",
        "Episode",
        "GroundPatch",
        "ImpulseBreak",
        "Info",
        "LoadBreak",
        "MotorDelay",
        "MotorLag",
        "Params",
        "QuadraticDrag",
        "Reality",
        "Reference",
        "Scene",
        "SensorDelay",
        "SensorNoise",
        "SensorRounding",
        "State",
        "StribeckFriction",
        "Unstable",
        "brax_engine",
        "brax_state",
        "brax_system",
        "energy",
        "gradient_options",
        "load_scene",
        "mjx_engine",
        "momentum",
        "nominal",
        "sensors",
        "sharded_rollout",
        "shipped_scenes",
        "supplied",
        "use_cpu_devices",
        "without_luck",
    ),
    "planners": (
        "Background",
        "Contingency",
        "Controller",
        "Cost",
        "Goal",
        "Model",
        "Plan",
        "PlanInfo",
        "PlanParams",
        "Planner",
        "Plant",
        "Problem",
        "Record",
        "Risk",
        "Rule",
        "Spline",
        "Status",
        "adam",
        "annealed_mppi",
        "cem",
        "cubic",
        "cvar",
        "describe",
        "hold",
        "ilqr",
        "in_case",
        "joint",
        "least_squares",
        "linear",
        "mean",
        "mixture",
        "mppi",
        "predictive_sampling",
        "run",
        "sampling_planner",
        "simulate",
        "simulated_plant",
        "strong",
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
