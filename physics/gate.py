"""The gate for scene files: text from anywhere in, plain MJCF and the bytes it needs out, or one clear sentence.

MuJoCo never sees the original: the text is parsed here, checked, includes are put in place, files are read (only from
the scene's own folder) and renamed, and what goes on is written anew: no quirk of a parser slips past the checks.
"""

from __future__ import annotations

import difflib
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple, NoReturn
from xml.parsers import expat

from physics.files import MAX_PIXELS, MAX_TEXT, Files, read_text, rename_assets

MAX_DEPTH = 100  # elements inside one another
MAX_ELEMENTS = 5_000  # after every include and <replicate>
MAX_NAME = 200  # characters
MAX_NUMBER = 1e12  # in size: squares and products stay finite, in single precision too

# Attributes that are words: "inf" and "nan" are names there, not numbers.
_WORDS = re.compile(
    r"name|model|class|childclass|.*name|.*name[12]|file.*|content_type|.*body[12]?|.*geom[12]?|.*site[12]?|joint[12]?|jointinparent"
    r"|tendon[12]?|actuator|material|mesh|hfield|texture|target|object|reference|prefix|sidesite|bone|data_string|key|value|flex"
)

# Attributes that ask MuJoCo for memory or time, and the most that is granted.
_CEILINGS: dict[tuple[str, str], float] = {  # (element, or "" for any; attribute)
    ("numeric", "size"): 10_000,
    **{("", key): MAX_PIXELS for key in ("width", "height", "nrow", "ncol")},
    **{("", key): 100_000 for key in ("njmax", "nconmax", "nuserdata")},
    **{("", f"nuser_{kind}"): 100 for kind in ("body", "jnt", "geom", "site", "cam", "tendon", "actuator", "sensor")},
    **{("", key): 100_000 for key in ("iterations", "ls_iterations", "noslip_iterations", "ccd_iterations")},
    **{("", key): 10_000 for key in ("sdf_iterations", "sdf_initpoints", "nsample", "resolution")},
    **{("", key): 1_000 for key in ("maxhullvert", "octree_maxdepth", "params", "gridsize", "nkey", "actdim", "dim")},
    ("", "nstack"): 10_000_000,
}

_NEVER_NEGATIVE = ("mass", "density", "timestep")

_REFUSED = {
    "composite": "write its bodies out, or use <replicate>",
    "flexcomp": "flexes are not simulated; use rigid bodies and joints",
    "flex": "flexes are not simulated; use rigid bodies and joints",
    "extension": "plugins are not simulated; remove it",
    "plugin": "plugins are not simulated; remove it",
    "attach": "sub-models are not read; use <include>",
    "model": "sub-models are not read; use <include>",
    "lengthrange": "it belongs to muscles and tendons, which are not simulated; remove it",
    "skin": "it is only drawn, and not by us; remove it",
}


class Admitted(NamedTuple):
    """A scene that passed the gate: `text` is plain MJCF, `files` are the bytes its assets name."""

    text: str
    files: tuple[tuple[str, bytes], ...]
    name: str


def shipped() -> tuple[str, ...]:
    """Names of the scenes that come with the package."""
    return tuple(sorted(Path(str(f)).stem for f in _scenes().iterdir() if f.name.endswith(".xml")))


def admit(source: str | Path) -> Admitted:
    """Read a scene: the path of a MJCF file, MJCF as a string, or the name of a shipped scene."""
    if isinstance(source, str) and source.lstrip("\ufeff \t\r\n").startswith("<"):
        text, folder, name = source, None, "scene"
    else:
        path = _locate(source)
        text, folder, name = read_text(path), path.parent, path.stem
    root = _parse(text)
    if root.tag != "mujoco":
        raise ValueError(f"scene: the outermost element is <{root.tag[:40]}>; a scene is MJCF and begins with <mujoco>")
    files = Files(folder)
    _include(root, files, depth=0)
    _check(root)
    rename_assets(root, files)
    return Admitted(ET.tostring(root, encoding="unicode"), tuple(files.contents.items()), root.get("model") or name)


# ---- where the text comes from ----


def _scenes() -> Traversable:
    return resources.files("physics") / "scenes"


def _locate(source: str | Path) -> Path:
    known, word = shipped(), str(source)
    if word in known:
        return Path(str(_scenes() / f"{word}.xml"))
    try:
        if Path(source).is_file():
            return Path(source)
    except (OSError, ValueError):  # too long, or a NUL byte
        pass
    shown = word if len(word) <= 80 else word[:77] + "…"
    if "/" in word or word.endswith((".xml", ".mjcf")):
        raise ValueError(f"scene {shown!r}: no such file")
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.0)
    raise ValueError(
        f"scene {shown!r}: unknown; did you mean {near[0]!r}? (shipped: {', '.join(known)}; or give a path)"
    )


# ---- XML ----


def _parse(text: str) -> ET.Element:
    """Element tree of a text without a document type, entities or runaway nesting."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"scene: more than {MAX_TEXT:,} characters of XML")
    builder, depth, count = ET.TreeBuilder(), 0, 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if depth > MAX_DEPTH:
            raise ValueError(f"scene: elements nested more than {MAX_DEPTH} deep")
        if count > MAX_ELEMENTS:
            raise ValueError(f"scene: more than {MAX_ELEMENTS:,} elements")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def doctype(*_: object) -> NoReturn:
        raise ValueError("scene: a document type or entities (<!DOCTYPE …>) are not allowed")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = doctype
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise ValueError(f"scene: not XML ({error})") from None
    except UnicodeEncodeError:
        raise ValueError("scene: not XML (characters that are not text)") from None
    return builder.close()


def _include(element: ET.Element, files: Files, depth: int) -> None:
    """Put the content of every included file in the place of its <include>."""
    if depth > MAX_DEPTH:
        raise ValueError(f"scene: includes nested more than {MAX_DEPTH} deep")
    children: list[ET.Element] = []
    for child in element:
        if child.tag == "include":
            content = files.read(child.get("file", ""))
            if len(content) > MAX_TEXT:
                raise ValueError(f"include {child.get('file')!r}: more than {MAX_TEXT:,} bytes")
            try:
                child = _parse(content.decode("utf-8-sig"))
            except UnicodeDecodeError:
                raise ValueError(f"include {child.get('file')!r}: not UTF-8 text") from None
            _include(child, files, depth + 1)
            children.extend(child)
        else:
            _include(child, files, depth + 1)
            children.append(child)
    element[:] = children


def _check(root: ET.Element) -> None:
    if (total := _expanded(root)) > MAX_ELEMENTS:
        raise ValueError(f"scene: {total:,} elements after every <replicate>; at most {MAX_ELEMENTS:,}")
    for element in root.iter():
        if element.tag in _REFUSED:
            raise ValueError(f"<{element.tag}> {element.get('name', '')!r}: not supported: {_REFUSED[element.tag]}")
        for key, value in element.items():
            _check_attribute(element, key, value)


def _expanded(element: ET.Element) -> int:
    """Number of elements once every <replicate> is written out."""
    inside = sum(_expanded(child) for child in element)
    if element.tag != "replicate":
        return 1 + inside
    count = element.get("count", "1").strip()
    if not re.fullmatch(r"\+?\d+", count) or not count.strip("+0"):
        raise ValueError(f"<replicate>: count={count[:40]!r}; give a whole number of at least 1")
    if len(count) > 20 or int(count) > MAX_ELEMENTS:
        raise ValueError(
            f"<replicate>: count={count[:40]!r} is too large; at most {MAX_ELEMENTS:,} elements in a scene"
        )
    return 1 + max(inside, 1) * int(count)


def _check_attribute(element: ET.Element, key: str, value: str) -> None:
    where = f"<{element.tag[:40]}> {element.get('name', '')[:40]!r}: {key[:40]}={value[:40]!r}"
    if _WORDS.fullmatch(key):
        if len(value) > MAX_NAME:
            raise ValueError(f"{where}…: a name of more than {MAX_NAME} characters")
        return
    numbers = [abs(number) for number in _numbers(value)]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{where} is not finite; every number must be")
    if key in _NEVER_NEGATIVE and value.lstrip().startswith("-"):
        raise ValueError(f"{where} is below 0; give 0 or more")
    ceiling = _CEILINGS.get((element.tag, key), _CEILINGS.get(("", key), MAX_NUMBER))
    if any(number > ceiling for number in numbers):
        raise ValueError(f"{where} is too large; at most {ceiling:,.0f}")
    if key == "memory" and not re.fullmatch(r"-1|\d{1,9}|\d{1,6}[kK]|\d{1,3}[mM]", value.strip()):
        raise ValueError(f"{where} is too large; at most 999M")


def _numbers(value: str) -> Iterator[float]:
    for token in value.split():
        try:
            yield float(token)
        except ValueError:
            if re.match(r"[+-]?(nan|inf)", token, re.IGNORECASE):  # as C reads "nan(0x1)" or "info"
                yield math.nan
