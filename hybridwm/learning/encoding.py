"""Parameters and options as JSON and named arrays, and back: what a checkpoint holds. Nothing is pickled.

    NamedTuple, dataclass of ours   {"type": "hybridwm.world.model:WorldParams", "fields": {...}}      tuple, list, dict    as such
    nnx.State                       {"state": [[path, "Param", {...}], ...]}                      numbers, words, None  as such
    array                           {"array": name, "on": "jax" or "numpy", "shape", "dtype"}     random key            {"key": ...}

Only types that live in our own packages are made again, only from fields that they have today.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from pkgutil import resolve_name
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

_OURS = ("hybridwm.", "physics.", "planners.")
_VARIABLES = {"Param": nnx.Param}


def encoded(tree: Any, name: str = "") -> tuple[Any, dict[str, np.ndarray]]:
    """(JSON, {name: array}); refuses what could not be made again."""
    arrays: dict[str, np.ndarray] = {}
    return _encode(tree, name, arrays), arrays


def decoded(said: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The tree again; refuses, by name, types and shapes that are not today's."""
    try:
        return _decode(said, arrays)
    except (KeyError, TypeError, AttributeError, IndexError, ImportError) as error:
        raise ValueError(f"saved by another version, or damaged: {type(error).__name__} {error}") from None


def _encode(x: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    below = lambda key: f"{name}.{key}" if name else str(key)  # noqa: E731
    if x is None or isinstance(x, (bool, int, str)) or (isinstance(x, float) and isfinite(x)):
        return x
    if isinstance(x, float):
        return {"number": repr(x)}
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return {"key": str(jax.random.key_impl(x)), "data": _encode(jax.random.key_data(x), name, arrays)}
    if isinstance(x, (jax.Array, np.ndarray, np.generic)):
        if x.size:  # Orbax saves no empty arrays
            arrays[name] = np.asarray(x)
        on = "jax" if isinstance(x, jax.Array) else "numpy"
        return {"array": name, "on": on, "shape": list(x.shape), "dtype": str(x.dtype)}
    if isinstance(x, nnx.State):
        leaves = nnx.to_flat_state(x)
        return {
            "state": [
                [list(p), type(v).__name__, _encode(v[...], below(".".join(map(str, p))), arrays)] for p, v in leaves
            ]
        }
    if parts := _parts(x):
        home = f"{type(x).__module__}:{type(x).__qualname__}"
        return {"type": home, "fields": {key: _encode(value, below(key), arrays) for key, value in parts.items()}}
    if isinstance(x, dict) and all(isinstance(key, str) for key in x):
        return {"dict": {key: _encode(value, below(key), arrays) for key, value in x.items()}}
    if isinstance(x, (tuple, list)):
        return {type(x).__name__: [_encode(value, below(i), arrays) for i, value in enumerate(x)]}
    raise ValueError(
        f"{name or 'this'} is a {type(x).__name__}; only arrays, numbers, words and our own types can be saved"
    )


def _parts(x: Any) -> dict[str, Any]:
    """Fields of our own NamedTuples and dataclasses."""
    if not type(x).__module__.startswith(_OURS):
        return {}
    names = getattr(x, "_fields", None) or ([field.name for field in fields(x)] if is_dataclass(x) else ())
    return {name: getattr(x, name) for name in names}


def _decode(said: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(said, dict):
        return said
    if "array" in said:
        return _array(said, arrays)
    if "number" in said:
        return float(said["number"])
    if "key" in said:
        return jax.random.wrap_key_data(_decode(said["data"], arrays), impl=said["key"])
    if "state" in said:
        return nnx.from_flat_state(
            [(tuple(path), _VARIABLES[kind](_decode(x, arrays))) for path, kind, x in said["state"]]
        )
    if "dict" in said:
        return {key: _decode(value, arrays) for key, value in said["dict"].items()}
    if "type" in said:
        return _ours(said["type"], said["fields"])(**{key: _decode(x, arrays) for key, x in said["fields"].items()})
    ((kind, items),) = said.items()
    return {"tuple": tuple, "list": list}[kind](_decode(item, arrays) for item in items)


def _array(said: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    empty = 0 in said["shape"]
    found = np.zeros(said["shape"], said["dtype"]) if empty else np.asarray(arrays[said["array"]])
    if list(found.shape) != said["shape"] or str(found.dtype) != said["dtype"]:
        raise ValueError(
            f"{said['array']} is {found.dtype}{list(found.shape)}; expected {said['dtype']}{said['shape']}"
        )
    return jnp.asarray(found) if said["on"] == "jax" else found


def _ours(home: str, given: Mapping[str, Any]) -> Any:
    """The type of that name, where it lives in our packages and has these fields."""
    found = resolve_name(home) if home.startswith(_OURS) else None
    if not (isinstance(found, type) and (hasattr(found, "_fields") or is_dataclass(found))):
        raise ValueError(f"{home} is no type of this version of hybridwm")
    names = getattr(found, "_fields", None) or tuple(field.name for field in fields(found))
    if set(names) != set(given):
        raise ValueError(
            f"{home} was saved by another version: with {', '.join(given)}; this one has {', '.join(names)}"
        )
    return found
