"""A stand-in for reality: MuJoCo C in fine steps, with effects that the planner's engine does not model.

    u ─ delay, lag, backlash ─▶ MuJoCo C (true θ) + friction, drag ─▶ x ─ noise, rounding, delay ─▶ what a log holds
                                      └─ load of each bond ─ hidden rule ─▶ breaks

Each effect is a frozen dataclass (`physics.effects`, `physics.wear`) with the hooks of `Effect`; they act in
the order given. Everything follows from the scene, the effects and a seed.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import ArrayLike

from physics.effects import Effect, Observed
from physics.reference import Reference, Unstable, quiet
from physics.scene import Scene
from physics.types import Params

HOOKS = ("command", "force", "dry_friction", "mechanism", "grip", "observe", "wear")

Policy = Callable[[int, Observed], ArrayLike]  # (step, what the sensors said) -> ctrl [nu]


class Episode(NamedTuple):
    """What happened in H control steps; rows at the control rate, the start included where H+1 stands."""

    time: np.ndarray  # [H+1] s
    qpos: np.ndarray  # [H+1 nq] as it was
    qvel: np.ndarray  # [H+1 nv]
    seen: Observed  # [H+1 ..] as the sensors said
    ctrl: np.ndarray  # [H nu] as commanded
    intact: np.ndarray  # [H+1 nb]
    load: (
        np.ndarray
    )  # [H nb 6] mean force (N) and torque (N m) of each bond over the step: world frame, on its second body
    breaks: tuple[tuple[str, float], ...]  # (bond, time in s)
    effort: np.ndarray  # [H+1 nu] force of each motor before its gear, in the last fine step
    memory: tuple[Any, ...]  # of each effect at the end
    failure: str | None  # MuJoCo's words where the simulation went bad; the arrays end before that step


class Reality:
    """A scene as it really is: true θ, fine steps, effects."""

    def __init__(
        self, scene: Scene, effects: Sequence[Effect] = (), *, params: Params | None = None, substeps: int = 10
    ) -> None:
        self.scene, self.effects = scene, tuple(effects)
        self.reference = Reference(scene, params=params, substeps=substeps)
        self._smooth = self.reference.model.dof_frictionloss.copy()
        self._of = {hook: self._found(hook) for hook in HOOKS}
        self._start(np.random.default_rng(0))

    def episode(
        self,
        ctrl: ArrayLike | Policy,
        *,
        seed: int,
        horizon: int | None = None,
        qpos: ArrayLike | None = None,
        qvel: ArrayLike | None = None,
    ) -> Episode:
        """Run ctrl [H nu], or a policy for `horizon` steps, from the given start (without one, the scene's home)."""
        policy, steps = _policy(ctrl, horizon)
        walk = self.walk(steps, seed=seed, qpos=qpos, qvel=qvel)
        try:
            seen = next(walk)
            for h in range(steps):
                seen = walk.send(policy(h, seen))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        raise AssertionError("a walk ends with its last step")

    def walk(
        self, horizon: int, *, seed: int, qpos: ArrayLike | None = None, qvel: ArrayLike | None = None
    ) -> Generator[Observed, ArrayLike, Episode]:
        """The same one step at a time: yields what the sensors say, is sent ctrl [nu], returns the episode.

        For loops that plan for several realities at once; each walk needs a `Reality` of its own.
        """
        home, rng = self.scene.home(), np.random.default_rng(seed)
        self.reference.reset(home[0] if qpos is None else qpos, home[1] if qvel is None else qvel)
        memory, breaks, failure = self._start(rng), list[tuple[str, float]](), None
        rows, commands, loads = [self._row(memory, rng)], list[np.ndarray](), list[np.ndarray]()
        for _ in range(horizon):
            command = np.asarray((yield rows[-1][-1]), float).reshape(self.reference.model.nu)
            try:
                with quiet():
                    loads.append(self._control_step(command, memory, breaks))
            except Unstable as error:
                failure = str(error)
                break
            commands.append(command)
            rows.append(self._row(memory, rng))
        return self._record(rows, commands, loads, breaks, memory, failure)

    def _start(self, rng: np.random.Generator) -> list[Any]:
        return [effect.start(self.reference.model, self.reference.dt, rng) for effect in self.effects]

    def _control_step(self, command: np.ndarray, memory: list[Any], breaks: list[tuple[str, float]]) -> np.ndarray:
        """Hold the command over the fine steps; the mean bond load [nb 6]."""
        reference = self.reference
        total = np.zeros((len(self.scene.bonds), 6))
        for _ in range(reference.substeps):
            self._drive(command, memory)
            reference.fine_step(self._grip if self._having("grip") else None)
            if len(total):
                load = reference.bond_load()
                total += load
                breaks += self._wear(load, memory)
        return total / reference.substeps

    def _drive(self, ctrl: np.ndarray, memory: list[Any]) -> None:
        model, data, dt = self.reference.model, self.reference.data, self.reference.model.opt.timestep
        for i in self._having("command"):
            memory[i], ctrl = self.effects[i].command(memory[i], ctrl, dt)
        data.ctrl[:] = ctrl
        force, bound = np.zeros(model.nv), self._smooth.copy()
        for i in self._having("force"):
            force += self.effects[i].force(model, data)
        for i in self._having("dry_friction"):
            bound += self.effects[i].dry_friction(model, data)
        for i in self._having("mechanism"):
            memory[i], pushed, rubbed = self.effects[i].mechanism(memory[i], model, data, dt)
            force += pushed
            bound += rubbed
        data.qfrc_applied[:], model.dof_frictionloss[:] = force, bound

    def _grip(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        for i in self._having("grip"):
            data.contact.friction[:, :2] *= self.effects[i].grip(model, data)[:, None]

    def _wear(self, load: np.ndarray, memory: list[Any]) -> list[tuple[str, float]]:
        breaks = []
        for i in self._having("wear"):
            memory[i], broken = self.effects[i].wear(memory[i], load, self.reference.model.opt.timestep)
            if broken is not None and self.reference.intact[broken]:
                self.reference.release(broken)
                breaks.append((self.scene.bonds[broken].name, float(self.reference.data.time)))
        return breaks

    def _having(self, hook: str) -> list[int]:
        """The effects that have this hook."""
        return self._of[hook]

    def _found(self, hook: str) -> list[int]:
        return [i for i, effect in enumerate(self.effects) if getattr(type(effect), hook) is not getattr(Effect, hook)]

    def _row(self, memory: list[Any], rng: np.random.Generator) -> tuple[Any, ...]:
        model, data = self.reference.model, self.reference.data
        sizes = (data.qpos, data.qvel, data.sensordata, data.actuator_force)
        truth = seen = Observed(*(x.copy() for x in sizes))
        for i in self._having("observe"):
            memory[i], seen = self.effects[i].observe(memory[i], seen, rng, model)
        return data.time, truth.qpos, truth.qvel, self.reference.intact.copy(), truth.effort, seen

    def _record(
        self,
        rows: list[Any],
        commands: list[Any],
        loads: list[Any],
        breaks: list[Any],
        memory: list[Any],
        failure: str | None,
    ) -> Episode:
        time, qpos, qvel, intact, effort, seen = (list(column) for column in zip(*rows, strict=True))
        nu, nb = self.reference.model.nu, len(self.scene.bonds)
        return Episode(
            time=np.array(time),
            qpos=np.array(qpos),
            qvel=np.array(qvel),
            seen=Observed(*(np.array(column) for column in zip(*seen, strict=True))),
            ctrl=np.array(commands).reshape(len(commands), nu),
            intact=np.array(intact).reshape(len(rows), nb),
            load=np.array(loads).reshape(len(loads), nb, 6),
            breaks=tuple(breaks),
            effort=np.array(effort),
            memory=tuple(memory),
            failure=failure,
        )


def _policy(ctrl: ArrayLike | Policy, horizon: int | None) -> tuple[Policy, int]:
    if callable(ctrl):
        if horizon is None:
            raise ValueError("a policy needs a horizon: how many control steps to run")
        return ctrl, horizon
    table = np.asarray(ctrl, float)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError(f"ctrl has shape {table.shape}: give [H, nu] finite numbers, or a policy")
    return lambda h, seen: table[h], len(table) if horizon is None else min(horizon, len(table))
