"""The options of the studies on measured data. Free of JAX, so that help and mistakes in options are answered at once."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from hybridwm.study import Study


@dataclass(frozen=True, kw_only=True)
class Measured(Study):
    """What every study on measured data asks for."""

    data: Path
    """Folder that holds the measured set (docs/data.md says where it comes from)."""
    holdout: Path | None = None
    """Folder with a part kept aside: fit on all of --data, score on this part only."""

    @property
    def told(self) -> Self:
        """The same as results may tell it: the folders of the data are the user's."""
        return replace(self, data=Path("DATA"), holdout=self.holdout and Path("HOLDOUT"))


@dataclass(frozen=True, kw_only=True)
class Break(Measured):
    """At which force a printed bar breaks: a hazard over load, on unseen trials and unseen materials."""

    function: ClassVar[str] = "experiments.bars:run"

    out: Path = Path("runs/break")
    """Folder for results.json, figures, table and finished folds."""
    seeds: int = 2
    """Number of random ways to cut the folds."""


@dataclass(frozen=True, kw_only=True)
class Screws(Measured):
    """Screws driven again into the same holes: torque against angle, and whether the next use fails."""

    function: ClassVar[str] = "experiments.screws:run"

    out: Path = Path("runs/screws")
    """Folder for results.json, figures, table and finished folds."""
    seeds: int = 2
    """Number of random ways to cut the five folds."""


@dataclass(frozen=True, kw_only=True)
class Doublepend(Measured):
    """A double pendulum's motion from its measured torque, under controllers never seen; then a tracking MPC."""

    function: ClassVar[str] = "experiments.doublepend:run"

    out: Path = Path("runs/doublepend")
    """Folder for results.json, figures, table and finished folds."""
    seeds: int = 1
    """Number of random ways to cut the five folds."""
