"""What a study is: a frozen dataclass of options that names the function which does the work.

    [project.entry-points."hybridwm.experiments"]
    shift = "my_package.options:Shift"

    class Shift(Study):
        function: ClassVar[str] = "my_package.shift:run"        # run(options: Shift) -> None

The module of the options is free of JAX, so that help and mistakes in options are answered at once. The command then
configures JAX, imports the function and calls it.
"""

import shlex
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from pkgutil import resolve_name
from typing import ClassVar

GROUP = "hybridwm.experiments"


@dataclass(frozen=True, kw_only=True)
class Study:
    """The options that every study has; every whole number among them, and among those of a study, is at least 1; `seed`, 0."""

    function: ClassVar[str]
    clocked: ClassVar[bool] = False
    """Whether it measures how long things take, so that `run all` runs nothing beside it."""

    lengthy: ClassVar[bool] = False
    """Whether it takes longer than most, so that `run all` begins with it."""

    out: Path
    """Folder for results.json, figures and tables."""
    quick: bool = False
    """A short run, for a first look."""
    seeds: int = 3
    """Number of random seeds."""
    x64: bool = False
    """Compute in float64 (also: HYBRIDWM_X64=1)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "seed" else 1
            if type(value) is int and value < least:
                raise ValueError(f"--{field.name.replace('_', '-')} is {value}; it must be at least {least}")

    def run(self) -> int | None:
        """Do the study and write `out`; nothing, or an exit code."""
        return resolve_name(self.function)(self)


def command(name: str, options: Study) -> str:
    """The command line that asks for these options, but for where the results go: that is the user's."""
    words = ["hybridwm", "run", name]
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name == "out" or value == field.default:
            continue
        flag = "--" + field.name.replace("_", "-")
        given = () if value is True else value if isinstance(value, tuple) else (value,)
        words += [flag, *map(str, given)]
    return shlex.join(words)


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
    if not (isinstance(found, type) and issubclass(found, Study) and hasattr(found, "function")):
        raise ValueError(f"study {name!r}: {points[name].value} is no subclass of hybridwm.study.Study with a function")
    return found
