"""The five models of the glass, all from the same episodes.

    given        physics as the scene has it, strengths as its data sheet says          identified   θ from the logs
    blind        the full hybrid, whose bonds never break                               hybrid       θ, lag, residual, trust, hazard
    network      an ensemble that predicts the next state, without an engine

Those with an engine are one compiled program: they differ in parameters alone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import physics
from hybridwm.learning.checkpoint import load_model, save_model
from hybridwm.learning.fitting import FitOptions, fit
from hybridwm.learning.rivals import RivalOptions, fit_rival
from hybridwm.learning.survival import learn_events
from hybridwm.learning.training import Stage
from hybridwm.learning.unknowns import Unknown
from hybridwm.logs.recordings import Dataset
from hybridwm.world import events
from hybridwm.world.model import ModelOptions, WorldModel, WorldParams
from hybridwm.world.physics_model import SURE

EVERY = 2
"""Engine steps to a control: 50 controls a second."""
MEMORY_S = 0.2
NEVER = 1e6
ENGINE = ("given", "identified", "blind", "hybrid")


class Models(NamedTuple):
    """What was fitted."""

    world: WorldModel
    params: dict[str, WorldParams]
    """Of each model with an engine."""
    network: Any
    network_params: Any
    report: dict[str, Any]


def unknowns() -> tuple[Unknown, ...]:
    """What the logs are asked about: masses, where the body's centre of mass is, friction, damping of the fork."""
    return (
        Unknown(leaf="body_mass", names=("body",), prior_std=0.5),
        Unknown(leaf="body_mass", names=("neck",), prior_std=0.2),
        Unknown(leaf="body_mass", names=("fork",), prior_std=0.2),
        Unknown(leaf="body_ipos", names=("body",), component=2, scale="linear", prior_std=0.01, label="height of the centre of mass"),
        Unknown(leaf="body_ipos", names=("body",), component=0, scale="linear", prior_std=0.01, label="centre of mass to the side"),
        Unknown(leaf="geom_friction", names=("table", "left", "right", "body", "low", "high", "neck", "rear", "front"), prior_std=0.5,
                label="friction"),
    )  # fmt: skip


def options(seed: int, *, quick: bool) -> FitOptions:
    """How the hybrid is fitted."""
    updates = (1500, 60) if quick else (6000, 200)
    stages = (
        Stage(horizon=0, updates=updates[0], batch=256, look=500),
        Stage(horizon=8, updates=updates[1], batch=32, look=30, learning_rate=1e-3),
    )
    model = ModelOptions(hidden=(32, 32), members=4, place=True)
    return FitOptions(
        model=model, stages=stages, lag=True, memory_s=MEMORY_S, identify_s=0.15, validate_s=0.5, seed=seed
    )


def fitted(dataset: Dataset, folder: Path, seed: int, *, quick: bool, watch: Callable[..., None]) -> Models:
    """Fit all of them; what is in `folder` already is read from there."""
    how = options(seed, quick=quick)
    scene = dataset.scene
    if not (folder / "hybrid").exists():
        found = fit(dataset, how, unknowns=unknowns(), watch=watch)
        watch("events", None)
        training, validation = _split(dataset, how)
        params = learn_events(
            found.model, found.params, training, validation, seed=seed, past=round(MEMORY_S / dataset.dt)
        )
        save_model(folder / "hybrid", found._replace(params=params), how)
    world, params = load_model(folder / "hybrid", scene)
    watch("network", None)
    dt = float(scene.model.opt.timestep)
    rival = fit_rival(
        dataset, RivalOptions(strides=(EVERY * dt,), place=True, updates=1500 if quick else 6000, seed=seed)
    )
    return Models(world, variants(world, params), rival.model, rival.params, {"network_error": rival.error})


def _split(dataset: Dataset, how: FitOptions) -> tuple[Dataset, Dataset]:
    from hybridwm.learning.fitting import prepared

    return prepared(dataset, how)


def variants(world: WorldModel, params: WorldParams) -> dict[str, WorldParams]:
    """Parameters of one structure: without a residual its trust is nowhere, without motors' lag it is next to none."""
    nominal = jax.tree.map(jnp.asarray, physics.nominal(world.engine.scene))
    sheet = jax.tree.map(jnp.asarray, sheet_events(world))
    quiet = params._replace(trust=None if params.trust is None else _nowhere(params.trust), events=sheet)
    lag = jnp.full_like(params.lag_s, 1e-4) if params.lag_s is not None else None
    strong = params.theta._replace(bond_strength=jnp.full_like(params.theta.bond_strength, NEVER))
    return {
        "given": quiet._replace(theta=nominal, lag_s=lag),
        "identified": quiet,
        "blind": params._replace(theta=strong, events=sheet),
        "hybrid": params._replace(events=sheet if params.events is None else params.events),
    }


def sheet_events(world: WorldModel) -> events.EventParams:
    """Bonds that break at the strength of the scene."""
    return events.EventParams(events.nominal_bonds(world.spec), ())


def _nowhere(trust: Any) -> Any:
    """A trust of zero for everything."""
    return trust._replace(reach=jnp.full_like(trust.reach, 1e-12))


def ready(world: WorldModel, params: WorldParams) -> WorldParams:
    """The constants that follow from θ, worked out once."""
    return params._replace(theta=world.engine.prepare(params.theta))


def luck() -> float:
    """The hazard at which a planned bond breaks: as good as sure."""
    return float(-np.log(1 - SURE))
