"""Bolts turned by the clock: a command every 10 ms whatever happens, plans made beside it, one every 20 ms.

    tick       read the sensors, update the filter, give the command that the newest plan holds for this instant
    planner    of its own thread: starts from the belief of an even tick, carried over the two commands that are already decided,
               and plans from there; ready within 20 ms, its commands are used from then on
    late       a plan that is not ready when its first command is due: a DEADLINE; the old plan goes on

Reality is stepped in the ticking thread, so what it costs is taken from the same cores. The world does not wait.
"""

import queue
import threading
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bolt.control import Controller, Parts
from experiments.bolt.drive import asked
from experiments.bolt.lab import STEPS
from experiments.bolt.rack import CONTROL_S, Bolts, drawn, rack

AHEAD = 2
"""Ticks from the start of a plan to its first command: 50 plans a second."""


class Timed(NamedTuple):
    """One bolt by the clock."""

    off: float  # of the clamp force, as a share
    stripped: bool
    plan_ms: np.ndarray  # [plans]
    late: np.ndarray  # [plans] bool
    tick_late_ms: np.ndarray  # [STEPS] how much later than due a command was given


class Worker:
    """A thread that plans what it is given, newest only."""

    def __init__(self, plan: Any) -> None:
        self.plan, self.asked, self.found = plan, queue.Queue[Any](maxsize=1), dict[int, Any]()
        self.took, self.free = list[tuple[int, float, float]](), threading.Event()
        self.free.set()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while (job := self.asked.get()) is not None:
            tick, args = job
            begun = time.perf_counter()
            self.found[tick] = jax.block_until_ready(self.plan(*args))
            done = time.perf_counter()
            self.took.append((tick, done - begun, done))
            self.free.set()

    def close(self) -> None:
        """Wait for the last plan."""
        self.asked.put(None)
        self.thread.join()


def compiled(controller: Controller, params: Any, known: Any) -> Parts:
    """The parts, compiled and run once."""
    assert controller.parts, "a controller that plans"
    parts = Parts(*(jax.jit(part) for part in controller.parts))
    want = jnp.full(1, 12e3, float)
    memory = controller.begin(params, want, jax.random.key(0), known)
    for _ in range(2):
        memory, seen = parts.see(params, memory, jnp.zeros((2, 1)), want)
        plan = parts.plan(params, memory, seen, want, jnp.zeros((AHEAD, 1)))
        memory = parts.act(params, memory, seen, plan[0][0])
    jax.block_until_ready(memory)
    return parts


def one(parts: Parts, controller: Controller, params: Any, known: Any, *, count: int, number: int, seed: int) -> Timed:
    """Bolt `number` of a draw, in real time."""
    bolts = Bolts(*(x[number : number + 1] for x in drawn(count, seed)))
    target = asked(count, seed)[number : number + 1]
    real, held = rack(bolts, sensors=True)
    want = jnp.asarray(target, jnp.float32)
    memory = controller.begin(params, want, jax.random.key(number), known)
    worker, current = Worker(parts.plan), (0, np.asarray(memory.plan))
    behind, begun = np.zeros(STEPS), time.perf_counter() + 0.05

    def command(tick: int) -> np.ndarray:
        first, plan = current
        return plan[min(tick - first, len(plan) - 1)]

    def policy(tick: int, reading: Any) -> np.ndarray:
        nonlocal memory, current
        due = begun + tick * CONTROL_S
        time.sleep(max(0.0, due - time.perf_counter()))
        for ready in [t for t in list(worker.found) if t <= tick]:
            current = ready, np.asarray(worker.found.pop(ready)[0])
        seen_now = jnp.asarray(np.stack([reading.qpos[0::2], reading.effort]), jnp.float32)
        memory, seen = parts.see(params, memory, seen_now, want)
        ctrl = command(tick) * (1 - np.asarray(memory.done))
        memory = parts.act(params, memory, seen, jnp.asarray(ctrl))
        behind[tick] = time.perf_counter() - due
        if tick % AHEAD == 0 and worker.free.is_set():
            decided = jnp.asarray(np.stack([ctrl, command(tick + 1)]))
            begin = memory._replace(plan=jnp.asarray(np.stack([command(tick + h) for h in range(len(current[1]))])))
            worker.free.clear()
            worker.asked.put((tick + AHEAD, (params, begin, seen, want, decided)))
        return ctrl

    episode = real.episode(policy, seed=seed + number, horizon=STEPS)
    worker.close()
    wound = next(m for m in episode.memory if hasattr(m, "stripped_at"))
    force = held.clamp_force(episode.qpos[-1, 1::2], episode.time[-1] >= wound.stripped_at)
    late = np.array([done > begun + tick * CONTROL_S for tick, _, done in worker.took])
    took = 1e3 * np.array([t for _, t, _ in worker.took])
    return Timed(float(force[0] / target[0] - 1), bool(np.isfinite(wound.stripped_at[0])), took, late, 1e3 * behind)
