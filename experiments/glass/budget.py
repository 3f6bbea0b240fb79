"""Where the error of a carry comes from: the same drive with one part at a time made perfect, or made worse as real time does.

    engine      the world is the model's own: its θ, its time step, no patches          what the engine and the residual do not know
    θ           the true masses, friction and lag are told                               what identification leaves
    planner     four times the search for each plan
    delay       plans come 100 ms late, as in real time, for 20 ms
    estimator   none: poses and velocities are read as they are

And of predictions along the closed loop, what share of the squared error each part takes away (evaluation.explained).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import physics
from experiments.glass.comparing import Seen
from experiments.glass.reality import EFFECTS, scene, truth
from experiments.glass.realtime import PERIOD
from hybridwm.judging import evaluation
from hybridwm.world.ground import Ground, factor
from hybridwm.world.model import WorldParams
from physics import Effect, LoadBreak, MotorLag, Params, Reality

PARTS = {
    "hybrid": "full hybrid",
    "engine": "in a world that is as the model is",
    "theta": "with the true masses, friction and lag",
    "planner": "with four times the search",
    "delay": "with plans 100 ms late instead of 20",
}
LAG_S = 0.04


def knowing(params: WorldParams) -> WorldParams:
    """The model, told the true θ and lag."""
    theta = jax.tree.map(jnp.asarray, truth(physics.nominal(scene())))
    return params._replace(theta=theta, lag_s=jnp.full_like(jnp.asarray(params.lag_s), LAG_S))


def own_world(params: WorldParams) -> Callable[[], Reality]:
    """Makes worlds of the model's own θ, lag and table, in steps of its own length; the neck still breaks by its hidden rule."""
    rule = [effect for effect in EFFECTS if isinstance(effect, LoadBreak)]
    theta: Params = jax.tree.map(np.asarray, params.theta)
    lag = MotorLag(time_constant=float(np.mean(np.asarray(params.lag_s))), settled=True)
    table = [] if params.ground is None else [Charted(ground=jax.tree.map(np.asarray, params.ground))]
    return lambda: Reality(scene(), (lag, *table, *rule), params=theta, substeps=1)


@dataclass(frozen=True, kw_only=True)
class Charted(Effect):
    """The table's friction is as the model's chart says."""

    ground: Ground

    def grip(self, model: Any, data: Any) -> np.ndarray:
        """See `Effect.grip`."""
        mine = (data.contact.geom.reshape(-1, 2) == model.geom("table").id).any(1)
        return np.where(mine, factor(self.ground, data.contact.pos.reshape(-1, 3, 1), xp=np)[:, 0], 1.0)


def parts(*, quick: bool) -> list[str]:
    """What is varied; a quick run leaves out what is another program (a later plan) and what takes long (more search)."""
    return [part for part in PARTS if not (quick and part in ("delay", "planner"))]


def varied(part: str, params: WorldParams) -> tuple[WorldParams, dict[str, Any]]:
    """Parameters and options of `drive` with one part as `PARTS` says."""
    how: dict[str, Any] = {}
    if part == "engine":
        how["make"] = own_world(params)
    if part == "planner":
        how["rounds"] = 4
    if part == "delay":
        how["late"] = PERIOD
    return knowing(params) if part == "theta" else params, how


def shares(seen: Seen) -> dict[str, float]:
    """Of the squared error of predictions on windows in which nothing breaks."""
    words = {"given": "physics as given", "identified": "identification", "hybrid": "chart and hazard"}
    held = ~seen.breaking
    return evaluation.explained({text: seen.errors[name]["position (m)"][-1, held] for name, text in words.items()})
