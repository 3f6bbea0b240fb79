"""Three worlds that the engine does not know: what reality is, and how it is explored. Fixed before the first fit.

    pendulum   a double pendulum whose motors lag, whose joints stick and slide (Stribeck) and whose links feel drag
    box        a pushed box heavier, smoother and less balanced than the model says, on a floor with two patches
    rod        a swung rod whose weld gives way by a rule on its filtered load, its rate and its fatigue

Reality is MuJoCo C in ten fine steps to each of the model's, with effects from `physics.effects`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import physics
from hybridwm.logs.recordings import Dataset, Recording
from physics import GroundPatch, LoadBreak, MotorLag, Params, QuadraticDrag, Reality, StribeckFriction
from physics.effects import Observed
from physics.reality import Policy

FINE_STEPS = 10


class Start(NamedTuple):
    """How one episode begins and what is commanded."""

    qpos: np.ndarray  # [nq]
    qvel: np.ndarray  # [nv]
    ctrl: np.ndarray | Policy  # [H, nu], or what is commanded given what is seen


class Beyond(NamedTuple):
    """How far an episode lies outside what training saw; as it stands, not at all."""

    place: float = 0.0  # m beyond the edge of where training starts
    speed: float = 1.0  # factor on the speeds at the start
    command: float = 1.0  # factor on the commands
    mass: float = 1.0  # factor on the masses, told to every model


INSIDE = Beyond()


class World(NamedTuple):
    """A scene, what it is really like, and how it is explored."""

    name: str
    scene: str
    effects: tuple[physics.Effect, ...]
    truth: Callable[[Params], Params]  # nominal θ -> true θ
    explore: Callable[[np.random.Generator, int, float, Beyond], Start]  # (rng, steps, dt, beyond) -> one episode
    seconds: float  # length of an episode
    length: float  # m, by which an angle becomes a distance
    place: bool = False  # whether the floor differs from place to place


def waves(
    rng: np.random.Generator, steps: int, dt: float, size: np.ndarray, *, slowest_hz: float, fastest_hz: float
) -> np.ndarray:
    """Smooth random commands [steps, nu]: five sines each, scaled to a random part of `size` [nu]."""
    t, shape = np.arange(steps)[:, None, None] * dt, (5, len(size))
    hz, phase, part = (
        rng.uniform(slowest_hz, fastest_hz, shape),
        rng.uniform(0, 2 * np.pi, shape),
        rng.uniform(0, 1, shape),
    )
    sum_ = (part * np.sin(2 * np.pi * hz * t + phase)).sum(1)
    return sum_ / np.abs(sum_).max(0) * size * rng.uniform(0.2, 1.0, len(size))


def _swing(rng: np.random.Generator, steps: int, dt: float, beyond: Beyond) -> Start:
    ctrl = beyond.command * waves(rng, steps, dt, np.array([4.0, 2.0]), slowest_hz=0.1, fastest_hz=2.0)
    angle, speed = rng.uniform(-1.5, 1.5, 2), beyond.speed * rng.normal(0.0, 1.0, 2)
    if beyond.place:
        angle = np.sign(angle) * (1.5 + beyond.place / 0.3)
    return Start(angle, speed, ctrl)


def _push(rng: np.random.Generator, steps: int, dt: float, beyond: Beyond) -> Start:
    yaw, x, y = rng.uniform(-np.pi, np.pi), rng.uniform(-0.05, 0.15), rng.uniform(-0.08, 0.08)
    if beyond.place:
        x, y = 0.15 + beyond.place, y + np.sign(y) * beyond.place
    box = (x, y, 0.1, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
    speed = np.zeros(7)
    speed[6] = beyond.speed * rng.uniform(0.0, 0.5)
    aim = (
        np.linspace(0.0, rng.uniform(0.3, 1.2), steps)
        + waves(rng, steps, dt, np.array([0.15]), slowest_hz=0.2, fastest_hz=2.0)[:, 0]
    )

    def follow(h: int, seen: Observed) -> np.ndarray:
        return beyond.command * np.clip([20.0 * (aim[h] - seen.qpos[7]) - 2.0 * seen.qvel[6]], -3.0, 3.0)

    return Start(np.array([*box, rng.uniform(-0.1, 0.0)]), speed, follow)


def _snap(rng: np.random.Generator, steps: int, dt: float, beyond: Beyond) -> Start:
    ctrl = beyond.command * np.clip(waves(rng, steps, dt, np.array([5.0]), slowest_hz=0.3, fastest_hz=2.0), -5.0, 5.0)
    qpos, qvel = physics.load_scene("snapping_rod").home()
    angle = beyond.place / 0.3
    turned = (
        angle,
        -0.3 * np.sin(angle),
        0.0,
        0.9 - 0.3 * np.cos(angle),
        np.cos(angle / 2),
        0.0,
        np.sin(angle / 2),
        0.0,
    )
    return Start(np.array(turned) if beyond.place else qpos, qvel, ctrl)


def _heavier(theta: Params) -> Params:
    """The box: 30 % heavier, friction 0.7 of what the scene says, its centre of mass 12 mm off."""
    scene = physics.load_scene("pushed_box")
    body, geom = scene.model.body("box").id, scene.model.geom("box").id
    mass, inertia, centre, friction = (
        np.array(x, float) for x in (theta.body_mass, theta.body_inertia, theta.body_ipos, theta.geom_friction)
    )
    mass[body] *= 1.3
    inertia[body] *= 1.3
    centre[body] += (0.012, -0.008, 0.0)
    friction[geom, 0] *= 0.7
    friction[scene.model.geom("floor").id, 0] *= 0.7
    return theta._replace(body_mass=mass, body_inertia=inertia, body_ipos=centre, geom_friction=friction)


def _damped(theta: Params) -> Params:
    return theta._replace(dof_damping=np.asarray(theta.dof_damping) * 1.5)


PENDULUM = World(
    name="pendulum",
    scene="double_pendulum",
    effects=(
        MotorLag(time_constant=0.03),
        StribeckFriction(joint="shoulder", coulomb=0.04, static=0.06, stribeck_speed=0.1, viscous=0.01),
        StribeckFriction(joint="elbow", coulomb=0.02, static=0.03, stribeck_speed=0.1, viscous=0.005),
        QuadraticDrag(body="upper", coefficient=0.02),
        QuadraticDrag(body="lower", coefficient=0.03),
    ),
    truth=lambda theta: theta,
    explore=_swing,
    seconds=10.0,
    length=0.3,
)

BOX = World(
    name="box",
    scene="pushed_box",
    effects=(
        GroundPatch(geom="floor", low=(0.25, -1.0), high=(0.5, 1.0), factor=0.5),
        GroundPatch(geom="floor", low=(0.7, -1.0), high=(0.9, 1.0), factor=1.6),
    ),
    truth=_heavier,
    explore=_push,
    seconds=3.0,
    length=0.1,
    place=True,
)

ROD = World(
    name="rod",
    scene="snapping_rod",
    effects=(
        LoadBreak(
            bond="weld", strength=(38.0, 0.9), filter_s=0.02, rate_gain=0.08, rate=10.0, life_s=20.0, exponent=8.0
        ),
        StribeckFriction(joint="hinge", coulomb=0.05, static=0.07, stribeck_speed=0.1),
    ),
    truth=_damped,
    explore=_snap,
    seconds=2.0,
    length=0.3,
)

WORLDS = {world.name: world for world in (PENDULUM, BOX, ROD)}


def reality(world: World, beyond: Beyond = INSIDE) -> Reality:
    """The world as it really is."""
    scene = physics.load_scene(world.scene)
    theta = heavier(world.truth(physics.nominal(scene)), beyond.mass)
    return Reality(scene, world.effects, params=theta, substeps=FINE_STEPS)


def heavier(theta: Params, factor: float) -> Params:
    """θ with all masses and inertias times a factor."""
    return theta._replace(body_mass=factor * theta.body_mass, body_inertia=factor * theta.body_inertia)


def explored(
    world: World, *, episodes: int, seed: int, seconds: float | None = None, beyond: Beyond = INSIDE
) -> Dataset:
    """Episodes of random commands from random starts; an episode that goes bad is left out and counted."""
    real, scene = reality(world, beyond), physics.load_scene(world.scene)
    kept, bad = list[Recording](), 0
    for number in range(episodes):
        begin, steps = starts(world, scene, seed, number, seconds, beyond)
        found = real.episode(begin.ctrl, seed=number, horizon=steps, qpos=begin.qpos, qvel=begin.qvel)
        if found.failure:
            bad += 1
            continue
        kept.append(Recording(f"{world.name}-{seed}-{number}", found.qpos, found.qvel, found.ctrl, found.intact))
    return Dataset(scene, float(scene.model.opt.timestep), tuple(kept), {"world": world.name, "seed": seed, "bad": bad})


def starts(
    world: World, scene: physics.Scene, seed: int, number: int, seconds: float | None, beyond: Beyond = INSIDE
) -> tuple[Start, int]:
    """How one episode begins, and its steps."""
    dt = float(scene.model.opt.timestep)
    steps = round((seconds or world.seconds) / dt)
    return world.explore(np.random.default_rng([seed, number]), steps, dt, beyond), steps
