"""Claim: more with less: what an engine knows need not be bought with parameters, data, computing time and energy.

    world       the double pendulum of experiments/worlds; error of a second inside, median over windows of fresh episodes
    parameters  one network of two hidden layers, 1k to 1M weights, all of the data
    data        one width, from the least data to all of it
    seconds     CPU seconds of the process over all threads, from the logs to the fitted model: preparing, identifying, training,
                looking at validation errors; compiled programs come from the cache, tracing counts
    joules      seconds × watts of one busy core, 10 W if not told otherwise: an estimate, the same for both

The network alone has the stride, noise and learning rate that do best on validation with the first seed. The hybrid is trained with
its usual options but few updates, without trust: it is asked inside only. Each seed draws its own training data; test episodes are
common. Intervals over seeds (t).
"""

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import jax
import numpy as np

import physics
from experiments.argument.options import Small
from experiments.keeping import kept, place
from experiments.reporting import publish
from experiments.seeds import over_seeds, spread, told
from experiments.worlds.episodes import TEST_SEED, model_scene, recorded
from experiments.worlds.realities import PENDULUM
from hybridwm.judging.figures import COLOURS, canvas
from hybridwm.learning import fitting, training
from hybridwm.learning.contenders import HYBRID, IDENTIFIED, NETWORK
from hybridwm.learning.fitting import FitOptions, default_unknowns, identified, judged_windows, prepared, with_weights
from hybridwm.learning.measure import window_errors
from hybridwm.learning.rivals import RivalOptions, fit_rival
from hybridwm.learning.training import Batch, Stage, batch_of
from hybridwm.logs.recordings import Dataset, windows
from hybridwm.logs.stepping import ready
from hybridwm.results import Claim
from hybridwm.world.model import ModelOptions, WorldParams, world_model

STEP_S, ROW_S, MEMORY_S = 0.001, 0.002, 0.3
"""s: of the hybrid's engine, of the logs, of the commands that a motor's lag is worked out from."""
STRIDES, RATES = (0.01, 0.02, 0.05), (2e-3, 6e-3)
TINT = {NETWORK: COLOURS[4], HYBRID: COLOURS[2], IDENTIFIED: COLOURS[1]}


class Amount(NamedTuple):
    """How much data."""

    episodes: int
    seconds: float  # of each


class Work(NamedTuple):
    """How much is done."""

    widths: tuple[int, ...]
    middle: int  # the width at which data is varied
    amounts: tuple[Amount, ...]  # the last is all of it
    updates: int  # of the hybrid
    network: tuple[int, ...]  # of the network alone, by width: about the hybrid's CPU seconds
    test: int  # episodes
    strides: tuple[float, ...]
    rates: tuple[float, ...]


def work_of(options: Small) -> Work:
    """The study's, or a first look's."""
    if options.quick:
        few = (Amount(3, 1.2), Amount(6, 4.0))
        return Work((22, 90), 90, few, 100, (2000, 2000), 3, STRIDES[1:2], RATES[:1])
    amounts = (Amount(3, 1.2), Amount(12, 4.0))
    return Work((22, 90, 980), 90, amounts, 300, (6000, 6000, 400), 6, STRIDES[1:], RATES)


def of(dataset: Dataset, amount: Amount) -> Dataset:
    """So much of the data."""
    rows = round(amount.seconds / dataset.dt)
    cut = [
        r._replace(qpos=r.qpos[: rows + 1], qvel=r.qvel[: rows + 1], ctrl=r.ctrl[:rows], intact=r.intact[: rows + 1])
        for r in dataset.recordings[: amount.episodes]
    ]
    return dataset._replace(recordings=tuple(cut))


def count(weights: Any) -> int:
    """Numbers in a network."""
    return sum(int(np.size(x)) for x in jax.tree.leaves(weights))


class Physics(NamedTuple):
    """What is identified once for all widths."""

    alone: WorldParams
    lagged: WorldParams
    seconds: float


def identify(dataset: Dataset, options: FitOptions) -> Physics:
    """θ, and θ with the motors' lag."""
    begun, engine = process_time(), physics.brax_engine(dataset.scene)
    train, _ = prepared(dataset, options)
    unknowns = default_unknowns(dataset.scene)
    alone, lagged = (identified(train, options, unknowns, lag=lag, engine=engine)[0] for lag in (False, True))
    return Physics(alone, lagged, process_time() - begun)


def hybrid(model: Any, errors: Any, dataset: Dataset, options: FitOptions, known: Physics) -> WorldParams:
    """The residual on top of the identified physics; `errors` are the model's `window_errors`."""
    train, held_out = prepared(dataset, options)
    params = known.lagged._replace(residual=model.residual.fresh(jax.random.key(options.seed)))
    past = fitting.memory(train, options)
    rows = training.rows_of(model, params, train, past)
    params = training.normalisation(model, params, rows)
    judged = judged_windows(held_out, options)[0]
    score = lambda weights: float(np.mean(np.log(np.asarray(errors(with_weights(params, weights), judged)) + 1e-9)))  # noqa: E731
    now = training.begin(model, params, options.stages)
    for latest, _ in training.train(model, params, options.stages, rows, train, score, seed=options.seed, past=past):
        now = latest
    return with_weights(params, now.best)


class Bench:
    """The parts of the study, each kept where it has been found."""

    def __init__(self, options: Small, watch: Callable[[str], None]) -> None:
        self.work, self.folder, self.watch = work_of(options), place(options), watch
        self.scene, self.models = model_scene(PENDULUM, step=STEP_S), dict[int, Any]()

    def _recorded(self, name: str, episodes: int, seconds: float, seed: int) -> Dataset:
        found = recorded(PENDULUM, self.folder / "data" / name, episodes=episodes, seed=seed, seconds=seconds)
        return found._replace(scene=self.scene)

    @cached_property
    def test(self) -> Batch:
        """Seconds of fresh episodes."""
        found = ready(self._recorded("test", self.work.test, self.work.amounts[-1].seconds, TEST_SEED))
        cut = windows(found, round(1 / ROW_S), stride=round(1 / ROW_S), past=round(MEMORY_S / ROW_S))
        return batch_of(cut, found.substeps)

    def data(self, seed: int) -> Dataset:
        """All that one seed has."""
        return self._recorded(f"train-{seed}", *self.work.amounts[-1], seed)

    def error(self, errors: Any, params: Any) -> float:
        """m, median over the test windows; `errors` are a model's `window_errors`."""
        return float(np.median(np.asarray(errors(params, self.test), float)))

    def model(self, width: int) -> tuple[Any, Any]:
        """A hybrid of this width and its `window_errors`, the same for all seeds, so that they are compiled once."""
        if width not in self.models:
            options = ModelOptions(hidden=(width, width), members=1)
            model = world_model(physics.brax_engine(self.scene), options)
            self.models[width] = model, window_errors(model)
        return self.models[width]

    def _options(self, width: int, seed: int) -> FitOptions:
        stage = Stage(horizon=0, updates=self.work.updates, batch=256, look=max(1, self.work.updates // 4))
        return FitOptions(
            model=self.model(width)[0].options, stages=(stage,), exact=True, identify_most=64,
            memory_s=MEMORY_S, seed=seed,
        )  # fmt: skip

    def tuned(self) -> dict[str, Any]:
        """The stride (at the middle width), then the learning rate of every width, by the validation error of the first seed."""
        return kept(self.folder / "tuning.json", self._tune)

    def _tune(self) -> dict[str, Any]:
        tried = list[dict[str, Any]]()

        def best(choices: Any) -> dict[str, Any]:
            found = [one | {"error": self._network(0, self.work.amounts[-1], one, 0.25).error} for one in choices]
            tried.extend(found)
            return min(found, key=lambda one: one["error"])

        self.watch("tuning the network alone")
        middle = [{"width": self.work.middle, "stride": stride, "noise": noise, "rate": self.work.rates[-1]}
                  for stride in self.work.strides for noise in (0.0, 0.1)[: len(self.work.rates)]]  # fmt: skip
        first = best(middle)
        each = [
            best([first | {"width": width, "rate": rate} for rate in self.work.rates]) for width in self.work.widths
        ]
        return {"tried": tried, "best": {str(one["width"]): one for one in each}}

    def _network(self, seed: int, amount: Amount, one: dict[str, Any], share: float = 1.0) -> Any:
        """Trained for this share of the updates."""
        updates = round(share * dict(zip(self.work.widths, self.work.network, strict=True))[one["width"]])
        options = RivalOptions(
            strides=(one["stride"],), noise=one["noise"], hidden=(one["width"],) * 2, members=1, seed=seed,
            updates=updates, look=max(1, updates // 8), learning_rate=one["rate"],
        )  # fmt: skip
        return fit_rival(of(self.data(seed), amount), options)

    def measured(self, seed: int) -> list[dict[str, Any]]:
        """Every fit of one seed."""
        whole = self.work.amounts[-1]
        points = [(width, whole) for width in self.work.widths]
        points += [(self.work.middle, amount) for amount in self.work.amounts[:-1]]
        found = list[dict[str, Any]]()
        for amount in self.work.amounts:
            widths = [w for w, a in points if a == amount]
            for name, work in (("hybrid", self._hybrids), ("network", self._networks)):
                path = self.folder / f"{name}-{seed}-{amount.episodes}x{amount.seconds:g}.json"
                found += kept(path, partial(work, seed, amount, widths))
        return found

    def _hybrids(self, seed: int, amount: Amount, widths: list[int]) -> list[dict[str, Any]]:
        """The physics, and a hybrid of each width on top of it."""
        data = of(self.data(seed), amount)
        self.watch(f"seed {seed}, {data.steps} transitions: physics")
        known = identify(data, self._options(widths[0], seed))
        out = [self._told(IDENTIFIED, 0, data, known.seconds, self.error(self.model(widths[0])[1], known.alone))]
        for width in widths:
            self.watch(f"seed {seed}, {data.steps} transitions, width {width}: hybrid")
            (model, errors), begun = self.model(width), process_time()
            params = hybrid(model, errors, data, self._options(width, seed), known)
            seconds, residual = known.seconds + process_time() - begun, params.residual
            assert residual is not None
            out.append(self._told(HYBRID, count(residual.weights), data, seconds, self.error(errors, params)))
        return out

    def _networks(self, seed: int, amount: Amount, widths: list[int]) -> list[dict[str, Any]]:
        """The network alone of each width."""
        best, out, data = self.tuned()["best"], list[dict[str, Any]](), of(self.data(seed), amount)
        for width in widths:
            self.watch(f"seed {seed}, {data.steps} transitions, width {width}: network alone")
            begun = process_time()
            found = self._network(seed, amount, best[str(width)])
            seconds, error = process_time() - begun, self.error(window_errors(found.model), found.params)
            out.append(self._told(NETWORK, count(found.params.weights), data, seconds, error))
        return out

    def _told(self, model: str, parameters: int, data: Dataset, seconds: float, error: float) -> dict[str, Any]:
        return {"model": model, "parameters": parameters, "transitions": data.steps, "cpu_s": seconds, "error_m": error}


def run(options: Small) -> None:
    """Tune, fit everything with every seed, then results.json, table and figure."""
    from rich.console import Console

    console = Console(highlight=False)
    with console.status("small") as status:
        bench = Bench(options, lambda doing: status.update(f"small: {doing}"))
        tuning = bench.tuned()
        parts = [bench.measured(seed) for seed in options.each]
    fits = together(parts, options.watts)
    numbers = {"fits": fits, "tuning": tuning, "watts": options.watts}
    draw(fits, options.out / "small.png")
    tables = {"Every fit": _rows(fits), "Networks tried, first seed": _tuned(tuning)}
    publish("small", options, numbers, claimed(fits), tables, seeds=options.each, figure="small.png")


def together(parts: list[list[dict[str, Any]]], watts: float) -> list[dict[str, Any]]:
    """The same fit of every seed as one: error, seconds and joules by seed."""
    out = list[dict[str, Any]]()
    for same in zip(*parts, strict=True):
        lists = {key: [np.inf if one[key] is None else one[key] for one in same] for key in ("cpu_s", "error_m")}
        out.append(same[0] | lists | {"joules": [watts * x for x in lists["cpu_s"]]})
    return out


def _of(fits: list[dict[str, Any]], model: str) -> list[dict[str, Any]]:
    return [one for one in fits if one["model"] == model]


def claimed(fits: list[dict[str, Any]]) -> list[Claim]:
    """What is won at every size, and how little of each thing does what the best network does."""
    mine, theirs = _of(fits, HYBRID), _of(fits, NETWORK)  # in the same order
    mean = lambda one, key="error_m": float(np.mean(one[key]))  # noqa: E731
    array = lambda one, key="error_m": np.array(one[key], float)  # noqa: E731
    best = min(theirs, key=mean)
    most = max(one["transitions"] for one in theirs)
    pairs = [array(a) / array(b) for a, b in zip(mine, theirs, strict=True)]
    least = min((one for one in mine if one["transitions"] == most), key=lambda one: one["parameters"])
    scarce = min(mine, key=lambda one: (one["transitions"], one["parameters"]))
    cheap = min((one for one in mine if mean(one) <= mean(best)), key=lambda one: mean(one, "cpu_s"), default=None)
    enough = [b for b in theirs if mean(b) <= 1.1 * mean(best)]
    quick = min(enough, key=lambda one: mean(one, "cpu_s"))
    seconds = np.full(len(best["cpu_s"]), np.inf) if cheap is None else array(cheap, "cpu_s") / array(quick, "cpu_s")
    parameters = f"{least['parameters']} parameters / best network ({best['parameters']} parameters)"
    transitions = f"{scarce['transitions']} transitions / best network ({best['transitions']})"
    return [
        over_seeds("everywhere", "error hybrid / network, same data and width: the worst pair", max(pairs, key=np.mean), 0.5),
        over_seeds("parameters", f"error of the hybrid with {parameters}", array(least) / array(best), 1.0),
        over_seeds("transitions", f"error of the hybrid with {transitions}", array(scarce) / array(best), 1.0),
        over_seeds("cpu", "CPU seconds, so joules: cheapest hybrid as good as the best network / that network", seconds, 1.0),
    ]  # fmt: skip


def _rows(fits: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    head = (
        "model",
        "parameters",
        "transitions",
        "error of a second (mm), mean over seeds [95 %]",
        "CPU s",
        "joules (estimated)",
    )
    rows = [
        (one["model"], str(one["parameters"] or "–"), str(one["transitions"]), told(1e3 * np.array(one["error_m"])),
         told(one["cpu_s"]), told(one["joules"]))
        for one in sorted(fits, key=lambda one: (one["model"], one["transitions"], one["parameters"]))
    ]  # fmt: skip
    return [head, *rows]


def _tuned(tuning: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("width", "stride (ms)", "noise", "learning rate", "validation error (mm)", "")]
    for one in tuning["tried"]:
        chosen = "chosen" if one in tuning["best"].values() else ""
        rows.append((str(one["width"]), f"{1e3 * one['stride']:g}", f"{one['noise']:g}", f"{one['rate']:g}",
                     f"{1e3 * one['error']:.3g}", chosen))  # fmt: skip
    return rows


def draw(fits: list[dict[str, Any]], path: Path) -> None:
    """Error against parameters, against data, and against what each fit cost."""
    from matplotlib.ticker import NullFormatter

    figure, axes = canvas(3)
    most = max(one["transitions"] for one in fits)
    middle = {m: sorted(_of(fits, m), key=lambda one: one["transitions"])[0]["parameters"] for m in TINT}
    for model, colour in TINT.items():
        mine = _of(fits, model)
        by_size = [one for one in mine if one["transitions"] == most]
        by_data = [one for one in mine if one["parameters"] == middle[model]]
        for axis, found, key in ((axes[0], by_size, "parameters"), (axes[1], by_data, "transitions")):
            _line(axis, sorted(found, key=lambda one: one[key]), key, model, colour)
        cost = [float(np.mean(one["cpu_s"])) for one in mine]
        size = [12 + 18 * np.log10(max(one["parameters"], 300) / 300) for one in mine]
        axes[2].scatter(
            cost, [1e3 * np.mean(one["error_m"]) for one in mine], size, color=colour, label=model, alpha=0.85
        )
    for axis, word in zip(axes, ("parameters", "training transitions", "CPU seconds of the fit"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel=word, ylabel="error of a second (mm)")
    watts = fits[0]["joules"][0] / fits[0]["cpu_s"][0]
    top = axes[2].secondary_xaxis("top", functions=(lambda s: s * watts, lambda j: j / watts))
    top.set_xlabel(f"joules, at {watts:g} W to a busy core (estimated)")
    for axis in (*(axis.xaxis for axis in axes), top.xaxis):
        axis.set_minor_formatter(NullFormatter())
    axes[0].legend()
    figure.savefig(path)


def _line(axis: Any, found: list[dict[str, Any]], key: str, label: str, colour: str) -> None:
    told = [spread(1e3 * np.array(one["error_m"])) for one in found]
    mean = np.array([m for m, _ in told])
    low, high = np.array([interval for _, interval in told]).T
    if label == IDENTIFIED and key == "parameters":
        axis.axhline(mean[0], color=colour, ls="--", lw=1.2, label=label)
        return
    x = [one[key] for one in found]
    axis.plot(x, mean, "o-", color=colour, lw=1.6, ms=4, label=label)
    axis.fill_between(x, np.maximum(low, 1e-2 * mean), high, color=colour, alpha=0.15, lw=0)
