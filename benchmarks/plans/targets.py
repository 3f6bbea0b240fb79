"""The claims of `benchmarks/planning.py`: ratios of medians with the spread over rounds, and deadlines kept."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hybridwm.results import Claim

AGAINST_C = 2.0  # times the time of mujoco.rollout for the same samples × steps
AGAINST_HYDRAX = 3.0  # times faster
NAMES = {
    "mujoco": "mujoco.rollout", "hybridwm": "hybridwm", "hybrid": "hybridwm, hybrid model", "physics": "hybridwm, physics",
    "hydrax": "hydrax", "judo": "judo", "mjx": "MJX", "brax": "stock Brax",
}  # fmt: skip


def claims(races: Mapping[str, Any], deadlines: Mapping[str, Any]) -> list[Claim]:
    """All claims that these numbers can say something about; what could not be measured is a claim without a value."""
    made = [
        _ratio(races, "pushed_box", "hybrid", "mujoco", AGAINST_C, "lower",
               "pushed box, a plan of 128 × 50 under the hybrid model, times mujoco.rollout of as many"),
        _ratio(races, "cartpole", "physics", "mujoco", AGAINST_C, "lower",
               "cart-pole, a plan of 128 × 100, times mujoco.rollout of as many"),
        _ratio(races, "push_t", "hydrax", "hybridwm", AGAINST_HYDRAX, "higher",
               "push-T 128 × 50: time of a plan of hydrax, times ours"),
        _ratio(races, "cart_pole", "hydrax", "hybridwm", AGAINST_HYDRAX, "higher",
               "cart-pole 128 × 100: time of a plan of hydrax, times ours"),
    ]  # fmt: skip
    kept = [claim for scene, found in deadlines.items() for claim in _deadline(scene, found)]
    return [claim for claim in made if claim] + kept


def seconds(cell: Mapping[str, Any]) -> np.ndarray:
    """Medians of the turns."""
    return np.array([np.median(turn) for turn in cell["turns_s"]])


def ratio(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float | None, tuple[float, float] | None]:
    """Median over turns of one over that of the other, and the least and greatest ratio of a turn."""
    if "turns_s" not in one or "turns_s" not in other:
        return None, None
    a, b = seconds(one), seconds(other)
    return float(np.median(a) / np.median(b)), (float((a / b).min()), float((a / b).max()))


def _ratio(
    races: Mapping[str, Any], race: str, one: str, other: str, target: float, better: str, statement: str
) -> Claim | None:
    found = races.get(race, {})
    if one not in found or other not in found:
        return None
    value, interval = ratio(found[one], found[other])
    return Claim(id=f"planning_{race}_{one}_against_{other}", statement=statement, value=value, interval=interval,
                 target=target, better=better)  # fmt: skip


WORDS = {"pushed_box": "pushed box under the hybrid model", "cartpole": "cart-pole"}


def _deadline(scene: str, found: Mapping[str, Any]) -> list[Claim]:
    said = f"{found['calls']} calls within {found['budget_ms']:g} ms, {WORDS[scene]}"
    rows = (
        ("p999", f"{said}: 99.9 % quantile (ms)", found["took_ms"]["p99.9"], found["budget_ms"]),
        ("over_twice", f"{said}: calls over twice the budget", float(found["over_twice"]), 0.0),
        ("compiled", f"{said}: compilations after warmup()", float(found["compiled"]), 0.0),
    )
    return [
        Claim(id=f"planning_deadline_{scene}_{name}", statement=statement, value=value, target=target, better="lower")
        for name, statement, value, target in rows
    ]
