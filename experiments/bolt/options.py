"""The options of the study. Free of JAX."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from experiments.options import Seeded


@dataclass(frozen=True, kw_only=True)
class Bolt(Seeded):
    """A driver turns bolts to an asked clamp force, from what its sensors tell; beside it what industry does."""

    function: ClassVar[str] = "experiments.bolt.study:run"
    clocked: ClassVar[bool] = True

    out: Path = Path("runs/bolt")
    """Folder for results.json, figures, table and the page; what is already there is used again."""
    seeds: int = 5
    """Number of random seeds: each draws its own bolts to learn from and to judge by, and fits anew; one with --quick."""
    bolts: int = 20
    """Unseen bolts per seed; 8 with --quick."""
    rivals: int = 8
    """How many of them the other planners turn too (torque controllers turn all); 4 with --quick."""

    @property
    def count(self) -> int:
        """Bolts per seed."""
        return min(self.bolts, 8) if self.quick else self.bolts

    @property
    def rival_count(self) -> int:
        """Bolts per seed and rival that plans."""
        return min(self.rivals, self.count, 4 if self.quick else self.rivals)
