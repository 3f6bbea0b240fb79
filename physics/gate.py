"""The gate for scene files: text from anywhere in, plain MJCF and the bytes it needs out, or one clear sentence.

MuJoCo never sees the original: the text is parsed here, checked, includes are put in place, files are read (only from the
scene's own folder) and renamed, and what goes on is written anew. So a parser's quirk cannot smuggle anything past the checks.
"""

from __future__ import annotations

import difflib
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import NamedTuple, NoReturn
from xml.parsers import expat

MAX_TEXT = 4_000_000  # bytes of one XML file
MAX_DEPTH = 100  # elements inside one another
MAX_ELEMENTS = 5_000  # after every include and <replicate>
MAX_FILES = 64
MAX_FILE = 32_000_000  # bytes of all files together
MAX_PIXELS = 4096  # width and height of a picture
MAX_NAME = 200  # characters
MAX_NUMBER = 1e12  # in size: squares and products stay finite, in single precision too

_KINDS = {"mesh": (".obj", ".stl", ".msh"), "texture": (".png",), "hfield": (".png",)}
_FILE_KEYS = ("file", "fileright", "fileleft", "fileup", "filedown", "filefront", "fileback")

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
        text, folder, name = _read_text(path), path.parent, path.stem
    root = _parse(text)
    if root.tag != "mujoco":
        raise ValueError(f"scene: the outermost element is <{root.tag[:40]}>; a scene is MJCF and begins with <mujoco>")
    files = _Files(folder)
    _include(root, files, depth=0)
    _check(root)
    _rename_assets(root, files)
    return Admitted(ET.tostring(root, encoding="unicode"), tuple(files.contents.items()), root.get("model") or name)


# ---- where the text comes from ----


def _scenes() -> resources.abc.Traversable:
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


def _read_text(path: Path) -> str:
    content = _read(path, MAX_TEXT)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"scene file {path.name!r}: not UTF-8 text") from None


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ValueError(f"file {path.name!r}: cannot be read ({error.strerror})") from None
    if len(content) > limit:
        raise ValueError(f"file {path.name!r}: more than {limit:,} bytes")
    return content


class _Files:
    """Files of one scene: only from its folder, only so many, only so large; each is read once."""

    def __init__(self, folder: Path | None):
        self.folder = folder
        self.contents: dict[str, bytes] = {}  # by the name that MuJoCo will use
        self._read = 0
        self._left = MAX_FILE

    def read(self, name: str) -> bytes:
        """Bytes of a file named in the scene."""
        self._read += 1
        if self._read > MAX_FILES:
            raise ValueError(f"file {name!r}: more than {MAX_FILES} files in one scene")
        content = _read(self._inside(name), self._left)
        self._left -= len(content)
        return content

    def _inside(self, name: str) -> Path:
        if self.folder is None:
            raise ValueError(
                f"file {name[:80]!r}: a scene given as a string has no folder to read files from; save it and give its path"
            )
        folder = self.folder.resolve()
        if not name or name.startswith(("/", "~")) or ".." in PurePosixPath(name).parts or re.search(r"[\\:\0]", name):
            raise ValueError(
                f"file {name[:80]!r}: only files inside the scene's folder are read (no absolute path, '..' or '~')"
            )
        try:
            path = (folder / name).resolve()
            inside, found = path.is_relative_to(folder), path.is_file()
        except (OSError, RuntimeError):  # name too long, or links in a circle
            inside, found = True, False
        if not inside:
            raise ValueError(f"file {name[:80]!r}: a link that leads out of the scene's folder")
        if not found:
            raise ValueError(f"file {name[:80]!r}: no such file in the scene's folder")
        return path


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


def _include(element: ET.Element, files: _Files, depth: int) -> None:
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
    if not re.fullmatch(r"\d{1,9}", count) or int(count) < 1:
        raise ValueError(f"<replicate>: count={count[:40]!r}; give a whole number of at least 1")
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


# ---- files that the scene names ----


def _rename_assets(root: ET.Element, files: _Files) -> None:
    """Read every file an asset names, and let the asset name our copy of it."""
    folders = _asset_folders(root)
    for element in root.iter():
        for key in [key for key in _FILE_KEYS if key in element.attrib]:
            name = element.attrib[key]
            suffix = PurePosixPath(name).suffix.lower()
            if suffix not in _KINDS.get(element.tag, ()):
                allowed = ", ".join(_KINDS.get(element.tag, ())) or "no files here"
                raise ValueError(f"<{element.tag}> file {name[:80]!r}: not a kind of file that is read ({allowed})")
            content = files.read(
                str(PurePosixPath(folders.get(element.tag, ""), name)) if folders.get(element.tag) else name
            )
            if suffix == ".png":
                _check_picture(name, content)
            if "name" not in element.attrib and key == "file":
                element.set("name", PurePosixPath(name).stem)
            ours = f"file{len(files.contents)}{suffix}"
            files.contents[ours] = content
            element.set(key, ours)


def _asset_folders(root: ET.Element) -> dict[str, str]:
    """Folder of meshes and of textures, as <compiler> says; taken out of the tree."""
    found: dict[str, str] = {}
    for compiler in root.iter("compiler"):
        if compiler.attrib.pop("strippath", "false") != "false":
            raise ValueError("<compiler> strippath: not supported; write the files' names without their paths")
        for key in ("assetdir", "meshdir", "texturedir"):
            if key in compiler.attrib:
                found[key] = compiler.attrib.pop(key)
    meshes, textures = (found.get(key, found.get("assetdir", "")) for key in ("meshdir", "texturedir"))
    return {"mesh": meshes, "hfield": meshes, "texture": textures}


def _check_picture(name: str, content: bytes) -> None:
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or not (0 < width <= MAX_PIXELS and 0 < height <= MAX_PIXELS):
        raise ValueError(f"file {name[:80]!r}: not a PNG picture of at most {MAX_PIXELS} × {MAX_PIXELS}")
