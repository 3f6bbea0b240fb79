"""What a world-step costs, and how exact it is: our engine, stock Brax, MJX and MuJoCo C, interleaved in one run.

python benchmarks/engine.py [--quick] [--out DIR] [--resume] [--scenes …] [--platform auto|cpu|gpu]

    cost       µs per world-step: median over rounds of one call / (W · H); in each round every rival is called in turn.
               Where other programs are busy, a call's processor time over the number of cores stands for its time: on a
               machine of its own they differ by what a rival leaves idle (0 to 15 %; ours 5 %)
    ratio      of medians; its interval is the least and greatest ratio of one round
    error      max |qpos − qpos_C| after H steps, C: MuJoCo in float64, converged       m, rad
    first call seconds from the scene to the first result, with an empty cache (cold) and in a new process (cached)
    gradient   reverse mode of ½ mean |qpos_H|² for all controls and initial velocities, over the time of the rollout

Every rival lives in a child process that answers one question at a time (`race/parent.py`).
"""

import shlex
import signal
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tyro
from race import parent, report, starts, targets
from race.parent import Child, Refused, cores_taken

import physics
from hybridwm import results
from hybridwm.runtime import core_count

RIVALS = ("mujoco", "hybridwm", "mjx", "mjx_exact", "brax")
SCENES = ("pushed_box", "arm", "stacked_boxes", "glass", "snapping_rod", "cartpole")
QUICK = {  # with --quick only those that a claim is about
    "pushed_box": ("mujoco", "hybridwm", "mjx", "brax"),
    "arm": ("mujoco", "hybridwm"),
    "stacked_boxes": ("mujoco", "hybridwm", "mjx"),
    "glass": ("mujoco", "hybridwm"),
}
STANDARD_WORLDS = 512  # where first calls and gradients are measured, and claims are made
TURN_S = 0.15  # a turn repeats short calls for about this long
QUICK_S = 270.0
FEWEST, RACE_S = 3, 20.0  # rounds at least; no new one after this long
QUIET_CORES = 0.2  # more than this taken by others, and processor time is what counts

Cell = dict[str, Any]


class Clock(NamedTuple):
    """One call."""

    wall_s: float
    busy_s: float  # of all cores together


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time our engine against MuJoCo C, MJX and stock Brax."""

    out: Path = Path("docs/benchmarks/engine")
    """Folder for results.json, table.md and engine.png, written after each race."""
    resume: bool = False
    """Keep the races that the results in --out hold."""
    quick: bool = False
    """512 worlds, four scenes, fewer rivals and rounds, one gradient; ends within five minutes on two cores."""
    scenes: tuple[str, ...] = ()
    """Scenes to run; all six where none is given (four with --quick)."""
    rivals: tuple[str, ...] = ()
    """Who competes; all five where none is given (with --quick those that a claim is about)."""
    gradients: tuple[str, ...] = ("hybridwm",)
    """Whose gradients are measured. MJX refuses to be differentiated, stock Brax gives NaN after minutes of compiling."""
    worlds: tuple[int, ...] = ()
    """Numbers of worlds; 512, 64 and 4096 where none is given (512 with --quick)."""
    steps: int = 50
    """Steps of each rollout."""
    rounds: int = 0
    """Turns of each rival, fewer where they take long; 11 where none is given (5 with --quick)."""
    limit_s: float = 0.0
    """A child that takes longer for one answer is ended; 300 s where none is given (60 with --quick)."""
    platform: Literal["auto", "cpu", "gpu"] = "auto"
    """Where JAX computes; auto: the accelerator if there is one."""

    def __post_init__(self) -> None:
        filled = {
            "scenes": SCENES[:4] if self.quick else SCENES,
            "worlds": (STANDARD_WORLDS,) if self.quick else (STANDARD_WORLDS, 64, 4096),
            "rounds": 5 if self.quick else 11,
            "limit_s": 60.0 if self.quick else 300.0,
        }
        for name, value in filled.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        for name, given, allowed in (
            ("scenes", self.scenes, SCENES),
            ("rivals", self.rivals, RIVALS),
            ("gradients", self.gradients, RIVALS),
        ):
            if unknown := set(given) - set(allowed):
                raise ValueError(f"--{name} has {min(unknown)!r}; allowed are {', '.join(allowed)}")
        for name in ("steps", "rounds", "limit_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be positive")

    def competitors(self, scene: str) -> tuple[str, ...]:
        """Who races on a scene."""
        return self.rivals or (QUICK.get(scene, RIVALS) if self.quick else RIVALS)

    def differentiated(self, scene: str, worlds: int) -> tuple[str, ...]:
        """Whose gradients are measured."""
        if worlds != STANDARD_WORLDS or (self.quick and scene != "pushed_box"):
            return ()
        return self.gradients


class Race:
    """All rivals on one scene and one number of worlds."""

    def __init__(self, options: Options, scene: str, worlds: int, folder: Path, deadline: float) -> None:
        self.options, self.scene, self.worlds, self.folder, self.deadline = options, scene, worlds, folder, deadline
        self.children: dict[str, Child] = {}
        self.cells: dict[str, Cell] = {rival: {} for rival in options.competitors(scene)}
        self.standard = worlds == STANDARD_WORLDS
        self.taken = 0.0  # cores that other programs kept busy before the rounds

    def run(self) -> dict[str, Cell]:
        """Measure everything; a rival that refuses has the sentence under `not` in place of numbers."""
        start = starts.begin(physics.load_scene(self.scene), self.worlds, self.options.steps)
        np.savez(self.folder / "start.npz", **start._asdict())
        wanted = starts.exact(physics.load_scene(self.scene), start)
        with ExitStack() as stack:
            for rival in self.cells:
                self._each(rival, lambda rival=rival: self._prepare(rival, stack))
            self.taken = cores_taken()
            self._rounds()
            for rival in list(self.children):
                self._each(rival, lambda rival=rival: self._error(rival, wanted))
            if "mujoco" in self.cells:
                self.cells["mujoco"]["rounded"] = starts.rounded(physics.load_scene(self.scene), start, wanted)
            for rival in self.options.differentiated(self.scene, self.worlds):
                if rival in self.children:
                    self.cells[rival]["gradient"] = self._gradient(rival)
        return self.cells

    def _each(self, rival: str, measure: Any) -> None:
        try:
            measure()
        except Refused as reason:
            self.cells[rival]["not"] = str(reason)
            self.children.pop(rival, None)

    def _ask(self, child: Child, what: str, /, **more: Any) -> dict[str, Any]:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Refused("left out: no time left")
        return child.ask(what, min(self.options.limit_s, left), **more)

    def _child(self, rival: str) -> Child:
        start, cache = self.folder / "start.npz", self.folder / "cache" / rival
        return parent.engine(rival, self.scene, start, cache=cache, platform=self.options.platform)

    def _prepare(self, rival: str, stack: ExitStack) -> None:
        """Start the child that stays. Where first calls are measured it is the second one, and finds a filled cache."""
        cell = self.cells[rival]
        cold = self.standard and rival != "mujoco" and not (self.options.quick and rival != "hybridwm")
        if cold:
            with self._child(rival) as first:
                cell["cold"] = self._ask(first, "prepare")["seconds"]
        child = stack.enter_context(self._child(rival))
        answer = self._ask(child, "prepare")
        cell["cached" if cold else "cold"] = answer["seconds"]
        cell["memory_mib"], cell["devices"] = answer["memory_mib"], answer.get("devices", ["threads"])
        self.children[rival] = child

    def _rounds(self) -> None:
        per = self.worlds * self.options.steps / 1e6
        cost: dict[str, list[Clock]] = {rival: [] for rival in self.children}
        order, begun = list(self.children), time.monotonic()
        for turn in range(self.options.rounds if order else 0):
            if turn >= FEWEST and time.monotonic() - begun > RACE_S:
                break
            for rival in order[turn % len(order) :] + order[: turn % len(order)]:
                if rival in self.children:
                    self._each(rival, lambda rival=rival: cost[rival].append(self._turn(rival, "rollout")))
        self.taken = max(self.taken, cores_taken())
        for rival in self.children:
            rounds = [self._seconds(clock) / per for clock in cost[rival]]
            self.cells[rival] |= {"us": statistics.median(rounds), "rounds_us": rounds, "clock": self.clock}
            self.cells[rival]["wall_us"] = [clock.wall_s / per for clock in cost[rival]]

    @property
    def clock(self) -> str:
        """What a call's time is read from."""
        return "processor" if self.taken > QUIET_CORES else "wall"

    def _seconds(self, clock: Clock) -> float:
        return clock.busy_s / core_count() if self.clock == "processor" else clock.wall_s

    def _turn(self, rival: str, what: str) -> Clock:
        once = self.cells[rival].setdefault("once", {})
        repeats = 1 if what not in once else int(np.clip(TURN_S / once[what], 1, 50))
        answer = self._ask(self.children[rival], "clock", what=what, repeats=repeats)
        self.cells[rival].setdefault("cores", answer["cores"])
        once[what] = answer["seconds"]
        return Clock(answer["seconds"], answer["seconds"] * answer["cores"])

    def _error(self, rival: str, wanted: np.ndarray) -> None:
        path = self.folder / f"{rival}.npy"
        self._ask(self.children[rival], "final", path=str(path))
        gap = np.abs(np.load(path) - wanted).max(axis=0)
        self.cells[rival] |= {"error": float(gap.max()), "error_median": float(np.median(gap))}

    def _gradient(self, rival: str) -> Cell:
        """Rollout and gradient in turns."""
        try:
            answer = self._ask(self.children[rival], "gradient")
            for what in ("rollout", "gradient"):
                self._turn(rival, what)
            pairs = [
                [self._seconds(self._turn(rival, what)) for what in ("rollout", "gradient")]
                for _ in range(self.options.rounds)
            ]
        except Refused as reason:
            return {"not": str(reason)}
        rollout, gradient = np.array(pairs).T
        return {
            "ratio": float(np.median(gradient) / np.median(rollout)),
            "ratios": gradient / rollout,
            "us": float(np.median(gradient)) / self.worlds / self.options.steps * 1e6,
            "cold": answer["seconds"],
            "memory_mib": answer["memory_mib"],
        }


class Results:
    """What the races have found, written after each."""

    def __init__(self, options: Options) -> None:
        self.options, self.begun = options, time.monotonic()
        self.cells: dict[str, dict[str, dict[str, Cell]]] = {}
        self.taken, self.seconds = 0.0, 0.0
        self.command = shlex.join(["python", "benchmarks/engine.py", *sys.argv[1:]])
        self.commands = [self.command]
        if options.resume and (options.out / "results.json").exists():
            found = results.read(options.out).body
            if found["config"]["steps"] != options.steps:
                raise ValueError(f"--resume: {options.out} holds races of {found['config']['steps']} steps")
            self.cells = found["numbers"]["cells"]
            self.taken, self.seconds = found["numbers"]["cores_taken"], found["numbers"]["seconds"]
            self.commands = [*found["numbers"]["commands"], self.command]

    def add(self, scene: str, worlds: int, found: dict[str, Cell], taken: float) -> None:
        """Keep one race."""
        self.cells.setdefault(scene, {})[str(worlds)] = found
        self.cells[scene] = dict(sorted(self.cells[scene].items(), key=lambda one: int(one[0])))
        self.taken = max(self.taken, taken)
        self.write()

    def write(self) -> results.Results:
        """results.json, table and figure."""
        out, seconds = self.options.out, self.seconds + time.monotonic() - self.begun
        numbers = {"cells": self.cells, "seconds": seconds, "cores_taken": self.taken, "commands": self.commands}
        on_cpu = all("cpu" in d.lower() for d in report.devices(self.cells))
        claims = targets.claims(self.cells, STANDARD_WORLDS) if on_cpu else []
        written = results.write(
            out, study="engine", config=self.options, numbers=numbers, claims=claims, seeds=(0,), command=self.command
        )
        report.table(written, out / "table.md")
        report.draw(written, out / "engine.png")
        return written


def main(options: Options) -> None:
    """Race on every scene, then print."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children end with us
    deadline = time.monotonic() + (QUICK_S if options.quick else float("inf"))
    kept = Results(options)
    for worlds in options.worlds:
        for scene in options.scenes:
            if str(worlds) in kept.cells.get(scene, {}):
                continue
            with tempfile.TemporaryDirectory() as folder:
                race = Race(options, scene, worlds, Path(folder), deadline)
                found = race.run()
            kept.add(scene, worlds, found, race.taken)
            print(report.lines(scene, worlds, found), flush=True)
            if race.taken > QUIET_CORES:
                print(f"  other programs kept {race.taken:.1f} cores busy: costs are processor time", flush=True)
    report.show(kept.write())


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.FlagCreatePairsOff,)))
