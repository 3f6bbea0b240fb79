"""The tensor in a PyTorch file, read as data: nothing in the file is ever run.

    .pt, since torch 1.6    a zip: …/data.pkl says type, offset, size and strides; …/data/KEY holds the numbers
    .pt, before             five pickled objects in a row (a magic number, a version, facts of the system, the tensor, the keys),
                            then per key an 8-byte count and the numbers

The pickled part is a program for a stack machine. Here it is only *read*, instruction by instruction (`pickletools`), and
replayed on a stack of plain tuples: the names that it asks for stay words, the calls that it asks for stay (name, arguments).
Then one form is accepted: one dense tensor of floats in little-endian order.
"""

import io
import pickletools
import zipfile
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MAX_BYTES = 100_000_000
_TYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8"}
_OBJECTS = 5  # of the older form
_MARK = object()


class Call(NamedTuple):
    """What a pickle asks to call; nobody calls it."""

    name: str
    arguments: Any


class _Storage(NamedTuple):
    kind: str
    key: str


def read_tensor(path: Path) -> np.ndarray:
    """The only tensor of a .pt file as float64; ValueError if the file is anything else."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: more than {MAX_BYTES:,} bytes; expected one throw")
    content = path.read_bytes()
    try:
        return _zipped(content) if content[:2] == b"PK" else _plain(content)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no whole PyTorch file of one tensor: half a download? ({error})") from error


def _zipped(content: bytes) -> np.ndarray:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        if sum(info.file_size for info in archive.infolist()) > MAX_BYTES:
            raise ValueError("it unpacks to too much")
        (plan,) = (name for name in names if name.endswith("data.pkl"))
        root = plan.removesuffix("data.pkl")
        if root + "byteorder" in names and archive.read(root + "byteorder").strip() != b"little":
            raise ValueError("numbers in another byte order")
        stream = io.BytesIO(archive.read(plan))
        return _tensor(_replayed(stream), lambda key: archive.read(f"{root}data/{key}"))


def _plain(content: bytes) -> np.ndarray:
    stream = io.BytesIO(content)
    objects = [_replayed(stream) for _ in range(_OBJECTS)]
    held: dict[str, bytes] = {}
    for key in objects[-1]:
        count = int.from_bytes(_exactly(stream, 8), "little")
        item = int(_TYPES[_storage(objects[3]).kind][-1])
        held[str(key)] = _exactly(stream, count * item)
    return _tensor(objects[3], held.__getitem__)


def _exactly(stream: io.BytesIO, count: int) -> bytes:
    found = stream.read(count) if 0 <= count <= MAX_BYTES else b""
    if len(found) != count:
        raise EOFError(f"{count} bytes missing")
    return found


def _storage(said: Any) -> _Storage:
    """The storage of torch._utils._rebuild_tensor_v2(storage, offset, size, stride, …), in the persistent id's words."""
    if not (isinstance(said, Call) and said.name == "torch._utils _rebuild_tensor_v2"):
        raise ValueError("not one tensor")
    word, kind, key = said.arguments[0][:3]
    kind = str(kind).removeprefix("torch ")
    if word != "storage" or kind not in _TYPES:
        raise ValueError(f"not a tensor of floats but of {kind[:40]}")
    return _Storage(kind, str(key))


def _tensor(said: Any, numbers: Any) -> np.ndarray:
    storage = _storage(said)
    offset, size, stride = said.arguments[1:4]
    flat = np.frombuffer(numbers(storage.key), _TYPES[storage.kind])
    dense = tuple(prod(size[i + 1 :]) for i in range(len(size)))
    if any(n > 1 and s != d for n, s, d in zip(size, stride, dense, strict=True)) or not 0 <= offset <= len(flat):
        raise ValueError("not a dense tensor")
    return flat[offset : offset + prod(size)].reshape(size).astype(float)


def _replayed(stream: io.BytesIO) -> Any:
    """What one pickle describes, with every call left as `Call`."""
    stack: list[Any] = []
    memory: dict[int, Any] = {}
    for code, value, _ in pickletools.genops(stream):
        name = code.name
        if name == "STOP":
            return stack.pop()
        if name == "MARK":
            stack.append(_MARK)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memory[int(str(value))] = stack[-1]
        elif name == "MEMOIZE":
            memory[len(memory)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memory[int(str(value))])
        elif name == "GLOBAL":
            stack.append(str(value))
        elif name in _SIMPLE:
            stack.append(_SIMPLE[name])
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name in _TUPLES:
            count = _TUPLES[name]
            stack[len(stack) - count :] = [tuple(stack[len(stack) - count :])]
        elif name == "TUPLE":
            stack.append(tuple(_marked(stack)))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(Call(str(stack.pop()), arguments))
        elif name in ("SETITEM", "APPEND", "SETITEMS", "APPENDS"):
            _filled(stack, name)
        elif name == "BINPERSID":
            pass  # the id itself stands for the object
        elif name != "PROTO":
            if value is None:
                raise ValueError(f"instruction {name}")
            stack.append(value)
    raise EOFError("no end")


_SIMPLE = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _marked(stack: list[Any]) -> list[Any]:
    """Everything above the last mark, which goes."""
    at = len(stack) - 1 - next(i for i, x in enumerate(reversed(stack)) if x is _MARK)
    found = stack[at + 1 :]
    del stack[at:]
    return found


def _filled(stack: list[Any], name: str) -> None:
    if name.endswith("S"):
        items = _marked(stack)
    else:
        count = 2 if name == "SETITEM" else 1
        items = stack[len(stack) - count :]
        del stack[len(stack) - count :]
    into = stack[-1]
    if isinstance(into, list):
        into += items
    elif isinstance(into, dict):
        into.update(zip(items[::2], items[1::2], strict=True))
