"""What a study says of several seeds: the mean with its interval, and claims about either.

interval    mean ± t₀.₉₇₅(n − 1) s / √n over the seeds; what is not finite makes it infinite
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import stdtrit

from hybridwm.results import Claim

Interval = tuple[float, float]


def spread(values: Sequence[float] | np.ndarray) -> tuple[float, Interval]:
    """(mean, 95 % interval) of one number per seed."""
    x = np.asarray(values, float)
    if not np.isfinite(x).all():
        return float("inf"), (float("inf"), float("inf"))
    mean, n = float(x.mean()), len(x)
    half = float(stdtrit(n - 1, 0.975) * x.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    return mean, (mean - half, mean + half)


def over_seeds(name: str, statement: str, values: Any, target: float, better: str = "lower") -> Claim:
    """A claim about the mean over seeds; of one seed there is no interval."""
    mean, interval = spread(values)
    known = bool(np.isfinite(mean))
    return Claim(
        id=name,
        statement=statement,
        value=mean if known else None,
        interval=interval if known and len(values) > 1 else None,
        target=target,
        better=better,
    )


def upper(name: str, statement: str, values: Any, target: float) -> Claim:
    """A claim that must hold for the upper end of the interval over seeds: that end is its value."""
    made = over_seeds(name, statement, values, target)
    return made if made.interval is None else replace(made, value=made.interval[1])


def told(values: Any) -> str:
    """`0.31 [0.28, 0.35]` for a table."""
    mean, (low, high) = spread(values)
    if not np.isfinite(mean):
        return "not finite"
    return f"{mean:.3g} [{low:.3g}, {high:.3g}]" if len(values) > 1 else f"{mean:.3g}"
