"""The command `hybridwm plan`: a task in, a plan out, with its table, its certificate and its files.

Everything is written into a folder of its own first and moved file by file, `results.json` last: whatever is found in
the folder is whole.
"""

import csv
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import planners as pl
from hybridwm import results
from hybridwm.results import Claim
from hybridwm.tasks.certificate import Certificate, certify
from hybridwm.tasks.setting import Setting, build_task
from hybridwm.tasks.terms import joints
from physics import Reality

NOT_AS_ASKED = 3
"""Exit code where a plan was made and written, but is not OK, or MuJoCo C broke its promise."""


class PlannedTask(NamedTuple):
    """What `plan_task` gives."""

    plan: pl.Plan
    certificate: Certificate
    took_s: tuple[float, ...]
    """Wall time of each round; the first one compiles."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command was asked for."""

    task: str
    scene: str | None
    model: Path | None
    out: Path
    seed: int
    rounds: int
    closed_loop: bool


def plan_task(
    setting: Setting, *, seed: int = 0, rounds: int = 3, state: Any = None, reality: Reality | None = None
) -> PlannedTask:
    """Plan, each round from the best plan of the one before, and certify. Stops at the first plan that is OK."""
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; it must be at least 1")
    state = setting.state if state is None else state
    carry, best, took = pl.strong(setting.planner.init()), None, list[float]()
    for key in jax.random.split(jax.random.key(seed), rounds):
        begun = perf_counter()
        plan, carry = jax.block_until_ready(setting.plan(setting.params, key, state, carry))
        took.append(perf_counter() - begun)
        best = plan if best is None or _better(plan, best) else best
        if int(best.status) == pl.Status.OK:
            break
    assert best is not None
    return PlannedTask(best, certify(setting, best, state, reality=reality, seed=seed), tuple(took))


def _better(plan: pl.Plan, other: pl.Plan) -> bool:
    """Whether its status is better, or as good and its cost lower."""
    return (int(plan.status), float(plan.cost)) < (int(other.status), float(other.cost))


def execute(request: Request) -> int:
    """The command: 0 when the plan is OK and its promises were kept, else `NOT_AS_ASKED`."""
    console = Console(highlight=False)
    with _arriving(request.out) as folder:
        setting = build_task(request.task, request.scene, model=_model(request.model))
        console.print(f"{setting.task.about or request.task}  [dim]({setting.scene.name}, {_search(setting)})[/dim]")
        with console.status("compiling and planning …"):
            found = plan_task(setting, seed=request.seed, rounds=request.rounds)
        show(setting, found, console)
        write(setting, found, request, folder)
        good = int(found.plan.status) == pl.Status.OK and found.certificate.kept
        if request.closed_loop:
            good = _drive(setting, request.seed, console, folder)
    console.print(f"written: {request.out}")
    return 0 if good else NOT_AS_ASKED


def _model(folder: Path | None) -> Any:
    if folder is None:
        return None
    from hybridwm.world.learned import load_plan_model

    return load_plan_model(folder)


def _search(setting: Setting) -> str:
    task, spline = setting.task, setting.problem.spline
    return (
        f"{task.planner}, {spline.horizon} steps of {setting.problem.model.dt * 1e3:.4g} ms, "
        f"{spline.knots} {spline.kind} knots for {setting.problem.nu} controls"
    )


def show(setting: Setting, found: PlannedTask, console: Console) -> None:
    """The plan's table, its status, and the certificate."""
    plan, certificate = found.plan, found.certificate
    table = Table("what is asked", "promised", "in MuJoCo C", "")
    for outcome in certificate.outcomes:
        word, style = ("kept", "green") if outcome.kept else ("BROKEN", "bold red")
        if outcome.kept and not outcome.met:
            word, style = "not met, as said", "yellow"
        table.add_row(outcome.what, outcome.promised, outcome.real, f"[{style}]{word}[/{style}]")
    console.print(table)
    gaps = Table("coordinate", "apart at the end", "at most", "speed, at most")
    for gap in certificate.gaps:
        gaps.add_row(gap.quantity, f"{gap.end:.2g} {gap.unit}", f"{gap.largest:.2g} {gap.unit} at {gap.at_s:.2f} s",
                     f"{gap.speed:.2g} {gap.unit}/s")  # fmt: skip
    console.print(gaps)
    for sentence in pl.in_case(setting.problem, plan):
        console.print(sentence)
    status = pl.Status(int(plan.status))
    console.print(f"{status.name}: {status.sentence}", style="green" if status == pl.Status.OK else "bold yellow")
    console.print(
        f"cost {float(plan.cost):.4g} (doing nothing new: {float(plan.cost_start):.4g}), {int(plan.valid)} of "
        f"{int(plan.samples)} samples counted, {len(found.took_s)} rounds, the last in {found.took_s[-1] * 1e3:.0f} ms"
    )
    console.print(f"certificate {certificate.describe()[0]}", style="green" if certificate.kept else "bold red")


def write(setting: Setting, found: PlannedTask, request: Request, folder: Path) -> None:
    """plan.npz, controls.csv, plan.png, results.json."""
    plan, certificate = found.plan, found.certificate
    ctrls, dt = np.asarray(plan.ctrls), setting.problem.model.dt
    arrays = {
        "time": dt * np.arange(len(ctrls)), "ctrl": ctrls, "knots": np.asarray(plan.knots),
        "promised_qpos": _with_start(setting.state.qpos, plan.states.qpos),
        "promised_qvel": _with_start(setting.state.qvel, plan.states.qvel),
        "real_qpos": certificate.qpos, "real_qvel": certificate.qvel,
    }  # fmt: skip
    if plan.contingency is not None:
        arrays |= {f"contingency_{name}": np.asarray(value) for name, value in plan.contingency._asdict().items()}
    np.savez_compressed(folder / "plan.npz", allow_pickle=False, **arrays)
    with (folder / "controls.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["time_s", *actuator_names(setting)])
        rows.writerows([f"{i * dt:.6f}", *(f"{value:.7g}" for value in ctrl)] for i, ctrl in enumerate(ctrls))
    draw(setting, found, folder / "plan.png")
    results.write(folder, study="plan", config=asdict(request) | {"task": asdict(setting.task)},
                  numbers=_numbers(found), claims=_claims(setting, found), seeds=[request.seed])  # fmt: skip


def _with_start(start: Any, path: Any) -> np.ndarray:
    """`[H+1, …]`: the start in front."""
    return np.concatenate([np.asarray(start)[None], np.asarray(path)])


def actuator_names(setting: Setting) -> list[str]:
    """Names of the controls, in order."""
    model = setting.scene.model
    return [model.actuator(i).name or f"actuator{i}" for i in range(model.nu)]


def _numbers(found: PlannedTask) -> dict[str, Any]:
    plan, certificate = found.plan, found.certificate
    return {
        "status": pl.Status(int(plan.status)).name,
        **{name: np.asarray(getattr(plan, name)) for name in (
            "cost", "cost_start", "distance", "violation", "event_probability", "event_step", "schedule", "spread",
            "trust", "valid", "samples")},
        "took_s": found.took_s,
        "certificate": {
            "kept": certificate.kept, "met": certificate.met, "failure": certificate.failure,
            "outcomes": [outcome._asdict() for outcome in certificate.outcomes],
            "gaps": [gap._asdict() for gap in certificate.gaps],
        },
    }  # fmt: skip


def _claims(setting: Setting, found: PlannedTask) -> list[Claim]:
    """One claim per promise: it was kept."""
    return [
        Claim(id=f"plan_{i}", statement=f"{setting.scene.name}: {outcome.what}: MuJoCo C does as promised (1 yes, 0 no)",
              value=float(outcome.kept), target=1.0, better="higher")
        for i, outcome in enumerate(found.certificate.outcomes)
    ]  # fmt: skip


def draw(setting: Setting, found: PlannedTask, path: Path) -> None:
    """Controls, and every hinge, slide and position as promised and as it went."""
    from matplotlib.figure import Figure

    plan, certificate, dt = found.plan, found.certificate, setting.problem.model.dt
    figure = Figure(figsize=(8, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    ctrls = np.asarray(plan.ctrls)
    for i, name in enumerate(actuator_names(setting)):
        above.step(dt * np.arange(len(ctrls)), ctrls[:, i], where="post", label=name)
    promised = _with_start(setting.state.qpos, plan.states.qpos)
    for label, column in _columns(setting):
        (line,) = below.plot(dt * np.arange(len(promised)), promised[:, column], label=label)
        real = certificate.qpos[:, column]
        below.plot(dt * np.arange(len(real)), real, linestyle="--", color=line.get_color())
    for outcome, step in zip(certificate.outcomes[len(setting.checks) :], np.asarray(plan.event_step), strict=True):
        if "breaks" in outcome.promised:
            below.axvline((int(step) + 1) * dt, color="black", linestyle=":", label=outcome.what)
    above.set(ylabel="control")
    below.set(xlabel="time (s)", ylabel="m, rad (full: promised, dashed: MuJoCo C)")
    for axes in (above, below):
        if len(axes.get_legend_handles_labels()[0]) <= 12:
            axes.legend(fontsize="small", ncols=3)
    figure.savefig(path, dpi=120)


def _columns(setting: Setting) -> Iterator[tuple[str, int]]:
    for joint in joints(setting.scene):
        if joint.nq == 1:
            yield joint.name, joint.adr
        elif joint.nq == 7:
            yield from ((f"{joint.name} {axis}", joint.adr + i) for i, axis in enumerate("xyz"))


def _drive(setting: Setting, seed: int, console: Console, folder: Path) -> bool:
    """The task in closed loop in MuJoCo C: whether all it asks came true at the end."""
    from hybridwm.tasks.closed_loop import drive, driver

    with console.status("driving in closed loop …"):
        driven = drive(setting, driver(setting, seed=seed), seed=seed)
    good = driven.met(setting)
    for check, off in zip(setting.checks, driven.off.T, strict=True):
        value = off[-1] if check.last else off.max()
        console.print(
            f"closed loop, {len(off) - 1} controls: {check.label}: {value:.3g} {check.unit} (≤ {check.within:g})"
        )
    for bond, at in driven.broken.items():
        console.print(f"closed loop: bond {bond} broke at {at:.3f} s")
    console.print(f"closed loop: {'reached' if good else 'NOT reached'}", style="green" if good else "bold red")
    np.savez_compressed(
        folder / "closed_loop.npz", allow_pickle=False, time=driven.episode.time, qpos=driven.episode.qpos,
        qvel=driven.episode.qvel, ctrl=driven.episode.ctrl, intact=driven.episode.intact, off=driven.off,
    )  # fmt: skip
    return good


@contextmanager
def _arriving(out: Path) -> Iterator[Path]:
    """A folder to write into, whose files appear in `out` whole, or not at all; nor does `out` then, if it is new."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out must be a folder")
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".plan-", dir=out))
    except OSError as error:
        raise ValueError(f"{out} cannot be written: {error.strerror}") from error
    try:
        yield folder
        for file in sorted(folder.iterdir(), key=lambda file: file.name == "results.json"):
            os.replace(file, out / file.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if new and not any(out.iterdir()):
            out.rmdir()
