"""What the study shows: tables, figures, replays."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.glass import budget, tasks
from experiments.glass.comparing import WINDOW_S, Found, Seen
from experiments.glass.driving import REPLAN, SAMPLES, Driven
from experiments.glass.models import EVERY
from experiments.glass.options import Glass
from experiments.glass.reality import scene
from hybridwm import replay
from hybridwm.judging import figures as judging
from hybridwm.report import Figure, Replay, Table

WORDS = {
    "given": "physics as given",
    "identified": "physics identified",
    "network": "network alone",
    "blind": "hybrid blind to events",
    "careful": "blind, with a force limit",
    "hybrid": "full hybrid",
}
NOTES = (
    "Reality is MuJoCo C in ten fine steps to each of the models', with a heavier body whose centre of mass is elsewhere, a "
    "slippery and a rough patch on the table, motors that lag, and a neck that gives way by a rule on its filtered load, its "
    "rate and its damage. No model is told any of it; all are fitted to the same episodes of random motion.",
    "Blue is what the model promised 0.3 s before; a plan that is made at t is used from 20 ms later on.",
)
AGO = 15
"""Controls by which the promise that a replay shows is old."""


def lead(options: Glass) -> str:
    """What this page is about, in two sentences."""
    count = len(options.each) * options.many
    short = " This is a quick run: too few episodes for the claims to mean much." if options.quick else ""
    return (
        "A fork handles a glass whose neck breaks: carry it to the edge, snap it on time, rescue it from falling. The same "
        f"planner with the same {SAMPLES} samples plans on five models; {count} episodes per task and model.{short}"
    )


def tables(numbers: Mapping[str, Any], options: Glass) -> list[Table]:
    """One table per task; where errors come from; real time."""
    found = [_table(task, numbers[task]) for task in options.only]
    found += [_budget(numbers["budget"])] if "budget" in numbers else []
    return [*found, *([_live(numbers["live"])] if "live" in numbers else [])]


def _budget(found: Mapping[str, Any]) -> Table:
    rows = []
    for name, one in found.items():
        reached = "–" if one["reached_s"] is None else f"{one['reached_s']:.2f} s"
        rows.append(
            (budget.PARTS[name], f"{one['success']:.0%}", str(one["broken"]), reached, f"{1e3 * one['off_m']:.1f} mm")
        )
    n = found["hybrid"]["n"]
    return Table(f"Where the error of a carry comes from ({n} episodes each)",
                 ("drive", "success", "broken", "there after", "off (median)"), rows, loud=(budget.PARTS["hybrid"],))  # fmt: skip


def _live(found: Mapping[str, Any]) -> Table:
    low, high = found["success_interval"]
    ms, late = found["plan_ms"], found["command_late_ms"]
    rows = [
        ("success [95 %]", f"{found['success']:.0%} [{low:.0%}, {high:.0%}], {found['broken']} broken"),
        ("plans", f"{found['plans']}, {found['plans_per_s']:.1f} a second"),
        ("time of a plan: median, 99 %, longest", f"{ms['0.5']:.0f}, {ms['0.99']:.0f}, {ms['max']:.0f} ms"),
        (f"plans within {found['allowed_ms']:.0f} ms", f"{found['in_time']:.1%}; late {1 - found['in_time']:.1%}"),
        ("commands behind their time: median, 99 %", f"{late['0.5']:.1f}, {late['0.99']:.1f} ms"),
    ]
    return Table(f"Real time: {found['n']} carries, 50 commands a second", ("", "full hybrid"), rows)


def _table(task: str, found: Mapping[str, Any]) -> Table:
    n = found["hybrid"]["n"]
    rows = []
    for name in (name for name in WORDS if name in found):
        one = found[name]
        low, high = one["success_interval"]
        reached = "–" if one["reached_s"] is None else f"{one['reached_s']:.2f} s"
        success = f"{one['success']:.0%} [{low:.0%}, {high:.0%}]"
        score = f"{one['loss']:.2f}" if task == "rescue" else reached
        counts = (f"{one['broken'] - one['lost']}", f"{one['lost']}")
        rows.append((WORDS[name], success, *counts, score, f"{1e3 * one['off_m']:.0f} mm"))
    said = {"carry": "Carry to the edge", "snap": "Snap the neck on time", "rescue": "Rescue from falling"}[task]
    last = "mean loss" if task == "rescue" else "there after"
    return Table(f"{said} ({n} episodes each)", ("model", "success [95 %]", "broken", "lost", last, "off (median)"), rows,
                 loud=(WORDS["hybrid"],))  # fmt: skip


def figures(out: Path, driven: Mapping[str, Found], seen: Seen) -> list[Figure]:
    """All figures, on disk."""
    judging.horizon(
        {WORDS[name]: {"position (m)": one["position (m)"]} for name, one in seen.errors.items()},
        0.01,
        out / "horizon.png",
    )
    judging.reliability({WORDS[name]: table for name, table in seen.reliability.items()}, out / "reliability.png")
    _traces(driven, out / "traces.png")
    _times(driven, out / "plan_time.png")
    _success(driven, out / "success.png")
    return [
        Figure(out / "success.png", "Share of episodes that came out as asked, with 95 % intervals."),
        Figure(
            out / "traces.png",
            "Closed loop, full hybrid: where the glass went (black) and where each plan saw it going (blue).",
        ),
        Figure(
            out / "horizon.png",
            f"Error of predictions over {WINDOW_S} s along the closed loop: median and middle half.",
        ),
        Figure(out / "reliability.png", "How often the neck broke against how likely it was said to be."),
        Figure(
            out / "plan_time.png",
            f"Time per plan, {REPLAN * EVERY * 10} ms from plan to plan; episodes planned side by side.",
        ),
    ]


def _traces(driven: Mapping[str, Found], path: Path) -> None:
    figure, axes = judging.canvas(len(driven))
    for axis, (task, found) in zip(axes, driven.items(), strict=True):
        one = found["hybrid"][0]
        edge = one.wish.goal.mark
        axis.plot(one.episode.time, one.episode.qpos[:, 0] - edge, color="black", lw=1.8, zorder=3)
        for number, told in enumerate(one.promised):
            begin = number * REPLAN * EVERY * 0.01
            axis.plot(
                begin + 0.02 * np.arange(1, len(told) + 1), told[:, 0] - edge, color="#2a6bd8", alpha=0.35, lw=0.9
            )
        for _, at in one.episode.breaks:
            axis.axvline(at, color="#b3261e", lw=1.2)
        if task == "snap":
            axis.axvspan(one.wish.goal.break_at - tasks.ON_TIME_S, one.wish.goal.break_at + tasks.ON_TIME_S, alpha=0.15)
        axis.set(xlabel="time (s)", ylabel="glass from its mark (m)", title=task, xlim=(0, one.episode.time[-1]))
    figure.savefig(path)


def _times(driven: Mapping[str, Found], path: Path) -> None:
    figure, (axis,) = judging.canvas(1)
    for name, colour in (("network", judging.COLOURS[3]), ("hybrid", judging.COLOURS[1])):
        times = np.concatenate([1e3 * one.plan_s[1:] for found in driven.values() for one in found[name]])
        axis.hist(times, np.linspace(0, np.quantile(times, 0.99), 30), color=colour, alpha=0.6, label=WORDS[name])
    axis.set(xlabel="ms per plan and episode", ylabel="plans")
    axis.legend()
    figure.savefig(path)


def _success(driven: Mapping[str, Found], path: Path) -> None:
    from experiments.tasks import wilson

    figure, axes = judging.canvas(len(driven))
    for axis, (task, found) in zip(axes, driven.items(), strict=True):
        names = [name for name in WORDS if name in found]
        for row, name in enumerate(names):
            good = [one.outcome.good for one in found[name]]
            low, high = wilson(sum(good), len(good))
            axis.barh(row, 100 * np.mean(good), color=judging.COLOURS[2 if name == "hybrid" else 1], alpha=0.85)
            axis.plot([100 * low, 100 * high], [row, row], color="black", lw=1)
        axis.set_yticks(range(len(names)), [WORDS[name] for name in names])
        axis.set(xlabel="came out as asked (%)", title=task, xlim=(0, 101))
        axis.invert_yaxis()
    figure.savefig(path)


def replays(driven: Mapping[str, Found]) -> list[Replay]:
    """Of each task an episode of the full hybrid, and the same wish in the hands of the blind one."""
    out = list[Replay]()
    for task, found in driven.items():
        number = next((i for i, one in enumerate(found["hybrid"]) if one.outcome.good), 0)
        out.append(_replay(task, "hybrid", found["hybrid"][number]))
        out.append(_replay(task, "blind", found["blind"][number]))
    return out


def _replay(task: str, name: str, one: Driven) -> Replay:
    here, dt = scene(), 0.01
    tracks = [replay.Track("reality", one.episode.qpos), replay.Track("promised", promise(one), ghost=True)]
    marks = replay.breaks(here, one.episode.qpos, one.episode.breaks, dt=dt)
    camera = replay.Camera((-0.15, -0.75, 0.32), (-0.28, 0.0, 0.06))
    text = replay.replay(here, tracks, dt=dt, markers=marks, camera=camera, speed=0.5)
    verdict = "as asked" if one.outcome.good else f"missed, {one.outcome.state}"
    return Replay(text, f"{task}, {WORDS[name]}: {verdict}; half speed. Blue: what the model promised 0.3 s before.")


def promise(one: Driven) -> np.ndarray:
    """[T+1, nq] what the newest plan of at least AGO controls before said of now; NaN before there was one."""
    rows = np.full((len(one.episode.qpos), one.promised.shape[-1]), np.nan)
    for row in range(len(rows)):
        number = (row // EVERY - AGO) // REPLAN
        if 0 <= number < len(one.promised):
            ahead = row / EVERY - number * REPLAN - 1
            low = int(np.clip(np.floor(ahead), 0, one.promised.shape[1] - 2))
            share = float(np.clip(ahead - low, 0, 1))
            rows[row] = (1 - share) * one.promised[number, low] + share * one.promised[number, low + 1]
    return rows
