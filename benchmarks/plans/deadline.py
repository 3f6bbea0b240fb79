"""A `Controller` asked many times: how long it took each time, and for how much of that the machine did something else.

took     wall time from observation to control
waited   for how long nothing of ours ran, at least: took − CPU time of all our threads together, or the time that the
         calling thread was ready and had no core (Linux), whichever is more; the planner itself never sleeps
compiled what XLA was asked to compile after `warmup()`
"""

from pathlib import Path
from time import process_time
from typing import Any

import jax
import numpy as np

import planners as pl
from plans.problems import Case


def keep_deadlines(case: Case, *, calls: int, budget_s: float, max_rounds: int) -> dict[str, Any]:
    """`calls` steps from states near the case's own, one control period after another."""
    controller = pl.Controller(case.problem, case.planner, case.params, budget_s=budget_s, max_rounds=max_rounds)
    rng, dt = np.random.default_rng(0), case.problem.model.dt
    seen = [_nearby(case.state, rng) for _ in range(64)]
    controller.warmup(seen[0], rounds=20)
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
    took, waited, rounds = np.zeros(calls), np.zeros(calls), np.zeros(calls, int)
    for index in range(calls):
        queued, worked = _queued_s(), process_time()
        controller.step(seen[index % len(seen)], index * dt)
        worked, queued = process_time() - worked, _queued_s() - queued
        took[index], rounds[index] = controller.records[-1].took_s, controller.records[-1].rounds
        waited[index] = np.clip(max(took[index] - worked, queued), 0, took[index])
        controller.records.clear()
    jax.monitoring.clear_event_listeners()
    own = took - waited
    return {
        "calls": calls,
        "budget_ms": 1e3 * budget_s,
        "took_ms": _quantiles(took),
        "without_waiting_ms": _quantiles(own),
        "waited_ms": _quantiles(waited),
        "late": int(np.sum(took > budget_s)),
        "late_by_waiting": int(np.sum((took > budget_s) & (own <= budget_s))),
        "over_twice": int(np.sum(took > 2 * budget_s)),
        "over_twice_by_waiting": int(np.sum((took > 2 * budget_s) & (own <= 2 * budget_s))),
        "rounds": {str(count): int(np.sum(rounds == count)) for count in np.unique(rounds)},
        "compiled": sum("compile" in event for event in compiled),
    }


def _nearby(state: Any, rng: np.random.Generator) -> Any:
    """The state with other speeds."""
    return state._replace(qvel=state.qvel + np.float32(0.05) * rng.standard_normal(state.qvel.shape).astype(np.float32))


def _quantiles(seconds: np.ndarray) -> dict[str, float]:
    names = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    return {name: 1e3 * float(np.quantile(seconds, share)) for name, share in names.items()}


def _queued_s() -> float:
    """Seconds that this thread has waited for a core so far; 0 where that cannot be known."""
    path = Path("/proc/self/schedstat")
    return int(path.read_text().split()[1]) / 1e9 if path.exists() else 0.0
