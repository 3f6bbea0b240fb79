"""Rounds of planning in a thread of their own: waited for as long as there is time, and no longer.

    a further round begins while   q_95(seconds of the last 64 rounds)  <  seconds left

Neither XLA nor the operating system can be hurried. So the caller sleeps beside the round it began, wakes when its time
is up, and finds the late round's result on the next call. The first round of a call begins whatever it may take:
else a planner that was slow for a while would never plan again.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

SURE = 0.95


class Rounds:
    """One round at a time; a round without a limit runs in the caller's own thread."""

    def __init__(self) -> None:
        self.took_s: deque[float] = deque(maxlen=64)
        """How long recent rounds took."""
        self._pool: ThreadPoolExecutor | None = None
        self._running: Future[Any] | None = None

    @property
    def busy(self) -> bool:
        """Whether a round is still running that its caller no longer waited for."""
        return self._running is not None

    def fits(self, left_s: float) -> bool:
        """Whether a round would be expected to end in time."""
        if left_s == math.inf or not self.took_s:
            return left_s > 0
        return sorted(self.took_s)[int(SURE * (len(self.took_s) - 1))] < left_s

    def run(self, call: Callable[..., Any], *args: Any, left_s: float) -> Any:
        """What call(*args) gives; None if it has not ended after `left_s` seconds: then `awaited` has it later."""
        if left_s == math.inf:
            return self._timed(call, *args)
        self._pool = self._pool or ThreadPoolExecutor(1, "rounds")
        self._running = self._pool.submit(self._timed, call, *args)
        return self.awaited(left_s)

    def awaited(self, left_s: float) -> Any:
        """The result of the round that is running; None if there is none, or not within `left_s` seconds."""
        if self._running is None:
            return None
        wait([self._running], max(left_s, 0.0))
        if not self._running.done():
            return None
        done, self._running = self._running, None
        return done.result()

    def forget(self) -> None:
        """Wait for the round that is running, and drop what it found."""
        if self._running is not None:
            wait([self._running])
            self._running = None

    def _timed(self, call: Callable[..., Any], *args: Any) -> Any:
        begun = time.perf_counter()
        found = call(*args)
        self.took_s.append(time.perf_counter() - begun)
        return found
