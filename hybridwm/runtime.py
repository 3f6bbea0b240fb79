"""What the command and the tests set before JAX starts; a plain `import hybridwm` sets none of it.

- a persistent compilation cache (see `hybridwm.cache`);
- one virtual CPU device per core, because XLA keeps one device to little more than one core;
- float64 on request. It holds for the whole process.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from hybridwm import cache

_WORDS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "": False,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def wants_x64(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `HYBRIDWM_X64` asks for float64."""
    word = environ.get("HYBRIDWM_X64", "").strip().lower()
    if word not in _WORDS:
        raise ValueError(f"HYBRIDWM_X64 is {word!r}; allowed are 1, true, yes, on, 0, false, no, off")
    return _WORDS[word]


def core_count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(*, x64: bool = False) -> Path | None:
    """Configure JAX for this process, before its backend starts. Returns the cache folder, None when it is off."""
    x64 = x64 or wants_x64()
    folder = cache.chosen_folder()
    compiled = cache.open_folder(folder) if folder else None

    import jax

    jax.config.update("jax_enable_x64", x64)
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", core_count())
    if compiled:
        jax.config.update("jax_compilation_cache_dir", str(compiled))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    else:
        jax.config.update("jax_enable_compilation_cache", False)
    return compiled
