"""The subcommands of `hybridwm`: frozen dataclasses of options, each with a method `run` (nothing, or an exit code).

Free of JAX: what a command needs is imported when it runs. Studies (`hybridwm run NAME`) have the same shape.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Claims:
    """Print the claims of results files; a miss is as loud as a hit."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATH…")]
    """results.json files, or folders that hold one."""
    write: Path | None = None
    """Also write the table into this Markdown document, between its two claims markers."""

    def run(self) -> None:
        """Read, show, and write if asked."""
        from rich.console import Console

        from hybridwm import claims, results

        if not self.paths:
            raise ValueError("hybridwm claims needs at least one results.json or folder that holds one")
        found = [results.read(path) for path in self.paths]
        claims.show(found, Console())
        if self.write:
            claims.write_table(found, self.write)


@dataclass(frozen=True, kw_only=True)
class Collect:
    """Explore a scene in MuJoCo C and record episodes to learn from."""

    scene: str
    """An MJCF file, or the name of a shipped scene."""
    out: Path
    """A new folder for the recordings."""
    episodes: int = 60
    """Number of episodes."""
    seconds: float = 5.0
    """Length of each, in simulated seconds."""
    seed: int = 0
    """Seed of starts, controls and noise."""
    noise: float = 0.0
    """Standard deviation of the noise on poses, in m and rad."""
    speed_noise: float = 0.0
    """Standard deviation of the noise on velocities, in m/s and rad/s."""

    def run(self) -> None:
        """Explore, and write the recordings."""
        from hybridwm import versions
        from hybridwm.logs import collecting

        versions.require_engines()
        collecting.run_command(
            self.scene, self.out, episodes=self.episodes, seconds=self.seconds, seed=self.seed, noise=self.noise,
            speed_noise=self.speed_noise,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Look at this installation and say in plain words what is wrong and how to mend it."""

    deadlock_s: float = 20.0
    """Seconds to wait for the jaxlib deadlock probe; 0 leaves it out."""
    x64: bool = False
    """Check in float64 (also: HYBRIDWM_X64=1)."""

    def run(self) -> int:
        """Print the checks; 2 when something must be mended."""
        from hybridwm import doctor

        return doctor.examine(deadlock_s=self.deadlock_s, x64=self.x64)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Fit a world model to recordings: physics, residual, trust, events; interrupted, it goes on where it was."""

    scene: str
    """An MJCF file, or the name of a shipped scene."""
    data: Path
    """A folder of recordings."""
    out: Path
    """Folder for the model and the training's log."""
    seed: int = 0
    """Seed of splits and networks."""
    members: int = 4
    """Networks in the ensemble."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of their hidden layers."""
    corrections: tuple[Literal["gain", "damping", "friction"], ...] = ()
    """Parts of θ that may vary with the state."""
    place: bool = False
    """Absolute position and heading matter to the networks."""
    apart: bool = False
    """The residual asks each object by itself, and nothing of its neighbours; alike objects share what is learned."""
    ground: bool = False
    """The friction of the floor may differ from place to place."""
    no_force: bool = False
    """The residual adds no forces, it only corrects θ."""
    no_lag: bool = False
    """Motors follow their commands at once."""
    delay: int = 0
    """Engine steps by which commands arrive late."""
    effort: float = 1.0
    """Factor on the number of updates."""
    no_rival: bool = False
    """Leave the network alone out of the closing table."""
    x64: bool = False
    """Compute in float64 (also: HYBRIDWM_X64=1)."""

    def run(self) -> int:
        """Read, fit, show, save."""
        from hybridwm import runtime, versions

        versions.require_engines()
        runtime.prepare(x64=self.x64)
        from hybridwm.learning import command, fitting
        from hybridwm.world.model import ModelOptions

        model = ModelOptions(
            hidden=self.hidden, members=self.members, corrections=self.corrections, place=self.place,
            apart=self.apart, force=not self.no_force, delay=self.delay,
        )  # fmt: skip
        options = fitting.FitOptions(
            model=model, stages=fitting.stages(self.effort), lag=not self.no_lag, ground=self.ground, seed=self.seed
        )
        return command.execute(self.scene, self.data, self.out, options, rival=not self.no_rival)


@dataclass(frozen=True, kw_only=True)
class Import:
    """Turn CSV logs into recordings, by a map of their columns; `cube-toss FOLDER` reads the public files of a measured set."""

    source: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CSV | cube-toss FOLDER")]
    """A CSV file, or a folder of them, one episode each; or cube-toss and the folder of its .pt or .csv files (docs/data.md)."""
    scene: str | None = None
    """An MJCF file, or the name of a shipped scene."""
    out: Path
    """A new folder for the recordings."""
    map: tuple[str, ...] = ()
    """Which columns are what: a YAML file, or words like qpos=2:9 ctrl=torque time=0 (see hybridwm/logs/importing.py)."""
    smoothing: Literal["auto", "always", "never"] = "auto"
    """Take out noise where there is some, everywhere, or nowhere; missing velocities are always estimated."""

    def run(self) -> None:
        """Read, check, smooth and write."""
        if self.source and str(self.source[0]) == "cube-toss":
            return self._cube_toss()
        from hybridwm.logs import importing

        if len(self.source) != 1 or self.scene is None or not self.map:
            raise ValueError("hybridwm import needs one CSV file or folder, --scene and --map; or: cube-toss FOLDER")
        importing.run_command(self.source[0], self.scene, self.out, self.map, smoothing=self.smoothing)

    def _cube_toss(self) -> None:
        from hybridwm.logs import cube_toss

        if len(self.source) != 2 or self.scene or self.map:
            raise ValueError("hybridwm import cube-toss needs one folder and --out, no --scene and no --map")
        cube_toss.run_command(self.source[1], self.out)


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Judge a fitted model on logs, beside the physics that it is made of: error against horizon, shares, events."""

    scene: str
    """An MJCF file or the name of a shipped scene."""
    data: Path
    """Folder of recordings that the model was not fitted to."""
    model: Path
    """Folder of the fitted model."""
    out: Path
    """Folder for results.json, table.md and figures."""
    window_s: float = 1.0
    """Seconds that the models look ahead."""
    most: int = 512
    """Windows at most."""
    x64: bool = False
    """Compute in float64 (also: HYBRIDWM_X64=1)."""

    def __post_init__(self) -> None:
        if not self.window_s > 0 or self.most < 1:
            raise ValueError(f"--window-s is {self.window_s}, --most is {self.most}: give more than 0 and at least 1")

    def run(self) -> None:
        """Judge and write."""
        from hybridwm import runtime, versions

        versions.require_engines()
        runtime.prepare(x64=self.x64)
        from hybridwm.judging import command

        asked = command.Judgement(window_s=self.window_s, most=self.most)
        command.execute(self.scene, self.data, self.model, self.out, asked)


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Say what a scene holds, whether the engine honours all of it, and what a step costs on this machine."""

    scene: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SCENE")]
    """An MJCF file, or the name of a shipped scene."""
    no_timing: bool = False
    """Look only; compile and time nothing."""
    x64: bool = False
    """Time in float64 (also: HYBRIDWM_X64=1)."""

    def run(self) -> int:
        """Print what was found; 2 when the engine cannot honour the scene."""
        from rich.console import Console

        from hybridwm import runtime, versions
        from physics.inspect import inspect

        versions.require_engines()
        runtime.prepare(x64=self.x64)
        found = inspect(self.scene, timing=not self.no_timing)
        Console(highlight=False).print(found.render())
        return 0 if found.supported else 2


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Plan a task on a scene, certify the plan in MuJoCo C, and write its controls."""

    task: str
    """A YAML file, or the name of a shipped task."""
    out: Path
    """Folder for the controls, the figure and results.json."""
    scene: str | None = None
    """An MJCF file or the name of a shipped scene; without it, the one that the task names."""
    model: Path | None = None
    """A fitted world model to plan on; without it, the physics alone."""
    seed: int = 0
    """Seed of the search."""
    rounds: int = 3
    """Times the planner may go on from its best plan, until that is OK."""
    closed_loop: bool = False
    """Also run the task in closed loop in MuJoCo C."""
    x64: bool = False
    """Compute in float64 (also: HYBRIDWM_X64=1)."""

    def run(self) -> int:
        """Plan, show, write; 3 when the plan is not OK or its promises were not kept."""
        from hybridwm import runtime, versions

        versions.require_engines()
        runtime.prepare(x64=self.x64)
        from hybridwm.tasks import plan

        asked = plan.Request(
            task=self.task, scene=self.scene, model=self.model, out=self.out, seed=self.seed, rounds=self.rounds,
            closed_loop=self.closed_loop,
        )  # fmt: skip
        return plan.execute(asked)


@dataclass(frozen=True, kw_only=True)
class RunAll:
    """Run every study that needs nothing of yours, several at a time; interrupted or failed, it goes on where it was."""

    out: Path = Path("runs/all")
    """Folder for a folder and a log of each study, and every claim in claims.md."""
    quick: bool = False
    """Short runs, for a first look: about twenty minutes of two cores."""
    only: tuple[str, ...] = ()
    """Studies to run; all of them if not given."""
    seeds: int | None = None
    """Number of random seeds of each study; its own if not given."""
    minutes: float = 60.0
    """Time that one study may take."""
    jobs: int | None = None
    """Studies at a time; one per core, at most four, if not given. A study that measures times runs alone."""

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise ValueError(f"--minutes is {self.minutes}: give more than 0")
        for name in ("seeds", "jobs"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"--{name} is {value}: give at least 1")

    def run(self) -> int:
        """Run, and tell; 1 when one failed."""
        from hybridwm import everything, versions

        versions.require_engines()
        wish = everything.Wish(
            out=self.out, quick=self.quick, only=self.only, seeds=self.seeds, minutes=self.minutes, jobs=self.jobs
        )
        return everything.run(wish)


COMMANDS = {
    "claims": Claims,
    "collect": Collect,
    "doctor": Doctor,
    "eval": Eval,
    "fit": Fit,
    "import": Import,
    "inspect": Inspect,
    "plan": Plan,
}
