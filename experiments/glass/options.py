"""The options of the glass. Free of JAX, so that help and mistakes in options are answered at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from experiments.options import Seeded

_TASKS = ("carry", "snap", "rescue")


@dataclass(frozen=True, kw_only=True)
class Glass(Seeded):
    """Handle a glass that breaks: collect, fit, plan in closed loop, compare with rivals, report."""

    function: ClassVar[str] = "experiments.glass.study:run"
    lengthy: ClassVar[bool] = True

    out: Path = Path("runs/glass")
    """Folder for results.json, figures, the page and everything that a later run goes on from."""
    seeds: int = 5
    """Number of random seeds; one with --quick."""
    episodes: int = 20
    """Episodes per seed, task and model; 4 with --quick."""
    live: bool = False
    """Also drive 20 carries in real time: their times are those of this machine at this moment."""
    residual: bool = False
    """Also fit a residual, kept where it is better on held-out episodes; minutes more."""
    only: tuple[str, ...] = _TASKS
    """Tasks: carry, snap, rescue."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := set(self.only) - set(_TASKS):
            raise ValueError(f"--only {', '.join(sorted(unknown))}: the tasks are {', '.join(_TASKS)}")

    @property
    def many(self) -> int:
        """Episodes per batch."""
        return min(4, self.episodes) if self.quick else self.episodes
