"""The persistent compilation cache: compiled programs live in a folder that only its owner can touch.

A compiled program is code, so whoever can write into the folder can run code as its user. Hence: the folder is ours,
mode 0700, and a folder that somebody else owns or may write to is refused.

`HYBRIDWM_CACHE` moves the folder, or switches the cache off with the word `off`.
"""

import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def chosen_folder(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The folder that `HYBRIDWM_CACHE` asks for, else the one below the user's cache folder; None when off."""
    choice = environ.get("HYBRIDWM_CACHE", "").strip()
    if choice.lower() == "off":
        return None
    if choice:
        return Path(choice).expanduser().absolute()
    base = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser().absolute() / "hybridwm"


def open_folder(folder: Path) -> Path:
    """Make `folder`/compiled (mode 0700) where missing, prove that it is safe and writable, and return it."""
    compiled = folder / "compiled"
    try:
        for path in (folder, compiled):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _refuse_unsafe(path)
        compiled.chmod(0o700)
        with tempfile.TemporaryFile(dir=compiled):
            pass
    except OSError as error:
        raise ValueError(
            f"the compilation cache {folder} cannot be written ({error.strerror}); "
            "set HYBRIDWM_CACHE to a folder of your own, or to off"
        ) from error
    return compiled


def _refuse_unsafe(path: Path) -> None:
    found = path.stat(follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode):
        problem = "is a link"
    elif found.st_uid != os.getuid():
        problem = "belongs to another user"
    elif found.st_mode & _OTHERS_WRITE:
        problem = "can be written by other users"
    else:
        return
    raise ValueError(f"the compilation cache {path} {problem}; set HYBRIDWM_CACHE to a folder of your own, or to off")
