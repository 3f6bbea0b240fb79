"""Folders that are whole or not there: numbered versions of something, each with a manifest of the SHA-256 of its files.

    FOLDER/000000000007/manifest.json     {"about": {...}, "files": {path: [bytes, sha256]}, "seal": sha256 of all this}
    FOLDER/000000000007/...               what was saved
    FOLDER/000000000006/...               the version before it; older ones go

A version is written into a hidden folder, forced to the disk, and renamed, so a kill at any moment leaves the version before.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

KEPT = 2
MAX_MANIFEST = 10_000_000  # bytes
MAX_FILES = 10_000
_MANIFEST = "manifest.json"
_DIGITS = 12


def versions(folder: Path) -> list[int]:
    """Numbers of the finished versions in a folder, in order."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if len(path.name) == _DIGITS and path.name.isdecimal())


def version_path(folder: Path, number: int) -> Path:
    """Where a version stands."""
    return folder / f"{number:0{_DIGITS}d}"


def seal(folder: Path, number: int, write: Callable[[Path], None], about: Mapping[str, Any]) -> Path:
    """Let `write(part)` fill a hidden folder, seal it, and give it its place; the last two versions are kept."""
    place = version_path(folder, number)
    folder.mkdir(parents=True, exist_ok=True)
    _tidy(folder)
    if place.exists():
        raise ValueError(f"{place} exists already; give another folder, or remove it")
    part = folder / f".writing-{os.getpid()}-{number}"
    part.mkdir()
    write(part)
    files = {str(path.relative_to(part)): list(_measured(path)) for path in _files(part)}
    body = {"about": about, "files": files}
    (part / _MANIFEST).write_text(
        json.dumps({**body, "seal": _digest(body)}, indent=1, allow_nan=False), encoding="utf-8"
    )
    _settle(part)
    part.rename(place)
    _sync(folder)
    for old in versions(folder)[:-KEPT]:
        _remove(version_path(folder, old))
    return place


def unseal(place: Path) -> dict[str, Any]:
    """`about` of a version, once every file is found to be as it was sealed; or one sentence about what is wrong."""
    manifest = place / _MANIFEST
    try:
        if manifest.stat().st_size > MAX_MANIFEST:
            raise ValueError(f"{manifest} is damaged: larger than {MAX_MANIFEST:,} bytes")
        body = json.loads(manifest.read_text(encoding="utf-8"))
        sealed = body.pop("seal")
        wanted = {str(name): (int(size), str(sha)) for name, (size, sha) in body["files"].items()}
    except OSError as error:
        raise ValueError(f"{manifest} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        said = str(error) if "damaged" in str(error) else f"{manifest} is damaged: not a manifest"
        raise ValueError(said) from None
    if sealed != _digest(body):
        raise ValueError(f"{manifest} is damaged: it does not match its own seal")
    _compare(place, wanted)
    return body["about"]


def _compare(place: Path, wanted: dict[str, tuple[int, str]]) -> None:
    there = {str(path.relative_to(place)): path for path in _files(place)}
    there.pop(_MANIFEST)
    for name in sorted(wanted.keys() | there.keys()):
        if name not in there:
            raise ValueError(f"{place} is damaged: {name} is missing")
        if name not in wanted:
            raise ValueError(f"{place} is damaged: {name} was not there when it was saved")
        if (
            there[name].is_symlink()
            or there[name].stat().st_size != wanted[name][0]
            or _measured(there[name]) != wanted[name]
        ):
            raise ValueError(f"{place} is damaged: {name} is not as it was saved")


def _files(folder: Path) -> list[Path]:
    found = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
    if len(found) > MAX_FILES:
        raise ValueError(f"{folder}: more than {MAX_FILES:,} files")
    return sorted(found)


def _measured(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        sha = hashlib.file_digest(file, "sha256").hexdigest()
    return path.stat().st_size, sha


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _settle(folder: Path) -> None:
    """Everything in the folder onto the disk, files first."""
    for root, folders, names in os.walk(folder, topdown=False):
        for name in (*names, *folders):
            _sync(Path(root, name))
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(place: Path) -> None:
    """Out of sight first, so that a kill half-way leaves nothing that looks whole."""
    hidden = place.with_name(f".writing-{os.getpid()}-old-{place.name}")
    place.rename(hidden)
    shutil.rmtree(hidden)


def _tidy(folder: Path) -> None:
    """Remove what processes that are gone, or this one, left unfinished."""
    for path in folder.glob(".writing-*"):
        owner = path.name.split("-")[1]
        if not owner.isdecimal() or int(owner) == os.getpid() or not _alive(int(owner)):
            shutil.rmtree(path, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
