"""Frozen dataclasses from YAML: data only, every key known, every value of its type, every mistake one sentence.

Fields may be numbers, words, booleans, other dataclasses, `tuple[X, ...]`, `Mapping[str, X]`, `Literal[...]`, and any of
these or None. A field without a default must be given.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

MAX_BYTES = 64 * 1024


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; keys given twice and aliases are refused."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES // 1024} KiB")
    try:
        text = content.decode("utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _refuse_tricks(node, set())
        return yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8") from error
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {_one_line(error)}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _refuse_tricks(node: Any, seen: set[int]) -> None:
    line = node.start_mark.line + 1
    if id(node) in seen:
        raise ValueError(f"line {line}: aliases are not read; write the value out")
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        if twice := [str(key) for key in keys if keys.count(key) > 1]:
            raise ValueError(f"line {line}: {twice[0]!r} is given twice")
    if not isinstance(node, yaml.ScalarNode):
        for child in node.value:
            for part in child if isinstance(child, tuple) else (child,):
                _refuse_tricks(part, seen)


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f" in line {mark.line + 1}" if mark else ""
    return " ".join(str(getattr(error, "problem", None) or error).split()) + where


def nearest(word: Any, known: Iterable[str]) -> str:
    """`did you mean …?`, or what there is."""
    names = [name for name in known if name]
    near = difflib.get_close_matches(str(word), names, 1)
    return f"did you mean {near[0]!r}?" if near else f"there is {', '.join(names) or 'none'}"


def read_as(kind: Any, value: Any, where: str) -> Any:
    """`value` as the dataclass or type `kind`; `where` begins the sentence that says what is wrong."""
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, where)
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _one_of(args, value, where)
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else _refuse(value, "a list", where)
        return tuple(read_as(args[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is Literal:
        return value if value in args else _refuse_word(value, args, where)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        pairs = value if isinstance(value, dict) else _refuse(value, "a mapping", where)
        return {_word(key, where): read_as(args[1], item, f"{where}.{key}") for key, item in pairs.items()}
    return _PLAIN[kind](value, where)


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        _refuse(value, "a mapping of keys to values", where)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in value:
        if key not in fields:
            raise ValueError(f"{where}: unknown key {key!r}; {nearest(key, fields)}")
    for name, field in fields.items():
        if name not in value and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where}: {name!r} is missing")
    hints = get_type_hints(kind)
    return kind(**{key: read_as(hints[key], item, f"{where}.{key}") for key, item in value.items()})


def _one_of(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and NoneType in kinds:
        return None
    rest = [kind for kind in kinds if kind is not NoneType]
    listed = isinstance(value, list)
    fitting = [kind for kind in rest if (get_origin(kind) is tuple) == listed] or rest
    return read_as(fitting[0], value, where)


def _number(value: Any, where: str) -> float:
    """A finite number; YAML reads 1e-3 as a word, which is taken as the number that it is."""
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    return number if math.isfinite(number) else _refuse(value, "a finite number", where)


def _whole(value: Any, where: str) -> int:
    number = _number(value, where)
    return int(number) if number == int(number) else _refuse(value, "a whole number", where)


def _word(value: Any, where: str) -> str:
    return value if isinstance(value, str) else _refuse(value, "a word", where)


def _truth(value: Any, where: str) -> bool:
    return value if isinstance(value, bool) else _refuse(value, "true or false", where)


def _refuse(value: Any, wanted: str, where: str) -> Any:
    raise ValueError(f"{where} is {str(value)[:80]!r}; it must be {wanted}")


def _refuse_word(value: Any, known: tuple[Any, ...], where: str) -> Any:
    raise ValueError(f"{where} is {str(value)[:80]!r}; {nearest(value, known)}")


_PLAIN = {float: _number, int: _whole, str: _word, bool: _truth}
