"""The options of the studies of the argument. Free of JAX, so that help and mistakes in options are answered at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from experiments.options import Seeded
from hybridwm.study import Study


@dataclass(frozen=True, kw_only=True)
class Endurance(Study):
    """Three minutes of pushing six bodies about: do they stay six, stay apart, and keep their energy?"""

    function: ClassVar[str] = "experiments.argument.endurance:run"

    out: Path = Path("runs/endurance")
    """Folder for results.json, figure and table."""
    seeds: int = 100
    """Number of worlds, each with its own pushes; at most 12 with --quick."""
    seconds: float = 180.0
    """Simulated seconds of each; at most 20 with --quick."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 4 <= self.seconds <= 3600:
            raise ValueError(f"--seconds is {self.seconds}; give 4 to 3600")


@dataclass(frozen=True, kw_only=True)
class Discrete(Seeded):
    """A rod near its breaking point: which of the states that models foretell could not be at all?"""

    function: ClassVar[str] = "experiments.argument.discrete:run"
    lengthy: ClassVar[bool] = True

    out: Path = Path("runs/discrete")
    """Folder for results.json, figure, table, finished parts and the episodes themselves."""
    seeds: int = 5
    """Number of random seeds; one with --quick."""


@dataclass(frozen=True, kw_only=True)
class Small(Seeded):
    """More with less: error against parameters, data, CPU seconds and joules, hybrid beside network alone."""

    function: ClassVar[str] = "experiments.argument.small:run"

    out: Path = Path("runs/small")
    """Folder for results.json, figure, table, finished parts and the episodes themselves."""
    seeds: int = 5
    """Number of random seeds; one with --quick."""
    watts: float = 10.0
    """Power of one busy core, from which joules are estimated."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.watts < 1000:
            raise ValueError(f"--watts is {self.watts}; give more than 0 and less than 1000")
