"""The claims of `benchmarks/engine.py`: ratios of medians at 512 worlds, with the spread over rounds.

A claim is made for each scene and rival that was asked for; what could not be measured is a claim without a value.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hybridwm.results import Claim

AGAINST_C = {"pushed_box": 1.3, "arm": 2.0, "stacked_boxes": 4.0, "glass": 4.0}  # times the cost of mujoco.rollout
FASTER = {("pushed_box", "brax"): 4.0, ("pushed_box", "mjx"): 3.0, ("stacked_boxes", "mjx"): 2.5}
FIRST_CALL = {("pushed_box", "cold"): 15.0, ("pushed_box", "cached"): 4.0, ("glass", "cold"): 30.0}  # s
GRADIENT = 5.0  # times the cost of the rollout
ERROR = 1e-3  # m or rad in float32, from converged MuJoCo C
GRADIENT_SCENES = ("pushed_box", "arm", "stacked_boxes", "glass")
NAMES = {
    "mujoco": "mujoco.rollout",
    "hybridwm": "hybridwm",
    "mjx": "MJX, 4 iterations",
    "mjx_exact": "MJX, 10 iterations",
    "brax": "stock Brax",
}


def claims(cells: Mapping[str, Any], worlds: int) -> list[Claim]:
    """All claims that these cells can say something about."""
    at = {scene: found[str(worlds)] for scene, found in cells.items() if str(worlds) in found}
    at = {scene: found for scene, found in at.items() if "hybridwm" in found}
    made = [_against_c(s, at[s], target) for s, target in AGAINST_C.items() if s in at and "mujoco" in at[s]]
    made += [_faster(s, at[s], rival, target) for (s, rival), target in FASTER.items() if s in at and rival in at[s]]
    asked = [s for s in GRADIENT_SCENES if s in at and {"gradient", "not"} & at[s]["hybridwm"].keys()]
    made += [_gradient(s, at[s]["hybridwm"]) for s in asked]
    made += [_first_call(s, at[s]["hybridwm"], kind, t) for (s, kind), t in FIRST_CALL.items() if s in at]
    made += [_error(s, found["hybridwm"]) for s, found in at.items() if s in AGAINST_C]
    return made


def ratio(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float | None, tuple[float, float] | None]:
    """Median cost of `one` over that of `other`, and the least and greatest of a round."""
    if "us" not in one or "us" not in other:
        return None, None
    rounds = np.array(one["rounds_us"]) / np.array(other["rounds_us"])
    return one["us"] / other["us"], (float(rounds.min()), float(rounds.max()))


def _against_c(scene: str, found: Mapping[str, Any], target: float) -> Claim:
    value, interval = ratio(found["hybridwm"], found["mujoco"])
    statement = f"{scene}: cost of a world-step, times that of mujoco.rollout"
    return _claim(f"engine_{scene}_against_c", statement, value, interval, target)


def _faster(scene: str, found: Mapping[str, Any], rival: str, target: float) -> Claim:
    value, interval = ratio(found[rival], found["hybridwm"])
    statement = f"{scene}: cost of a world-step of {NAMES[rival]}, times ours"
    return _claim(f"engine_{scene}_against_{rival}", statement, value, interval, target, "higher")


def _gradient(scene: str, ours: Mapping[str, Any]) -> Claim:
    found = ours.get("gradient", {})
    spread = (float(min(found["ratios"])), float(max(found["ratios"]))) if "ratios" in found else None
    statement = f"{scene}: reverse-mode gradient of the rollout, times the rollout"
    return _claim(f"engine_{scene}_gradient", statement, found.get("ratio"), spread, GRADIENT)


def _error(scene: str, ours: Mapping[str, Any]) -> Claim:
    statement = f"{scene}: farthest world from converged MuJoCo C after the last step, ours in float32 (m or rad)"
    return _claim(f"engine_{scene}_float32_error", statement, ours.get("error"), None, ERROR)


def _first_call(scene: str, ours: Mapping[str, Any], kind: str, target: float) -> Claim:
    words = {"cold": "nothing cached", "cached": "from the cache"}
    clock, seconds = ("processor", "s of processor time") if ours.get("clock") == "processor" else ("first_call", "s")
    statement = f"{scene}: first call, {words[kind]}, from the scene to the first result ({seconds})"
    return _claim(f"engine_{scene}_first_call_{kind}", statement, ours.get(kind, {}).get(clock), None, target)


def _claim(
    id: str, statement: str, value: Any, interval: tuple[float, float] | None, target: float, better: str = "lower"
) -> Claim:
    return Claim(id=id, statement=statement, value=value, interval=interval, target=target, better=better)
