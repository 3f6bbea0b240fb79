"""The models that studies set against one another, on the same data and the same windows.

given        the physics as the scene has it
identified   the physics with θ from the data
network      an ensemble that predicts the next state alone
hybrid       the identified physics with residual, trust and events
untrusted    the same, believed everywhere
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import physics
from experiments.realities import heavier
from hybridwm.learning.fitting import Fitted
from hybridwm.learning.training import Batch
from hybridwm.logs import tangent
from hybridwm.world.model import WorldParams

Array = jax.Array


class Contender(NamedTuple):
    """One model with its parameters."""

    name: str
    model: Any  # WorldModel, or anything with its init and rollout
    params: Any
    heavier: Callable[[Any, float], Any]  # (params, factor on all masses) -> params


def lengths(scene: physics.Scene, length: float) -> np.ndarray:
    """[nv] what turns a difference in pose into metres: 1 for lengths, `length` for angles."""
    model, out = scene.model, np.ones(scene.model.nv)
    for j in range(model.njnt):
        kind, dof = int(model.jnt_type[j]), int(model.jnt_dofadr[j])
        out[{0: slice(dof + 3, dof + 6), 1: slice(dof, dof + 3), 3: slice(dof, dof + 1)}.get(kind, slice(0, 0))] = (
            length
        )
    return out


def physical(fitted: Fitted, params: Any, name: str) -> Contender:
    """A contender on the engine: told masses change θ."""
    return Contender(name, fitted.model, params, told_mass)


def told_mass(params: WorldParams, factor: float) -> WorldParams:
    """θ with all masses and inertias times a factor."""
    return params._replace(theta=heavier(params.theta, factor))


def foretell(contender: Contender) -> Callable[[Any, Batch], tuple[Array, Array, Array]]:
    """Compiled (params, windows) -> (qpos, intact) after each row and the probability of each event by then."""

    @jax.jit
    def run(params: Any, given: Batch) -> tuple[Array, Array, Array]:
        every = len(given.ctrl) // (len(given.qpos) - 1)
        state = contender.model.init(params, given.qpos[0], given.qvel[0], intact=given.intact, past=given.past)
        read = lambda state, info: (state.qpos, state.intact, info.event_probability)  # noqa: E731
        qpos, intact, chance = contender.model.rollout(params, state, given.ctrl, output=read)[1]
        by_then = 1 - jnp.exp(jnp.cumsum(jnp.log1p(-jnp.minimum(chance, 0.999999)), 0))
        return qpos[every - 1 :: every], intact[every - 1 :: every], by_then[every - 1 :: every]

    return run


def errors(scene: physics.Scene, length: float, qpos: Any, given: Batch) -> np.ndarray:
    """Root mean square over time of the distance from what happened, in metres: [W]. What is not finite is infinite."""
    scale, found = lengths(scene, length)[:, None], np.asarray(qpos, float)
    apart = np.stack(
        [tangent.difference(scene.model, a, b) for a, b in zip(np.asarray(given.qpos[1:], float), found, strict=True)]
    )
    error = np.sqrt(np.square(apart * scale).sum(1).mean(0))
    return np.where(np.isfinite(error), error, np.inf)
