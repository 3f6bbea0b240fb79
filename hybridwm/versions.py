"""Installed versions beside the tested set (`constraints.txt`, which is also what `make` installs).

The three engine packages must be exactly the tested ones: their physics is what every claim was measured against.
Other parts may differ; that is worth a word, not a refusal.
"""

from importlib import metadata
from pathlib import Path
from typing import NamedTuple

ENGINES = ("brax", "mujoco", "mujoco-mjx")
SHOWN = ("jax", "jaxlib", *ENGINES, "flax", "optax", "orbax-checkpoint", "numpy")


class Version(NamedTuple):
    """One package: what is installed (None: nothing) and what was tested."""

    name: str
    installed: str | None
    tested: str

    @property
    def fits(self) -> bool:
        """Whether the installed version is the tested one."""
        return self.installed == self.tested


def tested() -> dict[str, str]:
    """The tested version of every package, for the running Python."""
    from packaging.requirements import Requirement

    lines = (Path(__file__).parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {pin.name: next(iter(pin.specifier)).version for pin in pins if not pin.marker or pin.marker.evaluate()}


def compare(names: tuple[str, ...] = SHOWN) -> list[Version]:
    """Installed beside tested, for each of `names`."""
    wanted = tested()
    return [Version(name, installed(name), wanted[name]) for name in names]


def installed(name: str) -> str | None:
    """The installed version of a package, None when it is missing."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def require_engines() -> None:
    """Refuse an engine package other than the tested one."""
    for name, found, wanted in compare(ENGINES):
        if found != wanted:
            raise ValueError(
                f"{name} {found or 'is missing'}{' is installed' if found else ''}, hybridwm needs {wanted}; "
                f"mend it with: pip install {name}=={wanted}"
            )
