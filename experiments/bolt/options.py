"""The options of the study. Free of JAX."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hybridwm.study import Study


@dataclass(frozen=True, kw_only=True)
class Bolt(Study):
    """A driver turns bolts to an asked clamp force, from what its sensors tell; beside it what industry does."""

    function: ClassVar[str] = "experiments.bolt.study:run"

    out: Path = Path("runs/bolt")
    """Folder for results.json, figures, tables and the page; what is already there is used again."""
    seed: int = 0
    """The first seed."""
    seeds: int = 5
    """Number of random seeds: each draws its own bolts for learning and for judging, and fits its own models."""
    bolts: int = 40
    """Unseen bolts per seed."""

    def __post_init__(self) -> None:
        for name, value, least in (("seeds", self.seeds, 1), ("bolts", self.bolts, 1), ("seed", self.seed, 0)):
            if value < least:
                raise ValueError(f"--{name} is {value}; it must be at least {least}")
