"""The options of our studies. Free of JAX, so that help and mistakes in options are answered at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hybridwm.study import Study


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

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("worlds", self.worlds), ("seeds", self.seeds)):
            if value < 1:
                raise ValueError(f"--{name} is {value}; it must be at least 1")
