"""hybridwm run all: every study that asks nothing of the user, several at a time, each in a process of its own.

which      those whose options all have a default; what needs a folder of data is named and left out
when       those that measure times run alone, before the others; of the others the long ones first
where      OUT/NAME; what was printed: OUT/NAME.log; every claim of all: OUT/claims.md
again      a study whose results.json is there, made with the same options, is not run again; one that was interrupted goes on
failure    a study that fails, or takes longer than it may, is told at the end; the others are run all the same
"""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, NamedTuple

from hybridwm import claims, results, runtime, study
from hybridwm.results import Results
from hybridwm.study import Study


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked of all studies."""

    out: Path
    quick: bool = False
    only: tuple[str, ...] = ()
    seeds: int | None = None
    minutes: float = 60.0
    jobs: int | None = None


class Outcome(NamedTuple):
    """What became of one study."""

    name: str
    word: str
    seconds: float = 0.0
    cpu: float = 0.0  # seconds, over all cores
    found: Results | None = None
    failed: bool = False


def run(wish: Wish) -> int:
    """Run them and print one table; 1 if any failed."""
    from rich.console import Console

    console, names, outcomes = Console(highlight=False), chosen(wish.only), list[Outcome]()
    timed = [name for name in names if _says(name, "clocked")]
    order = sorted(names, key=lambda name: not _says(name, "lengthy"))
    begun, stop = monotonic(), Event()
    for some, jobs in ((timed, 1), ([name for name in order if name not in timed], wish.jobs or usual_jobs())):
        with console.status("") as status, ThreadPoolExecutor(jobs) as pool:
            running = {pool.submit(one, name, wish, stop): name for name in some}
            try:
                status.update(", ".join(some))
                for done in as_completed(running):
                    outcomes.append(outcome := done.result())
                    left = [name for name in some if name not in {o.name for o in outcomes}]
                    status.update(", ".join(left))
                    console.print(
                        f"{len(outcomes)} of {len(names)}: {outcome.name}: {outcome.word}, {outcome.seconds:.0f} s"
                    )
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise
    outcomes.sort(key=lambda outcome: names.index(outcome.name))
    console.print(f"all: {monotonic() - begun:.0f} s")
    if not wish.only:
        outcomes += [Outcome(name, f"left out: needs {needs}") for name, needs in wanting().items()]
    report(wish.out, outcomes, console)
    return int(any(outcome.failed for outcome in outcomes))


def usual_jobs() -> int:
    """Studies at a time."""
    return min(runtime.core_count(), 4)


def _says(name: str, what: str) -> bool:
    """Whether a study says so of itself; of one that cannot be loaded nothing is known."""
    try:
        return getattr(study.load_study(name), what)
    except ValueError:
        return False


def chosen(only: Sequence[str]) -> list[str]:
    """The studies to run."""
    needing = wanting()
    able = [name for name in study.study_names() if name not in needing]
    if unknown := set(only) - set(able):
        raise ValueError(f"--only {min(unknown)}: the studies that need nothing of yours are {', '.join(able)}")
    return [name for name in able if name in (only or able)]


def wanting() -> dict[str, str]:
    """Studies that need something of the user, and the options that say what."""
    needs = {name: _required(name) for name in study.study_names()}
    return {name: " ".join(flags) for name, flags in needs.items() if flags}


def _required(name: str) -> list[str]:
    """Flags of the options without a default; of a study that cannot be loaded nothing is known."""
    try:
        known = fields(study.load_study(name))
    except ValueError:
        return []
    bare = [field.name for field in known if field.default is MISSING and field.default_factory is MISSING]
    return ["--" + name.replace("_", "-") for name in bare]


def one(name: str, wish: Wish, stop: Event) -> Outcome:
    """Run a study, or find that it has been run."""
    given: dict[str, Any] = {"out": wish.out / name, "quick": wish.quick}
    if wish.seeds is not None:
        given["seeds"] = wish.seeds
    try:
        asked = study.load_study(name)(**given)
    except ValueError as error:
        return Outcome(name, f"FAILED: {error}", failed=True)
    if (before := finished(asked)) is not None:
        return Outcome(name, "was there", found=before)
    log, begun = wish.out / f"{name}.log", monotonic()
    wish.out.mkdir(parents=True, exist_ok=True)
    words = shlex.split(study.command(name, asked))[1:]
    words = [sys.executable, "-P", "-m", "hybridwm", *words, "--out", str(asked.out)]
    code, used = child(words, log, 60 * wish.minutes, stop)
    seconds, made = monotonic() - begun, finished(asked)
    if code == 0 and made is not None:
        return Outcome(name, "done", seconds, used, made)
    why = "took too long" if code is None else f"exit code {code}" if code else "wrote no results.json of these options"
    return Outcome(name, f"FAILED: {why}; see {log}", seconds, used, failed=True)


def child(command: Sequence[str], log: Path, seconds: float, stop: Event) -> tuple[int | None, float]:
    """Its exit code, None if it took too long, and its CPU seconds. It is stopped then, and when we are, with all it started."""
    with log.open("a", encoding="utf-8") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
        code, ending = None, monotonic() + seconds
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            if monotonic() > ending or stop.is_set():
                os.killpg(process.pid, signal.SIGTERM)
                ended = os.wait4(process.pid, 0)
                break
            stop.wait(0.2)
        else:
            code = os.waitstatus_to_exitcode(ended[1])
        process.returncode = os.waitstatus_to_exitcode(ended[1])
    return code, ended[2].ru_utime + ended[2].ru_stime


def finished(asked: Study) -> Results | None:
    """The results of these very options, if they are there."""
    try:
        found = results.read(asked.out)
    except ValueError:
        return None
    config = found.body.get("config")
    wanted = results.plain(asdict(asked)) | {"out": None}
    return found if isinstance(config, dict) and config | {"out": None} == wanted else None


def report(out: Path, outcomes: Sequence[Outcome], console: Any) -> None:
    """One table on the terminal, and every claim in a document."""
    from rich.table import Table

    table = Table("study", "", "claims that hold", "seconds", "of CPU")
    for name, word, seconds, cpu, found, failed in outcomes:
        held = f"{sum(claim.holds for claim in found.claims)} of {len(found.claims)}" if found else ""
        times = [f"{x:.0f}" if seconds else "" for x in (seconds, cpu)]
        table.add_row(name, word, held, *times, style="bold red" if failed else None)
    console.print(table)
    if found := [outcome.found for outcome in outcomes if outcome.found]:
        claims.write_table(found, out / "claims.md")
        console.print(f"every claim, with its figure and its command: {out / 'claims.md'}")
    if failed := [outcome.name for outcome in outcomes if outcome.failed]:
        console.print(f"FAILED: {', '.join(failed)}; the same command goes on with these", style="bold red")
