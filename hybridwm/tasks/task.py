"""What a user wants, as data: a YAML file, or a `Task` written in Python. See docs/tasks.md.

    min  Σ_t dt Σ_i weight_i |error_i(x_t, u_t)|² + Σ_j weight_j |error_j(x_H)|²
    s.t. every goal within its tolerance at the end, every limit kept on the way, every bond as it must

Nothing here knows a simulator: names are looked up when a task meets its scene (`hybridwm.tasks.setting`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from hybridwm.reading import nearest, read_as, read_yaml

Numbers = float | tuple[float, ...]
Kind = Literal[
    "position", "height", "orientation", "heading", "tilt", "velocity", "spin",
    "distance", "joint", "joint_speed", "sensor", "effort",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """Something to be measured in a state: what `of`, and of which named thing."""

    of: Kind
    body: str | None = None
    site: str | None = None
    joint: str | None = None
    sensor: str | None = None
    actuator: str | None = None
    to_body: str | None = None
    to_site: str | None = None
    axes: str | None = None
    """Which components of a vector count, such as "x" or "xy"; all of them if not given."""

    @property
    def label(self) -> str:
        """How tables name it."""
        whom = self.body or self.site or self.joint or self.sensor or self.actuator
        to = self.to_body or self.to_site
        return " ".join(part for part in (whom, self.of, self.axes, f"to {to}" if to else None) if part)


@dataclass(frozen=True, kw_only=True)
class CostTerm(Quantity):
    """weight × |value − target|², per second while running, once at the end."""

    weight: float = 1.0
    target: Numbers | None = None
    when: Literal["running", "end", "always"] = "running"


@dataclass(frozen=True, kw_only=True)
class GoalTerm(Quantity):
    """|value − target| at the end, at most `within`."""

    within: float
    target: Numbers | None = None


@dataclass(frozen=True, kw_only=True)
class Limit(Quantity):
    """min ≤ value ≤ max at every step; of a vector, its length."""

    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, kw_only=True)
class Event:
    """What must become of a bond: hold, or break, within the horizon or `at` a time (s) give or take `within` (s)."""

    bond: str
    must: Literal["hold", "break"]
    at: float | None = None
    within: float = 0.02


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where it begins; what is not named is as in the scene's home. Free bodies welded to what moved move along."""

    joints: Mapping[str, Numbers] = field(default_factory=dict)
    """Coordinates by joint: a number, or 4 of a ball joint, or 7 of a free one (position, quaternion w first)."""
    speeds: Mapping[str, Numbers] = field(default_factory=dict)
    """Speeds by joint: 1, 3 or 6 numbers."""
    broken: tuple[str, ...] = ()
    """Bonds that are already broken."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A planning problem on a scene."""

    horizon: float
    """Seconds that a plan looks ahead."""
    rate: float
    """Controls per second."""
    cost: tuple[CostTerm, ...]
    about: str = ""
    scene: str | None = None
    """A shipped scene, or a file beside the task; the command's --scene goes first."""
    knots: int | None = None
    """Numbers per control that decide the curve; by default one for every five steps."""
    curve: Literal["hold", "linear", "cubic"] = "linear"
    planner: Literal[
        "predictive_sampling", "cem", "mppi", "annealed_mppi", "adam", "ilqr", "mixture", "joint"
    ] = "cem"  # fmt: skip
    options: Mapping[str, float] = field(default_factory=dict)
    """Options of the planner, such as samples and iterations."""
    first_guess: Literal["nothing", "still"] = "nothing"
    """Where the search begins: no control, or what would hold the start still, as an arm's weight asks for."""
    start: Start = Start()
    goal: tuple[GoalTerm, ...] = ()
    limits: tuple[Limit, ...] = ()
    events: tuple[Event, ...] = ()
    delta: float = 0.05
    """Chance at which an event may go wrong."""
    penalty: float = 1000.0
    """Cost per unit of excess over a limit and step, and per unit of missing event probability."""
    slew: float | None = None
    """Largest change of a control per second, as a share of its range."""
    duration: float | None = None
    """Seconds that a closed loop lasts; by default the horizon."""


def retargeted(task: Task, of: Kind, target: Numbers) -> Task:
    """The task with another target for every cost and goal that measures `of`."""
    cost = tuple(replace(term, target=target) if term.of == of else term for term in task.cost)
    goal = tuple(replace(term, target=target) if term.of == of else term for term in task.goal)
    return replace(task, cost=cost, goal=goal)


def shipped_tasks() -> tuple[str, ...]:
    """Names of the tasks that come with the package."""
    return tuple(sorted(file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml")))


def load_task(source: str | Path | Mapping[str, Any] | Task) -> Task:
    """A task from its name, the path of a YAML file, or a mapping. ValueError says in one sentence what is wrong."""
    if isinstance(source, Task):
        return source
    if isinstance(source, Mapping):
        return read_as(Task, dict(source), "task")
    path = _locate(source)
    task: Task = read_as(Task, read_yaml(path), str(source))
    return task if task.scene is None else _beside(task, path)


def _beside(task: Task, path: Path) -> Task:
    """The task, its scene as a path where it is a file beside the task."""
    near = path.parent / str(task.scene)
    return replace(task, scene=str(near)) if near.is_file() else task


def _locate(source: str | Path) -> Path:
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    name = str(source)
    if name not in shipped_tasks():
        raise ValueError(f"{name!r} is neither a file nor a shipped task; {nearest(name, shipped_tasks())}")
    return Path(str(_folder() / f"{name}.yaml"))


def _folder() -> Any:
    return resources.files("hybridwm") / "tasks"
