"""A user's own `physics.py` or `planners/` can hide the package of that name: Python takes the first it finds."""

from importlib import machinery, util
from pathlib import Path

_PACKAGES = ("physics", "planners", "experiments")
_HOME = Path(__file__).resolve().parent.parent


def shadow() -> str | None:
    """One sentence about the first of our packages that something else hides, None when all is well."""
    for name in _PACKAGES:
        found = _origin(util.find_spec(name))
        if found != _HOME / name / "__init__.py":
            return (
                f"{found or 'nothing'} is found where hybridwm looks for its own package {name!r}; "
                "rename it, or run from another folder"
            )
    return None


def _origin(spec: machinery.ModuleSpec | None) -> Path | None:
    if spec is None:
        return None
    if spec.origin:
        return Path(spec.origin).resolve()
    return next((Path(place).resolve() for place in spec.submodule_search_locations or ()), None)
