"""How long `hybridwm --help` takes, from the shell's side: process start to process end.

python benchmarks/help_time.py [--quick] --out DIR
"""

import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from hybridwm import results
from hybridwm.results import Claim

COMMANDS = (("--help",), ("doctor", "--help"), ("run", "--help"), ("claims", "--help"))


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time the help texts of the command."""

    out: Path = Path("runs/benchmarks/help_time")
    """Folder for results.json."""
    quick: bool = False
    """Five repetitions in place of twenty."""


def seconds(args: tuple[str, ...]) -> float:
    """Wall time of one command."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-P", "-m", "hybridwm", *args], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main(options: Options) -> None:
    """Measure, write, print."""
    repeats = 5 if options.quick else 20
    times = {" ".join(args): sorted(seconds(args) for _ in range(repeats)) for args in COMMANDS}
    worst = max(times.values(), key=statistics.median)
    claim = Claim(
        id="help_time",
        statement="`hybridwm --help`, slowest of its pages, median wall time in seconds",
        value=statistics.median(worst),
        interval=(worst[0], worst[-1]),
        target=1.0,
        better="lower",
    )
    results.write(options.out, study="help_time", config=options, numbers={"seconds": times}, claims=[claim])
    print(f"{claim.value:.2f} s (target ≤ {claim.target:g} s), {options.out}/results.json")


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.FlagCreatePairsOff,)))
