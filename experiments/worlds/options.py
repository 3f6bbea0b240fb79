"""The options of the study `worlds`. Free of JAX, so that help and mistakes in options are answered at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from experiments.options import Seeded

NAMES = ("pendulum", "box", "rod")


@dataclass(frozen=True, kw_only=True)
class Worlds(Seeded):
    """Three worlds that the engine does not know: what the hybrid learns of them, and what it makes of what it never saw."""

    function: ClassVar[str] = "experiments.worlds.study:run"
    lengthy: ClassVar[bool] = True

    out: Path = Path("runs/worlds")
    """Folder for results.json, figures, table, finished parts and the episodes themselves."""
    seeds: int = 5
    """Number of random seeds; one with --quick."""
    only: tuple[str, ...] = ()
    """Worlds to look at: pendulum, box, rod; all of them if not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := set(self.only) - set(NAMES):
            raise ValueError(f"--only {', '.join(sorted(unknown))}: the worlds are pendulum, box and rod")
