"""What is thrown: its scene, the unknowns φ of its physics, and where its corners are.

    θ = θ(φ)        φ are logs of: friction μ, stiffness k, damping b of the board's contact (a_ref = −b u − k r, MuJoCo's own
                    softness), the half width of the boxes at rest as a factor, gravity, inertia as a factor, damping of the hinge
    tilt            and, not as logs: the horizontal pull of gravity (m/s²) and the slope of the board's normal, each along and
                    across the heading of the throw: neither gravity nor the board is quite square to the cameras' frame

A scale error of the cameras shows as a wrong g and a wrong size alike, so both are unknowns; masses cannot be seen in a throw.
Files were turned about the vertical at random, but all throws came from one side: the way from the first place to the middle
tells how. The engine works in the board's frame: starts are turned into it, predictions back.
One engine step is one row of the measurement: the backward differences of the measured poses are then the engine's own
velocities (hybridwm.logs.stepping).

Legend: P unknowns, C corners, W throws, worlds last.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.measured.tosses import DT, HALF_WIDTH
from physics import params as theta
from physics.engine import brax_engine
from physics.scene import load_scene
from physics.types import Engine, Params

Array = jax.Array

CUBE = """
<mujoco model="measured_cube">
  <option timestep="{dt}" cone="{cone}" iterations="100" tolerance="1e-10"/>
  <default><geom friction="0.18 0.005 0.0001" solref="-2500 -140"/></default>
  <worldbody>
    <geom name="board" type="plane" size="2 2 1"/>
    <body name="cube" pos="0 0 0.3">
      <freejoint name="cube"/>
      <inertial pos="0 0 0" mass="0.37" diaginertia="0.00081 0.00081 0.00081"/>
      <geom name="cube" type="box" size="{half} {half} {half}"/>
    </body>
  </worldbody>
</mujoco>
"""

ELBOW = """
<mujoco model="measured_elbow">
  <option timestep="{dt}" cone="{cone}" iterations="100" tolerance="1e-10"/>
  <default><geom friction="0.2 0.005 0.0001" solref="-2500 -140"/></default>
  <worldbody>
    <geom name="board" type="plane" size="2 2 1"/>
    <body name="elbow_1" pos="0 0 0.3">
      <freejoint name="elbow"/>
      <inertial pos="0 0 0" mass="0.37" diaginertia="0.0006167 0.0006167 0.0006167"/>
      <geom name="box_1" type="box" size="0.05 0.025 0.025"/>
      <body name="elbow_2" pos="-0.035 0.06 0">
        <joint name="hinge" type="hinge" axis="0 1 0" damping="0.001"/>
        <inertial pos="0.035 0 0" mass="0.37" diaginertia="0.0006167 0.0006167 0.0006167"/>
        <geom name="box_2" type="box" pos="0.035 0 0" size="0.05 0.025 0.025"/>
      </body>
    </body>
  </worldbody>
</mujoco>
"""


class Unknown(NamedTuple):
    """One entry of φ: where it begins, and how far (in the log, if it is one) it may lie from there."""

    name: str
    guess: float
    spread: float
    log: bool = True


class Thing(NamedTuple):
    """One kind of thrown body with one cone; `boxes` are (body, half sizes, centre in the body's frame), of equal mass."""

    name: str
    engine: Engine
    unknowns: tuple[Unknown, ...]
    boxes: tuple[tuple[int, tuple[float, ...], tuple[float, ...]], ...]
    width: float  # m, the unit of positions
    sink: float  # how far it sinks into the board at rest, in g/k

    @property
    def guess(self) -> np.ndarray:
        """φ before anything is measured, [P]."""
        return np.array([np.log(u.guess) if u.log else u.guess for u in self.unknowns])

    def values(self, phi: Any) -> Any:
        """The unknowns themselves, [P, ...], from φ."""
        log = np.array([u.log for u in self.unknowns]).reshape(-1, *[1] * (phi.ndim - 1))
        return jnp.where(log, jnp.exp(jnp.where(log, phi, 0.0)), phi)

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation of φ before anything is measured, [P]."""
        return np.array([u.spread for u in self.unknowns])

    def place(self, name: str) -> int:
        """Place of an unknown in φ."""
        return [u.name for u in self.unknowns].index(name)


_CONTACT = (Unknown("friction", 0.2, 0.5), Unknown("stiffness", 2500.0, 1.0), Unknown("damping", 140.0, 0.3))
_SCALE = (Unknown("half_width", 1.0, 0.02), Unknown("gravity", 9.81, 0.02), Unknown("inertia", 1.0, 0.5))
_TILT = (
    Unknown("pull_along", 0.0, 0.1, log=False),
    Unknown("pull_across", 0.0, 0.1, log=False),
    Unknown("slope_along", 0.0, 0.01, log=False),
    Unknown("slope_across", 0.0, 0.01, log=False),
)


@functools.cache
def cube(cone: str = "elliptic") -> Thing:
    """The acrylic cube; its half width is drawn as 52.4 mm."""
    scene = load_scene(CUBE.format(dt=DT, cone=cone, half=HALF_WIDTH))
    box = (1, (HALF_WIDTH,) * 3, (0.0, 0.0, 0.0))
    return Thing("cube", brax_engine(scene), (*_CONTACT, *_SCALE, *_TILT), (box,), 2 * HALF_WIDTH, 0.0276)


@functools.cache
def elbow(cone: str = "elliptic") -> Thing:
    """Two boxes with a hinge."""
    scene = load_scene(ELBOW.format(dt=DT, cone=cone))
    half = (0.05, 0.025, 0.025)
    boxes = ((1, half, (0.0, 0.0, 0.0)), (2, half, (0.035, 0.0, 0.0)))
    unknowns = (*_CONTACT, *_SCALE, *_TILT, Unknown("hinge_damping", 1e-3, 2.0))
    return Thing("elbow", brax_engine(scene), unknowns, boxes, 0.1, 0.0180)


def size_of(thing: Thing, phi: Array) -> Array:
    """Factor on the size of the boxes, [W]: what they are at rest and what they sink in."""
    found = {u.name: v for u, v in zip(thing.unknowns, thing.values(phi), strict=True)}
    return found["half_width"] + thing.sink * found["gravity"] / found["stiffness"] / min(thing.boxes[0][1])


def params_of(thing: Thing, phi: Array, gravity: Array) -> Params:
    """θ with a value per throw, from φ [P, W] and gravity [3, W]."""
    given = theta.nominal(thing.engine.scene)
    found = dict(zip((u.name for u in thing.unknowns), thing.values(phi), strict=True))
    mu, zero, like = found["friction"], 0 * phi[0], 1 + 0 * phi[0]
    geoms = range(len(given.geom_size))
    column = lambda table, factor: jnp.asarray(table, phi.dtype)[..., None] * factor  # noqa: E731
    size = column(given.geom_size, like).at[1:].multiply(size_of(thing, phi))
    out = given._replace(
        geom_friction=jnp.stack([jnp.stack([mu, zero, zero])] * len(geoms)),
        geom_solref=jnp.stack([jnp.stack([-found["stiffness"], -found["damping"]])] * len(geoms)),
        geom_size=size,
        gravity=gravity,
        body_inertia=column(given.body_inertia, found["inertia"]),
    )
    if "hinge_damping" in found:
        damping = jnp.concatenate([jnp.zeros((6, *zero.shape)), found["hinge_damping"][None]])
        out = out._replace(dof_damping=damping)
    return out
