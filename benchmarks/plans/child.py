"""A planner of ours in a process of its own, asked over pipes (`race/serving.py`).

    prepare case, args       build, compile, plan once: seconds
    clock repeats            seconds of single plans, from the same state with a warm start, controls on the host
    search rounds, limit_s   from nothing: seconds of each round, its cost, its controls where asked
    deadline …               a `Controller` under a budget (`deadline.py`)
    mujoco scene             mujoco.rollout over as many worlds and steps instead

A child holds one case at a time.
"""

from time import perf_counter
from typing import Any

import jax
import numpy as np
from race.rivals import mujoco_rollout
from race.serving import serve
from race.starts import begin

import physics
import planners as pl
from hybridwm import runtime
from plans.deadline import keep_deadlines
from plans.problems import CASES, SAMPLES, SIZED, Case


class Planning:
    """What the child answers."""

    def __init__(self) -> None:
        runtime.prepare()
        self.case: Case | None = None

    def mujoco(self, scene: str) -> dict[str, Any]:
        """MuJoCo C's thread pool on the same scene, start, worlds and steps."""
        loaded = physics.load_scene(scene)
        roll = mujoco_rollout(loaded, begin(loaded, SAMPLES, SIZED[scene][1]), runtime.core_count())
        self.once = lambda: _timed(roll)
        return {"seconds": self.once()}

    def prepare(self, case: str, args: list[str]) -> dict[str, Any]:
        """Everything up to the first plan."""
        begun = perf_counter()
        made = self.case = CASES[case](*args)
        planner = made.planner

        def plan(params: Any, key: Any, count: Any, state: Any, carry: Any) -> Any:
            return planner.plan(params, jax.random.fold_in(key, count), state, carry)

        self.plan = jax.jit(plan, compiler_options=made.options)
        self.key, self.count = jax.random.key(0), 0
        self.carry = pl.strong(planner.init())
        self.once = self._once
        self._plan()
        first = self._plan()  # it sees the memory as all later ones do
        return {
            "seconds": perf_counter() - begun,
            "steps": made.problem.spline.horizon,
            "samples": made.samples or int(first.samples),
            "status": pl.Status(int(first.status)).name,
        }

    def _plan(self) -> pl.Plan:
        assert self.case
        self.count += 1
        plan, self.carry = self.plan(self.case.params, self.key, np.uint32(self.count), self.case.state, self.carry)
        np.asarray(plan.ctrls)
        return jax.block_until_ready(plan)

    def _once(self) -> float:
        return _timed(self._plan)

    def clock(self, repeats: int) -> dict[str, Any]:
        """Seconds of single calls."""
        return {"seconds": [self.once() for _ in range(repeats)]}

    def search(self, rounds: int, limit_s: float = 60.0, ctrls: bool = False) -> dict[str, Any]:
        """A search of many rounds, each from the plan of the one before."""
        assert self.case
        self.carry = pl.strong(self.case.planner.init())
        seconds, costs, controls, status = list[float](), list[float](), list[Any](), pl.Status.DEADLINE
        while len(seconds) < rounds and sum(seconds) < limit_s:
            begun = perf_counter()
            plan = self._plan()
            seconds.append(perf_counter() - begun)
            costs.append(float(plan.cost))
            status = pl.Status(int(plan.status))
            if ctrls:
                controls.append(np.asarray(plan.ctrls).tolist())
        return {"seconds": seconds, "costs": costs, "status": status.name} | ({"ctrls": controls} if ctrls else {})

    def deadline(self, **options: Any) -> dict[str, Any]:
        """See `deadline.py`; on the case that was prepared."""
        assert self.case
        return keep_deadlines(self.case, **options)


def _timed(call: Any) -> float:
    begun = perf_counter()
    call()
    return perf_counter() - begun


if __name__ == "__main__":
    serve(Planning)
