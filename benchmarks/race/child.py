"""One rival in a process of its own, asked over pipes: a JSON line in, a JSON line out.

    prepare                   build, trace, lower, compile, run once: seconds of each
    clock rollout, repeats    seconds of one call
    final, path               write qpos [nq W] after the last step
    gradient                  compile the gradient of ½ mean |qpos_H|² for the controls and the initial velocity
    clock gradient, repeats

What a rival raises is answered as `error`.
"""

import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

import physics
from hybridwm import runtime
from race.serving import serve
from race.starts import Start


class Asked:
    """The rival, and what it answers."""

    def __init__(self, rival: str, scene: str, start: str) -> None:
        self.rival, self.scene = rival, physics.load_scene(scene)
        with np.load(start) as file:
            self.start = Start(*(file[name] for name in Start._fields))
        self.calls: dict[str, Callable[[], Any]] = {}

    def prepare(self) -> dict[str, Any]:
        """Everything up to the first result."""
        if self.rival == "mujoco":
            from race.rivals import mujoco_rollout

            begun = perf_counter()
            self.calls["rollout"] = mujoco_rollout(self.scene, self.start, runtime.core_count())
            return self._first({"build": perf_counter() - begun}, "rollout")
        runtime.prepare()
        return self._compiled("rollout", checkpoint=False, wrap=lambda roll, worlds_first: roll)

    def gradient(self) -> dict[str, Any]:
        """The gradient, compiled, run once."""
        if self.rival == "mujoco":
            raise ValueError("MuJoCo C has no gradient")
        import jax

        def wrap(roll: Callable[..., Any], worlds_first: bool) -> Callable[..., Any]:
            last = (lambda qpos: qpos[:, -1]) if worlds_first else (lambda qpos: qpos[-1])
            return jax.grad(lambda qvel, ctrl, *rest: 0.5 * (last(roll(qvel, ctrl, *rest)) ** 2).mean(), (0, 1))

        answer = self._compiled("gradient", checkpoint=True, wrap=wrap)
        if not all(np.isfinite(np.asarray(part)).all() for part in self.calls["gradient"]()):
            raise ValueError("its gradient is not finite")
        return answer

    def _compiled(self, what: str, *, checkpoint: bool, wrap: Callable[..., Any]) -> dict[str, Any]:
        import jax

        from race.rivals import JAX_RIVALS

        worked, clock = process_time(), [perf_counter()]
        roll, args, worlds_first = JAX_RIVALS[self.rival](self.scene, self.start, checkpoint=checkpoint)
        clock.append(perf_counter())
        traced = jax.jit(wrap(roll, worlds_first)).trace(*args)
        clock.append(perf_counter())
        lowered = traced.lower()
        clock.append(perf_counter())
        program = lowered.compile(compiler_options=physics.gradient_options() if what == "gradient" else None)
        clock.append(perf_counter())
        placed, _ = jax.device_put((args, {}), program.input_shardings)
        self.calls[what] = lambda: jax.block_until_ready(program(*placed))
        self.worlds_first = worlds_first
        seconds: dict[str, float] = dict(
            zip(("build", "trace", "lower", "compile"), np.diff(clock).tolist(), strict=True)
        )
        answer: dict[str, Any] = self._first(seconds, what) | {"devices": [str(device) for device in jax.devices()]}
        answer["seconds"]["processor"] = process_time() - worked
        return answer

    def _first(self, seconds: dict[str, float], what: str) -> dict[str, Any]:
        begun = perf_counter()
        self.calls[what]()
        seconds["run"] = perf_counter() - begun
        return {"seconds": seconds | {"first_call": sum(seconds.values())}, "memory_mib": memory_mib()}

    def clock(self, what: str, repeats: int) -> dict[str, Any]:
        """Seconds of one call, mean over a few in a row, and how many cores were busy with it."""
        begun, worked = perf_counter(), process_time()
        for _ in range(repeats):
            self.calls[what]()
        seconds = perf_counter() - begun
        return {"seconds": seconds / repeats, "cores": (process_time() - worked) / seconds}

    def final(self, path: str) -> dict[str, Any]:
        """Write qpos [nq W] after the last step."""
        out = np.asarray(self.calls["rollout"]())
        if self.rival != "mujoco":
            out = out[:, -1].T if self.worlds_first else out[-1]
        np.save(path, out)
        return {}


def memory_mib() -> float:
    """Most memory this process has had, in MiB (its own count: getrusage's starts at the parent's, in Linux)."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    serve(partial(Asked, *sys.argv[1:]))
