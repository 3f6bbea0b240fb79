"""A plan replayed in MuJoCo C: how far it lands from its promise, and whether what it promised comes true.

    gap_j(t) = |q_j(t) − q_j,C(t)|          m or rad, per joint; of a free joint its position and its turn

The witness is `physics.Reality`: by default MuJoCo C at the engine's own step with the nominal strengths of the bonds,
or any other, with finer steps, other masses, and effects that no model knows.
Legend: H steps of the plan, N samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import planners as pl
from hybridwm.tasks.setting import Check, Setting
from hybridwm.tasks.terms import joints
from hybridwm.world.physics_model import FILTER_S
from physics import Episode, LoadBreak, Reality, Scene


class Gap(NamedTuple):
    """How far one coordinate is from its promise."""

    quantity: str
    unit: str
    end: float
    largest: float
    at_s: float
    """When it was largest."""
    speed: float
    """Largest difference of its speed, unit/s."""


class Outcome(NamedTuple):
    """One promise, and what came of it."""

    what: str
    promised: str
    real: str
    met: bool
    """Whether reality meets what was asked."""
    kept: bool
    """Whether reality did as promised."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What the replay of a plan showed."""

    scene: str
    dt: float
    """Seconds per row."""
    gaps: tuple[Gap, ...]
    outcomes: tuple[Outcome, ...]
    failure: str | None
    """MuJoCo's words, where the simulation went bad."""
    qpos: np.ndarray
    """`[H+1, nq]` as it really went; shorter after a failure."""
    qvel: np.ndarray

    @property
    def kept(self) -> bool:
        """Whether everything came out as promised."""
        return self.failure is None and all(outcome.kept for outcome in self.outcomes)

    @property
    def met(self) -> bool:
        """Whether everything that was asked came true."""
        return self.failure is None and all(outcome.met for outcome in self.outcomes)

    def describe(self) -> list[str]:
        """The certificate in sentences."""
        head = "kept: everything came out as promised" if self.kept else "BROKEN: not everything came out as promised"
        lines = [f"{head} in MuJoCo C"]
        if self.failure:
            lines.append(f"the simulation went bad: {self.failure}")
        for outcome in self.outcomes:
            lines.append(
                f"{'kept' if outcome.kept else 'BROKEN'}: {outcome.what}: promised {outcome.promised}, real {outcome.real}"
            )
        for gap in self.gaps:
            lines.append(f"{gap.quantity}: {gap.end:.2g} {gap.unit} apart at the end, "
                         f"at most {gap.largest:.2g} {gap.unit} (at {gap.at_s:.2f} s)")  # fmt: skip
        return lines


def witness(scene: Scene, *, substeps: int = 1) -> Reality:
    """MuJoCo C with bonds that break at their nominal strength, by the rule that the planner's model has."""
    rules = [LoadBreak(bond=b.name, strength=b.strength, filter_s=FILTER_S) for b in scene.bonds if b.strength]
    return Reality(scene, rules, substeps=substeps)


def certify(
    setting: Setting, plan: pl.Plan, state: Any = None, *, reality: Reality | None = None, seed: int = 0,
    event_tolerance_s: float = 0.04,
) -> Certificate:  # fmt: skip
    """Replay the controls of `plan` from `state` (the setting's own unless given) in `reality`.

    event_tolerance_s: how far apart the promised and the real moment of a break may be (and at least one control).
    """
    return certify_controls(
        setting.scene, setting.problem, plan, setting.state if state is None else state, goal=setting.params.goal,
        checks=setting.checks, reality=reality, seed=seed, event_tolerance_s=event_tolerance_s,
    )  # fmt: skip


def certify_controls(
    scene: Scene, problem: pl.Problem, plan: pl.Plan, state: Any, *, goal: Any = (),
    checks: Sequence[Check] | None = None, reality: Reality | None = None, seed: int = 0, event_tolerance_s: float = 0.04,
) -> Certificate:  # fmt: skip
    """The same for a problem of your own: states need `qpos`, `qvel`, `intact` and `act`, as the engine's have.

    Without `checks`, the problem's goal and constraints are checked.
    """
    reality = reality or witness(scene)
    every = round(problem.model.dt / float(scene.model.opt.timestep))
    episode = replay(reality, np.asarray(plan.ctrls), state, every=every, seed=seed)
    promised = plan.states if problem.risk.members == 1 else jax.tree.map(lambda leaf: leaf[..., 0], plan.states)
    real = _real_states(promised, episode, every)
    outcomes = [
        *(_of_check(check, goal, promised, real) for check in (_own_checks(problem) if checks is None else checks)),
        *(
            _of_event(problem, plan, index, state, episode, event_tolerance_s)
            for index in range(len(problem.model.events))
        ),
    ]
    return Certificate(
        scene=scene.name,
        dt=problem.model.dt,
        gaps=_gaps(scene, problem.model.dt, promised, real),
        outcomes=tuple(outcomes),
        failure=episode.failure,
        qpos=episode.qpos[::every],
        qvel=episode.qvel[::every],
    )


def replay(reality: Reality, ctrls: np.ndarray, state: Any, *, every: int, seed: int = 0) -> Episode:
    """Run ctrls `[H, nu]`, each for `every` steps, from a model's state: bonds that are broken there are broken here."""

    def policy(step: int, seen: Any) -> np.ndarray:
        if step == 0:
            stand(reality, state)
        return ctrls[step // every]

    qpos, qvel = (np.asarray(part, float) for part in (state.qpos, state.qvel))
    return reality.episode(policy, seed=seed, horizon=len(ctrls) * every, qpos=qpos, qvel=qvel)


def stand(reality: Reality, state: Any) -> None:
    """Put the world of `reality` exactly into a model's state: also its activations and its broken bonds."""
    parts = (np.asarray(part, float) for part in (state.qpos, state.qvel, state.intact, state.act, state.apart))
    qpos, qvel, intact, act, apart = parts
    reality.reference.reset(qpos, qvel, intact, act=act, apart=apart)


def _own_checks(problem: pl.Problem) -> list[Check]:
    goal = problem.goal
    ends = [Check("goal", "", goal.tolerance, goal.reached, True)] if goal else []
    return ends + [Check(f"constraint {i}", "", 0.0, off, False) for i, off in enumerate(problem.constraints)]


def _real_states(promised: Any, episode: Episode, every: int) -> Any:
    """The promised states `[H, ...]` with what really happened in their place; the last row stays after a failure."""
    rows = np.minimum((np.arange(len(promised.qpos)) + 1) * every, len(episode.time) - 1)
    real = {"qpos": episode.qpos, "qvel": episode.qvel, "intact": episode.intact}
    return promised._replace(**{name: jnp.asarray(value[rows], float) for name, value in real.items()})


def _of_check(check: Check, goal: Any, promised: Any, real: Any) -> Outcome:
    """Checks are written for samples in the last axis: here the steps stand there."""
    aim = jax.tree.map(lambda leaf: jnp.asarray(leaf)[..., None], goal)
    values = [_worst(check, np.asarray(check.off(aim, _steps_last(states)))) for states in (promised, real)]
    fine = [bool(value <= check.within) for value in values]
    unit = f" {check.unit}" if check.unit else ""
    what = f"{check.label} within {check.within:g}{unit}" if check.last else check.label
    promised, there = (_words(check, good, value, unit) for good, value in zip(fine, values, strict=True))
    return Outcome(what, promised, there, fine[1], fine[0] == fine[1])


def _words(check: Check, good: bool, value: float, unit: str) -> str:
    if check.last:
        return f"{value:.3g}{unit}"
    return "kept" if good else f"exceeded by {value:.3g}{unit}"


def _steps_last(states: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.moveaxis(jnp.asarray(leaf), 0, -1), states)


def _worst(check: Check, off: np.ndarray) -> float:
    return float(off[-1] if check.last else np.max(off))


def _of_event(
    problem: pl.Problem, plan: pl.Plan, index: int, state: Any, episode: Episode, tolerance_s: float
) -> Outcome:
    name, dt = problem.model.events[index], problem.model.dt
    already = bool(np.asarray(state.intact)[index] < 0.5)
    chance = float(plan.event_probability[index])
    promised = None if already or chance < 0.5 else (int(plan.event_step[index]) + 1) * dt
    real = next((at for bond, at in episode.breaks if bond == name), None)
    happened = already or real is not None
    if promised is None or real is None:
        kept = (promised is None) == (real is None)
    else:
        kept = abs(promised - real) <= max(tolerance_s, dt)
    met = not (name in problem.forbidden and real is not None) and not (name in problem.required and not happened)
    said, there = ("holds" if at is None else f"breaks at {at:.3f} s" for at in (promised, real))
    if already:
        return Outcome(f"bond {name}", "is broken already", "is broken already", met, kept)
    return Outcome(f"bond {name}", f"{said} (p = {chance:.2f})", there, met, kept)


def _gaps(scene: Scene, dt: float, promised: Any, real: Any) -> tuple[Gap, ...]:
    found: list[Gap] = []
    for joint in joints(scene):
        here, there = (
            np.asarray(states.qpos, float)[:, joint.adr : joint.adr + joint.nq] for states in (promised, real)
        )
        fast = np.abs(np.asarray(promised.qvel - real.qvel, float)[:, joint.dof : joint.dof + joint.nv])
        if joint.nq == 7:
            found.append(
                _gap(f"{joint.name} position", "m", np.linalg.norm((here - there)[:, :3], axis=1), fast[:, :3], dt)
            )
        if joint.nq > 1:
            turn = 2 * np.arccos(np.clip(np.abs(np.sum(here[:, -4:] * there[:, -4:], axis=1)), 0, 1))
            found.append(_gap(f"{joint.name} turn", "rad", turn, fast[:, -3:], dt))
        else:
            off = np.abs(here - there)[:, 0]
            found.append(_gap(joint.name, joint.unit, off, fast, dt))
    return tuple(found)


def _gap(quantity: str, unit: str, off: np.ndarray, fast: np.ndarray, dt: float) -> Gap:
    worst = int(np.argmax(off))
    return Gap(quantity, unit, float(off[-1]), float(off[worst]), (worst + 1) * dt, float(fast.max()))
