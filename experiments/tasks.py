"""Claim: the shipped tasks can be solved: in closed loop, in MuJoCo C, from random starts and for random targets.

solved = goal within its tolerance at the end, limits kept all the way; of a swing-up: for the whole last second
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from experiments.episodes import Kept
from experiments.options import Tasks
from hybridwm import results
from hybridwm.results import Claim
from hybridwm.tasks.closed_loop import Drive, drive, driver
from hybridwm.tasks.setting import Aim, Setting, build_task
from hybridwm.tasks.starting import start_of
from hybridwm.tasks.task import Start, Task, load_task, retargeted

TARGET = {"pendulum_swingup": 0.98, "cartpole_swingup": 0.98, "push_box": 0.95, "push_tblock": 0.9, "reach": 0.95}


class Case(NamedTuple):
    """One episode: where it starts and what it aims at."""

    state: Any
    aim: Aim


def pendulum(rng: np.random.Generator, task: Task) -> tuple[Task, Start]:
    """Any angle, up to 2 rad/s."""
    return task, Start(joints={"hinge": rng.uniform(-np.pi, np.pi)}, speeds={"hinge": rng.uniform(-2, 2)})


def cartpole(rng: np.random.Generator, task: Task) -> tuple[Task, Start]:
    """Any angle, the cart in the middle metre."""
    joints = {"x": rng.uniform(-0.5, 0.5), "hinge": rng.uniform(-np.pi, np.pi)}
    return task, Start(joints=joints, speeds={"x": rng.uniform(-1, 1), "hinge": rng.uniform(-1, 1)})


def box(rng: np.random.Generator, task: Task) -> tuple[Task, Start]:
    """20 to 60 cm to go, the pusher up to 10 cm behind its home."""
    way = float(rng.uniform(0.2, 0.6))
    along = retargeted(retargeted(task, "position", way), "velocity", (0.0, 0.0, 0.0))
    return along, Start(joints={"x": float(-rng.uniform(0.0, 0.1))})


def tblock(rng: np.random.Generator, task: Task) -> tuple[Task, Start]:
    """Up to 15 cm off and turned by up to a quarter turn."""
    x, y, turn = rng.uniform(-0.15, 0.15), rng.uniform(-0.15, 0.15), rng.uniform(-np.pi / 2, np.pi / 2)
    return task, Start(joints={"block": (x, y, 0.025, np.cos(turn / 2), 0.0, 0.0, np.sin(turn / 2))})


def arm(rng: np.random.Generator, task: Task) -> tuple[Task, Start]:
    """Points in front of the arm, half a metre across."""
    point = (rng.uniform(0.35, 0.6), rng.uniform(-0.25, 0.25), rng.uniform(0.35, 0.75))
    return retargeted(task, "position", point), Start()


CASES: dict[str, Callable[[np.random.Generator, Task], tuple[Task, Start]]] = {
    "pendulum_swingup": pendulum, "cartpole_swingup": cartpole, "push_box": box, "push_tblock": tblock, "reach": arm,
}  # fmt: skip


def solved(name: str, setting: Setting, driven: Drive) -> bool:
    """Whether the episode did what the task asks."""
    if not driven.met(setting):
        return False
    second = round(1 / setting.problem.model.dt) if name.endswith("swingup") else 1
    goals = [i for i, check in enumerate(setting.checks) if check.last]
    within = np.array([setting.checks[i].within for i in goals])
    return bool((driven.off[-second:, goals] <= within).all())


def measure(name: str, options: Tasks, kept: Kept) -> dict[str, Any]:
    """Episodes of one task."""
    setting, driving = build_task(name), cache(lambda: driver(setting))
    order = list(CASES).index(name)

    def episode(seed: int, number: int) -> dict[str, Any]:
        task, start = CASES[name](np.random.default_rng([seed, number, order]), setting.task)
        state = setting.begin(*start_of(setting.scene, start))
        begun = perf_counter()
        driven = drive(setting, driving(), state, aim=setting.aim(task), seed=seed)
        found = {
            "solved": solved(name, setting, driven), "off": driven.off[-1], "episode_s": perf_counter() - begun,
            "plan_ms": 1e3 * float(np.median([record.took_s for record in driven.records])),
        }  # fmt: skip
        word = "solved" if found["solved"] else "MISSED"
        print(
            f"{name:<18} {seed} {number:2d}: {word}  {np.round(driven.off[-1], 4)}  {found['episode_s']:.1f} s",
            flush=True,
        )
        return found

    pairs = [(seed, number) for seed in options.each for number in range(options.count)]
    every = [kept.get(f"{name} {seed} {number}", partial(episode, seed, number)) for seed, number in pairs]
    return {
        "solved": [one["solved"] for one in every], "off": [one["off"] for one in every],
        "episode_s": [one["episode_s"] for one in every], "labels": [check.label for check in setting.checks],
        "plan_ms_p50": float(np.median([one["plan_ms"] for one in every])),
    }  # fmt: skip


def run(options: Tasks) -> None:
    """Drive every task, write results.json and a table, print the claims."""
    names = options.only or tuple(name for name in CASES if not (options.quick and name == "reach"))
    if unknown := set(names) - set(CASES):
        raise ValueError(f"--only {min(unknown)}: no such task; there are {', '.join(CASES)}")
    kept = Kept(options.out, {name: asdict(load_task(name)) for name in CASES})
    numbers, claims = {}, list[Claim]()
    for name in names:
        numbers[name] = measure(name, options, kept)
        claims.append(claim(name, numbers[name]["solved"]))
        report(options, numbers, claims)
    show(options.out)


def claim(name: str, good: list[bool]) -> Claim:
    """Share of solved episodes, with its 95 % interval (Wilson)."""
    return Claim(
        id=f"task_{name}", statement=f"{name}: share solved in closed loop in MuJoCo C, {len(good)} random episodes",
        value=float(np.mean(good)), interval=wilson(sum(good), len(good)), target=TARGET[name], better="higher",
    )  # fmt: skip


def wilson(good: int, count: int) -> tuple[float, float]:
    """95 % interval of a share."""
    z, p = 1.96, good / count
    middle, half = p + z * z / (2 * count), z * np.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return float((middle - half) / scale), float((middle + half) / scale)


def report(options: Any, numbers: dict[str, Any], claims: list[Claim]) -> None:
    """What is known so far, so that a long run leaves something."""
    results.write(options.out, study="tasks", config=options, numbers=numbers, claims=claims, seeds=options.each)


def show(out: Path) -> None:
    """The claims, on the terminal and as a table."""
    from rich.console import Console

    from hybridwm import claims

    written = results.read(out)
    claims.write_table([written], out / "claims.md")
    claims.show([written], Console())
    print(f"results and table: {out}")
