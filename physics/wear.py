"""Hidden rules by which bonds really break. An impact's peak load depends on the time step, so no rule reads
it: only a load filtered over ≥ 10 ms, an impulse over ≥ 10 ms, and the damage that the filtered load leaves.

    ρ = √((|F|/F₀)² + (|T|/T₀)²)            share of the strength that the bond carries now
    L̇ = (ρ − L)/τ                            τ ≥ 10 ms
    s = S · max(½, 1 + c ln(1 + |L̇|/r₀))     S = exp(σ ε) drawn once per episode; grows with the loading rate
    Ḋ = (L/s)^m / T_f                        Miner: at L = s the bond lives for T_f
    breaks when L ≥ s or D ≥ 1
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import mujoco
import numpy as np

from physics.effects import Effect

SHORTEST = 0.01  # s


def without_luck(effects: Sequence[Any]) -> tuple[Any, ...]:
    """The same effects, every strength at the middle of what is drawn: all that can be known of an episode beforehand."""
    return tuple(replace(one, scatter=0.0) if getattr(one, "scatter", 0.0) else one for one in effects)


class Fatigue(NamedTuple):
    """Memory of one bond."""

    bond: int  # −1 once broken
    scale: float  # S
    filtered: float  # L
    damage: float  # D


@dataclass(frozen=True, kw_only=True)
class LoadBreak(Effect):
    """A bond breaks by filtered load or by accumulated damage."""

    bond: str
    strength: tuple[float, float]  # N, N m: F₀ and T₀
    filter_s: float = SHORTEST  # τ
    scatter: float = 0.0  # σ
    rate_gain: float = 0.0  # c
    rate: float = 10.0  # r₀ in 1/s
    life_s: float = np.inf  # T_f; inf: no damage
    exponent: float = 8.0  # m

    def start(self, model: mujoco.MjModel, dt: float, rng: np.random.Generator) -> Fatigue:
        """Memory at the start; the names and numbers are checked here."""
        if not (
            min(self.strength) > 0
            and self.filter_s >= SHORTEST
            and self.life_s > 0
            and self.rate > 0
            and self.scatter >= 0
        ):
            raise ValueError(
                f"rule of bond {self.bond!r}: strength, life_s, rate > 0, scatter >= 0, filter_s >= {SHORTEST} needed"
            )
        return Fatigue(bond_index(model, self.bond), float(np.exp(self.scatter * rng.standard_normal())), 0.0, 0.0)

    def wear(self, memory: Fatigue, load: np.ndarray, dt: float) -> tuple[Fatigue, int | None]:
        """See `Effect.wear`."""
        if memory.bond < 0:
            return memory, None
        fx, fy, fz, tx, ty, tz = load[memory.bond].tolist()
        most = self.strength
        share = ((fx * fx + fy * fy + fz * fz) / most[0] ** 2 + (tx * tx + ty * ty + tz * tz) / most[1] ** 2) ** 0.5
        filtered = memory.filtered + (share - memory.filtered) * (1 - float(np.exp(-dt / self.filter_s)))
        speed = abs(filtered - memory.filtered) / dt
        strength = memory.scale * max(0.5, 1 + self.rate_gain * float(np.log1p(speed / self.rate)))
        damage = memory.damage + dt / self.life_s * (filtered / strength) ** self.exponent
        if filtered >= strength or damage >= 1:
            return memory._replace(bond=-1), memory.bond
        return memory._replace(filtered=filtered, damage=damage), None


class Window(NamedTuple):
    """Memory of one bond: |F| dt over the last fine steps."""

    bond: int  # −1 once broken
    scale: float
    pushes: tuple[float, ...]  # N s


@dataclass(frozen=True, kw_only=True)
class ImpulseBreak(Effect):
    """A bond breaks when it has carried too much impulse within a window."""

    bond: str
    impulse: float  # N s
    window_s: float = SHORTEST
    scatter: float = 0.0

    def start(self, model: mujoco.MjModel, dt: float, rng: np.random.Generator) -> Window:
        """Memory at the start; the names and numbers are checked here."""
        if not (self.impulse > 0 and self.window_s >= SHORTEST and self.scatter >= 0):
            raise ValueError(f"rule of bond {self.bond!r}: impulse must be positive and window_s at least {SHORTEST}")
        return Window(bond_index(model, self.bond), float(np.exp(self.scatter * rng.standard_normal())), ())

    def wear(self, memory: Window, load: np.ndarray, dt: float) -> tuple[Window, int | None]:
        """See `Effect.wear`."""
        if memory.bond < 0:
            return memory, None
        keep = max(1, round(self.window_s / dt))
        pushes = (*memory.pushes, float(np.linalg.norm(load[memory.bond, :3])) * dt)[-keep:]
        if sum(pushes) >= self.impulse * memory.scale:
            return memory._replace(bond=-1), memory.bond
        return memory._replace(pushes=pushes), None


def bond_index(model: mujoco.MjModel, name: str) -> int:
    """Row of a bond among the scene's bonds: its named equalities."""
    names = [model.equality(i).name for i in range(model.neq) if model.equality(i).name]
    if name not in names:
        raise ValueError(f"bond {name!r} is not in this scene: it has {', '.join(names) or 'none'}")
    return names.index(name)
