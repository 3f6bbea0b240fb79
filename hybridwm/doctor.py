"""`hybridwm doctor`: is this installation whole?

Each check answers with one line: well, worth knowing, or broken and how to mend it.
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from rich.console import Console

from hybridwm import cache, runtime, versions

Mark = Literal["ok", "note", "broken"]
_STYLE = {"ok": "green", "note": "yellow", "broken": "bold red"}


class Finding(NamedTuple):
    """One line of the report; `mend` says what to do about it."""

    mark: Mark
    what: str
    words: str
    mend: str = ""


def examine(*, deadlock_s: float, x64: bool) -> int:
    """Print all checks as they finish; 2 when something is broken, else 0."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    broken = False
    for mark, what, words, mend in _checks(deadlock_s, x64):
        console.print(f"{mark:>6}  {what:<20}{words}", style=_STYLE[mark])
        if mend:
            console.print(f"{'':<28}{mend}", style=_STYLE[mark])
        broken |= mark == "broken"
    console.print("Something is broken; the lines above say how to mend it." if broken else "All is well.")
    return 2 if broken else 0


def _checks(deadlock_s: float, x64: bool) -> Iterator[Finding]:
    yield Finding("ok", "python", f"{platform.python_version()} on {platform.machine()}, {sys.executable}")
    found = [_version(version) for version in versions.compare()]
    found.append(_guarded("compilation cache", _cache))
    yield from found
    if any(finding.mark == "broken" for finding in found):
        return
    for what, check in (("devices", lambda: _devices(x64)), ("compile", _compile), ("engine step", _engine_step)):
        yield _guarded(what, check)
    if deadlock_s > 0:
        yield _guarded("jaxlib deadlock", lambda: _deadlock(deadlock_s))


def _guarded(what: str, check: Callable[[], Finding]) -> Finding:
    """The finding of a check; any exception is a finding too, since a doctor must reach the end."""
    try:
        return check()
    except ValueError as error:
        return Finding("broken", what, str(error))
    except Exception as error:
        return Finding("broken", what, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", _BROKEN_PART)


_BROKEN_PART = (
    "reinstall with `make clean && make test`, or in a fresh environment; if it stays, please report this line"
)


def _version(version: versions.Version) -> Finding:
    name, installed, tested = version
    if version.fits:
        return Finding("ok", name, tested)
    words = f"{installed or 'missing'}, tested with {tested}"
    mark = "broken" if installed is None or name in versions.ENGINES else "note"
    return Finding(mark, name, words, f"pip install {name}=={tested}" if mark == "broken" else "")


def _cache() -> Finding:
    folder = cache.chosen_folder()
    if folder is None:
        return Finding("note", "compilation cache", "off: every start compiles again", "unset HYBRIDWM_CACHE to use it")
    compiled = cache.open_folder(folder)
    size = sum(path.stat().st_size for path in compiled.iterdir())
    return Finding("ok", "compilation cache", f"{compiled}, {size / 2**20:.1f} MiB")


def _devices(x64: bool) -> Finding:
    runtime.prepare(x64=x64)
    import jax

    devices = jax.devices()
    kind = devices[0].device_kind
    return Finding("ok", "devices", f"{len(devices)} × {kind}, {runtime.core_count()} cores, float{64 if x64 else 32}")


def _compile() -> Finding:
    import jax
    import jax.numpy as jnp

    start = time.perf_counter()
    value = float(jax.jit(lambda x: jnp.sin(x) ** 2 + jnp.cos(x) ** 2)(0.5))
    if abs(value - 1.0) > 1e-5:
        return Finding("broken", "compile", f"sin² + cos² came out as {value}", _BROKEN_PART)
    return Finding("ok", "compile", f"a tiny program in {time.perf_counter() - start:.2f} s")


def _deadlock(limit_s: float) -> Finding:
    """Run the probe in a child; it inherits the environment, so a setting that mends it counts."""
    command = [sys.executable, "-P", "-m", "hybridwm.deadlock"]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, env=os.environ, check=False)
    except subprocess.TimeoutExpired:
        words = f"batched LAPACK solves hang this jaxlib (no answer in {limit_s:g} s)"
        return Finding("note", "jaxlib deadlock", f"{words}; hybridwm uses none", _DEADLOCK_MEND)
    if child.stdout.strip() != "done":
        return Finding("broken", "jaxlib deadlock", f"the probe failed: {child.stderr.strip()[-200:]}", _BROKEN_PART)
    return Finding("ok", "jaxlib deadlock", "batched LAPACK solves end")


_DEADLOCK_MEND = (
    "for your own code: XLA_FLAGS=--xla_cpu_enable_concurrency_optimized_scheduler=false, or Python 3.12 with jax 0.12"
)


def _engine_step() -> Finding:
    import jax
    import jax.numpy as jnp

    import physics

    start = time.perf_counter()
    scene = physics.load_scene(_BALL)
    engine, params = physics.brax_engine(scene), physics.nominal(scene)
    model = scene.model
    state = engine.init(params, jnp.asarray(model.qpos0), jnp.zeros(model.nv))
    state, _ = jax.jit(engine.step)(params, state, jnp.zeros(model.nu))
    fall, expected = float(state.qvel[2]), -9.81 * model.opt.timestep
    if abs(fall - expected) > 1e-4 * abs(expected):
        return Finding("broken", "engine step", f"a falling ball moves at {fall} m/s, not {expected}", _BROKEN_PART)
    return Finding("ok", "engine step", f"a ball falls as it should, compiled in {time.perf_counter() - start:.1f} s")


_BALL = """
<mujoco model="ball">
  <option timestep="0.01"/>
  <worldbody>
    <geom type="plane" size="1 1 1"/>
    <body pos="0 0 1"><freejoint/><geom type="sphere" size="0.1"/></body>
  </worldbody>
</mujoco>
"""
