"""Where exploration begins and what it commands, so that a log covers the range of the motors and of their speeds.

    noise   Σᵢ aᵢ sin(2π fᵢ t + φᵢ), fᵢ log-uniform in the band        chirp   one sine through the whole band, up or down
    holds   a random level, held for a random time                       all    c ± r: r covers (0, 1] of the range evenly over the
                                                                               episodes, c lies where c ± r stays inside

Starts lie around the scene's home: joints and unbonded bodies are displaced, everything is given a random velocity, and MuJoCo C
then takes a random time to make that possible (contacts, limits, bonds; nothing breaks).
"""

from dataclasses import dataclass

import numpy as np

from hybridwm.logs import tangent
from physics.reality import Reality
from physics.scene import Scene

KINDS = ("noise", "chirp", "holds")
_SINES = 8


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """How far and how fast."""

    slowest_hz: float = 0.2
    """Lower end of the band; holds last up to half of its period."""
    fastest_hz: float = 5.0
    """Upper end of the band; holds last at least half of its period."""
    kinds: tuple[str, ...] = KINDS
    """Kinds of controls, in turn: noise, chirp, holds."""
    free_range: float = 1.0
    """Range ± of motors that have no ctrlrange."""
    length_std: float = 0.05
    """Displacement of slides and of free bodies along the ground at the start, m."""
    angle_std: float = 0.5
    """Displacement of hinges, ball joints and of free bodies' heading at the start, rad."""
    speed_std: float = 0.5
    """Random velocity at the start, m/s and rad/s."""
    lead_s: float = 0.3
    """Longest time that MuJoCo C has to settle a start."""

    def __post_init__(self) -> None:
        if not 0 < self.slowest_hz <= self.fastest_hz:
            raise ValueError(f"the band {self.slowest_hz} to {self.fastest_hz} Hz: give two positive numbers in order")
        if not self.kinds or set(self.kinds) - set(KINDS):
            raise ValueError(f"kinds {self.kinds}: allowed are {', '.join(KINDS)}")
        for name in ("free_range", "length_std", "angle_std", "speed_std", "lead_s"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a number of at least 0")


def controls(scene: Scene, options: Exploration, episodes: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    """[episodes, steps, nu] of all kinds in turn."""
    dt, nu = float(scene.model.opt.timestep), scene.model.nu
    low, high = ctrl_range(scene, options.free_range)
    reach = (np.argsort(rng.random((nu, episodes))) + rng.random((nu, episodes))).T / episodes  # one in each slice
    centre = rng.uniform(-1, 1, (episodes, nu)) * (1 - reach)
    makers = {"noise": _noise, "chirp": _chirp, "holds": _holds}
    out = np.empty((episodes, steps, nu))
    for e in range(episodes):
        shape = makers[options.kinds[e % len(options.kinds)]]
        for i in range(nu):
            out[e, :, i] = centre[e, i] + reach[e, i] * shape(steps, dt, options, rng)
    return (low + high) / 2 + out * (high - low) / 2


def starts(
    reality: Reality, options: Exploration, episodes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(qpos [nq, episodes], qvel [nv, episodes]) that the world can be in."""
    scene, reference = reality.scene, reality.reference
    model = scene.model
    qpos, qvel = (np.repeat(x[:, None], episodes, axis=1) for x in scene.home())
    qpos = _clipped(scene, tangent.advance(model, qpos, _displacement(scene, options, episodes, rng)))
    qvel = qvel + options.speed_std * rng.standard_normal(qvel.shape)
    steps = max(1, round(options.lead_s / reference.dt))
    drive = np.moveaxis(controls(scene, options, episodes, steps, rng), 0, -1)
    holding = np.array([float(bond.intact) for bond in scene.bonds])
    path = reference.rollout(qpos, qvel, drive, holding)
    at, world = np.minimum(rng.integers(steps // 2, steps + 1, episodes), path.steps), np.arange(episodes)
    return tangent.unit(model, path.qpos[at, :, world].T), path.qvel[at, :, world].T


def ctrl_range(scene: Scene, free_range: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(low [nu], high [nu])."""
    model = scene.model
    limited = model.actuator_ctrllimited.astype(bool)
    low, high = np.where(limited[:, None], model.actuator_ctrlrange, (-free_range, free_range)).T
    return low, high


def _noise(steps: int, dt: float, options: Exploration, rng: np.random.Generator) -> np.ndarray:
    hz = _log_uniform(options, rng, _SINES)[:, None]
    phase, size = rng.uniform(0, 2 * np.pi, (_SINES, 1)), rng.uniform(0, 1, (_SINES, 1))
    wave = (size * np.sin(2 * np.pi * hz * dt * np.arange(steps) + phase)).sum(0)
    return wave / np.abs(wave).max()


def _chirp(steps: int, dt: float, options: Exploration, rng: np.random.Generator) -> np.ndarray:
    hz = np.geomspace(options.slowest_hz, options.fastest_hz, steps)[:: rng.choice((-1, 1))]
    return np.sin(2 * np.pi * dt * np.cumsum(hz) + rng.uniform(0, 2 * np.pi))


def _holds(steps: int, dt: float, options: Exploration, rng: np.random.Generator) -> np.ndarray:
    lengths = np.maximum(1, np.round(0.5 / _log_uniform(options, rng, steps) / dt)).astype(int)
    return np.repeat(rng.uniform(-1, 1, steps), lengths)[:steps]


def _log_uniform(options: Exploration, rng: np.random.Generator, count: int) -> np.ndarray:
    return np.exp(rng.uniform(np.log(options.slowest_hz), np.log(options.fastest_hz), count))


def _displacement(scene: Scene, options: Exploration, episodes: int, rng: np.random.Generator) -> np.ndarray:
    """[nv, episodes]; bodies at a bond stay with their partner, free bodies stay level and at their height."""
    model = scene.model
    bonded = {body for bond in scene.bonds for body in (bond.body1, bond.body2)}
    std = np.zeros(model.nv)
    for j in range(model.njnt):
        kind, at = int(model.jnt_type[j]), int(model.jnt_dofadr[j])
        if int(model.jnt_bodyid[j]) in bonded:
            continue
        if kind == 0:
            std[[at, at + 1, at + 5]] = options.length_std, options.length_std, options.angle_std
        else:
            std[at : at + (3 if kind == 1 else 1)] = options.length_std if kind == 2 else options.angle_std
    return std[:, None] * rng.standard_normal((model.nv, episodes))


def _clipped(scene: Scene, qpos: np.ndarray) -> np.ndarray:
    """Limited hinges and slides within their range."""
    model = scene.model
    for j in np.flatnonzero(model.jnt_limited & (model.jnt_type > 1)):
        at = int(model.jnt_qposadr[j])
        qpos[at] = np.clip(qpos[at], *model.jnt_range[j])
    return qpos
