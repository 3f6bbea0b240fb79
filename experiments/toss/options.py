"""The options of the study `toss`. Free of JAX, so that help and mistakes in options are answered at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from experiments.measured.options import Measured


@dataclass(frozen=True, kw_only=True)
class Toss(Measured):
    """A cube, and two hinged boxes, thrown on a board: identified physics, a residual, a network alone."""

    function: ClassVar[str] = "experiments.toss.study:run"

    out: Path = Path("runs/toss")
    """Folder for results.json, figures, table, replays and finished parts."""
    seeds: int = 1
    """Number of random ways to cut the folds."""
    seed: int = 0
    """The first of them."""
    folds: int = 5
    """Parts into which the throws are cut; each is scored by models that never saw it."""
    no_elbow: bool = False
    """Leave the two hinged boxes out, as --quick does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.folds < 2:
            raise ValueError(f"--folds is {self.folds}; it must be at least 2")
