"""What a plan costs and what it is worth: ours, mujoco.rollout's bare time, hydrax, judo, and stock engines under us.

python benchmarks/planning.py [--quick] [--out DIR] [--hydrax PYTHON] [--judo PYTHON] [--parts …]

    races      seconds of one plan, controls in hand; in each round every rival takes its turn of several plans
    deadline   10,000 calls of a `Controller` within a budget: 40 ms for the pushed box under the hybrid model, 10 ms for cart-pole
    search     cost reached against time, from nothing: the peers' problems judged by MuJoCo C, the shipped tasks by their own cost
    shipped    every planner on every shipped task, on our engine, stock Brax and MJX

Each rival lives in a child process (`race/parent.py`). The peers live in environments of their own, whose interpreters
are given by `--hydrax` and `--judo`: both plan hydrax's own `pusht` and `cart_pole` examples with its costs, sizes and
noise (`plans/wishes.py`). Without them a sentence stands in their place. `--resume` keeps what `--out` already holds.
"""

import shlex
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import mujoco
import numpy as np
import tyro
from plans import report, targets, wishes
from race.parent import Child, Refused, cores_taken, environment

from hybridwm import results

PARTS = ("races", "deadline", "shipped")
SIZED = {"pushed_box": ("mujoco", "physics", "hybrid"), "cartpole": ("mujoco", "physics")}
RACES = (*SIZED, *wishes.WISHES)
TASKS = ("pendulum_swingup", "cartpole_swingup", "push_box", "push_tblock", "reach", "snap_rod", "keep_rod")
PLANNERS = ("predictive_sampling", "cem", "mppi", "annealed_mppi", "mixture", "adam", "ilqr", "joint")
ENGINES = ("hybridwm", "mjx", "brax")
QUICK = {"tasks": TASKS[:1], "planners": PLANNERS[:3], "engines": ENGINES[:1]}
TURN_S = 0.3
DEADLINES = {"pushed_box": ("hybrid", 0.040, 2), "cartpole": ("physics", 0.010, 8)}
"""scene: (model, budget in s, most rounds)."""
QUICK_S = 240.0
QUIET_CORES = 0.2

Cell = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time our planners against mujoco.rollout, hydrax, judo, MJX and stock Brax."""

    out: Path = Path("docs/benchmarks/planning")
    """Folder for results.json, table.md, races.png and search.png."""
    quick: bool = False
    """Fewer turns, 1,000 deadlines, one shipped task with three planners; ends within five minutes on two cores."""
    parts: tuple[Literal["races", "deadline", "shipped"], ...] = PARTS
    """What to measure."""
    races: tuple[str, ...] = ()
    """Races to run: pushed_box, cartpole, push_t, cart_pole; all of them where none is given."""
    hydrax: Path | None = None
    """Python of an environment that has hydrax."""
    judo: Path | None = None
    """Python of an environment that has judo; its problems are hydrax's, so it needs --hydrax too."""
    tasks: tuple[str, ...] = ()
    """Shipped tasks; all of them where none is given (one with --quick)."""
    planners: tuple[str, ...] = ()
    """Planners on the shipped tasks; all of them where none is given (three with --quick)."""
    engines: tuple[str, ...] = ()
    """Engines under them: hybridwm, mjx, brax; all of them where none is given (ours with --quick)."""
    rounds: int = 0
    """Turns of each rival; 15 where none is given (5 with --quick)."""
    calls: int = 0
    """Deadlines; 10,000 where none is given (1,000 with --quick)."""
    limit_s: float = 0.0
    """A child that takes longer for one answer is ended; 300 s where none is given (100 with --quick)."""
    minutes: float = float("inf")
    """Begin nothing new after this; what is missing says so, and `--resume` measures it."""
    resume: bool = False
    """Keep the parts and cells that the results in --out already hold."""
    renew: tuple[Literal["races", "deadline", "shipped"], ...] = ()
    """Parts to measure anew in spite of --resume."""

    def __post_init__(self) -> None:
        filled = {
            "races": RACES,
            "tasks": QUICK["tasks"] if self.quick else TASKS,
            "planners": QUICK["planners"] if self.quick else PLANNERS,
            "engines": QUICK["engines"] if self.quick else ENGINES,
            "rounds": 5 if self.quick else 15,
            "calls": 1_000 if self.quick else 10_000,
            "limit_s": 100.0 if self.quick else 300.0,
        }
        for name, value in filled.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        allowed = {"races": RACES, "tasks": TASKS, "planners": PLANNERS, "engines": ENGINES}
        for name, names in allowed.items():
            if unknown := set(getattr(self, name)) - set(names):
                raise ValueError(f"--{name} has {min(unknown)!r}; allowed are {', '.join(names)}")
        for name in ("rounds", "calls", "limit_s", "minutes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be positive")
        for name in ("hydrax", "judo"):
            if (python := getattr(self, name)) is not None and not python.is_file():
                raise ValueError(f"--{name} {python}: there is no such interpreter")


class Bench:
    """One run."""

    def __init__(self, options: Options) -> None:
        self.options = options
        last = QUICK_S if options.quick else 60 * options.minutes
        self.deadline = time.monotonic() + min(last, 60 * options.minutes)
        self.scene = ""
        """Of the peers' problem at hand; told by hydrax."""
        self.numbers: dict[str, Any] = {"races": {}, "deadlines": {}, "shipped": {}, "cores_taken": 0.0}
        if options.resume and (options.out / "results.json").exists():
            self.numbers |= results.read(options.out).body["numbers"]
        for part in options.renew:
            self.numbers["deadlines" if part == "deadline" else part] = {}
        command = shlex.join(["python", "benchmarks/planning.py", *_without_places(sys.argv[1:])])
        self.numbers["commands"] = list(dict.fromkeys([*self.numbers.get("commands", []), command]))

    def run(self) -> None:
        """All parts that were asked for, written after each."""
        parts = {"races": self.races, "deadline": self.deadlines, "shipped": self.shipped}
        for part in self.options.parts:
            parts[part]()
            self.write()

    def write(self) -> results.Results:
        """What is known so far."""
        claims = targets.claims(self.numbers["races"], self.numbers["deadlines"])
        return results.write(self.options.out, study="planning", config=self._config(), numbers=self.numbers,
                             claims=claims, seeds=(0,), command=_together(self.numbers["commands"]))  # fmt: skip

    def _config(self) -> dict[str, Any]:
        """The options, without the user's folders."""
        kept = {name: value for name, value in vars(self.options).items() if name not in ("out", "hydrax", "judo")}
        return kept | {"hydrax": self.options.hydrax is not None, "judo": self.options.judo is not None}

    def _ask(self, child: Child, what: str, /, **more: Any) -> dict[str, Any]:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Refused("left out: no time left")
        return child.ask(what, min(self.options.limit_s, left), **more)

    def _ours(self, engine: str = "hybridwm") -> Child:
        return Child([sys.executable, "-m", "plans.child"], environment(engine))

    def _quiet(self) -> None:
        taken = cores_taken()
        self.numbers["cores_taken"] = max(self.numbers["cores_taken"], taken)
        if taken > QUIET_CORES:
            print(f"  other programs keep {taken:.1f} cores busy: do not trust these numbers", flush=True)

    # --- races -----------------------------------------------------------------------------------------------------

    def races(self) -> None:
        """Sizes against mujoco.rollout, then the peers' problems against the peers."""
        for scene, rivals in SIZED.items():
            self._race(scene, {rival: partial(self._sized, scene=scene, rival=rival) for rival in rivals})
        for name in wishes.WISHES:
            self.scene = ""
            makers = {"hydrax": self._hydrax, "hybridwm": self._wished, "judo": self._judo}
            self._race(name, {rival: partial(make, name=name) for rival, make in makers.items()})

    def _race(self, name: str, makers: dict[str, Any]) -> None:
        if name in self.numbers["races"] or name not in self.options.races:
            return
        cells: dict[str, Cell] = {rival: {} for rival in makers}
        children: dict[str, Child] = {}
        with ExitStack() as stack:
            for rival, make in makers.items():
                with _refusing(cells[rival]):
                    children[rival], cells[rival]["prepared"] = make(stack)
            self._quiet()
            self._turns(cells, children)
            if name in wishes.WISHES:
                for rival, child in children.items():
                    with _refusing(cells[rival]):
                        cells[rival]["search"] = self._searched(name, rival, child)
        self.numbers["races"][name] = cells
        print(report.race_lines(name, cells), flush=True)

    def _turns(self, cells: dict[str, Cell], children: dict[str, Child]) -> None:
        order = list(children)
        for rival in order:
            with _refusing(cells[rival]):
                self._ask(children[rival], "clock", repeats=3)
                cells[rival]["turns_s"] = []
        for turn in range(self.options.rounds):
            for rival in order[turn % len(order) :] + order[: turn % len(order)] if order else ():
                if "not" not in cells[rival]:
                    with _refusing(cells[rival]):
                        cells[rival]["turns_s"].append(self._turn(children[rival], cells[rival]["turns_s"]))

    def _turn(self, child: Child, turns: list[list[float]], most: int = 100) -> list[float]:
        once = statistics.median(turns[-1]) if turns else TURN_S
        return self._ask(child, "clock", repeats=int(np.clip(TURN_S / once, 1, most)))["seconds"]

    def _sized(self, stack: ExitStack, scene: str, rival: str) -> tuple[Child, Cell]:
        child = stack.enter_context(self._ours())
        if rival == "mujoco":
            return child, self._ask(child, "mujoco", scene=scene)
        return child, self._ask(child, "prepare", case="sized", args=[scene, rival])

    def _hydrax(self, stack: ExitStack, name: str) -> tuple[Child, Cell]:
        if self.options.hydrax is None:
            raise Refused("left out: give --hydrax, the Python of an environment that has it")
        child = stack.enter_context(
            Child([str(self.options.hydrax), "-m", "plans.hydrax_peer", name], environment("hydrax"))
        )
        answer = self._ask(child, "prepare")
        self.scene = answer.pop("scene")
        return child, answer

    def _wished(self, stack: ExitStack, name: str) -> tuple[Child, Cell]:
        if not self.scene:
            raise Refused("left out: the scene is hydrax's, and it is not there")
        child = stack.enter_context(self._ours())
        return child, self._ask(child, "prepare", case="wished", args=[name, self.scene])

    def _judo(self, stack: ExitStack, name: str) -> tuple[Child, Cell]:
        if self.options.judo is None:
            raise Refused("left out: give --judo, the Python of an environment that has it")
        if not self.scene:
            raise Refused("left out: the scene is hydrax's, and it is not there")
        command = [str(self.options.judo), "-m", "plans.judo_peer", name, self.scene]
        child = stack.enter_context(Child(command, environment("judo")))
        return child, self._ask(child, "prepare")

    def _searched(self, name: str, rival: str, child: Child) -> Cell:
        more = {"ctrls": True} if rival == "hybridwm" else {}
        found = self._ask(child, "search", rounds=wishes.WISHES[name].rounds, **more)
        judged = judge(name, self.scene, np.array(found["ctrls"]))
        return {"seconds": found["seconds"], "costs": judged.tolist()}

    # --- deadline --------------------------------------------------------------------------------------------------

    def deadlines(self) -> None:
        """Controllers at their tasks' own rates, as many rounds as fit and are allowed."""
        for scene, (model, budget_s, max_rounds) in DEADLINES.items():
            if scene in self.numbers["deadlines"]:
                continue
            try:
                with self._ours() as child:
                    self._ask(child, "prepare", case="sized", args=[scene, model])
                    self._quiet()
                    found = self._ask(
                        child, "deadline", calls=self.options.calls, budget_s=budget_s, max_rounds=max_rounds
                    )
            except Refused as reason:
                print(f"deadline, {scene}: {reason}", flush=True)
                continue
            self.numbers["deadlines"][scene] = found
            print(report.deadline_lines(scene, found), flush=True)

    # --- shipped tasks ---------------------------------------------------------------------------------------------

    def shipped(self) -> None:
        """Planner by planner: all engines take turns, then each searches from nothing."""
        for task in self.options.tasks:
            found = self.numbers["shipped"].setdefault(task, {})
            with ExitStack() as stack:
                children = {engine: stack.enter_context(self._ours(engine)) for engine in self.options.engines}
                for planner in self.options.planners:
                    wanted = [e for e in children if not _measured(found.get(planner, {}).get(e))]
                    if not wanted or time.monotonic() > self.deadline:
                        continue
                    cells: dict[str, Cell] = {engine: {} for engine in wanted}
                    self._plan_shipped(task, planner, cells, children, stack)
                    found.setdefault(planner, {}).update(cells)
                    print(report.shipped_lines(task, planner, cells), flush=True)
            self.write()

    def _plan_shipped(
        self, task: str, planner: str, cells: dict[str, Cell], children: dict[str, Child], stack: ExitStack
    ) -> None:
        for engine in list(cells):
            with _refusing(cells[engine]):
                cells[engine] |= self._ask(children[engine], "prepare", case="shipped", args=[task, planner, engine])
            if "within" in cells[engine].get("not", ""):  # it was ended
                children[engine] = stack.enter_context(self._ours(engine))
        there = {engine: children[engine] for engine in cells if "not" not in cells[engine]}
        turns = 3 if self.options.quick else 6
        for turn in range(turns):
            for engine, child in there.items():
                with _refusing(cells[engine]):
                    cells[engine].setdefault("turns_s", []).append(
                        self._turn(child, cells[engine].get("turns_s", []), most=20 if turn else 1)
                    )
        for engine, child in there.items():
            with _refusing(cells[engine]):
                limit = 1.0 if self.options.quick else 3.0
                cells[engine]["search"] = self._ask(child, "search", rounds=30, limit_s=limit)


class _refusing:
    """Whatever is refused inside stands under `not` in place of numbers."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, at: Any) -> bool:
        if isinstance(error, Refused):
            self.cell["not"] = str(error)
        return isinstance(error, Refused)


def _measured(cell: Cell | None) -> bool:
    return cell is not None and not cell.get("not", "").startswith("left out: no time")


def judge(name: str, path: str, ctrls: np.ndarray) -> np.ndarray:
    """J of controls [rounds H nu] in MuJoCo C, converged, on the scene as its owner wrote it."""
    wish, model = wishes.WISHES[name], mujoco.MjModel.from_xml_path(path)
    model.opt.iterations, model.opt.ls_iterations, model.opt.tolerance = 100, 50, 1e-10
    costs = list[float]()
    for ctrl in ctrls:
        data = mujoco.MjData(model)
        data.qpos[:] = wish.start
        path_q, path_v = list[np.ndarray](), list[np.ndarray]()
        for now in ctrl:
            data.ctrl[:] = now
            mujoco.mj_step(model, data)
            path_q.append(data.qpos.copy())
            path_v.append(data.qvel.copy())
        costs.append(float(wishes.total(name, np, np.array(path_q).T, np.array(path_v).T, ctrl.T)))
    return np.array(costs)


def _without_places(args: list[str]) -> list[str]:
    """The command without the user's interpreters and folders."""
    places = {"--hydrax": "PYTHON", "--judo": "PYTHON", "--out": "DIR"}
    return [places.get(args[i - 1], word) if i else word for i, word in enumerate(args)]


def _together(commands: Sequence[str]) -> str:
    """What made results that may have been resumed; `commands` in them names each part."""
    return commands[0] if len(commands) == 1 else f"python benchmarks/planning.py, in {len(commands)} parts"


def main(options: Options) -> None:
    """Measure, write, print."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children end with us
    bench = Bench(options)
    bench.run()
    written = bench.write()
    report.table(written, options.out / "table.md")
    report.draw_races(written, options.out / "races.png")
    report.draw_search(written, options.out / "search.png")
    report.show(written)


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.FlagCreatePairsOff,)))
