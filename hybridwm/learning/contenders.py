"""The models that are set against one another, on the same data and the same windows; one list for fit, eval and the studies.

physics as given      θ as the scene has it
physics identified    θ from the data, motors that follow at once: what an engine alone can do
network alone         an ensemble that foretells the next state, no engine
hybrid                the identified physics with the motors' lag, residual, trust and events
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import physics
from hybridwm.world.model import WorldParams, matched

GIVEN, IDENTIFIED, NETWORK, HYBRID = "physics as given", "physics identified", "network alone", "hybrid"


class Subject(NamedTuple):
    """A model, anything with the init and rollout of a WorldModel, and its parameters."""

    model: Any
    params: Any


def as_given(scene: physics.Scene) -> WorldParams:
    """θ as the scene has it."""
    return WorldParams(theta=jax.tree.map(jnp.asarray, physics.nominal(scene)))


def contenders(
    model: Any, params: WorldParams, identified: WorldParams | None, network: Subject | None = None
) -> dict[str, Subject]:
    """By name, each with what it is made of and no more; what the hybrid alone has says nothing in the others."""
    given = as_given(model.engine.scene)
    known = given if identified is None else WorldParams(theta=identified.theta)
    found = {name: Subject(model, matched(plain, params)) for name, plain in ((GIVEN, given), (IDENTIFIED, known))}
    if network is not None:
        found[NETWORK] = network
    return found | {HYBRID: Subject(model, params)}
