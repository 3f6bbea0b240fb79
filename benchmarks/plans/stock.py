"""Stock Brax and MJX as what plans are made on: worlds in the first axis, one scan over all steps, as their users write it.

The state that costs read is made of qpos and qvel of every control's end; everything else stays inside the rollout.
Neither has bonds that break.
"""

from typing import Any

import jax
import jax.numpy as jnp
from race.rivals import stock_brax, stock_mjx

import physics
from hybridwm.world.physics_model import PlanModel, Planned, control_range
from planners import Model


def stock_model(kind: str, scene: physics.Scene, every: int) -> PlanModel:
    """A `PlanModel` on stock Brax ("brax") or MJX ("mjx")."""
    start, step, read = _brax(scene) if kind == "brax" else _mjx(scene)
    low, high = control_range(scene)
    dt = every * float(scene.model.opt.timestep)

    def one(qpos: Any, qvel: Any, ctrls: Any) -> Any:
        """One world: (qpos, qvel) after each control of ctrls [H nu]."""

        def hold(data: Any, ctrl: Any) -> Any:
            data = (
                jax.lax.fori_loop(0, every, lambda _, data: step(data, ctrl), data) if every > 1 else step(data, ctrl)
            )
            return data, read(data)

        return jax.lax.scan(hold, start(qpos, qvel), ctrls)[1]

    def rollout(params: Any, state: Planned, ctrls: Any, forced: Any = None) -> Any:
        qpos, qvel = jax.vmap(one, in_axes=(-1, -1, -1), out_axes=-1)(state.qpos, state.qvel, ctrls)
        count = len(ctrls)
        rest = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), state)
        time = state.time + dt * (1 + jnp.arange(count, dtype=state.time.dtype))[:, None]
        return rest._replace(qpos=qpos, qvel=qvel, time=time), None

    def advance(params: Any, state: Planned, ctrl: Any) -> Any:
        states, info = rollout(params, state, ctrl[None])
        return jax.tree.map(lambda leaf: leaf[0], states), info

    def init(params: Any, qpos: Any, qvel: Any, **_: Any) -> Planned:
        qpos, qvel = jnp.asarray(qpos, float), jnp.asarray(qvel, float)
        none = jnp.zeros((0, *qpos.shape[1:]))
        return Planned(qpos, qvel, none, none, none, none, jnp.zeros(qpos.shape[1:]), none, none)

    return PlanModel(Model(advance, low, high, dt, rollout=rollout), init, (), lambda state: state.intact)


def _brax(scene: physics.Scene) -> Any:
    pipeline, system = stock_brax(scene)
    return (
        lambda qpos, qvel: pipeline.init(system, qpos, qvel),
        lambda state, ctrl: pipeline.step(system, state, ctrl),
        lambda state: (state.q, state.qd),
    )


def _mjx(scene: physics.Scene) -> Any:
    mjx, model, blank = stock_mjx(scene)
    return (
        lambda qpos, qvel: blank.replace(qpos=qpos, qvel=qvel),
        lambda data, ctrl: mjx.step(model, data.replace(ctrl=ctrl)),
        lambda data: (data.qpos, data.qvel),
    )
