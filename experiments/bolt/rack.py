"""What the bolts and the driver are really like, fixed before the first fit; and the scenes that hold them.

A rack is one MuJoCo C world with N drivers and N bolts that know nothing of one another: one step for all of them. Bolts differ in
thread friction, in the angle at which the joint is snug, in a ripple of their own, in how worn they are, and in strength.
Commands are shares of the motor's torque, 100 a second; they arrive a step late and the motor lags behind them.
"""

from typing import NamedTuple

import numpy as np

import physics
from physics import MotorDelay, MotorLag, Reality, SensorDelay, SensorNoise, SensorRounding
from physics.fastening import Fastening

CONTROL_S, FINE_STEPS = 0.01, 20
TORQUE = 30.0  # N m at full command
PITCH = 1.25e-3 / (2 * np.pi)  # m/rad
RADIUS = 9.6e-3  # m: thread and head together, where friction acts
COMMAND_DELAY, SENSOR_DELAY = 1, 2  # control steps
ANGLE_STD, ANGLE_STEP = 1e-3, 3e-3  # rad
EFFORT_STD, EFFORT_STEP = 5e-3, 3e-3  # of the motor's torque
LAG_S = 0.015
WORK = 2e4  # N rad: E
FORCES = (10e3, 15e3)  # N asked for

SNUG, SNUG_SPREAD = 0.8, 0.3  # rad from where the bolt starts: middle, and furthest to either side
FRICTION, FRICTION_SPREAD = 0.12, 0.15  # median, standard deviation of the logarithm, cut at two


class Bolts(NamedTuple):
    """N bolts as they are."""

    snug: np.ndarray  # rad
    friction: np.ndarray
    worn: np.ndarray
    own_ripple: np.ndarray  # [N, 3]
    gap: np.ndarray  # rad, play of the driver on this head


def drawn(count: int, seed: int) -> Bolts:
    """So many bolts of this box."""
    rng = np.random.default_rng([seed, 17])
    spread = np.clip(rng.standard_normal(count), -2, 2)
    return Bolts(
        snug=SNUG + rng.uniform(-SNUG_SPREAD, SNUG_SPREAD, count),
        friction=FRICTION * np.exp(FRICTION_SPREAD * spread),
        worn=rng.uniform(0.0, 1.5, count),
        own_ripple=np.stack([rng.uniform(0, 0.01, count), np.full(count, 7.0), rng.uniform(0, 2 * np.pi, count)], 1),
        gap=rng.uniform(0.03, 0.04, count),
    )


def rack_xml(count: int, step: float, *, driver: float, bolt: float, damping: float) -> str:
    """Drivers and bolts side by side; inertias in kg m² and damping in N m s/rad as given."""
    stick = f'solreffriction="{2 * step / FINE_STEPS:g} 1" solimpfriction="0.9999 0.9999 0.001 0.5 2"'
    bodies = "".join(
        f"""
    <body name="driver{i}" pos="{0.06 * i:g} 0 0.1">
      <joint name="driver{i}" type="hinge" axis="0 0 1" armature="{driver:g}" damping="{damping:g}" {stick}/>
      <geom type="cylinder" size="0.012 0.04" mass="0.001" contype="0" conaffinity="0"/>
    </body>
    <body name="bolt{i}" pos="{0.06 * i:g} 0 0.03">
      <joint name="bolt{i}" type="hinge" axis="0 0 1" armature="{bolt:g}" {stick}/>
      <geom type="cylinder" size="0.01 0.02" mass="0.001" contype="0" conaffinity="0"/>
    </body>"""
        for i in range(count)
    )
    motors = "".join(
        f'\n    <motor name="motor{i}" joint="driver{i}" gear="{TORQUE:g}" ctrlrange="-1 1" ctrllimited="true"/>'
        for i in range(count)
    )
    return f"""<mujoco model="bolts">
  <option timestep="{step:g}" gravity="0 0 0" integrator="Euler"/>
  <worldbody>{bodies}
  </worldbody>
  <actuator>{motors}
  </actuator>
</mujoco>"""


def fastening(bolts: Bolts) -> Fastening:
    """What holds and turns these bolts, as it is."""
    count = len(bolts.snug)
    return Fastening(
        drivers=tuple(f"driver{i}" for i in range(count)),
        bolts=tuple(f"bolt{i}" for i in range(count)),
        stiffness=200.0,
        gap=bolts.gap,
        damping=0.2,
        clamp=10.67e3,
        toe=0.12,
        snug=bolts.snug,
        pitch=PITCH,
        radius=RADIUS,
        friction=bolts.friction,
        drag=0.15,
        driver_drag=0.3,
        ripple=((0.05, 5, 0.7), (0.03, 11, 2.1)),
        own_ripple=bolts.own_ripple,
        sticking=0.04,
        sticking_speed=0.1,
        polish=0.12,
        wear_work=WORK,
        worn=bolts.worn,
        strength=(24e3, 45.0),
        scatter=0.015,
    )


def rack(bolts: Bolts, *, sensors: bool, lucky: bool = True) -> tuple[Reality, Fastening]:
    """The bolts as they are; with `sensors`, seen through noise, rounding and delay; not `lucky`: threads of middling strength."""
    held = fastening(bolts)
    motors = (MotorDelay(steps=COMMAND_DELAY), MotorLag(time_constant=LAG_S))
    seen = (
        SensorNoise(qpos_std=ANGLE_STD, effort_std=EFFORT_STD),
        SensorRounding(qpos_step=ANGLE_STEP, effort_step=EFFORT_STEP),
        SensorDelay(steps=SENSOR_DELAY),
    )
    scene = physics.load_scene(rack_xml(len(bolts.snug), CONTROL_S, driver=1e-2, bolt=1e-3, damping=1.0))
    effects = (*motors, held, *(seen if sensors else ()))
    effects = effects if lucky else physics.without_luck(effects)
    return Reality(scene, effects, substeps=FINE_STEPS), held
