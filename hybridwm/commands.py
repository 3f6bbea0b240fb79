"""The subcommands of `hybridwm`: frozen dataclasses of options, each with a method `run` (nothing, or an exit code).

Free of JAX: what a command needs is imported when it runs. Studies (`hybridwm run NAME`) have the same shape.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Claims:
    """Print the claims of results files; a miss is as loud as a hit."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH…")]
    """results.json files, or folders that hold one."""
    write: Path | None = None
    """Also write the table into this Markdown document, between its two claims markers."""

    def run(self) -> None:
        """Read, show, and write if asked."""
        from rich.console import Console

        from hybridwm import claims, results

        if not self.paths:
            raise ValueError("hybridwm claims needs at least one results.json or folder that holds one")
        found = [results.read(path) for path in self.paths]
        claims.show(found, Console())
        if self.write:
            claims.write_table(found, self.write)


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Look at this installation and say in plain words what is wrong and how to mend it."""

    deadlock_s: float = 20.0
    """Seconds to wait for the jaxlib deadlock probe; 0 leaves it out."""
    x64: bool = False
    """Check in float64 (also: HYBRIDWM_X64=1)."""

    def run(self) -> int:
        """Print the checks; 2 when something must be mended."""
        from hybridwm import doctor

        return doctor.examine(deadlock_s=self.deadlock_s, x64=self.x64)


COMMANDS = {"claims": Claims, "doctor": Doctor}
