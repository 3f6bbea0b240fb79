"""What a world-step costs, and how exact it is: our engine, stock Brax, MJX and MuJoCo C, interleaved in one run.

python benchmarks/engine.py [--quick] [--out DIR] [--scenes …] [--platform auto|cpu|gpu]

    cost       µs per world-step: median over rounds of one call / (W · H); in each round every rival is called in turn
    ratio      of medians; its interval is the least and greatest ratio of one round
    error      max |qpos − qpos_C| after H steps, C: MuJoCo in float64, converged       m, rad
    first call seconds from the scene to the first result, with an empty cache (cold) and in a new process (cached)
    gradient   reverse mode of ½ mean |qpos_H|² for all controls and initial velocities, over the time of the rollout;
               the rivals' steps are computed again on the way back, ours does so by itself

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
from typing import Any, Literal

import numpy as np
import tyro
from race import parent, report, starts, targets
from race.parent import Child, Refused, cores_taken

import physics
from hybridwm import results

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
QUIET_CORES = 0.2  # more than this taken by others, and a race is marked

Cell = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time our engine against MuJoCo C, MJX and stock Brax."""

    out: Path = Path("docs/benchmarks/engine")
    """Folder for results.json, table.md and engine.png."""
    quick: bool = False
    """512 worlds, four scenes, fewer rivals and rounds, one gradient; ends within five minutes on two cores."""
    scenes: tuple[str, ...] = ()
    """Scenes to run; all six where none is given (four with --quick)."""
    rivals: tuple[str, ...] = ()
    """Who competes; all five where none is given (with --quick those that a claim is about)."""
    worlds: tuple[int, ...] = ()
    """Numbers of worlds; 64, 512 and 4096 where none is given (512 with --quick)."""
    steps: int = 50
    """Steps of each rollout."""
    rounds: int = 0
    """Turns of each rival; 11 where none is given (5 with --quick)."""
    limit_s: float = 0.0
    """A child that takes longer for one answer is ended; 300 s where none is given (60 with --quick)."""
    platform: Literal["auto", "cpu", "gpu"] = "auto"
    """Where JAX computes; auto: the accelerator if there is one."""

    def __post_init__(self) -> None:
        filled = {
            "scenes": SCENES[:4] if self.quick else SCENES,
            "worlds": (STANDARD_WORLDS,) if self.quick else (64, STANDARD_WORLDS, 4096),
            "rounds": 5 if self.quick else 11,
            "limit_s": 60.0 if self.quick else 300.0,
        }
        for name, value in filled.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        for name, given, allowed in (("scenes", self.scenes, SCENES), ("rivals", self.rivals, RIVALS)):
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
        return ("hybridwm",) if self.quick else self.competitors(scene)


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
        cost: dict[str, list[float]] = {rival: [] for rival in self.children}
        order = list(self.children)
        for turn in range(self.options.rounds if order else 0):
            for rival in order[turn % len(order) :] + order[: turn % len(order)]:
                if rival in self.children:
                    self._each(rival, lambda rival=rival: cost[rival].append(self._turn(rival, "rollout") / per))
        for rival in self.children:
            self.cells[rival] |= {"us": statistics.median(cost[rival]), "rounds_us": cost[rival]}

    def _turn(self, rival: str, what: str) -> float:
        once = self.cells[rival].setdefault("once", {})
        repeats = 1 if what not in once else int(np.clip(TURN_S / once[what], 1, 50))
        answer = self._ask(self.children[rival], "clock", what=what, repeats=repeats)
        self.cells[rival].setdefault("cores", answer["cores"])
        once[what] = answer["seconds"]
        return once[what]

    def _error(self, rival: str, wanted: np.ndarray) -> None:
        path = self.folder / f"{rival}.npy"
        self._ask(self.children[rival], "final", path=str(path))
        gap = np.abs(np.load(path) - wanted).max(axis=0)
        self.cells[rival] |= {"error": float(gap.max()), "error_median": float(np.median(gap))}

    def _gradient(self, rival: str) -> Cell:
        """Rollout and gradient in turns."""
        try:
            seconds = self._ask(self.children[rival], "gradient")["seconds"]
            for what in ("rollout", "gradient"):
                self._turn(rival, what)
            pairs = [[self._turn(rival, w) for w in ("rollout", "gradient")] for _ in range(self.options.rounds)]
        except Refused as reason:
            return {"not": str(reason)}
        rollout, gradient = np.array(pairs).T
        return {
            "ratio": float(np.median(gradient) / np.median(rollout)),
            "ratios": gradient / rollout,
            "us": float(np.median(gradient)) / self.worlds / self.options.steps * 1e6,
            "cold": seconds,
        }


def main(options: Options) -> None:
    """Race on every scene, then write and print."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children end with us
    begun = time.monotonic()
    deadline = begun + (QUICK_S if options.quick else float("inf"))
    cells: dict[str, dict[str, dict[str, Cell]]] = {}
    taken: list[float] = []
    for scene in options.scenes:
        for worlds in options.worlds:
            with tempfile.TemporaryDirectory() as folder:
                race = Race(options, scene, worlds, Path(folder), deadline)
                found = race.run()
            cells.setdefault(scene, {})[str(worlds)] = found
            taken.append(race.taken)
            print(report.lines(scene, worlds, found), flush=True)
            if race.taken > QUIET_CORES:
                print(f"  other programs kept {race.taken:.1f} cores busy: do not trust these numbers", flush=True)
    numbers = {"cells": cells, "seconds": time.monotonic() - begun, "cores_taken": max(taken)}
    on_cpu = all("cpu" in d.lower() for d in report.devices(cells))
    claims = targets.claims(cells, STANDARD_WORLDS) if on_cpu else []
    command = shlex.join(["python", "benchmarks/engine.py", *sys.argv[1:]])
    written = results.write(
        options.out, study="engine", config=options, numbers=numbers, claims=claims, seeds=(0,), command=command
    )
    report.table(written, options.out / "table.md")
    report.draw(written, options.out / "engine.png")
    report.show(written)


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.FlagCreatePairsOff,)))
