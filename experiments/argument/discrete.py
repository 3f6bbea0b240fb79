"""Claim: a bond is whole or broken, and what holds stays together: the hybrid's states are possible ones, a network's are not.

    world      the swung rod of experiments/worlds, whose weld gives way by a rule that no model is told
    asked      seconds in which the load comes to 0.7 of the strength or more, the bond whole at first
    rivals     one network that takes the bond for a number; one with a Bernoulli head; five of these, averaged step by step
    tuning     stride and noise of both kinds on episodes of their own: the least share of impossible states among those whose error
               is within a quarter of the best
    states     every 10 ms of a second; what is impossible: possible.py
    hybrid     trained and run in the steps of the logs, 2 ms; and the same, run in reality's own of 0.2 ms: a weld that turns is
               stretched by as much as a step leaves the arc

Each seed draws its own training data and networks; all are asked about the same episodes. Intervals over seeds (t).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from time import process_time
from typing import Any, NamedTuple

import numpy as np

import physics
from experiments.argument import possible
from experiments.argument.options import Discrete
from experiments.keeping import kept, place
from experiments.reporting import publish
from experiments.seeds import over_seeds, spread, told
from experiments.worlds.asking import asker, options_of, windows_of
from experiments.worlds.episodes import TEST_SEED, Size, model_scene, nearness, recorded
from experiments.worlds.realities import ROD
from hybridwm.judging import evaluation
from hybridwm.judging.figures import canvas
from hybridwm.learning.contenders import HYBRID, Subject
from hybridwm.learning.fitting import fit
from hybridwm.learning.rivals import RivalOptions, fit_rival
from hybridwm.learning.training import take
from hybridwm.logs.recordings import Windows
from hybridwm.results import Claim
from hybridwm.world.model import world_model

NEAR = 0.7
"""Of the strength: the least load of a window that is asked about."""
SHOWN = 3
"""Windows of each seed whose bond is drawn."""
KINDS = {
    "network, continuous": {"soft": True, "members": 1},
    "network, Bernoulli": {"members": 1},
    "ensemble, Bernoulli": {"members": 5},
}
CANDIDATES = ((0.02, 0.3), (0.04, 0.3), (0.04, 1.0), (0.02, 0.0))
"""Strides in s, noise on the starts."""
FINE = "hybrid, 0.2 ms"
FINE_STEPS = 10
WAYS = ("half broken", "pulled apart", "in one another", "any")
TINT = {"network, continuous": "#8a5aa8", "network, Bernoulli": "#b8a13a", "ensemble, Bernoulli": "#3a6ea5",
        HYBRID: "#d9783c", FINE: "#3f8f5b"}  # fmt: skip


class Work(NamedTuple):
    """How much is done."""

    training: int  # episodes of each seed
    asked: int  # episodes
    tuning: int  # episodes
    updates: float  # of the hybrid, of the usual
    network: int  # updates of a network; half as many where it is tuned
    candidates: int  # ways to build one that are tried


def work_of(options: Discrete) -> Work:
    """The study's, or a first look's."""
    if options.quick:
        return Work(20, 12, 6, 0.1, 600, 2)
    return Work(30, 36, 10, 0.1, 1500, 3)


class Asked(NamedTuple):
    """What all are asked, and what is possible in it."""

    cut: Windows
    limit: possible.Limits


class Bench:
    """The parts of the study, each kept where it has been found."""

    def __init__(self, options: Discrete, watch: Callable[[str], None]) -> None:
        self.work, self.folder, self.watch, self.quick = work_of(options), place(options), watch, options.quick
        self.scene = model_scene(ROD)

    @cached_property
    def look(self) -> Any:
        """Compiled once."""
        return possible.measurer(physics.brax_engine(self.scene))

    @cached_property
    def asked(self) -> Asked:
        """The windows that count."""
        return self._asked("asked", self.work.asked, TEST_SEED)

    def _asked(self, name: str, episodes: int, seed: int) -> Asked:
        self.watch("episodes")
        folder = self.folder / "data" / name
        cut = windows_of(recorded(ROD, folder, episodes=episodes, seed=seed, seconds=None))
        near = nearness(ROD, folder, episodes=episodes, seed=seed)
        most = [near[e, s : s + len(cut.ctrl)].max() for e, s in zip(cut.episode, cut.start, strict=True)]
        cut = take(cut, np.flatnonzero(np.array(most) >= NEAR))
        return Asked(cut, possible.limits(self.look, cut))

    def training(self, seed: int) -> Any:
        """The episodes of one seed."""
        folder = self.folder / "data" / f"train-{seed}"
        return recorded(ROD, folder, episodes=self.work.training, seed=seed, seconds=None)

    def tuned(self, soft: bool) -> dict[str, Any]:
        """What each stride and noise makes of episodes kept for that; `best` the one that is taken."""
        name = "soft" if soft else "hard"
        return kept(self.folder / f"tuning-{name}.json", partial(self._tune, soft))

    def _tune(self, soft: bool) -> dict[str, Any]:
        asked, tried = self._asked("tuning", self.work.tuning, TEST_SEED + 2), list[dict[str, Any]]()
        for stride, noise in CANDIDATES[: self.work.candidates]:
            self.watch(f"tuning {'continuous' if soft else 'Bernoulli'} {1000 * stride:g} ms, noise {noise:g}")
            rival = self._network(0, self.work.network // 2, {"soft": soft, "members": 1}, stride, noise)
            found = self._judged({HYBRID: rival}, asked)[HYBRID]
            tried.append({"stride": stride, "noise": noise, "any": found["any"], "error": np.median(found["error"])})
        least = min(one["error"] for one in tried)
        near = [one for one in tried if one["error"] <= 1.25 * least]
        return {"tried": tried, "best": min(near, key=lambda one: (one["any"], one["error"]))}

    def _network(self, seed: int, updates: int, kind: dict[str, Any], stride: float, noise: float) -> Subject:
        options = RivalOptions(
            strides=(stride,), noise=noise, updates=updates, look=max(100, updates // 8), seed=seed, **kind
        )
        found = fit_rival(self.training(seed), options)
        return Subject(found.model, found.params)

    def measured(self, seed: int) -> dict[str, Any]:
        """What every model says with one seed."""
        return kept(self.folder / f"seed-{seed}.json", partial(self._measure, seed))

    def _measure(self, seed: int) -> dict[str, Any]:
        models, seconds = dict[str, Subject](), dict[str, float]()
        for name, kind in KINDS.items():
            best = self.tuned(bool(kind.get("soft")))["best"]
            self.watch(f"seed {seed}: {name}")
            begun = process_time()
            models[name] = self._network(seed, self.work.network, kind, best["stride"], best["noise"])
            seconds[name] = process_time() - begun
        self.watch(f"seed {seed}: {HYBRID}")
        begun, size = process_time(), Size(0, 0, 0, self.work.updates)
        fitted = fit(self.training(seed), replace(options_of(ROD, size, seed, quick=self.quick), identify_most=96))
        models[HYBRID], seconds[HYBRID] = Subject(fitted.model, fitted.params), process_time() - begun
        self.watch(f"seed {seed}: questions")
        found = self._judged(models, self.asked)
        found[FINE], seconds[FINE] = self._judged({HYBRID: finer(models[HYBRID])}, self.asked)[HYBRID], seconds[HYBRID]
        return {name: one | {"cpu_s": seconds[name]} for name, one in found.items()} | {"kept": fitted.kept}

    def _judged(self, models: dict[str, Subject], asked: Asked) -> dict[str, Any]:
        """Shares of impossible states, errors and events of each model."""
        cut, out = asked.cut, dict[str, Any]()
        told = asker(ROD, models)(cut, 1.0)
        shown = np.flatnonzero((cut.intact[0] > cut.intact[-1]).any(0))[:SHOWN]
        for name, said in told.said.items():
            seen = self.look(said.qpos, said.intact)
            ways = possible.impossible(seen, asked.limit)
            out[name] = {way: float(ways[way].mean()) for way in WAYS} | {
                "windows": ways["any"].any(0).mean(),
                "half windows": ways["half broken"].any(0).mean(),
                "mended": evaluation.mended(cut, said),
                "error": told.error[name],
                "f1": evaluation.event_scores(evaluation.breaks(cut, said), len(cut.ctrl))["f1"],
                "intact": said.intact[:, 0, shown],
                "apart": seen.apart[:, shown],
            }
        return out

    def truth(self) -> dict[str, Any]:
        """Reality's own share, and how it is drawn."""
        cut, limit = self.asked
        seen = self.look(cut.qpos[1:], cut.intact[1:])
        broke = (cut.intact[0] > cut.intact[-1]).any(0)
        ways = possible.impossible(seen, limit)
        return {way: float(ways[way].mean()) for way in WAYS} | {
            "windows": len(broke), "breaking": broke.mean(), "limits": limit._asdict(),
            "intact": seen.intact[:, np.flatnonzero(broke)[:SHOWN]],
        }  # fmt: skip


def finer(hybrid: Subject) -> Subject:
    """The same hybrid in smaller steps."""
    scene = model_scene(ROD, step=float(hybrid.model.engine.scene.model.opt.timestep) / FINE_STEPS)
    return Subject(world_model(physics.brax_engine(scene), hybrid.model.options), hybrid.params)


def run(options: Discrete) -> None:
    """Tune, measure every seed, then results.json, table and figure."""
    from rich.console import Console

    console = Console(highlight=False)
    with console.status("discrete") as status:
        bench = Bench(options, lambda doing: status.update(f"discrete: {doing}"))
        parts = [bench.measured(seed) for seed in options.each]
        truth = kept(bench.folder / "truth.json", bench.truth)
        tuning = {name: bench.tuned(name == "continuous") for name in ("continuous", "Bernoulli")}
    numbers, claimed = summary(parts, truth)
    draw(parts, truth, numbers, options)
    tables = {"Impossible states": _rows(numbers), "Networks tried, on episodes of their own": _tuned(tuning)}
    publish(
        "discrete",
        options,
        numbers | {"tuning": tuning},
        claimed,
        tables,
        seeds=options.each,
        figure="discrete.png",
    )


def summary(parts: list[dict[str, Any]], truth: dict[str, Any]) -> tuple[dict[str, Any], list[Claim]]:
    """Numbers and claims."""
    keys = (*WAYS, "windows", "half windows", "mended", "f1", "cpu_s")
    models = {name: {key: [p[name][key] for p in parts] for key in keys} for name in TINT}
    for name in TINT:
        models[name]["error_mm"] = [1e3 * float(np.median(_numbers(p[name]["error"]))) for p in parts]
    numbers = {"models": models, "kept": [p["kept"] for p in parts]}
    numbers["reality"] = {k: v for k, v in truth.items() if k != "intact"}
    mine, coarse = ({key: np.array(value, float) for key, value in models[name].items()} for name in (FINE, HYBRID))
    best = lambda key, of: of([_numbers(models[name][key]) for name in KINDS], axis=0)  # noqa: E731
    both = {key: mine[key] + coarse[key] for key in ("half broken", "mended")}
    return numbers, [
        over_seeds("half_broken", "hybrid: share of states whose bond is half broken", both["half broken"], 0.0),
        over_seeds("mended", "hybrid: bonds that were whole again", both["mended"], 0.0),
        over_seeds("impossible", "hybrid in steps of 0.2 ms: share of states impossible in any way", mine["any"], 0.001),
        over_seeds("impossible_2ms", "hybrid in steps of 2 ms: share of states impossible in any way", coarse["any"], 0.001),
        over_seeds("against_best", "impossible states: hybrid, 0.2 ms / best network", mine["any"] / best("any", np.min), 0.1),
        over_seeds("error", "error of a second: hybrid / best network", coarse["error_mm"] / best("error_mm", np.min), 1.0),
        over_seeds("events", "F1 of breaks: hybrid − best network", coarse["f1"] - best("f1", np.max), 0.0, "higher"),
    ]  # fmt: skip


def _numbers(x: Any) -> np.ndarray:
    """What was not finite is infinite again."""
    return np.array([np.inf if v is None else v for v in x], float)


def _rows(numbers: dict[str, Any]) -> list[tuple[str, ...]]:
    head = ("mean over seeds [95 %]", "half broken (%)", "pulled apart (%)", "in one another (%)", "any (%)",
            "windows with any (%)", "whole again", "F1 of breaks", "error of a second (mm)", "training (CPU s)")  # fmt: skip
    share = lambda x: told(100 * _numbers(x))  # noqa: E731
    rows: list[tuple[str, ...]] = [head]
    for name, one in numbers["models"].items():
        shares = [share(one[key]) for key in (*WAYS, "windows")]
        rows.append((name, *shares, *(told(_numbers(one[key])) for key in ("mended", "f1", "error_mm", "cpu_s"))))
    truth = numbers["reality"]
    rows.append(("reality", *(f"{100 * truth[way]:.3g}" for way in WAYS), "", "0", "1", "0", ""))
    return rows


def _tuned(tuning: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("network", "stride (ms)", "noise", "impossible (%)", "error of a second (mm)", "")]
    for name, found in tuning.items():
        for one in found["tried"]:
            chosen = "chosen" if one == found["best"] else ""
            any_, error = (f"{x * one[k]:.3g}" for x, k in ((100, "any"), (1e3, "error")))
            rows.append((name, f"{1e3 * one['stride']:g}", f"{one['noise']:g}", any_, error, chosen))
    return rows


def draw(parts: list[dict[str, Any]], truth: dict[str, Any], numbers: dict[str, Any], options: Discrete) -> None:
    """The bond in one second, shares of impossible states by kind, and how far apart is what holds."""
    figure, (left, middle, right) = canvas(3)
    time = (np.arange(len(truth["intact"])) + 1) * 0.002
    for name, colour in TINT.items():
        for number, p in enumerate(parts[:3]):
            label = None if number else name
            left.plot(time, np.array(p[name]["intact"], float)[:, 0], color=colour, lw=1.1, alpha=0.8, label=label)
    left.plot(time, np.array(truth["intact"])[:, 0], color="black", lw=1.2, ls=":", label="reality")
    left.set(xlabel="time (s)", ylabel="how whole the bond is said to be")
    left.legend()
    places = np.arange(len(WAYS))
    for i, (name, colour) in enumerate(TINT.items()):
        found = [spread(100 * _numbers(numbers["models"][name][way])) for way in WAYS]
        mean = np.array([x for x, _ in found])
        half = mean - np.array([low for _, (low, _) in found])
        middle.bar(places + 0.16 * (i - 2), np.maximum(mean, 1e-3), 0.15, color=colour, label=name)
        middle.errorbar(places + 0.16 * (i - 2), np.maximum(mean, 1e-3), half, fmt="none", color="black", lw=0.8)
    middle.set(yscale="log", ylabel="states that are impossible (%)", ylim=(1e-3, 150))
    middle.set_xticks(places, [way.replace(" ", "\n", 1) for way in WAYS])
    for name, colour in TINT.items():
        found = 1e3 * np.concatenate([np.array(p[name]["apart"], float).ravel() for p in parts])
        found = np.sort(np.maximum(found[np.isfinite(found)], 1e-4))
        right.plot(found, np.linspace(1, 0, len(found), endpoint=False), color=colour, lw=1.6, label=name)
    right.axvline(1e3 * truth["limits"]["apart"], color="black", ls=":", lw=1)
    right.set(
        xscale="log",
        yscale="log",
        xlabel="a weld that holds, pulled apart by more than (mm)",
        ylabel="share of its states",
    )
    figure.savefig(options.out / "discrete.png")
