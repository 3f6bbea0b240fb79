"""Rollouts of many worlds, split over the devices of the process: W worlds on n devices are n rollouts of W/n.

XLA keeps barely more than one core busy on one CPU device, and worlds do not talk to each other: so each device runs its own
loop on its own worlds, and its Newton iterations end when *its* worlds have converged. The same line serves GPUs.

On a CPU a device takes its worlds in blocks that keep the solver's arrays in the cache, and that stop iterating by themselves: a
glass takes 2.5 times as long per world with 256 at once as with 32, a lone arm a third longer with 32 than with 128.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

from physics import checks
from physics.constraints import structure_ndim
from physics.types import Engine, Params, State

Array = jax.Array
CACHED = 2**16  # numbers: nv (nv + contacts) of each world, for the fastest blocks of the shipped scenes
LEAST, MOST = 16, 128  # worlds in a block: fewer leave vector units idle


def use_cpu_devices(count: int) -> None:
    """Ask for `count` virtual CPU devices, one per core; call it before JAX starts."""
    jax.config.update("jax_num_cpu_devices", count)


@functools.cache
def gradient_options() -> dict[str, Any]:
    """Compiler options for a program that differentiates through the engine: jax.jit(jax.grad(f), compiler_options=…).

    XLA's older CPU emitter compiles a gradient in two thirds to three quarters of the newer one's time; the programs are about as
    fast. Empty where there is no choice: jax 0.12 has the newer one only.
    """
    older = {"xla_cpu_use_fusion_emitters": False}
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x, compiler_options=older)(0.0)
    except jax.errors.JaxRuntimeError:
        return {}
    return older


def sharded_rollout(
    engine: Engine, *, devices: Any = None, output: Callable | None = None, block: int | None = None
) -> Callable[..., tuple[State, Any]]:
    """(params, state[..., W], ctrls[H, nu, W]) -> (last state, outputs[H, ..., W]), jitted, W split over the devices.

    θ with worlds in its last axis is split too. W must be a multiple of the number of devices. `output(state, info)` is kept
    each step (the state alone if not given); its leaves must have the worlds last. `block`: worlds a device steps at a time
    (`worlds_at_once` on a CPU, else all).
    """
    devices = np.array(jax.devices() if devices is None else devices)
    mesh = Mesh(devices, ("worlds",), axis_types=(AxisType.Auto,))
    if block is None and devices.flat[0].platform == "cpu":
        block = worlds_at_once(engine)
    run = partial(_blocked, partial(engine.rollout, output=output), block)

    @jax.jit
    def split(params: Any, state: State, ctrls: Array) -> tuple[State, Any]:
        given = (engine.prepare(params), state, ctrls)
        shapes = jax.eval_shape(run, *given)
        specs = (_specs(given[0]), *jax.tree.map(_last, given[1:]))
        return jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=jax.tree.map(_last, shapes), check_vma=False)(
            *given
        )

    def rollout(params: Any, state: State, ctrls: Any) -> tuple[State, Any]:
        worlds = np.shape(ctrls)[-1]
        if worlds % devices.size:
            raise ValueError(f"{worlds} worlds on {devices.size} devices: give a multiple of {devices.size}")
        if isinstance(params, Params):
            checks.theta(engine.scene, params)
        checks.inputs(engine.scene, state, ctrls, None, None, horizon=np.shape(ctrls)[:1])
        return split(params, state, jnp.asarray(ctrls))

    return rollout


def worlds_at_once(engine: Engine) -> int:
    """The worlds whose matrices and contact rows stay in a core's cache, a power of two."""
    dofs = engine.scene.model.nv
    fitting = CACHED / max(1, dofs * (dofs + len(engine.contact_bodies)))
    return int(np.clip(2 ** np.floor(np.log2(fitting)), LEAST, MOST))


def _even(worlds: int, block: int | None) -> int:
    """The largest block that divides the worlds, above half of the one that is asked for; else all of them."""
    if block is None:
        return worlds
    return next((n for n in range(min(block, worlds), block // 2, -1) if worlds % n == 0), worlds)


def _blocked(run: Callable, block: int | None, constants: Any, state: State, ctrls: Array) -> tuple[State, Any]:
    """run over blocks of worlds, one after the other."""
    worlds = ctrls.shape[-1]
    block = _even(worlds, block)
    if block == worlds:
        return run(constants, state, ctrls)
    leaves, tree = jax.tree.flatten((constants, state, ctrls))
    own = jax.tree.leaves(structure_ndim()) + [0] * (len(leaves) - len(jax.tree.leaves(constants)))
    varies = [jnp.ndim(x) > n for x, n in zip(leaves, own, strict=True)]
    cut = lambda x: jnp.moveaxis(x.reshape(*x.shape[:-1], worlds // block, block), -2, 0)  # noqa: E731
    join = lambda x: jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], worlds)  # noqa: E731

    def one(parts: list[Array]) -> Any:
        parts = list(parts)
        return run(*jax.tree.unflatten(tree, [parts.pop(0) if v else x for x, v in zip(leaves, varies, strict=True)]))

    return jax.tree.map(join, jax.lax.map(one, [cut(x) for x, v in zip(leaves, varies, strict=True) if v]))


def _last(x: Any) -> PartitionSpec:
    return PartitionSpec(*([None] * (x.ndim - 1)), "worlds")


def _specs(constants: Any) -> Any:
    """Constants are split where they have worlds: one axis more than their structure."""
    return jax.tree.map(lambda x, n: _last(x) if jnp.ndim(x) > n else PartitionSpec(), constants, structure_ndim())
