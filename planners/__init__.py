"""Search over any step function: what to do, and which events to let happen.

Knows neither `physics` nor `hybridwm`, and imports no brax, flax or mujoco. The names below are found on first use
(see `hybridwm/__init__.py`); to add one, add it to `_HOMES` and to the imports above it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

_HOMES: dict[str, tuple[str, ...]] = {}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(_HOME)
