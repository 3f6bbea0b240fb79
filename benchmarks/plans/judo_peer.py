"""judo, asked over pipes. Runs in an environment of judo's own: `PYTHON -m plans.judo_peer push_t SCENE.xml`.

Its controller and predictive sampling over MuJoCo C, on the scene, cost and settings of the hydrax example.
"""
# pyright: reportMissingImports=false

import sys
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from race.serving import serve

from plans.wishes import WISHES, total


class Judo:
    """The same problem, as a task of judo's."""

    def __init__(self, name: str, scene: str) -> None:
        self.name, self.scene, self.wish = name, scene, WISHES[name]

    def prepare(self) -> dict[str, Any]:
        """Build, plan once."""
        begun = perf_counter()
        import judo.tasks.base as base
        import mujoco
        from judo.controller.controller import Controller, ControllerConfig
        from judo.optimizers.ps import PredictiveSampling, PredictiveSamplingConfig

        base.download_and_extract_meshes = lambda **_: None  # its tasks fetch meshes that this scene does not have
        name, wish = self.name, self.wish

        @dataclass
        class Nothing(base.TaskConfig):
            pass

        class Wished(base.Task[Nothing]):
            config_t = Nothing

            def reward(self, states: Any, sensors: Any, controls: Any, system_metadata: Any = None) -> np.ndarray:
                path, nq = np.moveaxis(states, -1, 0), len(wish.start)
                return -total(name, np, path[:nq], path[nq:], np.moveaxis(controls, -1, 0))

            def reset(self) -> None:
                self.data.qpos[:] = wish.start
                self.data.qvel[:] = 0
                mujoco.mj_forward(self.model, self.data)

        task = Wished(self.scene)
        config = PredictiveSamplingConfig(num_rollouts=wish.samples, num_nodes=wish.knots, sigma=wish.noise)
        settings = ControllerConfig(horizon=wish.steps * wish.dt, spline_order=wish.curve, max_num_traces=0)
        self.controller = Controller(settings, task, PredictiveSampling(config, task.nu))
        self.controller.current_state = np.concatenate([task.data.qpos, task.data.qvel])
        self._once()
        return {"seconds": perf_counter() - begun, "versions": {"mujoco": mujoco.__version__}}

    def _once(self) -> float:
        begun = perf_counter()
        self.controller.update_action()
        return perf_counter() - begun

    def clock(self, repeats: int) -> dict[str, Any]:
        """Seconds of single plans."""
        return {"seconds": [self._once() for _ in range(repeats)]}

    def search(self, rounds: int) -> dict[str, Any]:
        """From nothing: seconds of each round, and the controls [H, nu] after it."""
        np.random.seed(1)  # noqa: NPY002  judo draws from numpy's global generator
        self.controller.reset()
        seconds, ctrls = list[float](), list[Any]()
        for _ in range(rounds):
            seconds.append(self._once())
            ctrls.append(self.controller.spline(self.controller.rollout_times).tolist())
        return {"seconds": seconds, "ctrls": ctrls}


if __name__ == "__main__":
    serve(partial(Judo, *sys.argv[1:]))
