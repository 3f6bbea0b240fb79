"""hydrax, asked over pipes. Runs in an environment of hydrax's own: `PYTHON -m plans.hydrax_peer push_t`.

Its own task, scene, cost and example settings; predictive sampling, one iteration a call, one model (no randomisation).
"""
# pyright: reportMissingImports=false

import sys
from functools import partial
from time import perf_counter
from typing import Any

from race.serving import serve

from plans.wishes import WISHES


class Hydrax:
    """One of hydrax's example problems."""

    def __init__(self, name: str) -> None:
        self.name, self.wish = name, WISHES[name]

    def prepare(self) -> dict[str, Any]:
        """Build, compile, plan once."""
        begun = perf_counter()
        import jax
        import mujoco
        from hydrax import ROOT
        from hydrax.algs import PredictiveSampling
        from hydrax.tasks.cart_pole import CartPole
        from hydrax.tasks.pusht import PushT
        from mujoco import mjx

        wish = self.wish
        task = PushT() if self.name == "push_t" else CartPole()
        self.planner = PredictiveSampling(
            task, num_samples=wish.samples, noise_level=wish.noise, plan_horizon=wish.steps * task.dt,
            spline_type=wish.curve, num_knots=wish.knots,
        )  # fmt: skip
        data = task.make_data().replace(qpos=jax.numpy.array(wish.start, float))
        self.data = jax.jit(partial(mjx.forward, task.model))(data)
        self.optimize = jax.jit(self.planner.optimize)
        self.params = self.planner.init_params(seed=0)
        for _ in range(3):  # the second call compiles again, for the types that the first one returns
            self._once()
        return {
            "seconds": perf_counter() - begun,
            "scene": f"{ROOT}/models/{wish.folder}/scene.xml",
            "versions": {"jax": jax.__version__, "mujoco": mujoco.__version__},
        }

    def _once(self) -> float:
        import jax

        begun = perf_counter()
        self.params, _ = jax.block_until_ready(self.optimize(self.data, self.params))
        return perf_counter() - begun

    def clock(self, repeats: int) -> dict[str, Any]:
        """Seconds of single plans."""
        return {"seconds": [self._once() for _ in range(repeats)]}

    def search(self, rounds: int) -> dict[str, Any]:
        """From nothing: seconds of each round, and the controls [H, nu] after it."""
        import jax.numpy as jnp

        self.params = self.planner.init_params(seed=1)
        seconds, ctrls = list[float](), list[Any]()
        for _ in range(rounds):
            seconds.append(self._once())
            tk = self.params.tk
            times = jnp.linspace(tk[0], tk[-1], self.planner.ctrl_steps)
            curve = self.planner.interp_func(times, tk, self.params.mean[None])[0]
            ctrls.append(jnp.clip(curve, self.planner.task.u_min, self.planner.task.u_max).tolist())
        return {"seconds": seconds, "ctrls": ctrls}


if __name__ == "__main__":
    serve(partial(Hydrax, *sys.argv[1:]))
