"""Numbers out of episodes: success, breaks, times, what was foretold against what came, certificates, claims.

share of n episodes      with its Wilson interval (95 %)
mean                     with its bootstrap interval over episodes
prediction               RMS over 1 s of position, ratio of medians over windows, episodes drawn again for its interval; along the
                         LEAD_S before a window the bond is held, so that a model's memory of loads is warm
ratio of breaks          blind over hybrid, half a break added to either so that none is not infinity
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.glass import tasks
from experiments.glass.driving import Driven
from experiments.glass.fitting import MEMORY_S
from experiments.glass.models import ENGINE, EVERY, Models, ready
from experiments.glass.reality import reality, recording, scene
from experiments.tasks import wilson
from hybridwm.judging import evaluation
from hybridwm.learning.contenders import Subject
from hybridwm.learning.measure import over_window, worth
from hybridwm.logs.recordings import Dataset, Windows, windows
from hybridwm.results import Claim

WINDOW_S, LEAD_S = 1.0, 0.1
LEAD = round(LEAD_S / 0.01)
PAST = round(MEMORY_S / 0.01)
Found = Mapping[str, Sequence[Driven]]


class Seen(NamedTuple):
    """Predictions along the closed loop."""

    errors: dict[str, dict[str, np.ndarray]]  # model -> quantity -> [H, W]
    breaking: np.ndarray  # [W]
    reliability: dict[str, np.ndarray]
    numbers: dict[str, Any]


def breaks(batch: Sequence[Driven]) -> int:
    """Episodes in which the neck broke or the glass was lost."""
    return sum(one.outcome.state != "whole" for one in batch)


def numbers(found: Found) -> dict[str, Any]:
    """Of one task: what came of the episodes of each model."""
    return {name: summary(batch) for name, batch in found.items()}


def summary(batch: Sequence[Driven]) -> dict[str, Any]:
    """What came of some episodes."""
    good = [one.outcome.good for one in batch]
    reached = np.array(
        [one.outcome.reached_s for one in batch if one.outcome.good and one.outcome.reached_s is not None]
    )
    loss = np.array([tasks.LOSSES[one.outcome.state] for one in batch])
    return {
        "n": len(batch),
        "success": float(np.mean(good)),
        "success_interval": wilson(sum(good), len(good)),
        "broken": breaks(batch),
        "lost": sum(one.outcome.state == "lost" for one in batch),
        "reached_s": float(reached.mean()) if len(reached) else None,
        "reached_interval": spread(reached) if len(reached) > 1 else None,
        "off_m": float(np.median([one.outcome.off for one in batch])),
        "loss": float(loss.mean()),
        "losses": loss,
        "good": good,
        "plan_ms": 1e3 * float(np.median(np.concatenate([one.plan_s[1:] for one in batch]))),
    }


def spread(values: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """95 % interval of a mean."""
    pick = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(values[pick].mean(1), [0.025, 0.975])
    return float(low), float(high)


def followed(driven: Mapping[str, Found], names: Sequence[str] = ("hybrid", "blind"), most: int = 40) -> list[Driven]:
    """The episodes along whose closed loop models are asked."""
    every = (one for found in driven.values() for name in names for one in found[name][:most])
    return [one for one in every if one.episode.failure is None]


def along(shown: Sequence[Driven]) -> Windows:
    """Windows along the closed loop with a lead before each, and what had been commanded before."""
    logs = tuple(recording(f"{one.wish.task}-{i}", one.episode) for i, one in enumerate(shown))
    dataset = Dataset(scene(), 0.01, logs, {"settled": True})
    return windows(dataset, LEAD + round(WINDOW_S / 0.01), stride=20, past=PAST)


def predictions(models: Models, network: Any, driven: Mapping[str, Found]) -> Seen:
    """Every model asked the same windows of the closed loop."""
    shown = followed(driven)
    given = along(shown)
    held = given.intact[LEAD, 0] > 0.5
    given = Windows(*(x[..., held] for x in given))
    ask = evaluation.foreteller(models.world, project=False, lead=LEAD)  # one program for all with an engine
    told = {name: ask(ready(models.world, models.params[name]), given) for name in ENGINE}
    told["network"] = evaluation.predict(Subject(network.model, network.params), given, project=False, lead=LEAD)
    given = evaluation.after(given, LEAD)
    breaking = (given.intact[-1] < 0.5)[0]
    errors = {name: evaluation.errors(models.world.engine.scene, given, one) for name, one in told.items()}
    window = {name: over_window(one["position (m)"]) for name, one in errors.items()}
    found: dict[str, Any] = {"n": len(breaking), "breaking": int(breaking.sum()), "most_f1": most_known(given, shown)}
    for name, one in told.items():
        said = evaluation.breaks(given, one)
        scores = evaluation.event_scores(said, len(given.ctrl))
        found[name] = {"error_m": float(np.median(window[name])), "whole_m": _median(window[name][~breaking]),
                       "breaking_m": _median(window[name][breaking]), **scores}  # fmt: skip
    for name in ("given", "identified", "network", "blind"):
        found[f"hybrid_over_{name}"] = of_medians(window["hybrid"], window[name], given.episode)
        found[f"hybrid_over_{name}_paired"] = worth(window["hybrid"], window[name], given.episode)._asdict()
        if breaking.any():
            some = of_medians(window["hybrid"][breaking], window[name][breaking], given.episode[breaking])
            found[f"hybrid_over_{name}_breaking"] = some
    reliability = {
        name: evaluation.reliability(told[name].chance[0], breaking) for name in ("identified", "network", "hybrid")
    }
    return Seen(errors, breaking, reliability, found)


def most_known(given: Windows, shown: Sequence[Driven]) -> float:
    """F1 on the same windows of reality itself, which knows all but how strong this one neck is: what any model may reach."""
    again = [
        reality(lucky=False)
        .episode(one.episode.ctrl, seed=0, qpos=one.wish.start.qpos, qvel=one.wish.start.qvel)
        .intact
        for one in shown
    ]
    rows = len(given.ctrl)
    intact = np.stack([again[e][s + 1 : s + 1 + rows] for e, s in zip(given.episode, given.start, strict=True)], -1)
    told = evaluation.Prediction(given.qpos[1:], given.qvel[1:], intact, (intact[-1] < 0.5).astype(float))
    return evaluation.event_scores(evaluation.breaks(given, told), rows)["f1"]


def of_medians(error: np.ndarray, against: np.ndarray, episode: np.ndarray) -> dict[str, Any]:
    """Ratio of the medians over windows and its 95 % interval, whole episodes drawn again."""
    ratio = lambda pick: float(np.median(error[pick]) / np.median(against[pick]))  # noqa: E731
    return {"ratio": ratio(np.arange(len(error))), "interval": evaluation.bootstrap(ratio, episode)}


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None


def certified(driven: Mapping[str, Found]) -> dict[str, Any]:
    """The first plan of each episode of the full hybrid followed to its end: does what it promised come true?"""
    kept: dict[str, list[bool]] = {"neck": [], "place": [], "stands": []}
    for found in driven.values():
        for number, one in enumerate(found["hybrid"]):
            real = reality().episode(np.repeat(one.ctrls[0], EVERY, 0), seed=9000 + number, qpos=one.wish.start.qpos,
                                     qvel=one.wish.start.qvel)  # fmt: skip
            end, told = real.qpos[-1], one.promised[0, -1]
            kept["neck"].append(bool(real.breaks) == bool(one.chance[0] > 0.5))
            kept["place"].append(abs(end[0] - told[0]) < 0.02)
            kept["stands"].append((abs(end[2]) < tasks.UPRIGHT) == (abs(told[2]) < tasks.UPRIGHT))
    every = [x for column in kept.values() for x in column]
    return {**{name: float(np.mean(column)) for name, column in kept.items()}, "share": float(np.mean(every)),
            "interval": wilson(sum(every), len(every)), "n": len(every)}  # fmt: skip


def claims(found: Mapping[str, Any]) -> list[Claim]:
    """What the study claims, whether it holds or not."""
    out = list[Claim]()
    if "carry" in found:
        out += _carry(found["carry"])
    if "snap" in found:
        snap = found["snap"]
        out.append(_success("snap", snap["hybrid"], 0.95))
        blind = snap["blind"]
        out.append(
            Claim(id="snap_blind", statement="snap: success of the planner blind to events", value=blind["success"],
                  interval=blind["success_interval"], target=0.05, better="lower")
        )  # fmt: skip
    if "rescue" in found:
        out.append(_rescue(found["rescue"]))
    seen, certificates = found["prediction"], found["certificates"]
    for name, target in (("identified", 0.5), ("network", 0.25)):
        ratio = seen[f"hybrid_over_{name}"]
        out.append(
            Claim(id=f"prediction_{name}", statement=f"median error over {WINDOW_S} s along the closed loop, hybrid / {name}",
                  value=ratio["ratio"], interval=ratio["interval"], target=target, better="lower")
        )  # fmt: skip
    if "hybrid_over_blind_breaking" in seen:
        ratio = seen["hybrid_over_blind_breaking"]
        out.append(
            Claim(id="prediction_blind", statement=f"median error on {seen['breaking']} windows with a break, hybrid / blind"
                  " to events", value=ratio["ratio"], interval=ratio["interval"], target=0.5, better="lower")
        )  # fmt: skip
    out.append(
        Claim(id="events_f1", statement=f"F1 of breaks found within 20 ms, {seen['breaking']} of {seen['n']} windows break"
              f" (who knows all but the luck of a neck: {seen['most_f1']:.3f})",
              value=seen["hybrid"]["f1"], target=0.98, better="higher")
    )  # fmt: skip
    out.append(
        Claim(id="certificates", statement=f"promises of first plans that come true, of {certificates['n']}",
              value=certificates["share"], interval=certificates["interval"], target=0.95, better="higher")
    )  # fmt: skip
    if "live" in found:
        live = found["live"]
        out.append(
            Claim(id="real_time", statement=f"real time: share of {live['plans']} plans within {live['allowed_ms']:.0f} ms, at"
                  f" {live['plans_per_s']:.1f} plans a second", value=live["in_time"], target=0.99, better="higher")
        )  # fmt: skip
    return out


def _success(task: str, found: Mapping[str, Any], target: float) -> Claim:
    statement = f"{task}: success of the full hybrid, {found['n']} episodes"
    return Claim(id=f"{task}_success", statement=statement, value=found["success"], interval=found["success_interval"],
                 target=target, better="higher")  # fmt: skip


def _carry(found: Mapping[str, Any]) -> list[Claim]:
    hybrid, blind, careful = (found[name] for name in ("hybrid", "blind", "careful"))
    ratio = (blind["broken"] + 0.5) / (hybrid["broken"] + 0.5)
    ratio *= (hybrid["n"] + 1) / (blind["n"] + 1)
    quicker = 1 - hybrid["reached_s"] / careful["reached_s"] if hybrid["reached_s"] and careful["reached_s"] else None
    return [
        _success("carry", hybrid, 0.95),
        Claim(id="carry_breaks", statement=f"carry: breaks blind / hybrid ({blind['broken']} against {hybrid['broken']})",
              value=ratio, target=5.0, better="higher"),
        Claim(id="carry_no_worse", statement="carry: success of the full hybrid less that of the blind one",
              value=hybrid["success"] - blind["success"], target=0.0, better="higher"),
        Claim(id="carry_faster", statement="carry: time saved against a force limit that breaks no more"
              f" ({careful['broken']} breaks of {careful['n']})", value=quicker, target=0.16, better="higher"),
    ]  # fmt: skip


def _rescue(found: Mapping[str, Any]) -> Claim:
    """The smallest lead over any rival, with the interval of that rival's difference (the same starts, so paired)."""
    ours = np.asarray(found["hybrid"]["losses"])
    leads = {name: np.asarray(one["losses"]) - ours for name, one in found.items() if name != "hybrid"}
    name = min(leads, key=lambda name: leads[name].mean())
    low, high = spread(leads[name])
    return Claim(id="rescue_lead", statement=f"rescue: lower end of the mean loss saved against the best rival ({name};"
                 f" mean {leads[name].mean():.2f}, to {high:.2f})", value=low, target=1e-9, better="higher")  # fmt: skip
