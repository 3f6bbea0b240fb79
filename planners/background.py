"""Planning in a thread: the newest whole plan is published, commands come from it at any rate.

    thread:   newest observation x(t) -> x(t + expected planning time), following the plan in use -> plan -> publish
    caller:   step(observation, t) -> control of the published plan at t, at once

A caller never waits and never sees half a plan: a published plan is one object, replaced as a whole.
"""

import threading
from typing import Any, NamedTuple

import numpy as np

from planners.controller import Controller


class _Newest(NamedTuple):
    observation: Any
    t: float


class Background:
    """A `Controller` whose planning runs in a thread of its own; use it as a context manager.

    Its latency is set from the time that planning takes, so the plan is made for the moment when it will be ready.
    """

    def __init__(self, controller: Controller) -> None:
        controller.holds = False
        self.controller = controller
        self.failure: BaseException | None = None
        self._newest: _Newest | None = None
        self._fresh = threading.Condition()
        self._stop = False
        self._thread = threading.Thread(target=self._work, name="planner", daemon=True)

    def __enter__(self) -> "Background":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        with self._fresh:
            self._stop = True
            self._fresh.notify()
        self._thread.join()

    def step(self, observation: Any, t: float) -> np.ndarray:
        """The control `[nu]` for now; the observation is left for the planner."""
        with self._fresh:
            self._newest = _Newest(observation, t)
            self._fresh.notify()
        return self.controller.command(t)

    def _work(self) -> None:
        while (newest := self._take()) is not None:
            try:
                self.controller.latency_s = self._expected_s()
                self.controller.step(*newest)
            except Exception as failure:
                self.failure = failure  # the plan in use goes on; the caller can look here
                return

    def _take(self) -> _Newest | None:
        with self._fresh:
            self._fresh.wait_for(lambda: self._stop or self._newest is not None)
            newest, self._newest = self._newest, None
            return None if self._stop else newest

    def _expected_s(self) -> float:
        recent = [record.took_s for record in self.controller.records[-16:]]
        return float(np.median(recent)) if recent else self.controller.latency_s
