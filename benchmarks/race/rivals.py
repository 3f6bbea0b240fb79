"""The competitors, each as one function of the initial velocity and the controls.

    roll(qvel, ctrl, *rest) -> qpos after each step

All of JAX's split their worlds over the devices of the process by the same `shard_map`. Stock Brax and MJX keep the
worlds in the first axis, as their `vmap` wants it, ours in the last; each closes over its model, ours takes θ as an
argument.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import mujoco
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, PartitionSpec

import physics
from physics.brax_import import quietly
from race.starts import Start, model_of

BRAX_ITERATIONS = 4  # of its projected gradient: what Brax's own environments use
MJX_ITERATIONS = 4  # of Newton and of its line search: fast, and not converged
MJX_EXACT = 10  # more changes no digit of the error and costs up to four times as much


class Rival(NamedTuple):
    """What there is to trace, and the arguments to call it with."""

    roll: Callable[..., Any]
    args: tuple[Any, ...]
    worlds_first: bool


def hybridwm(scene: physics.Scene, start: Start, *, checkpoint: bool = False) -> Rival:
    """Our engine; its derivatives compute their intermediates again by themselves."""
    engine = physics.brax_engine(scene)
    params = jax.tree.map(np.float32, physics.nominal(scene))
    state = engine.init(params, start.qpos, start.qvel)
    sharded = physics.sharded_rollout(engine, output=lambda state, info: state.qpos)

    def roll(qvel: Any, ctrl: Any, params: Any, state: physics.State) -> Any:
        return sharded(params, state._replace(qvel=qvel), ctrl)[1]

    return Rival(roll, (start.qvel, start.ctrl, params, state), False)


def stock_brax(scene: physics.Scene) -> tuple[Any, Any]:
    """(Brax's generalized pipeline, its system)."""
    if scene.model.neq:
        raise ValueError("stock Brax ignores welds and connects: the bodies would fall apart")
    with quietly():
        from brax.generalized import pipeline
        from brax.io import mjcf

        model = copy.copy(model_of(scene))  # load_model writes into it
        model.opt.iterations = BRAX_ITERATIONS
        return pipeline, mjcf.load_model(model)


def stock_mjx(scene: physics.Scene, iterations: int = MJX_ITERATIONS) -> tuple[Any, Any, Any]:
    """(MJX, its model, its data before a start is set)."""
    with quietly():
        from mujoco import mjx
    source = model_of(scene)
    source.opt.iterations = source.opt.ls_iterations = iterations
    source.opt.tolerance = 1e-8  # MuJoCo's default; float32 does not reach the scene's
    model: Any = mjx.put_model(source)
    return mjx, model, mjx.make_data(model)


def brax(scene: physics.Scene, start: Start, *, checkpoint: bool = False) -> Rival:
    """Brax's generalized pipeline as it is."""
    pipeline, system = stock_brax(scene)
    qpos, qvel, ctrl = _worlds_first(start)
    state = jax.jit(jax.vmap(partial(pipeline.init, system)))(qpos, qvel)

    def step(state: Any, ctrl: Any) -> Any:
        state = pipeline.step(system, state, ctrl)
        return state, state.q

    def one(qvel: Any, ctrl: Any, state: Any) -> Any:
        return lax.scan(_kept(step, checkpoint), state.replace(qd=qvel), ctrl)[1]

    return Rival(_split(jax.vmap(one)), (qvel, ctrl, state), True)


def mjx(scene: physics.Scene, start: Start, *, checkpoint: bool = False, iterations: int = MJX_ITERATIONS) -> Rival:
    """MJX as it is."""
    library, model, blank = stock_mjx(scene, iterations)
    qpos, qvel, ctrl = _worlds_first(start)

    def step(data: Any, ctrl: Any) -> Any:
        data = library.step(model, data.replace(ctrl=ctrl))
        return data, data.qpos

    def one(qvel: Any, ctrl: Any, qpos: Any) -> Any:
        return lax.scan(_kept(step, checkpoint), blank.replace(qpos=qpos, qvel=qvel), ctrl)[1]

    return Rival(_split(jax.vmap(one)), (qvel, ctrl, qpos), True)


JAX_RIVALS: dict[str, Callable[..., Rival]] = {
    "hybridwm": hybridwm,
    "brax": brax,
    "mjx": mjx,
    "mjx_exact": partial(mjx, iterations=MJX_EXACT),
}


def mujoco_rollout(scene: physics.Scene, start: Start, threads: int) -> Callable[[], np.ndarray]:
    """MuJoCo C's own thread pool: () -> qpos after the last step [nq W]."""
    from mujoco.rollout import Rollout

    model = model_of(scene)
    pool, datas = Rollout(nthread=threads), [mujoco.MjData(model) for _ in range(threads)]
    qpos, qvel, ctrl = (np.asarray(x, np.float64) for x in _worlds_first(start))
    rest = np.zeros((len(qpos), model.na))
    first = np.concatenate([np.zeros((len(qpos), 1)), qpos, qvel, rest], 1)
    return lambda: pool.rollout(model, datas, first, ctrl, nstep=ctrl.shape[1])[0][:, -1, 1 : 1 + model.nq].T


def _worlds_first(start: Start) -> tuple[np.ndarray, ...]:
    return tuple(np.ascontiguousarray(np.moveaxis(x, -1, 0)) for x in start)


def _kept(step: Callable[..., Any], checkpoint: bool) -> Callable[..., Any]:
    return jax.checkpoint(step) if checkpoint else step


def _split(fun: Callable[..., Any]) -> Callable[..., Any]:
    mesh = Mesh(np.array(jax.devices()), ("worlds",), axis_types=(AxisType.Auto,))
    worlds = PartitionSpec("worlds")
    return jax.shard_map(fun, mesh=mesh, in_specs=worlds, out_specs=worlds, check_vma=False)
