"""The options of shift, causes and generations. Free of JAX, so that help and mistakes in options are answered at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from experiments.options import Seeded


@dataclass(frozen=True, kw_only=True)
class Learned(Seeded):
    """What the three studies ask that fit models anew for each seed."""

    seeds: int = 5
    """Number of random seeds: training data and networks are drawn anew for each; one with --quick."""


@dataclass(frozen=True, kw_only=True)
class Shift(Learned):
    """Does it collapse outside its training data? Error against the distance from them, 0.3 % to ten times their size."""

    function: ClassVar[str] = "experiments.argument.shift:run"

    out: Path = Path("runs/shift")
    """Folder for results.json, figure, table and finished parts."""
    windows: int = 12
    """Test windows at each distance; at most 8 with --quick."""


@dataclass(frozen=True, kw_only=True)
class Causes(Learned):
    """What would have happened: heavier, absent, pushed earlier, in scenes and counts never seen."""

    function: ClassVar[str] = "experiments.argument.causes:run"

    out: Path = Path("runs/causes")
    """Folder for results.json, figure, table and finished parts."""
    scenes: int = 40
    """Test scenes, each in four worlds; at most 12 with --quick."""


@dataclass(frozen=True, kw_only=True)
class Generations(Learned):
    """Models trained on models' output: what is left of gravity by the fifth generation?"""

    function: ClassVar[str] = "experiments.argument.generations:run"

    out: Path = Path("runs/generations")
    """Folder for results.json, figure, table and finished parts."""
    generations: int = 5
    """Generations, each fitted to rollouts of the one before."""
