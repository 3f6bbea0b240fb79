"""Rollouts of many worlds, split over the devices of the process: W worlds on n devices are n rollouts of W/n.

XLA keeps barely more than one core busy on one CPU device, and worlds do not talk to each other: so each device runs its own
loop on its own worlds, and its Newton iterations end when *its* worlds have converged. The same line serves GPUs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

from physics.constraints import structure_ndim
from physics.types import Engine, State

Array = jax.Array


def use_cpu_devices(count: int) -> None:
    """Ask for `count` virtual CPU devices, one per core; call it before JAX starts."""
    jax.config.update("jax_num_cpu_devices", count)


def sharded_rollout(
    engine: Engine, *, devices: Any = None, output: Callable | None = None
) -> Callable[..., tuple[State, Any]]:
    """(params, state[..., W], ctrls[H, nu, W]) -> (last state, outputs[H, ..., W]), jitted, W split over the devices.

    θ with worlds in its last axis is split too. W must be a multiple of the number of devices. `output(state, info)` is kept
    each step (the state alone if not given); its leaves must have the worlds last.
    """
    devices = np.array(jax.devices() if devices is None else devices)
    mesh = Mesh(devices, ("worlds",), axis_types=(AxisType.Auto,))
    run = partial(engine.rollout, output=output)

    @jax.jit
    def rollout(params: Any, state: State, ctrls: Array) -> tuple[State, Any]:
        worlds = ctrls.shape[-1]
        if worlds % devices.size:
            raise ValueError(f"{worlds} worlds on {devices.size} devices: give a multiple of {devices.size}")
        given = (engine.prepare(params), state, jnp.asarray(ctrls))
        shapes = jax.eval_shape(run, *given)
        specs = (_specs(given[0]), *jax.tree.map(_last, given[1:]))
        return jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=jax.tree.map(_last, shapes), check_vma=False)(
            *given
        )

    return rollout


def _last(x: Any) -> PartitionSpec:
    return PartitionSpec(*([None] * (x.ndim - 1)), "worlds")


def _specs(constants: Any) -> Any:
    """Constants are split where they have worlds: one axis more than their structure."""
    return jax.tree.map(lambda x, n: _last(x) if jnp.ndim(x) > n else PartitionSpec(), constants, structure_ndim())
