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
from hybridwm.learning import survival
from hybridwm.learning.checkpoint import load_model, save_model
from hybridwm.learning.fitting import FitOptions, Fitted, learned, prepared
from hybridwm.learning.identification import identify
from hybridwm.learning.loads import replay
from hybridwm.learning.rivals import RivalOptions, fit_rival
from hybridwm.learning.training import Stage, take, unbroken
from hybridwm.learning.unknowns import Unknown
from hybridwm.logs.recordings import Dataset, windows
from hybridwm.world import events
from hybridwm.world.events import EventParams
from hybridwm.world.model import ModelOptions, WorldModel, WorldParams, world_model
from hybridwm.world.physics_model import SURE

EVERY = 2
"""Engine steps to a control: 50 controls a second."""
MEMORY_S = 0.4
NEVER = 1e6
RUBBING = ("table", "left", "right", "body", "low", "high", "neck", "rear", "front")
ENGINE = ("given", "identified", "blind", "hybrid")


class Models(NamedTuple):
    """What was fitted."""

    world: WorldModel
    params: dict[str, WorldParams]
    """Of each model with an engine."""
    network: Callable[[], Any]
    """Fits the network alone."""


def unknowns() -> tuple[Unknown, ...]:
    """What the logs are asked about: masses, where the body's centre of mass is, friction, damping of the fork."""
    return (
        Unknown(leaf="body_mass", names=("body",), prior_std=0.5),
        Unknown(leaf="body_mass", names=("neck",), prior_std=0.2),
        Unknown(leaf="body_mass", names=("fork",), prior_std=0.2),
        Unknown(leaf="body_ipos", names=("body",), component=2, scale="linear", prior_std=0.01, label="height of the centre"),
        Unknown(leaf="body_ipos", names=("body",), component=0, scale="linear", prior_std=0.01, label="centre of mass to the side"),
        Unknown(leaf="geom_friction", names=RUBBING, prior_std=0.5, label="friction"),
    )  # fmt: skip


def options(seed: int, *, quick: bool) -> FitOptions:
    """How the hybrid is fitted; in a quick run without a residual, whose programs take most of the time to compile."""
    stages = () if quick else (Stage(horizon=0, updates=6000, batch=256, look=1000),)
    model = ModelOptions(hidden=(32, 32), members=4, place=True)
    return FitOptions(
        model=model, stages=stages, lag=True, memory_s=MEMORY_S, identify_s=0.15, validate_s=0.5, seed=seed
    )


def fitted(dataset: Dataset, folder: Path, seed: int, *, quick: bool, watch: Callable[..., None]) -> Models:
    """Fit all of them; what is in `folder` already is read from there. The network waits until it is asked for."""
    how = options(seed, quick=quick)
    if not (folder / "hybrid").exists():
        save_model(folder / "hybrid", hybrid(dataset, how, seed, watch), how)
    world, params = load_model(folder / "hybrid", dataset.scene)
    rival = RivalOptions(strides=(EVERY * 0.01,), place=True, updates=1500 if quick else 6000, seed=seed)

    def network() -> Any:
        watch("network", None)
        return fit_rival(dataset, rival)

    return Models(world, variants(world, params), network)


def hybrid(dataset: Dataset, how: FitOptions, seed: int, watch: Callable[..., None]) -> Fitted:
    """θ and lag from short windows whose starts are taken as logged; then the residual, its trust, and the hazard."""
    training, validation = prepared(dataset, how)
    world = world_model(physics.brax_engine(dataset.scene), how.model)
    watch("identify", None)
    cut = unbroken(windows(training, round(how.identify_s / dataset.dt), past=round(MEMORY_S / dataset.dt)))
    cut = take(cut, np.linspace(0, len(cut.start) - 1, min(128, len(cut.start))).round().astype(int))
    nominal = jax.tree.map(jnp.asarray, physics.nominal(dataset.scene))
    lag = Unknown(leaf="lag_s", prior_std=1.5, low=0.002, high=MEMORY_S / 2)
    found = identify(
        world, cut, (*unknowns(), lag), params=WorldParams(theta=nominal, lag_s=jnp.full(2, 0.02)), free_starts=False,
        jacobian="differences", iterations=8,
    )  # fmt: skip
    params, score = found.params, None
    if how.stages:
        params, score = learned(world, params, params, how, training, validation, watch, None)
        params = params if score.holds else found.params
    watch("events", None)
    params = params._replace(events=hazard_of(world, params, dataset, seed))
    return Fitted(world, params, found, score, score is not None and score.holds, {})


def hazard_of(world: WorldModel, params: WorldParams, dataset: Dataset, seed: int) -> EventParams | None:
    """The neck's hazard, from the loads that the model sees along all episodes; calibrated on a fifth of them."""
    past = round(MEMORY_S / dataset.dt)
    limits = jnp.asarray(params.theta.bond_strength, float)[:, events.OF_FORCE]
    told = survival.histories(replay(world, params._replace(events=None), dataset, past=past), limits)
    if not bool((told.happened > 0).any()):
        return None
    order = np.random.default_rng(seed).permutation(told.happened.shape[-1])
    held = order[: max(1, len(order) // 5)]
    training, validation = _some(told, order[len(held) :]), _some(told, held)
    begun = survival.untrained(world, told)
    found = survival.fit(begun, training, validation, dataset.dt, key=jax.random.key(seed), starts=1, steps=80)
    return EventParams(survival.calibrate(found, validation, dataset.dt, steps=30), ())


def _some(told: survival.Histories, index: np.ndarray) -> survival.Histories:
    return told._replace(
        **{name: getattr(told, name)[..., index] for name in ("felt", "earliest", "latest", "happened")}
    )


def variants(world: WorldModel, params: WorldParams) -> dict[str, WorldParams]:
    """Parameters of one structure: without a residual its trust is nowhere, without motors' lag it is next to none."""
    nominal = jax.tree.map(jnp.asarray, physics.nominal(world.engine.scene))
    sheet = jax.tree.map(jnp.asarray, sheet_events(world, params.events))
    quiet = params._replace(trust=None if params.trust is None else _nowhere(params.trust), events=sheet)
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
