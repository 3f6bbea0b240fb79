"""The five models of the glass, all from the same episodes.

    given        physics as the scene has it, strengths as its data sheet says      identified   θ and lag from the logs
    blind        the full hybrid, whose bonds never break                           hybrid       θ, lag, chart of the table, hazard
    network      an ensemble that predicts the next state, without an engine

The hybrid's residual, if one was asked for, stands beside its chart. Those with an engine are one compiled program: they differ
in parameters alone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import physics
from experiments.glass import fitting
from hybridwm.learning.checkpoint import load_saved, save_model
from hybridwm.learning.rivals import RivalOptions, fit_rival
from hybridwm.logs.recordings import Dataset
from hybridwm.world import events
from hybridwm.world.events import EventParams
from hybridwm.world.model import WorldModel, WorldParams
from hybridwm.world.physics_model import SURE

EVERY = 2
"""Engine steps to a control: 50 controls a second."""
NEVER = 1e6
ENGINE = ("given", "identified", "blind", "hybrid")


class Models(NamedTuple):
    """What was fitted."""

    world: WorldModel
    params: dict[str, WorldParams]
    """Of each model with an engine."""
    network: Callable[[], Any]
    """Fits the network alone."""


def fitted(
    dataset: Dataset, folder: Path, seed: int, *, quick: bool, residual: bool, watch: Callable[..., None]
) -> Models:
    """Fit all of them; what is in `folder` already is read from there. The network waits until it is asked for."""
    how = fitting.options(seed, quick=quick, residual=residual)
    if not (folder / "hybrid").exists():
        save_model(folder / "hybrid", fitting.fit(dataset, how, watch), how)
    saved = load_saved(folder / "hybrid", dataset.scene)
    assert saved.identified is not None
    rival = RivalOptions(strides=(EVERY * 0.01,), place=True, updates=1500 if quick else 6000, seed=seed)

    def network() -> Any:
        watch("network", None)
        return fit_rival(dataset, rival)

    return Models(saved.model, variants(saved.model, saved.params, saved.identified), network)


def variants(world: WorldModel, params: WorldParams, known: WorldParams) -> dict[str, WorldParams]:
    """Parameters of one structure: without a residual its trust is nowhere, without motors' lag it is next to none, without a
    chart the ground is flat. `known`: θ and lag alone."""
    nominal = jax.tree.map(jnp.asarray, physics.nominal(world.engine.scene))
    sheet = jax.tree.map(jnp.asarray, sheet_events(world, params.events))
    quiet = params._replace(
        theta=known.theta, lag_s=known.lag_s, trust=None if params.trust is None else _nowhere(params.trust),
        ground=None if params.ground is None else params.ground._replace(level=jnp.zeros_like(params.ground.level)),
        events=sheet,
    )  # fmt: skip
    lag = jnp.full_like(params.lag_s, 1e-4) if params.lag_s is not None else None
    strong = params.theta._replace(bond_strength=jnp.full_like(params.theta.bond_strength, NEVER))
    return {
        "given": quiet._replace(theta=nominal, lag_s=lag),
        "identified": quiet,
        "blind": params._replace(theta=strong, events=sheet),
        "hybrid": params._replace(events=sheet if params.events is None else params.events),
    }


def sheet_events(world: WorldModel, hazard: EventParams | None) -> EventParams:
    """Bonds that break at the strength of the scene; in the structure of a learned hazard, where there is one."""
    nominal = events.nominal_bonds(world.spec)
    if hazard is None or hazard.bonds is None:
        return EventParams(nominal, ())
    weights: Any = jax.tree.map(jnp.zeros_like, hazard.bonds.weights)
    first = jnp.full_like(weights["mixture"][...], -30.0).at[..., 0].set(30.0)
    weights["mixture"] = weights["mixture"].replace(first)
    weights["shift"] = weights["shift"].replace(jnp.zeros_like(weights["shift"][...]).at[..., 1:].set(50.0))
    return EventParams(nominal._replace(reference=hazard.bonds.reference, life=np.full(1, 40.0), weights=weights), ())


def _nowhere(trust: Any) -> Any:
    """A trust of zero for everything."""
    return trust._replace(reach=jnp.full_like(trust.reach, 1e-12))


def ready(world: WorldModel, params: WorldParams) -> WorldParams:
    """The constants that follow from θ, worked out once."""
    return params._replace(theta=world.engine.prepare(params.theta))


def luck() -> float:
    """The hazard at which a planned bond breaks: as good as sure."""
    return float(-np.log(1 - SURE))
