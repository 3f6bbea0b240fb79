"""A task in closed loop: plan, act in MuJoCo C, look, plan again. In virtual time: the world waits for the planner.

x_t from the world; what no sensor sees (loads of bonds, solver memory) from the model's own prediction of x_t
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import planners as pl
from hybridwm.tasks.certificate import stand, witness
from hybridwm.tasks.setting import Setting
from physics import Episode, Reality


class Drive(NamedTuple):
    """What a closed loop did; T controls."""

    episode: Episode
    """At the engine's steps."""
    off: np.ndarray
    """`[T+1, C]`: how far from each check, of the setting's `checks`."""
    records: list[pl.Record]
    every: int

    @property
    def broken(self) -> dict[str, float]:
        """Bonds that broke, and when (s)."""
        return dict(self.episode.breaks)

    def met(self, setting: Setting) -> bool:
        """Whether limits and events were kept all the way and the goal is reached at the end."""
        ends = all(
            (off[-1] if c.last else off.max()) <= c.within for c, off in zip(setting.checks, self.off.T, strict=True)
        )
        held = not set(setting.problem.forbidden) & set(self.broken)
        return bool(
            ends and held and set(setting.problem.required) <= set(self.broken) and self.episode.failure is None
        )


def driver(setting: Setting, *, rounds: int = 1, seed: int = 0) -> pl.Controller:
    """A controller for `drive`; one may drive many times, and compiles once."""
    return pl.Controller(setting.problem, setting.planner, setting.params, max_rounds=rounds, seed=seed)


def drive(
    setting: Setting, controller: pl.Controller, state: Any = None, *, aim: Any = None, reality: Reality | None = None,
    steps: int | None = None, replan: int = 1, decided: Callable[[np.ndarray], bool] | None = None, seed: int = 0,
) -> Drive:  # fmt: skip
    """Run the loop for `steps` controls (by default the task's duration) from a model's state.

    replan: controls from plan to plan; between them the newest plan is followed. decided(intact `[nb]`): from then on
    nothing more can be won or lost, and the newest plan is followed to the end.
    """
    state = setting.state if state is None else state
    aim = setting.params.goal if aim is None else aim
    reality = reality or witness(setting.scene)
    steps = setting.steps if steps is None else steps
    controller.restart()
    controller.holds = replan == 1
    controller.params = setting.params._replace(goal=aim)
    begun = len(controller.records)
    policy = _policy(setting, controller, reality, state, replan, decided or (lambda intact: False))
    qpos, qvel = np.asarray(state.qpos, float), np.asarray(state.qvel, float)
    episode = reality.episode(policy, seed=seed, horizon=steps * setting.every, qpos=qpos, qvel=qvel)
    off = _off(setting, aim, state, episode)
    return Drive(episode, off, controller.records[begun:], setting.every)


def _policy(
    setting: Setting,
    controller: pl.Controller,
    reality: Reality,
    state: Any,
    replan: int,
    decided: Callable[[np.ndarray], bool],
) -> Callable[[int, Any], np.ndarray]:
    belief, ctrl = state, np.zeros(setting.problem.nu)

    def policy(step: int, seen: Any) -> np.ndarray:
        nonlocal belief, ctrl
        if step == 0:
            stand(reality, state)
        count, within = divmod(step, setting.every)
        if within == 0:
            intact, t = np.asarray(reality.reference.intact), count * setting.problem.model.dt
            here = _seen(belief, seen.qpos, seen.qvel, intact)
            ctrl = controller.command(t) if count % replan or decided(intact) else controller.step(here, t)
            belief = _predict(setting.problem.model.step, setting.params.model, here, jnp.asarray(ctrl))
        return ctrl

    return policy


def _seen(belief: Any, qpos: Any, qvel: Any, intact: Any) -> Any:
    """The belief, corrected by what the world shows."""
    dtype = belief.qpos.dtype
    return belief._replace(
        qpos=jnp.asarray(qpos, dtype), qvel=jnp.asarray(qvel, dtype), intact=jnp.asarray(intact, dtype)
    )


@partial(jax.jit, static_argnums=0)
def _predict(step: Callable[..., Any], params: Any, state: Any, ctrl: jax.Array) -> Any:
    wide = jax.tree.map(lambda leaf: leaf[..., None], state)
    return jax.tree.map(lambda leaf: leaf[..., 0], step(params, wide, ctrl[:, None])[0])


def _off(setting: Setting, aim: Any, state: Any, episode: Episode) -> np.ndarray:
    rows = slice(None, None, setting.every)
    time = jnp.asarray(episode.time[rows], state.qpos.dtype)
    many = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[..., None], (*leaf.shape, len(time))), state)
    many = _seen(many, episode.qpos[rows].T, episode.qvel[rows].T, episode.intact[rows].T)._replace(time=time)
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf)[..., None], aim)
    columns = [np.asarray(check.off(wide, many)) for check in setting.checks]
    return np.stack(columns, axis=-1) if columns else np.zeros((len(time), 0))
