"""Episodes as they end, a JSON line each: a run that was stopped goes on where it stood, a longer one adds to it.

{"of": …}                          what was run: tasks and options that change an episode
{"key": "reach 0 3", "found": …}   one episode
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hybridwm.results import plain


class Kept:
    """The episodes of `folder`/episodes.jsonl."""

    def __init__(self, folder: Path, of: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, head = folder / "episodes.jsonl", json.dumps({"of": plain(of)}, sort_keys=True)
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        if lines and lines[0] != head:
            raise ValueError(
                f"{self.path} holds episodes of other tasks or options; choose another --out, or remove it"
            )
        self._found: dict[str, Any] = {}
        for line in lines[1:]:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                break  # the run was stopped while writing it
            self._found[entry["key"]] = entry["found"]
        self._write([head, *(self._line(key, found) for key, found in self._found.items())])

    def get(self, key: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The episode `key`, run by `make` where it is not there yet."""
        if key not in self._found:
            self._found[key] = found = plain(make())
            with self.path.open("a", encoding="utf-8") as file:
                file.write(self._line(key, found) + "\n")
        return self._found[key]

    def _line(self, key: str, found: Any) -> str:
        return json.dumps({"key": key, "found": found})

    def _write(self, lines: list[str]) -> None:
        part = self.path.with_suffix(".part")
        part.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        part.replace(self.path)
