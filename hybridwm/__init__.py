"""hybridwm: a world model whose body is a physics engine.

    import hybridwm as hw

is the one import a user needs. The names below are found on first use, so that importing the package starts no JAX
backend and `hybridwm --help` answers at once. `_HOMES` and the imports under TYPE_CHECKING say the same thing twice,
once for Python and once for editors; a test keeps them equal.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from physics import Bond as Bond
    from physics import Scene as Scene
    from physics import load_scene as load_scene

_HOMES = {
    "physics": ("Bond", "Scene", "load_scene"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(_home(_HOME[name]), name)
    return value


def _home(package: str) -> ModuleType:
    from hybridwm.shadows import shadow

    if hidden := shadow():
        raise ImportError(hidden)
    return import_module(package)


def __dir__() -> list[str]:
    return sorted(_HOME)
