"""What the six studies share at their end: means with intervals over seeds, results.json, one table, the claims on the terminal.

interval    mean ± t₀.₉₇₅(n − 1) s / √n over the seeds; of a share of n cases Wilson's
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from experiments.argument.options import Argued
from experiments.measured.reporting import Row, markdown
from hybridwm import claims, results
from hybridwm.results import Claim

_T975 = (
    12.71,
    4.30,
    3.18,
    2.78,
    2.57,
    2.45,
    2.36,
    2.31,
    2.26,
    2.23,
    2.20,
    2.18,
    2.16,
    2.14,
    2.13,
)  # by degrees of freedom


def over_seeds(values: Sequence[float] | np.ndarray) -> tuple[float, tuple[float, float]]:
    """Mean over the seeds and its 95 % interval; what is not finite makes both infinite."""
    x = np.asarray(values, float)
    if not np.isfinite(x).all():
        return float("inf"), (float("inf"), float("inf"))
    freedom = len(x) - 1
    t = 0.0 if freedom < 1 else _T975[freedom - 1] if freedom <= len(_T975) else 1.96
    half = t * float(x.std(ddof=1)) / np.sqrt(len(x)) if freedom else 0.0
    return float(x.mean()), (float(x.mean()) - half, float(x.mean()) + half)


def claim(name: str, statement: str, values: Any, target: float, better: str = "lower") -> Claim:
    """A claim about the mean over seeds."""
    mean, interval = over_seeds(values)
    return Claim(id=name, statement=statement, value=mean, interval=interval, target=target, better=better)


def upper(name: str, statement: str, values: Any, target: float) -> Claim:
    """A claim that must hold for the upper end of the interval over seeds: that end is its value."""
    _, interval = over_seeds(values)
    return Claim(id=name, statement=statement, value=interval[1], interval=interval, target=target, better="lower")


def told(values: Any, unit: str = "") -> str:
    """`0.31 [0.28, 0.35]` for a table."""
    mean, (low, high) = over_seeds(values)
    return f"{mean:.3g} [{low:.3g}, {high:.3g}]{unit}" if np.isfinite(mean) else "not finite"


def kept(path: Path, work: Callable[[], Any]) -> Any:
    """What `work` finds, kept in a file, so that a study that was interrupted goes on."""
    if not path.exists():
        found = results.plain(work())
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(found), encoding="utf-8")
        part.replace(path)
    return json.loads(path.read_text(encoding="utf-8"))


def parts(options: Argued, name: str) -> Path:
    """Where a finished part is kept: under the options it was made with, so that none is taken for another's."""
    made = {key: str(value) for key, value in asdict(options).items() if key not in ("out", "seeds")}
    stamp = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:8]
    return options.out / "parts" / stamp / f"{name}.json"


def publish(
    study: str, options: Argued, numbers: Mapping[str, Any], found: Sequence[Claim], tables: Mapping[str, Sequence[Row]]
) -> None:
    """Write results.json and table.md into `options.out` and print the claims."""
    from rich.console import Console

    written = results.write(
        options.out, study=study, config=options, numbers=numbers, claims=found, seeds=range(options.seeds)
    )
    page = options.out / "table.md"
    page.unlink(missing_ok=True)
    claims.write_table([written], page)
    with page.open("a", encoding="utf-8") as file:
        for title, rows in tables.items():
            file.write(f"\n## {title}\n\n{markdown(rows)}")
    claims.show([written], Console())
    print(f"results, table and figure: {options.out}")
