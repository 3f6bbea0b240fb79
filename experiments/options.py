"""The options of our studies. Free of JAX, so that help and mistakes in options are answered at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hybridwm.study import Study


@dataclass(frozen=True, kw_only=True)
class Seeded(Study):
    """A study that is made anew for each of several seeds; one of them with --quick."""

    seed: int = 0
    """The first seed."""

    @property
    def each(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + (1 if self.quick else self.seeds))


@dataclass(frozen=True, kw_only=True)
class Fidelity(Study):
    """How far our engine is from MuJoCo C, step by step, on the shipped scenes."""

    function: ClassVar[str] = "experiments.fidelity:run"

    out: Path = Path("runs/fidelity")
    """Folder for results.json, figure and table."""
    steps: int = 100
    """Steps of each rollout."""
    worlds: int = 8
    """Worlds of each scene, each with its own start and controls."""


@dataclass(frozen=True, kw_only=True)
class Driven(Seeded):
    """A study of episodes driven in closed loop, several to each task and seed."""

    seeds: int = 5
    """Number of random seeds; one with --quick."""
    episodes: int = 4
    """Random starts per task and seed; one with --quick. A longer run goes on from a shorter one."""

    @property
    def count(self) -> int:
        """Episodes per task and seed."""
        return 1 if self.quick else self.episodes


@dataclass(frozen=True, kw_only=True)
class Tasks(Driven):
    """Whether the shipped tasks can be solved: in closed loop, in MuJoCo C, from random starts."""

    function: ClassVar[str] = "experiments.tasks:run"

    out: Path = Path("runs/tasks")
    """Folder for results.json and table."""
    only: tuple[str, ...] = ()
    """Tasks to drive; if not given all of them, with --quick all but `reach`, whose planner compiles for minutes."""


@dataclass(frozen=True, kw_only=True)
class Rod(Driven):
    """Snap the rod, keep the rod: a planner that knows of events beside the same planner blind to them."""

    function: ClassVar[str] = "experiments.rod:run"

    out: Path = Path("runs/rod")
    """Folder for results.json, figure and table."""
    episodes: int = 6
    """Random starts and wishes per task and seed; one with --quick. A longer run goes on from a shorter one."""
