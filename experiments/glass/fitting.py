"""What is fitted to the explored episodes, part by part: θ and the motors' lag, a chart of the table's friction, a residual with
its trust if one is asked for, the neck's hazard.

θ comes from short windows in which a whole glass moves or is moved, upright: what has fallen tumbles, and tells little of masses.
The logs are free of noise, so that first states are taken as they are; SPREAD is what a model in steps of 10 ms can be held to.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import physics
from hybridwm.learning import survival
from hybridwm.learning.fitting import FitOptions, Fitted, Judge, learned, memory, prepared
from hybridwm.learning.identification import Identified, identify
from hybridwm.learning.loads import replay
from hybridwm.learning.training import Stage, take, unbroken
from hybridwm.learning.unknowns import Unknown
from hybridwm.logs.recordings import Dataset, Windows, windows
from hybridwm.world import events
from hybridwm.world.events import EventParams
from hybridwm.world.model import ModelOptions, WorldModel, WorldParams, world_model

MEMORY_S = 0.4
RUBBING = ("table", "left", "right", "body", "low", "high", "neck", "rear", "front")
SPREAD = np.array([0.002, 0.001, 0.02] * 2 + [0.002, 0.002] + [0.03, 0.03, 0.3] * 2 + [0.03, 0.03])
"""σ of poses (m, rad), then of velocities."""
UPRIGHT, MOVED = 0.1, 0.01  # rad, m


def options(seed: int, *, quick: bool, residual: bool = False) -> FitOptions:
    """How the hybrid is fitted; without a residual, unless it is asked for: its programs take most of the time to compile."""
    stages = () if not residual else (Stage(horizon=0, updates=6000, batch=256, look=1000),)
    return FitOptions(
        model=ModelOptions(hidden=(32, 32), members=4, place=True), stages=stages, lag=True, memory_s=MEMORY_S,
        ground=True, identify_s=0.2, identify_most=160 if quick else 320, validate_s=0.5, seed=seed,
    )  # fmt: skip


def unknowns() -> tuple[Unknown, ...]:
    """What the logs are asked about: masses, where the body's centre of mass is, friction, the motors' lag."""
    return (
        Unknown(leaf="body_mass", names=("body",), prior_std=0.5),
        Unknown(leaf="body_mass", names=("neck",), prior_std=0.2),
        Unknown(leaf="body_mass", names=("fork",), prior_std=0.2),
        Unknown(leaf="body_ipos", names=("body",), component=2, scale="linear", prior_std=0.01, label="height of the centre"),
        Unknown(leaf="body_ipos", names=("body",), component=0, scale="linear", prior_std=0.01, label="centre of mass to the side"),
        Unknown(leaf="geom_friction", names=RUBBING, prior_std=0.5, label="friction"),
        Unknown(leaf="lag_s", prior_std=1.0, low=0.002, high=MEMORY_S / 2, label="lag of the motors"),
    )  # fmt: skip


def fit(dataset: Dataset, how: FitOptions, watch: Callable[..., None]) -> Fitted:
    """θ and lag; the chart of the table and the residual, each kept where it is better on held-out episodes; the hazard."""
    training, validation = prepared(dataset, how)
    world = world_model(physics.brax_engine(dataset.scene), how.model)
    watch("identify", None)
    found = identified(world, training, how)
    judge = Judge(world, found.params, validation, how)
    params, score, kept = learned(world, found.params, how, unknowns(), training, judge, watch)
    watch("events", None)
    params = params._replace(events=hazard_of(world, params, dataset, how.seed))
    return Fitted(world, params, found, score, kept, {})


def identified(world: WorldModel, training: Dataset, how: FitOptions) -> Identified:
    """θ and the lag."""
    nominal = jax.tree.map(jnp.asarray, physics.nominal(training.scene))
    start = WorldParams(theta=nominal, lag_s=jnp.full(training.scene.model.nu, 0.02))
    given = telling(windows(training, round(how.identify_s / training.dt), past=memory(training, how)))
    given = take(given, np.linspace(0, len(given.start) - 1, how.identify_most).round().astype(int))
    return identify(
        world, given, unknowns(), params=start, free_starts=False, jacobian="differences", iterations=12, noise_std=SPREAD
    )  # fmt: skip


def telling(cut: Windows) -> Windows:
    """Windows in which the glass is whole and upright, and it or the fork moves."""
    cut = unbroken(cut)
    moved = np.max(np.abs(cut.qpos - cut.qpos[:1]), 0)
    good = (cut.intact[0, 0] > 0.5) & (np.abs(cut.qpos[:, 2]).max(0) < UPRIGHT) & (moved[[0, 6]].max(0) > MOVED)
    return take(cut, np.flatnonzero(good))


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
    parts: dict[str, Any] = {
        name: getattr(told, name)[..., index] for name in ("felt", "earliest", "latest", "happened")
    }
    return told._replace(**parts)
