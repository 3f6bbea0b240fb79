"""What a study is: a frozen dataclass of options with a method `run`, found through an entry point.

    [project.entry-points."hybridwm.experiments"]
    shift = "my_package.options:Shift"

Its module is free of JAX (imports inside `run`), so that help and mistakes in options are answered at once. `hybridwm
run shift` parses the options, configures JAX, and calls `run`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

GROUP = "hybridwm.experiments"


@dataclass(frozen=True, kw_only=True)
class Study(ABC):
    """The options that every study has."""

    out: Path
    """Folder for results.json, figures and tables."""
    quick: bool = False
    """A short run: fewer worlds, seeds and steps."""
    seeds: int = 3
    """Number of random seeds."""
    x64: bool = False
    """Compute in float64 (also: HYBRIDWM_X64=1)."""

    @abstractmethod
    def run(self) -> None:
        """Do the study and write `out`."""


def study_names() -> list[str]:
    """Names of the installed studies; loads none of them."""
    return sorted({point.name for point in metadata.entry_points(group=GROUP)})


def load_study(name: str) -> type[Study]:
    """The options class of one study."""
    points = {point.name: point for point in metadata.entry_points(group=GROUP)}
    try:
        found = points[name].load()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"study {name!r} cannot be loaded from {points[name].value}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Study)):
        raise ValueError(f"study {name!r}: {points[name].value} is not a subclass of hybridwm.study.Study")
    return found
