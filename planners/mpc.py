"""The loop around a controller: over a `Plant` (`run`), or over the model itself as one pure scan (`simulate`).

Times are in seconds, on the caller's clock. Legend: T steps of the loop, nu controls.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from planners.controller import Controller, Record
from planners.prediction import one_step
from planners.problem import Planner, PlanParams, Problem, strong


class Plant(NamedTuple):
    """A machine, or a simulation of one, for which we run the loop."""

    reset: Callable[[], Any]
    apply: Callable[[np.ndarray], Any]
    """apply(ctrl `[nu]`) starts using a control."""
    observe: Callable[[], Any]
    """observe() -> observation, by default the state itself."""


def simulated_plant(problem: Problem, params: PlanParams, state: Any) -> Plant:
    """A plant that is the model itself, started at `state`."""
    step = jax.jit(lambda params, state, ctrl: one_step(problem, params, state, ctrl))
    start, params = strong(state), strong(params)
    now = [start]

    def reset() -> None:
        now[0] = start

    def apply(ctrl: np.ndarray) -> None:
        now[0] = step(params, now[0], jnp.asarray(ctrl))

    return Plant(reset, apply, lambda: now[0])


def run(
    plant: Plant,
    controller: Controller,
    *,
    steps: int,
    period_s: float | None = None,
    realtime: bool = False,
    progress: bool = False,
    log: str | Path | None = None,
) -> list[Record]:
    """The loop over a plant for `steps` periods (by default the model's dt); one JSON line per plan goes to `log`.

    With `realtime`, each period lasts `period_s` on the wall clock (or as long as the plan takes, if longer).
    """
    period_s = controller.problem.model.dt if period_s is None else period_s
    plant.reset()
    begin, first = time.perf_counter(), len(controller.records)
    for index in _progress(steps, progress):
        t = time.perf_counter() - begin if realtime else index * period_s
        plant.apply(controller.step(plant.observe(), t))
        if realtime:
            time.sleep(max(begin + (index + 1) * period_s - time.perf_counter(), 0))
    records = controller.records[first:]
    if log is not None:
        Path(log).write_text("".join(json.dumps(record._asdict()) + "\n" for record in records), encoding="utf-8")
    return records


def _progress(steps: int, shown: bool) -> Any:
    if not shown:
        return range(steps)
    from rich.progress import track

    return track(range(steps), description="planning")


def simulate(
    problem: Problem, planner: Planner, params: PlanParams, key: jax.Array, state: Any, steps: int
) -> tuple[Any, jax.Array, jax.Array]:
    """Closed loop on the model itself as one pure scan: (states `[T, ...]`, ctrls `[T, nu]`, statuses `[T]`)."""

    def advance(loop: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], tuple[Any, jax.Array, jax.Array]]:
        state, carry = loop
        plan, carry = planner.plan(params, key, state, carry)
        ctrl = plan.ctrls[0]
        state = one_step(problem, params, state, ctrl)
        return (state, planner.advance(carry, ctrl, 1)), (state, ctrl, plan.status)

    return jax.lax.scan(advance, (state, planner.init()), jax.random.split(key, steps))[1]
