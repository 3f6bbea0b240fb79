"""Claim: the hybrid knows what would have happened: heavier, absent, pushed earlier, in scenes and counts never seen.

    scenes      four to six pucks on the table; training saw one to three
    as it is    the driven puck is shoved towards another one at 0.3 s
    heavier     the glass puck has three times its mass (training: at most twice)
    absent      the puck nearest to the driven one is not there
    earlier     the shove comes 0.25 s sooner
    falls?      some puck leaves the square of ± 0.33 m within a second
    breaks?     the glass puck's momentum changes by more than 0.012 N s within 10 ms
    reaches?    some puck that is not driven comes within 0.1 m of a place drawn for the scene

The answers are MuJoCo C's, with the effects that no model is told of. effect = final places there less those as it is: error of the
effect over its size, medians. All rules were set on reality alone, before the first fit.
"""

from typing import Any, NamedTuple

import numpy as np

from experiments.argument import ending, models, table
from experiments.argument.learned_options import Causes
from experiments.argument.table import MASS, PUCKS, STEP_S, Asked, Episode
from experiments.reporting import publish
from experiments.seeds import over_seeds, told
from hybridwm.judging.figures import canvas
from hybridwm.learning.measure import paired
from hybridwm.results import Claim

WORLDS = ("as it is", "heavier", "absent", "earlier")
QUESTIONS = ("falls", "breaks", "reaches")
GLASS, EDGE, FRAGILE, NEAR = 1, 0.33, 0.012, 0.1
SHOVE_S, LATE_S, SOONER_S, STEPS = 0.35, 0.3, 0.25, 202
TEST_SEED = 2_000_000


class Case(NamedTuple):
    """One scene: its worlds, and where it asks whether something comes to."""

    episodes: tuple[Episode, ...]  # as WORLDS
    goal: np.ndarray  # [2] m


def case(rng: np.random.Generator, count: int) -> Case:
    """A scene with so many pucks, the glass one among them."""
    e = table.drawn(rng, STEPS, count)
    if not e.present[GLASS]:
        other = int(np.flatnonzero(e.present)[-1])
        for x in (e.place, e.speed, e.present):
            x[[GLASS, other]] = x[[other, GLASS]]
        e.place[other] = table.parked()[other]
    e = e._replace(speed=0.5 * e.speed)
    target = int(rng.choice(np.flatnonzero(e.present)[1:]))
    way = e.place[target] - e.place[0]
    way /= np.linalg.norm(way)
    as_it_is = e._replace(ctrl=shove(way, LATE_S))
    nearest = min(np.flatnonzero(e.present)[1:], key=lambda i: float(np.linalg.norm(e.place[i] - e.place[0])))
    worlds = (as_it_is, as_it_is._replace(factor=np.where(np.arange(PUCKS) == GLASS, 3.0, 1.0)),
              without(as_it_is, int(nearest)), e._replace(ctrl=shove(way, LATE_S - SOONER_S)))  # fmt: skip
    return Case(worlds, rng.uniform(-0.3, 0.3, 2))


def shove(way: np.ndarray, begin: float) -> np.ndarray:
    """[H, 2] N."""
    t = np.arange(STEPS)[:, None] * STEP_S
    return table.FORCE * way * ((t >= begin) & (t < begin + SHOVE_S))


def without(e: Episode, puck: int) -> Episode:
    """The episode without one of its pucks."""
    gone = np.arange(PUCKS) == puck
    place = np.where(gone[:, None], table.parked(), e.place)
    return e._replace(place=place, speed=np.where(gone[:, None], 0.0, e.speed), present=e.present & ~gone)


def answers(qpos: np.ndarray, given: Asked, goal: np.ndarray) -> np.ndarray:
    """[questions, W] true or false, from places [H+1, 2 P, W] and goal [2, W]; what is not finite answers no."""
    place = np.nan_to_num(qpos.reshape(len(qpos), PUCKS, 2, -1), nan=0.0, posinf=1e3, neginf=-1e3)
    there = given.present
    falls = ((np.abs(place).max(2) > EDGE) & there).any((0, 1))
    rows = round(0.01 / STEP_S)
    speed = np.diff(place[:, GLASS], axis=0) / STEP_S
    kick = MASS * given.factor[GLASS] * np.linalg.norm(speed[rows:] - speed[:-rows], axis=1)
    reach = (np.linalg.norm(place - goal, axis=2) < NEAR) & there
    return np.stack([falls, (kick > FRAGILE).any(0) & there[GLASS], reach[:, 1:].any((0, 1))])


def questions(options: Causes) -> tuple[Asked, np.ndarray]:
    """All windows, worlds of one scene side by side, and the goal of each [2, W]."""
    count = min(options.scenes, 12) if options.quick else options.scenes
    rng = np.random.default_rng(TEST_SEED)
    cases = [case(rng, 4 + i % 3) for i in range(count)]
    episodes = [e for c in cases for e in c.episodes]
    asked = table.asked(table.recorded(table.table(), episodes), episodes)
    return asked, np.stack([c.goal for c in cases for _ in WORLDS], -1)


def measured(seed: int, options: Causes, given: Asked, goal: np.ndarray) -> dict[str, Any]:
    """Errors, answers and effects of every model, for one seed."""
    found, came = models.contenders(seed, models.QUICK if options.quick else models.Budget())
    out: dict[str, Any] = {"fit": came, "error": {}, "answers": {}, "effect": {}}
    for name, contender in found.items():
        said = models.foretold(contender, given)
        out["error"][name] = table.errors(said, given)
        out["answers"][name] = answers(np.concatenate([given.qpos[:1], said]), given, goal).astype(int)
        out["effect"][name] = effect_errors(said[-1], given)
    return out


def effect_errors(last: np.ndarray, given: Asked) -> np.ndarray:
    """[scenes, interventions] error of an effect over its size, in the pucks that both worlds have."""
    n = len(WORLDS)
    place, true = (x.reshape(2 * PUCKS, -1, n) for x in (last, given.qpos[-1]))
    both = np.repeat(given.present.reshape(PUCKS, -1, n), 2, axis=0)
    shift = lambda x: (x[..., 1:] - x[..., :1]) * (both[..., 1:] & both[..., :1])  # noqa: E731
    wrong, size = shift(place) - shift(true), np.linalg.norm(shift(true), axis=0)
    with np.errstate(invalid="ignore"):
        ratio = np.linalg.norm(np.nan_to_num(wrong, nan=1e6), axis=0) / np.maximum(size, 1e-3)
    return ratio


def run(options: Causes) -> None:
    """Every seed, then results.json, table and figure."""
    given, goal = questions(options)
    true = answers(given.qpos, given, goal)
    found = [ending.part(options, f"seed-{s}", lambda s=s: measured(s, options, given, goal)) for s in options.each]
    numbers = summary(found, true)
    draw(numbers, options)
    publish(
        "causes",
        options,
        numbers,
        claims(numbers),
        {"What each model knows": rows(numbers)},
        seeds=options.each,
        figure="causes.png",
    )


def summary(found: list[Any], true: np.ndarray) -> dict[str, Any]:
    """By model, seed by seed: accuracy by question and by world, errors, effects."""
    names, n = list(found[0]["error"]), len(WORLDS)
    right = {m: np.array([np.array(p["answers"][m]) == true for p in found]) for m in names}  # [seeds, questions, W]
    whole = lambda x: np.array([np.inf if v is None else v for v in np.ravel(np.array(x, object))], float)  # noqa: E731
    error = {m: np.array([whole(p["error"][m]) for p in found]) for m in names}
    effect = {m: np.array([whole(p["effect"][m]).reshape(-1, n - 1) for p in found]) for m in names}
    return {
        "yes": dict(zip(QUESTIONS, true.mean(1), strict=True)),
        "guess": float(np.mean(np.maximum(true.mean(1), 1 - true.mean(1)))),
        "accuracy": {m: right[m].mean((1, 2)) for m in names},
        "by_question": {m: dict(zip(QUESTIONS, right[m].mean(2).T, strict=True)) for m in names},
        "by_world": {m: {w: right[m][:, :, i::n].mean((1, 2)) for i, w in enumerate(WORLDS)} for m in names},
        "median_error_m": {m: {w: np.median(error[m][:, i::n], 1) for i, w in enumerate(WORLDS)} for m in names},
        "ratio": {
            m: [float(paired(e, i).mean()) for e, i in zip(error[m], error["identified"], strict=True)] for m in names
        },
        "effect": {m: {w: np.median(effect[m][:, :, i], 1) for i, w in enumerate(WORLDS[1:])} for m in names},
        "fit": [p["fit"] for p in found],
    }


def claims(numbers: dict[str, Any]) -> list[Claim]:
    """Accuracy and errors of the hybrid, and its rivals'."""
    right, ratio = numbers["accuracy"], numbers["ratio"]["hybrid"]
    off = {m: np.mean([numbers["effect"][m][w] for w in WORLDS[1:]], 0) for m in ("hybrid", "network")}
    gain = right["hybrid"] - right["network"]
    return [
        over_seeds("accuracy", "share of yes/no answers of the hybrid that are right", right["hybrid"], 0.95, "higher"),
        over_seeds("accuracy_gain", "that, less the share of the network alone", gain, 0.05, "higher"),
        over_seeds("error", "a second ahead: error hybrid / identified physics, paired", ratio, 1.0),
        over_seeds("effect", "error of effects: hybrid / network alone", off["hybrid"] / off["network"], 0.5),
    ]


def rows(numbers: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table."""
    names = ("given", "identified", "hybrid", "network")
    out: list[tuple[str, ...]] = [("", *names)]
    out += [
        (f"{q}? right (yes: {numbers['yes'][q]:.0%})", *(told(numbers["by_question"][m][q]) for m in names))
        for q in QUESTIONS
    ]
    out += [(f"{w}: answers right", *(told(numbers["by_world"][m][w]) for m in names)) for w in WORLDS]
    out += [(f"{w}: median error (mm)", *(told(1e3 * numbers["median_error_m"][m][w]) for m in names)) for w in WORLDS]
    out += [(f"{w}: error of the effect", *(told(numbers["effect"][m][w]) for m in names)) for w in WORLDS[1:]]
    return out


def draw(numbers: dict[str, Any], options: Causes) -> None:
    """Right answers by question, errors by world, errors of effects."""
    figure, axes = canvas(3)
    names = ("given", "identified", "network", "hybrid")
    panels = (
        ("answers that are right", QUESTIONS, numbers["by_question"], 1.0),
        ("median error over 1 s (mm)", WORLDS, numbers["median_error_m"], 1e3),
        ("error of the effect / its size", WORLDS[1:], numbers["effect"], 1.0),
    )
    for axis, (title, groups, values, unit) in zip(axes, panels, strict=True):
        for k, name in enumerate(names):
            x = np.arange(len(groups)) + 0.2 * (k - 1.5)
            y = unit * np.array([np.clip(values[name][g], 0, 1e3) for g in groups])
            axis.bar(x, y.mean(1), 0.18, color=ending.COLOUR[name], label=name)
            axis.errorbar(
                x,
                y.mean(1),
                np.maximum([y.mean(1) - y.min(1), y.max(1) - y.mean(1)], 0),
                fmt="none",
                color="black",
                lw=0.8,
            )
        axis.set_xticks(range(len(groups)), [f"{g}?" for g in groups] if groups is QUESTIONS else groups)
        axis.set(title=title)
        axis.grid(axis="x", visible=False)
    axes[0].axhline(numbers["guess"], color="black", ls=":", lw=1)
    axes[0].set_ylim(0, 1.02)
    axes[1].set_yscale("log")
    axes[2].axhline(1, color="black", ls=":", lw=1)
    axes[0].legend(loc="lower left", frameon=True)
    figure.savefig(options.out / "causes.png")
