"""The options of the six studies. Free of JAX, so that help and mistakes in options are answered at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hybridwm.study import Study


@dataclass(frozen=True, kw_only=True)
class Argued(Study):
    """What the six have in common."""

    seeds: int = 5
    """Number of random seeds: training data, networks, test episodes."""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"--seeds is {self.seeds}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Endurance(Argued):
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
class Shift(Argued):
    """A millimetre outside its training data, and ten times its size: who collapses?"""

    function: ClassVar[str] = "experiments.argument.shift:run"

    out: Path = Path("runs/shift")
    """Folder for results.json, figure and table."""
    windows: int = 24
    """Test episodes to each distance of each kind; 8 with --quick."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.windows < 2:
            raise ValueError(f"--windows is {self.windows}; it must be at least 2")


@dataclass(frozen=True, kw_only=True)
class Causes(Argued):
    """What would have happened, had it been heavier, absent, pushed earlier, in scenes never seen?"""

    function: ClassVar[str] = "experiments.argument.causes:run"

    out: Path = Path("runs/causes")
    """Folder for results.json, figure and table."""
    scenes: int = 40
    """New scenes, each asked every question; 12 with --quick."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scenes < 2:
            raise ValueError(f"--scenes is {self.scenes}; it must be at least 2")


@dataclass(frozen=True, kw_only=True)
class Generations(Argued):
    """Models trained on models' output: what is left of gravity by the fifth generation?"""

    function: ClassVar[str] = "experiments.argument.generations:run"

    out: Path = Path("runs/generations")
    """Folder for results.json, figure and table."""
    generations: int = 5
    """Each fitted to the rollouts of the one before; the first to reality."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.generations <= 50:
            raise ValueError(f"--generations is {self.generations}; give 2 to 50")
