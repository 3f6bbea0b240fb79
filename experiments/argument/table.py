"""Rubber pucks on an air table: the small world of `shift`, `causes` and `small`. Fixed before the first fit.

    six slots    puck 0 is driven by two motors; a puck that an episode does not have stands parked outside
    reality      MuJoCo C in four fine steps, and a glide that the models do not know: −v̂ (c tanh(|v| / v₀) + k |v|²)
    told         six motors without gear carry ln(mass / nominal) of each puck: how the network alone learns of masses
    training     one to three pucks inside ± 0.3 m; in half of the episodes masses between a half and twice the nominal

Engines are told masses through θ. Legend: P pucks, W episodes side by side (last axis), H steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import physics
from experiments.worlds.realities import waves
from hybridwm.logs.recordings import Dataset, Recording, windows
from hybridwm.logs.stepping import stepped
from physics import Params
from physics.effects import Effect

PUCKS, RADIUS, MASS, STEP_S = 6, 0.05, 0.2, 0.005
BOX, SPEED, FORCE, HEAVIEST = 0.3, 0.6, 0.6, 2.0
"""Of the training: half side (m), fastest start (m/s), strongest command (N), largest factor on a mass."""
FINE_STEPS = 4

_PAGE = """<mujoco model="table">
  <option timestep="{step}" gravity="0 0 0" iterations="100" ls_iterations="50" tolerance="1e-10"/>
  <default>
    <geom type="sphere" size="{radius}" mass="{mass}" condim="1" solref="0.04 0.4"/>
    <joint type="slide" damping="0.02"/>
  </default>
  <worldbody>{bodies}</worldbody>
  <actuator>
    <motor name="push.x" joint="p0.x"/>
    <motor name="push.y" joint="p0.y"/>{told}
  </actuator>
</mujoco>"""


def table() -> physics.Scene:
    """The scene that all models run."""
    bodies = "".join(
        f'<body name="p{i}"><joint name="p{i}.x" axis="1 0 0"/><joint name="p{i}.y" axis="0 1 0"/><geom name="p{i}"/></body>'
        for i in range(PUCKS)
    )
    told = "".join(f'<motor name="told{i}" joint="p{i}.x" gear="0"/>' for i in range(PUCKS))
    return physics.load_scene(_PAGE.format(step=STEP_S, radius=RADIUS, mass=MASS, bodies=bodies, told=told))


@dataclass(frozen=True, kw_only=True)
class Glide(Effect):
    """What slows a puck that no model is told of."""

    coulomb: float = 0.03  # N
    soft: float = 0.03  # m/s
    drag: float = 0.12  # N s²/m²

    def force(self, model: Any, data: Any) -> np.ndarray:
        """See `Effect.force`."""
        v = data.qvel.reshape(-1, 2)
        speed = np.linalg.norm(v, axis=1, keepdims=True) + 1e-9
        return (-(v / speed) * (self.coulomb * np.tanh(speed / self.soft) + self.drag * speed**2)).ravel()


class Episode(NamedTuple):
    """How one episode begins, what is commanded, and which pucks of which masses there are."""

    place: np.ndarray  # [P, 2] m
    speed: np.ndarray  # [P, 2] m/s
    ctrl: np.ndarray  # [H, 2] N on puck 0
    factor: np.ndarray  # [P] on the nominal mass
    present: np.ndarray  # [P] bool


def parked() -> np.ndarray:
    """[P, 2] where pucks stand that an episode does not have."""
    return np.stack([np.full(PUCKS, 1.2), 0.3 * np.arange(PUCKS) - 0.75], 1)


def drawn(rng: np.random.Generator, steps: int, count: int, *, varied: bool = False) -> Episode:
    """An episode inside the training region with so many pucks."""
    present = np.arange(PUCKS) < 1
    present[1 + rng.permutation(PUCKS - 1)[: count - 1]] = True
    place = parked()
    for i in np.flatnonzero(present):
        place[i] = free_spot(rng, place)
    towards = rng.uniform(-BOX, BOX, (PUCKS, 2)) - place
    speed = towards / (np.linalg.norm(towards, axis=1, keepdims=True) + 1e-9) * rng.uniform(0, SPEED, (PUCKS, 1))
    ctrl = waves(rng, steps, STEP_S, np.array([FORCE, FORCE]), slowest_hz=0.2, fastest_hz=2.0)
    factor = HEAVIEST ** rng.uniform(-1, 1, PUCKS) if varied else np.ones(PUCKS)
    return Episode(place, speed * present[:, None], ctrl, factor, present)


def free_spot(rng: np.random.Generator, place: np.ndarray) -> np.ndarray:
    """A place in the box that no puck covers."""
    while True:
        spot = rng.uniform(-BOX, BOX, 2)
        if np.linalg.norm(place - spot, axis=1).min() > 2.2 * RADIUS:
            return spot


def heavier(theta: Params, factor: Any) -> Params:
    """θ with the masses of the pucks times factor [P] or [P, W]."""
    factor = np.asarray(factor, float)
    whole = np.concatenate([np.ones((1, *factor.shape[1:])), factor])
    mass, inertia = np.asarray(theta.body_mass, float), np.asarray(theta.body_inertia, float)
    if factor.ndim == 2:
        mass, inertia = mass[:, None], inertia[..., None]
    return theta._replace(body_mass=mass * whole, body_inertia=inertia * whole[:, None])


def commands(episode: Episode) -> np.ndarray:
    """[H, nu] with what the network alone is told."""
    told = np.broadcast_to(np.log(episode.factor), (len(episode.ctrl), PUCKS))
    return np.concatenate([episode.ctrl, told], 1)


def untold(ctrl: np.ndarray) -> np.ndarray:
    """The commands [H, nu, W] without what the network alone is told."""
    return np.concatenate([ctrl[:, :2], np.zeros_like(ctrl[:, 2:])], 1)


def recorded(scene: physics.Scene, episodes: Sequence[Episode], *, effects: Sequence[Effect] = (Glide(),)) -> Dataset:
    """What really happens."""
    kept, theta = list[Recording](), physics.nominal(scene)
    for number, e in enumerate(episodes):
        real = physics.Reality(scene, effects, params=heavier(theta, e.factor), substeps=FINE_STEPS)
        found = real.episode(commands(e), seed=number, qpos=e.place.ravel(), qvel=e.speed.ravel())
        if found.failure:
            raise RuntimeError(f"episode {number} of the table went bad: {found.failure}")
        kept.append(Recording(f"table-{number}", found.qpos, found.qvel, found.ctrl, found.intact))
    return Dataset(scene, STEP_S, tuple(kept), {})


class Asked(NamedTuple):
    """Episodes of one length as windows that models are asked, and what is true of them."""

    qpos: np.ndarray  # [H+1, 2 P, W]
    qvel: np.ndarray  # [2 P, W] at the start
    ctrl: np.ndarray  # [H, nu, W]
    factor: np.ndarray  # [P, W]
    present: np.ndarray  # [P, W]


def asked(dataset: Dataset, episodes: Sequence[Episode]) -> Asked:
    """Each episode from its second row on: the first whose velocity its past tells."""
    late = tuple(
        r._replace(qpos=r.qpos[1:], qvel=r.qvel[1:], ctrl=r.ctrl[1:], intact=r.intact[1:])
        for r in stepped(dataset).recordings
    )
    steps = min(len(r.ctrl) for r in late)
    cut = windows(dataset._replace(recordings=late), steps)
    factor, present = (np.stack([getattr(e, name) for e in episodes], -1) for name in ("factor", "present"))
    return Asked(cut.qpos, cut.qvel[0], cut.ctrl, factor, present)


def errors(qpos: np.ndarray, given: Asked) -> np.ndarray:
    """[W] m: root mean square over time and present pucks of the distance from what happened; infinite where not finite."""
    apart = (qpos - given.qpos[1:]).reshape(len(qpos), PUCKS, 2, -1)
    square = np.square(apart).sum(2) * given.present
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.sqrt(square.sum(1).mean(0) / given.present.sum(0))
    return np.where(np.isfinite(error), error, np.inf)


def training(scene: physics.Scene, seed: int, episodes: int, seconds: float) -> tuple[Dataset, Dataset]:
    """(with nominal masses, half as many with varied ones), one to three pucks."""
    steps, out = round(seconds / STEP_S), []
    for varied, count in ((False, episodes), (True, episodes // 2)):
        rng = np.random.default_rng([seed, varied])
        out.append(recorded(scene, [drawn(rng, steps, 1 + n % 3, varied=varied) for n in range(count)]))
    return out[0], out[1]
