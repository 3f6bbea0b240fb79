"""The glass in real time: the world does not wait. Commands go out 50 times a second, from the newest plan there is.

    clock    tick n (20 ms):   give command n of the line, move the world on, leave what is seen to the planner
    thread   at tick n₀:       what is seen + the commands n₀ … n₀ + L − 1, which are promised already ──▶ plan
                               ──▶ commands from n₀ + L on; a plan that takes longer than L ticks is late: DEADLINE

A late plan is used from the tick at which it comes; until then the line of the plan before it goes on.
"""

import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.glass import tasks
from experiments.glass.driving import TICK_S, Mind, Pilot
from experiments.glass.tasks import Wish
from experiments.glass.walking import Look, Walk, looks
from experiments.tasks import wilson

PERIOD = 5
"""Ticks from plan to plan, and L."""


class Live(NamedTuple):
    """One episode in real time."""

    outcome: tasks.Outcome
    plan_s: np.ndarray
    """[P] from what was seen to the commands."""
    since_s: np.ndarray
    """[P] from the start of a plan to the start of the next."""
    late_s: np.ndarray
    """[T] by how much each command went out after its time."""


class Line:
    """The commands that are promised; replaced as one object."""

    def __init__(self, table: np.ndarray) -> None:
        self._plan = (0, table)

    def some(self, tick: int, count: int) -> np.ndarray:
        """[count, nu] from a tick on; the last command goes on for ever."""
        begin, table = self._plan
        return table[np.clip(np.arange(tick, tick + count) - begin, 0, len(table) - 1)]

    def replace(self, begin: int, table: np.ndarray) -> None:
        """From a tick on these."""
        self._plan = (begin, table)


class Thinker:
    """The thread that plans."""

    def __init__(self, mind: Mind, line: Line) -> None:
        self.mind, self.line = mind, line
        self.newest: tuple[int, Look] | None = None
        self.starts, self.took = list[float](), list[float]()
        self.failure: BaseException | None = None
        self._given, self._stop = [np.zeros((0, 2))], threading.Event()
        self._thread = threading.Thread(target=self._work, name="planner", daemon=True)

    def __enter__(self) -> "Thinker":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()

    def gave(self, ctrl: np.ndarray) -> None:
        """A command that went out."""
        self._given.append(ctrl[None])

    def _work(self) -> None:
        last = 0
        try:
            while not self._stop.is_set():
                tick, seen = self.newest or (0, None)
                if seen is None or tick < last + PERIOD:
                    time.sleep(0.0005)
                    continue
                self._once(last, tick, seen)
                last = tick
        except Exception as failure:
            self.failure = failure

    def _once(self, last: int, tick: int, seen: Look) -> None:
        begun = time.perf_counter()
        given = np.concatenate(self._given)[last:tick]
        self.mind.see(seen, given[None], self.line.some(tick, PERIOD)[None])
        self.line.replace(tick, self.mind.think(tick)[0][0])
        self.starts.append(begun)
        self.took.append(time.perf_counter() - begun)


def live(pilot: Pilot, params: Any, wish: Wish, *, seed: int) -> Live:
    """One episode; the first plan is made before the clock starts."""
    ticks = round(tasks.SECONDS[wish.task] / TICK_S)
    walk, mind = Walk(wish, ticks, seed), Mind(pilot, params, [wish], seed=seed, late=PERIOD)
    line, late = Line(mind.think(0)[0][0]), np.zeros(ticks)
    with Thinker(mind, line) as thinker:
        begin = time.perf_counter()
        for tick in range(ticks):
            time.sleep(max(begin + tick * TICK_S - time.perf_counter(), 0))
            late[tick] = time.perf_counter() - begin - tick * TICK_S
            ctrl = line.some(tick, 1)[0]
            thinker.gave(ctrl)
            walk.go(ctrl[None])
            thinker.newest = (tick + 1, looks([walk]))
    if thinker.failure is not None:
        raise RuntimeError(f"the planner's thread ended: {thinker.failure}") from thinker.failure
    return Live(tasks.judge(wish, walk.end()), np.array(thinker.took), np.diff(thinker.starts), late)


def numbers(found: Sequence[Live]) -> dict[str, Any]:
    """What came of episodes in real time."""
    took, since, late = (
        np.concatenate([getattr(one, part) for one in found]) for part in ("plan_s", "since_s", "late_s")
    )
    good, allowed = [one.outcome.good for one in found], PERIOD * TICK_S
    return {
        "n": len(found),
        "success": float(np.mean(good)),
        "success_interval": wilson(sum(good), len(good)),
        "broken": sum(one.outcome.state != "whole" for one in found),
        "plans": len(took),
        "plan_ms": {str(q): 1e3 * float(np.quantile(took, q)) for q in (0.5, 0.9, 0.99)}
        | {"max": 1e3 * float(took.max())},
        "allowed_ms": 1e3 * allowed,
        "in_time": float(np.mean(took <= allowed)),
        "plan_all_ms": 1e3 * took,
        "plans_per_s": float(1 / np.mean(since)),
        "command_late_ms": {str(q): 1e3 * float(np.quantile(late, q)) for q in (0.5, 0.99)},
    }
