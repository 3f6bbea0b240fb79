"""The asking side: children that are kept alive, so that rivals take turns and only one works at a time.

jaxlib 0.10.2 can hang for ever on batched LAPACK calls, which stock Brax and MJX make. Brax runs without the concurrent
scheduler; MJX, which hangs on a stack of boxes even so, with more threads than can wait for one another (it costs 8 %
on a pushed box). A child that does not answer in time is ended and reported.
"""

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from hybridwm.runtime import core_count

HERE = Path(__file__).resolve().parent.parent
_NO_HANG = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


class Refused(Exception):
    """A rival cannot do this, or did not answer in time; the sentence says which."""


class Child:
    """One rival in a process of its own. Use as a context; leaving it ends the process."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
        )
        assert self._process.stdin
        assert self._process.stdout
        self._to, self._from = self._process.stdin, self._process.stdout

    def ask(self, what: str, limit_s: float, /, **more: Any) -> dict[str, Any]:
        """The answer, or Refused."""
        try:
            self._to.write(json.dumps({"ask": what, **more}).encode() + b"\n")
            self._to.flush()
        except BrokenPipeError:
            raise Refused(self._last_words()) from None
        answer = json.loads(self._line(what, limit_s))
        if "error" in answer:
            raise Refused(answer["error"])
        return answer

    def _line(self, what: str, limit_s: float) -> bytes:
        deadline, line = time.monotonic() + limit_s, b""
        with selectors.DefaultSelector() as ready:
            ready.register(self._from, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not ready.select(max(deadline - time.monotonic(), 0.0)):
                    self._process.kill()
                    raise Refused(f"no answer to {what!r} within {limit_s:.0f} s, ended")
                part = os.read(self._from.fileno(), 65536)
                if not part:
                    raise Refused(self._last_words())
                line += part
        return line

    def _last_words(self) -> str:
        self._process.wait(timeout=10)
        self._said.seek(0)
        words = self._said.read().decode(errors="replace").split("\n")
        return f"ended with code {self._process.returncode}: {next((w for w in words[::-1] if w.strip()), '')}"[:300]

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._to, self._from, self._said):
            with suppress(BrokenPipeError):  # of a question that it did not live to read
                pipe.close()


def cores_taken(seconds: float = 1.0) -> float:
    """How many cores this whole machine keeps busy while we sleep; not a number where that cannot be known."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return float("nan")
    before = _ticks(stat)
    time.sleep(seconds)
    return (_ticks(stat) - before) / os.sysconf("SC_CLK_TCK") / seconds


def _ticks(stat: Path) -> int:
    """All but idling and waiting for disks, since the machine started."""
    spent = [int(word) for word in stat.read_text().split("\n", 1)[0].split()[1:9]]
    return sum(spent) - spent[3] - spent[4]


def engine(rival: str, scene: str, start: Path, *, cache: Path, platform: str) -> Child:
    """A rival of `benchmarks/engine.py` on one start."""
    command = [sys.executable, "-m", "race.child", rival, scene, str(start)]
    return Child(command, environment(rival, cache=cache, platform=platform))


def environment(rival: str, *, cache: Path | None = None, platform: str = "auto") -> dict[str, str]:
    """What a child of ours sees; without `cache` it shares the user's."""
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "HYBRIDWM_X64": "0",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # rivals share one accelerator
    }
    if cache is not None:
        env["HYBRIDWM_CACHE"] = str(cache)
    if platform != "auto":
        env["JAX_PLATFORMS"] = {"cpu": "cpu", "gpu": "cuda"}[platform]
    if rival.startswith("mjx"):
        env["NPROC"] = str(4 * max(core_count(), 2))
    if rival == "brax":
        env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} {_NO_HANG}".strip()
    return env
