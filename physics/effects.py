"""Effects of the real world on motors, joints, surfaces and sensors. Names refer to the scene's MJCF.

    joint     dry friction |F| ≤ (F_c + (F_s − F_c) exp(−(v/v_s)²)) · (1 + a sin(2π q/λ + φ)), viscous −b v
    patch     sliding friction × factor for contacts inside a rectangle of the ground
    drag      F = −k |v| v on a body's centre of mass
    motors    lag  ẏ = (u − y)/τ;   delay of whole control steps;   backlash  y ← clip(y, u − b/2, u + b/2)
    sensors   noise (on poses in the tangent space, so quaternions stay unit), rounding, delay of whole steps

Friction in joints is MuJoCo's own dry-friction constraint with a bound that changes each fine step, so a joint
sticks truly; friction of patches is written on the contacts before their constraint rows are made.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import mujoco
import numpy as np


class Observed(NamedTuple):
    """What the sensors say."""

    qpos: np.ndarray  # [nq]
    qvel: np.ndarray  # [nv]
    sensors: np.ndarray  # [nsensordata] the scene's own sensors
    effort: np.ndarray  # [nu] force of each motor before its gear, as its current tells


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Pure hooks, all neutral here. `memory` is whatever `start` made; dt is the fine step in s."""

    def start(self, model: mujoco.MjModel, dt: float, rng: np.random.Generator) -> Any:
        """Memory at the start of an episode; dt is the control step. Unknown names are refused here."""
        return None

    def command(self, memory: Any, ctrl: np.ndarray, dt: float) -> tuple[Any, np.ndarray]:
        """What the motors make of ctrl [nu], each fine step."""
        return memory, ctrl

    def force(self, model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
        """Generalized force [nv] in N, N m, each fine step."""
        return np.zeros(model.nv)

    def dry_friction(self, model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
        """Bound of the dry friction of each dof [nv] in N, N m, added to the model's own, each fine step."""
        return np.zeros(model.nv)

    def mechanism(
        self, memory: Any, model: mujoco.MjModel, data: mujoco.MjData, dt: float
    ) -> tuple[Any, np.ndarray, np.ndarray]:
        """Force [nv] and bound of the dry friction [nv] of something that remembers, each fine step of dt."""
        return memory, np.zeros(model.nv), np.zeros(model.nv)

    def grip(self, model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
        """Factor on the sliding friction of each contact [ncon], each fine step."""
        return np.ones(data.ncon)

    def observe(
        self, memory: Any, seen: Observed, rng: np.random.Generator, model: mujoco.MjModel
    ) -> tuple[Any, Observed]:
        """What the sensors make of the truth, each control step."""
        return memory, seen

    def wear(self, memory: Any, load: np.ndarray, dt: float) -> tuple[Any, int | None]:
        """The bond that breaks under load [nb 6], if one does, each fine step."""
        return memory, None


@dataclass(frozen=True, kw_only=True)
class StribeckFriction(Effect):
    """Dry friction of a hinge or slide that falls with speed and varies with position, and viscous friction."""

    joint: str
    coulomb: float  # N or N m, when moving fast
    static: float  # N or N m, at rest
    stribeck_speed: float = 0.05  # m/s or rad/s
    viscous: float = 0.0  # N s/m or N m s/rad
    ripple: float = 0.0  # relative amplitude over the position
    wavelength: float = 1.0  # m or rad
    phase: float = 0.0  # rad

    def start(self, model: mujoco.MjModel, dt: float, rng: np.random.Generator) -> None:
        """Memory at the start; the names and numbers are checked here."""
        joint = _named(model, mujoco.mjtObj.mjOBJ_JOINT, self.joint, "joint")
        if mujoco.mjtJoint(model.jnt_type[joint]) not in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE):
            raise ValueError(f"joint {self.joint!r}: friction needs a hinge or a slide")
        if not (
            self.coulomb >= 0
            and self.static >= 0
            and self.stribeck_speed > 0
            and abs(self.ripple) <= 1
            and self.wavelength
        ):
            raise ValueError(
                f"friction of joint {self.joint!r}: no bound below 0, speed and wavelength not 0, |ripple| at most 1"
            )

    def dry_friction(self, model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
        """See `Effect.dry_friction`."""
        joint = model.joint(self.joint)
        dof, q = joint.dofadr[0], data.qpos[joint.qposadr[0]]
        bound = self.coulomb + (self.static - self.coulomb) * np.exp(-((data.qvel[dof] / self.stribeck_speed) ** 2))
        out = np.zeros(model.nv)
        out[dof] = bound * (1 + self.ripple * np.sin(2 * np.pi * q / self.wavelength + self.phase))
        return out

    def force(self, model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
        """See `Effect.force`."""
        dof, out = model.joint(self.joint).dofadr[0], np.zeros(model.nv)
        out[dof] = -self.viscous * data.qvel[dof]
        return out


@dataclass(frozen=True, kw_only=True)
class GroundPatch(Effect):
    """Contacts of one geom (a floor) inside a rectangle of the world's x, y have their sliding friction × factor."""

    geom: str
    low: tuple[float, float]  # m
    high: tuple[float, float]  # m
    factor: float

    def start(self, model: mujoco.MjModel, dt: float, rng: np.random.Generator) -> None:
        """Memory at the start; the names and numbers are checked here."""
        _named(model, mujoco.mjtObj.mjOBJ_GEOM, self.geom, "geom")
        if self.factor < 0:
            raise ValueError(f"patch of {self.geom!r}: factor={self.factor!r} must not be negative")

    def grip(self, model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
        """See `Effect.grip`."""
        contact = data.contact
        mine = (contact.geom.reshape(-1, 2) == model.geom(self.geom).id).any(1)
        at = contact.pos.reshape(-1, 3)[:, :2]
        inside = ((at >= self.low) & (at <= self.high)).all(1)
        return np.where(mine & inside, self.factor, 1.0)


@dataclass(frozen=True, kw_only=True)
class QuadraticDrag(Effect):
    """Force −k |v| v at the centre of mass of a body."""

    body: str
    coefficient: float  # N s²/m²

    def start(self, model: mujoco.MjModel, dt: float, rng: np.random.Generator) -> None:
        """Memory at the start; the names and numbers are checked here."""
        _named(model, mujoco.mjtObj.mjOBJ_BODY, self.body, "body")

    def force(self, model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
        """See `Effect.force`."""
        jacobian = np.zeros((3, model.nv))
        mujoco.mj_jacBodyCom(model, data, jacobian, None, model.body(self.body).id)
        velocity = jacobian @ data.qvel
        return -self.coefficient * np.linalg.norm(velocity) * (jacobian.T @ velocity)


@dataclass(frozen=True, kw_only=True)
class MotorLag(Effect):
    """All motors follow their command with a first-order lag."""

    time_constant: float  # s
    settled: bool = False  # whether they stand at the first command at the start, as servos do; else at zero

    def start(self, model: mujoco.MjModel, dt: float, rng: np.random.Generator) -> np.ndarray:
        """Memory at the start; the names and numbers are checked here."""
        if not self.time_constant > 0:
            raise ValueError(f"time_constant={self.time_constant!r} of a lag must be positive")
        return np.full(model.nu, np.nan if self.settled else 0.0)

    def command(self, memory: np.ndarray, ctrl: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """See `Effect.command`."""
        memory = np.where(np.isnan(memory), ctrl, memory)
        late = memory + (ctrl - memory) * (1 - np.exp(-dt / self.time_constant))
        return late, late


@dataclass(frozen=True, kw_only=True)
class MotorDelay(Effect):
    """Commands arrive whole control steps late; before the first one arrives they are zero."""

    steps: int

    def start(self, model: mujoco.MjModel, dt: float, rng: np.random.Generator) -> tuple[float, float, np.ndarray]:
        """Memory at the start; the names and numbers are checked here."""
        _whole(self.steps)
        return 0.0, dt, np.zeros((self.steps, model.nu))  # time within the control step, control step, queue

    def command(self, memory: tuple[float, float, np.ndarray], ctrl: np.ndarray, dt: float) -> tuple[Any, np.ndarray]:
        """See `Effect.command`."""
        passed, step, queue = memory
        if not self.steps:
            return memory, ctrl
        passed += dt
        if passed < step - 0.5 * dt:
            return (passed, step, queue), queue[0]
        return (0.0, step, np.concatenate([queue[1:], ctrl[None]])), queue[0]


@dataclass(frozen=True, kw_only=True)
class Backlash(Effect):
    """Play between command and motor (for position servos): the output moves once the command has crossed it."""

    actuator: str
    gap: float  # in units of the control

    def start(self, model: mujoco.MjModel, dt: float, rng: np.random.Generator) -> tuple[int, float]:
        """Memory at the start; the names and numbers are checked here."""
        return _named(model, mujoco.mjtObj.mjOBJ_ACTUATOR, self.actuator, "actuator"), 0.0

    def command(self, memory: tuple[int, float], ctrl: np.ndarray, dt: float) -> tuple[tuple[int, float], np.ndarray]:
        """See `Effect.command`."""
        motor, last = memory
        out = ctrl.copy()
        out[motor] = np.clip(last, ctrl[motor] - self.gap / 2, ctrl[motor] + self.gap / 2)
        return (motor, float(out[motor])), out


@dataclass(frozen=True, kw_only=True)
class SensorNoise(Effect):
    """Independent normal noise; a pose is moved along its tangent space (m, rad)."""

    qpos_std: float = 0.0
    qvel_std: float = 0.0
    sensor_std: float = 0.0
    effort_std: float = 0.0

    def observe(
        self, memory: Any, seen: Observed, rng: np.random.Generator, model: mujoco.MjModel
    ) -> tuple[Any, Observed]:
        """See `Effect.observe`."""
        qpos = seen.qpos.copy()
        mujoco.mj_integratePos(model, qpos, self.qpos_std * rng.standard_normal(model.nv), 1.0)
        qvel = seen.qvel + self.qvel_std * rng.standard_normal(model.nv)
        sensors = seen.sensors + self.sensor_std * rng.standard_normal(len(seen.sensors))
        effort = seen.effort + self.effort_std * rng.standard_normal(model.nu) if self.effort_std else seen.effort
        return memory, Observed(qpos, qvel, sensors, effort)


@dataclass(frozen=True, kw_only=True)
class SensorRounding(Effect):
    """Readings come in multiples of a step (0: as they are); quaternions are made unit again."""

    qpos_step: float = 0.0
    qvel_step: float = 0.0
    sensor_step: float = 0.0
    effort_step: float = 0.0

    def observe(
        self, memory: Any, seen: Observed, rng: np.random.Generator, model: mujoco.MjModel
    ) -> tuple[Any, Observed]:
        """See `Effect.observe`."""
        steps = (self.qpos_step, self.qvel_step, self.sensor_step, self.effort_step)
        rounded = Observed(
            *(np.round(x / step) * step if step else x.copy() for x, step in zip(seen, steps, strict=True))
        )
        mujoco.mj_normalizeQuat(model, rounded.qpos)
        return memory, rounded


@dataclass(frozen=True, kw_only=True)
class SensorDelay(Effect):
    """Readings are whole control steps old; at the start the first one is repeated."""

    steps: int

    def start(self, model: mujoco.MjModel, dt: float, rng: np.random.Generator) -> tuple[Observed, ...]:
        """Memory at the start; the names and numbers are checked here."""
        _whole(self.steps)
        return ()

    def observe(
        self, memory: tuple[Observed, ...], seen: Observed, rng: np.random.Generator, model: mujoco.MjModel
    ) -> tuple[Any, Observed]:
        """See `Effect.observe`."""
        queue = (*memory, seen)[-self.steps - 1 :]
        return queue, queue[0]


def _named(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str, word: str) -> int:
    found = mujoco.mj_name2id(model, kind, name)
    if found < 0:
        raise ValueError(f"{word} {name!r} is not in this scene")
    return found


def _whole(steps: int) -> None:
    if steps < 0 or steps != int(steps):
        raise ValueError(f"steps={steps!r} of a delay must be a whole number of at least 0")
