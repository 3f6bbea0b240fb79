"""What an interrupted study finds again: finished parts, in a folder of the options that they were made with."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hybridwm import results
from hybridwm.study import Study


def place(options: Study) -> Path:
    """The folder of finished parts: other options, another folder; --seed, --seeds and --only choose parts."""
    made = {key: str(value) for key, value in asdict(options).items() if key not in ("out", "seed", "seeds", "only")}
    stamp = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:8]
    return options.out / "parts" / stamp


def kept(path: Path, work: Callable[[], Any]) -> Any:
    """What `work` finds, as JSON has it: read where it was found before, else kept in `path`."""
    if not path.exists():
        found = results.plain(work())
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(found), encoding="utf-8")
        part.replace(path)
    return json.loads(path.read_text(encoding="utf-8"))


def save(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write `path`, a .npz without pickles, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}.{path.name}")
    np.savez_compressed(part, allow_pickle=False, **arrays)
    part.replace(path)
