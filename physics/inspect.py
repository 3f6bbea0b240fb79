"""What a scene is, whether the engine can honour it, and what it costs on this machine.

Rows, at most: contacts × rows of their cone (1 without friction, 4 pyramidal, 3 elliptic), 1 per limited joint, 6 per
weld, 3 per connect. A plan at 50 Hz has 20 ms = cost per world-step × samples × horizon.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from physics import gate
from physics.pairs import GeomPair
from physics.scene import Bond, Scene, examine, load_scene

if TYPE_CHECKING:
    from rich.table import Table

PLAN_S = 0.02
HORIZONS = (25, 50, 100)


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What `inspect` found; counts are zero where a scene is not supported."""

    name: str
    reasons: tuple[str, ...] = ()  # why it is not supported; empty: it is
    timestep_s: float = 0.0
    bodies: int = 0  # moving ones
    dofs: int = 0
    controls: int = 0
    bonds: tuple[Bond, ...] = ()
    sensors: tuple[str, ...] = ()
    pairs: tuple[tuple[str, int], ...] = ()  # kinds of geoms that may touch, and how many pairs of them
    contacts: int = 0  # upper bound
    rows: int = 0  # upper bound
    cost_us: float | None = None  # µs per world-step, 512 worlds; None where it was not measured

    @property
    def supported(self) -> bool:
        """Whether the engine honours all of it."""
        return not self.reasons

    def plans(self) -> dict[int, int]:
        """Samples that fit into a plan of 20 ms, by horizon in steps."""
        return {} if not self.cost_us else {horizon: int(PLAN_S * 1e6 / self.cost_us / horizon) for horizon in HORIZONS}

    def render(self) -> Table:
        """A table for the terminal."""
        from rich.table import Table

        table = Table(title=f"scene {self.name}", show_header=False, title_justify="left")
        for key, value in self._lines():
            table.add_row(key, value)
        return table

    def _lines(self) -> list[tuple[str, str]]:
        if self.reasons:
            return [("supported", "no"), *(("because", reason) for reason in self.reasons)]
        lines = [
            ("supported", "yes"),
            ("time step", f"{self.timestep_s * 1e3:g} ms"),
            ("moving bodies, dofs, controls", f"{self.bodies}, {self.dofs}, {self.controls}"),
            ("bonds", "\n".join(map(_bond_line, self.bonds)) or "none"),
            ("sensors", ", ".join(self.sensors) or "none"),
            ("geom pairs", "\n".join(f"{count} × {kinds}" for kinds, count in self.pairs) or "none"),
            ("contacts, constraint rows", f"at most {self.contacts}, {self.rows}"),
        ]
        if self.cost_us is None:
            return lines
        fits = "\n".join(f"{samples} samples × {horizon} steps" for horizon, samples in self.plans().items())
        return [
            *lines,
            ("cost here", f"{self.cost_us:.2f} µs per world-step"),
            (f"a plan of {PLAN_S * 1e3:g} ms", fits),
        ]


def inspect(source: str | Path, *, worlds: int = 512, timing: bool = True) -> Inspection:
    """Look at a scene: every reason why it is not supported, or its size and its cost on this machine.

    Raises ValueError for what is not a scene at all.
    """
    admitted = gate.admit(source)
    _, _, reasons = examine(admitted)
    if reasons:
        return Inspection(name=admitted.name, reasons=tuple(reasons))
    try:
        scene = load_scene(source)
    except ValueError as error:
        return Inspection(name=admitted.name, reasons=(str(error),))
    model = scene.model
    return Inspection(
        name=scene.name,
        timestep_s=float(model.opt.timestep),
        bodies=model.nbody - 1,
        dofs=model.nv,
        controls=model.nu,
        bonds=scene.bonds,
        sensors=scene.sensors,
        pairs=tuple(Counter(" – ".join(_kinds(model, pair)) for pair in scene.pairs).most_common()),
        contacts=sum(count for _, count in _slots(scene)),
        rows=_rows(scene),
        cost_us=cost_us(scene, worlds=worlds) if timing else None,
    )


def cost_us(scene: Scene, *, worlds: int = 512, steps: int = 25) -> float:
    """µs per world-step of the engine: worlds near home, random controls, all devices, median of five."""
    import jax

    from physics.engine import brax_engine
    from physics.params import nominal

    engine, params = brax_engine(scene), nominal(scene)
    mesh = jax.make_mesh((len(jax.devices()),), ("worlds",))
    split = [jax.sharding.PartitionSpec(*axes, "worlds") for axes in ([None], [None], [None, None])]
    inputs = _near_home(scene, -(-worlds // mesh.size) * mesh.size, steps)
    start = [jax.device_put(x, jax.NamedSharding(mesh, spec)) for x, spec in zip(inputs, split, strict=True)]

    def run(qpos: jax.Array, qvel: jax.Array, ctrl: jax.Array) -> jax.Array:
        state = engine.init(params, qpos, qvel)
        return engine.rollout(params, state, ctrl, output=lambda state, info: state.qpos[0])[1]

    spread = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=tuple(split), out_specs=split[0], check_vma=False))
    spread(*start).block_until_ready()
    seconds = statistics.median(_clock(lambda: spread(*start).block_until_ready()) for _ in range(5))
    return seconds / start[0].shape[-1] / steps * 1e6


def _near_home(scene: Scene, worlds: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """qpos [nq W] at home, qvel [nv W] a little off it, ctrl [H nu W] at random within its range."""
    rng, model = np.random.default_rng(0), scene.model
    qpos, qvel = (np.repeat(x[:, None], worlds, axis=1) for x in scene.home())
    reach = np.where(model.actuator_ctrllimited, np.abs(model.actuator_ctrlrange).max(1, initial=0), 1.0)
    ctrl = rng.uniform(-1, 1, (steps, model.nu, worlds)) * reach[:, None]
    return qpos, qvel + 0.01 * rng.normal(size=qvel.shape), ctrl


def _clock(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _kinds(model: mujoco.MjModel, pair: GeomPair) -> tuple[str, str]:
    one, two = (mujoco.mjtGeom(model.geom_type[geom]).name.removeprefix("mjGEOM_").lower() for geom in pair[:2])
    return one, two


def _slots(scene: Scene) -> list[tuple[int, int]]:
    """(condim, contacts) of each list of pairs (two bodies, one condim), after the contact budget."""
    from physics.collision import SLOTS

    lists: Counter[tuple[int, int, int]] = Counter()
    for pair in scene.pairs:
        one, two = scene.model.geom_bodyid[[pair.geom1, pair.geom2]]
        lists[int(one), int(two), pair.condim] += SLOTS[
            int(scene.model.geom_type[pair.geom1]), int(scene.model.geom_type[pair.geom2])
        ]
    return [(condim, min(count, scene.contact_budget or count)) for (_, _, condim), count in lists.items()]


def _rows(scene: Scene) -> int:
    model = scene.model
    cone = 3 if model.opt.cone == int(mujoco.mjtCone.mjCONE_ELLIPTIC) else 4
    contacts = sum(count * (1 if condim == 1 else cone) for condim, count in _slots(scene))
    welds = int((model.eq_type == int(mujoco.mjtEq.mjEQ_WELD)).sum())
    return contacts + int(model.jnt_limited.sum()) + 6 * welds + 3 * (model.neq - welds)


def _bond_line(bond: Bond) -> str:
    strength = f", holds {bond.strength[0]:g} N and {bond.strength[1]:g} N m" if bond.strength else ""
    return f"{bond.name} ({bond.kind}){strength}{'' if bond.intact else ', broken at the start'}"
