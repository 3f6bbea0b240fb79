"""Files that a scene names: only from its own folder, only so many, only so large, and only of known kinds."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path, PurePosixPath

MAX_TEXT = 4_000_000  # bytes of one XML file
MAX_FILES = 64
MAX_BYTES = 32_000_000  # of all files together
MAX_PIXELS = 4096  # width and height of a picture

_KINDS = {"mesh": (".obj", ".stl", ".msh"), "texture": (".png",), "hfield": (".png",)}
_KEYS = ("file", "fileright", "fileleft", "fileup", "filedown", "filefront", "fileback")


class Files:
    """Files of one scene: only from its folder, only so many, only so large; each is read once."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.contents: dict[str, bytes] = {}  # by the name that MuJoCo will use
        self._read = 0
        self._left = MAX_BYTES

    def read(self, name: str) -> bytes:
        """Bytes of a file named in the scene."""
        self._read += 1
        if self._read > MAX_FILES:
            raise ValueError(f"file {name!r}: more than {MAX_FILES} files in one scene")
        content = read_bytes(self._inside(name), self._left)
        self._left -= len(content)
        return content

    def _inside(self, name: str) -> Path:
        if self.folder is None:
            raise ValueError(f"file {name[:80]!r}: a scene given as a string has no folder; save it and give its path")
        folder = self.folder.resolve()
        if not name or name.startswith(("/", "~")) or ".." in PurePosixPath(name).parts or re.search(r"[\\:\0]", name):
            raise ValueError(f"file {name[:80]!r}: outside the scene's folder (no absolute path, '..' or '~')")
        try:
            path = (folder / name).resolve()
            if not path.is_relative_to(folder):
                raise ValueError(f"file {name[:80]!r}: a link that leads out of the scene's folder")
            if path.is_file():
                return path
        except (OSError, RuntimeError):  # name too long, or links in a circle
            pass
        raise ValueError(f"file {name[:80]!r}: no such file in the scene's folder")


def read_text(path: Path) -> str:
    """A whole file as UTF-8 text."""
    content = read_bytes(path, MAX_TEXT)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"scene file {path.name!r}: not UTF-8 text") from None


def read_bytes(path: Path, limit: int) -> bytes:
    """A whole file of at most `limit` bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ValueError(f"file {path.name!r}: cannot be read ({error.strerror})") from None
    if len(content) > limit:
        raise ValueError(f"file {path.name!r}: more than {limit:,} bytes")
    return content


def rename_assets(root: ET.Element, files: Files) -> None:
    """Read every file an asset names, and let the asset name our copy of it."""
    folders = _asset_folders(root)
    for element in root.iter():
        for key in [key for key in _KEYS if key in element.attrib]:
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
