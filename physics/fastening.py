"""A screw driven into a joint: a compliant driver with play, a clamp that closes, a thread that rubs, wears and strips.

    τ = K dead(q_d − q_b, g) + D (v_d − v_b)[engaged]     the driver winds up; dead(x, g): x beyond ±g/2
    δ = q_b − q_snug,   F = k ramp(δ, δ₀)                 clamp force; ramp: 0, δ²/2δ₀ while the joint closes, then δ − δ₀/2
    J_b v̇_b = τ − p F − (thread friction),   |friction| ≤ T₀ + F r μ f       p: pitch over a turn
    f = (1 + Σ a_i sin(n_i q_b + φ_i)) (1 + σ e^{−(v_b/v_s)²}) (1 − c (1 − e^{−s})),    ṡ = F |v_b| / E    ripple, sticking, wear
    ρ = √((F/F₀)² + (T/T₀')²),   L̇ = (ρ − L)/10 ms;   L ≥ S: the thread strips, for good; F and its friction fall to a remnant

The laws are written once, for numpy and jax.numpy. Reality adds what a planner's model does not know (toe, ripple, sticking,
wear, the play of each bolt), and MuJoCo's own dry-friction constraint makes the thread stick.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import mujoco
import numpy as np

from physics.effects import Effect

FILTER_S = 0.01
REMNANT = 0.1
"""Share of the clamp force that a stripped thread still carries."""


def windup(stiffness: Any, gap: Any, damping: Any, twist: Any, rate: Any, *, xp: Any = np) -> Any:
    """τ in N m of a driver wound up by `twist` rad at `rate` rad/s, with play `gap` rad."""
    beyond = twist - xp.clip(twist, -gap / 2, gap / 2)
    return stiffness * beyond + damping * rate * (xp.abs(twist) > gap / 2)


def ramp(angle: Any, toe: Any, *, xp: Any = np) -> Any:
    """How far a joint that closes over `toe` rad is wound up, in rad."""
    closed, soft = xp.maximum(angle, 0.0), xp.maximum(toe, 1e-6)
    return xp.where(closed < soft, closed * closed / (2 * soft), closed - soft / 2)


def strain(force: Any, torque: Any, strength: Any, *, xp: Any = np) -> Any:
    """ρ: share of its strength (N, N m) that a thread carries."""
    return xp.sqrt((force / strength[0]) ** 2 + (torque / strength[1]) ** 2)


class Wound(NamedTuple):
    """What N threads remember."""

    work: np.ndarray  # [N] s
    strained: np.ndarray  # [N] L
    strength: np.ndarray  # [N] S
    stripped_at: np.ndarray  # [N] s; inf while whole
    time: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Fastening(Effect):
    """N drivers on N bolts, pairs of hinges named `driver…` and `bolt…` in the same order. Arrays are [N]."""

    drivers: tuple[str, ...]
    bolts: tuple[str, ...]
    stiffness: float  # N m/rad, K
    gap: np.ndarray  # rad, g
    damping: float  # N m s/rad, D
    clamp: float  # N/rad, k
    toe: float  # rad, δ₀
    snug: np.ndarray  # rad, q_snug
    pitch: float  # m/rad, p
    radius: float  # m, r
    friction: np.ndarray  # μ
    drag: float  # N m, T₀
    driver_drag: float = 0.0  # N m, dry friction of the driver's gear
    ripple: tuple[tuple[float, int, float], ...] = ()  # (a, n, φ) alike for all bolts
    own_ripple: np.ndarray | None = None  # [N, 3] (a, n, φ) of each bolt
    sticking: float = 0.0  # σ
    sticking_speed: float = 0.1  # rad/s, v_s
    polish: float = 0.0  # c
    wear_work: float = 2e4  # N rad, E
    worn: np.ndarray | None = None  # [N] s at the start
    strength: tuple[float, float] = (np.inf, np.inf)  # N, N m
    scatter: float = 0.0  # of S, which is drawn once per bolt and episode

    def start(self, model: mujoco.MjModel, dt: float, rng: np.random.Generator) -> Wound:
        """Memory at the start; the names are checked here."""
        n = len(self.bolts)
        if len(self.drivers) != n:
            raise ValueError(f"{len(self.drivers)} drivers and {n} bolts: give one driver to each bolt")
        for name in (*self.drivers, *self.bolts):
            if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name) < 0:
                raise ValueError(f"joint {name!r} is not in this scene")
        worn = np.zeros(n) if self.worn is None else np.array(self.worn, float)
        return Wound(worn, np.zeros(n), np.exp(self.scatter * rng.standard_normal(n)), np.full(n, np.inf), 0.0)

    def mechanism(
        self, memory: Wound, model: mujoco.MjModel, data: mujoco.MjData, dt: float
    ) -> tuple[Wound, np.ndarray, np.ndarray]:
        """See `Effect.mechanism`."""
        (driver, bolt), force, bound = self._dofs(model), np.zeros(model.nv), np.zeros(model.nv)
        q, v = data.qpos[bolt], data.qvel[bolt]
        torque = windup(self.stiffness, self.gap, self.damping, data.qpos[driver] - q, data.qvel[driver] - v)
        clamp = self.clamp_force(q, data.time >= memory.stripped_at)
        rubbing = clamp * self.radius * self.friction * self.factor(q, v, memory.work)
        force[driver], force[bolt] = -torque, torque - self.pitch * clamp
        bound[driver], bound[bolt] = self.driver_drag, self.drag + rubbing
        return self._aged(memory, clamp, rubbing, v, float(data.time), dt), force, bound

    def clamp_force(self, q: np.ndarray, stripped: np.ndarray) -> np.ndarray:
        """F in N at bolt angles q [..., N]."""
        return self.clamp * ramp(q - self.snug, self.toe) * np.where(stripped, REMNANT, 1.0)

    def factor(self, q: np.ndarray, v: np.ndarray, work: np.ndarray) -> np.ndarray:
        """f."""
        waves = 1 + sum(a * np.sin(n * q + phase) for a, n, phase in self.ripple)
        if self.own_ripple is not None:
            waves = waves + self.own_ripple[:, 0] * np.sin(self.own_ripple[:, 1] * q + self.own_ripple[:, 2])
        sticking = 1 + self.sticking * np.exp(-((v / self.sticking_speed) ** 2))
        return waves * sticking * (1 - self.polish * (1 - np.exp(-work)))

    def _aged(
        self, memory: Wound, clamp: np.ndarray, rubbing: np.ndarray, v: np.ndarray, time: float, dt: float
    ) -> Wound:
        torque = self.pitch * clamp + rubbing
        strained = memory.strained + (strain(clamp, torque, self.strength) - memory.strained) * (
            1 - np.exp(-dt / FILTER_S)
        )
        gone = (strained >= memory.strength) & np.isinf(memory.stripped_at)
        return Wound(
            work=memory.work + clamp * np.abs(v) * dt / self.wear_work,
            strained=strained,
            strength=memory.strength,
            stripped_at=np.where(gone, time + dt, memory.stripped_at),
            time=time + dt,
        )

    def _dofs(self, model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
        """Addresses of the drivers' and bolts' hinges, in qpos and in qvel alike: the scene holds hinges alone."""
        return tuple(np.array([model.joint(n).dofadr[0] for n in names]) for names in (self.drivers, self.bolts))  # type: ignore[return-value]
