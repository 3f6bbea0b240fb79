"""Two rubber balls thrown over a floor: the world in which `generations` looks for gravity. Fixed before the first fit.

    reality    MuJoCo C in four fine steps, and air: −k |v| v on each ball, which no model is told of
    throw      from 0.2 to 0.6 m, up to 0.8 m/s along the ground and 1.5 m/s up or down; two motors push one ball along the ground

Each ball moves on three slides and does not turn. Legend: W throws side by side (last axis), H steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import physics
from experiments.worlds.realities import waves
from hybridwm.logs.recordings import Dataset, Recording
from physics.effects import Effect

RADIUS, MASS, STEP_S, GRAVITY = 0.05, 0.2, 0.005, 9.81
FINE_STEPS = 4

_PAGE = """<mujoco model="balls">
  <option timestep="{step}" iterations="100" ls_iterations="50" tolerance="1e-10"/>
  <default>
    <geom friction="0.3 0.005 0.0001" solref="0.03 0.4"/>
    <joint type="slide"/>
  </default>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 1"/>{bodies}
  </worldbody>
  <actuator><motor name="push.x" joint="b0.x"/><motor name="push.y" joint="b0.y"/></actuator>
</mujoco>"""


def balls(*, finer: int = 1) -> physics.Scene:
    """The scene that all models run, in so many steps to a row. Heights count: the rail of z has an end far above."""
    axes = (("x", "1 0 0", ""), ("y", "0 1 0", ""), ("z", "0 0 1", ' limited="true" range="-9 9"'))
    bodies = ""
    for i in range(2):
        joints = "".join(f'<joint name="b{i}.{n}" axis="{a}"{more}/>' for n, a, more in axes)
        bodies += f'<body name="b{i}">{joints}<geom name="b{i}" type="sphere" size="{RADIUS}" mass="{MASS}"/></body>'
    return physics.load_scene(_PAGE.format(step=STEP_S / finer, bodies=bodies))


@dataclass(frozen=True, kw_only=True)
class Air(Effect):
    """Drag that no model is told of."""

    drag: float = 0.06  # N s²/m²

    def force(self, model: Any, data: Any) -> np.ndarray:
        """See `Effect.force`."""
        v = data.qvel.reshape(-1, 3)
        return (-self.drag * np.linalg.norm(v, axis=1, keepdims=True) * v).ravel()


class Throws(NamedTuple):
    """How W throws begin and what is commanded."""

    qpos: np.ndarray  # [6, W]
    qvel: np.ndarray  # [6, W]
    ctrl: np.ndarray  # [H, 2, W]


def throws(rng: np.random.Generator, count: int, steps: int) -> Throws:
    """Two balls side by side, thrown towards one another more or less."""
    apart = rng.uniform(0.15, 0.35, count)
    place = np.stack([-apart, rng.uniform(-0.1, 0.1, count), rng.uniform(0.2, 0.6, count),
                      apart, rng.uniform(-0.1, 0.1, count), rng.uniform(0.2, 0.6, count)])  # fmt: skip
    along = rng.uniform(0, 0.8, (2, count)) * np.array([[1.0], [-1.0]])
    speed = np.stack([along[0], rng.uniform(-0.2, 0.2, count), rng.uniform(-1.5, 1.5, count),
                      along[1], rng.uniform(-0.2, 0.2, count), rng.uniform(-1.5, 1.5, count)])  # fmt: skip
    ctrl = [waves(rng, steps, STEP_S, np.array([0.3, 0.3]), slowest_hz=0.3, fastest_hz=2.0) for _ in range(count)]
    return Throws(place, speed, np.stack(ctrl, -1))


def thrown(scene: physics.Scene, given: Throws, *, effects: Sequence[Effect] = (Air(),)) -> Dataset:
    """What really happens."""
    real, out = physics.Reality(scene, effects, substeps=FINE_STEPS), list[Recording]()
    for w in range(given.qpos.shape[-1]):
        found = real.episode(given.ctrl[..., w], seed=w, qpos=given.qpos[:, w], qvel=given.qvel[:, w])
        if found.failure:
            raise RuntimeError(f"throw {w} went bad: {found.failure}")
        out.append(Recording(f"throw-{w}", found.qpos, found.qvel, found.ctrl, found.intact))
    return Dataset(scene, STEP_S, tuple(out), {})


def energy(qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    """J of both balls, [..., W] from [..., 6, W]."""
    height = qpos[..., 2, :] + qpos[..., 5, :]
    return MASS * (0.5 * np.square(qvel).sum(-2) + GRAVITY * height)


def gravity(qpos: np.ndarray, qvel: np.ndarray) -> float:
    """m/s² that falling bodies show: median over 50 ms in which a ball touches nothing and is slower than 0.8 m/s."""
    rows, found = 10, []
    for b in range(2):
        z, v = qpos[:, 3 * b + 2], qvel[:, 3 * b : 3 * b + 3]
        apart = np.linalg.norm(qpos[:, :3] - qpos[:, 3:], axis=1)
        clear = (z > RADIUS + 0.02) & (apart > 2 * RADIUS + 0.02) & (np.linalg.norm(v, axis=1) < 0.8)
        flight = np.array([clear[i : i + rows + 1].all(0) for i in range(len(z) - rows)])
        change = (v[rows:, 2] - v[:-rows, 2]) / (rows * STEP_S)
        found.append(-change[flight])
    return float(np.median(np.concatenate(found))) if sum(map(len, found)) else float("nan")
