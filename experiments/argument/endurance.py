"""Claim: in minutes of interaction nothing vanishes, nothing melts into another, and energy is accounted for.

    at rest    at the end of a cycle, every body slower than 1 cm/s
    books      r = ΔE − (pushes + contacts + damping), see bookkeeping.py

Looks, nonsense and the network alone: lasting.py. Intervals: the middle 95 % of the worlds, of shares Wilson's.
"""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np

from experiments.argument import bookkeeping
from experiments.argument.crowd import BODIES, CYCLE, SLOT, STEP_S, crowd
from experiments.argument.lasting import (
    CANDIDATES,
    DEEP,
    FEW,
    JUDGED,
    LOOK,
    Candidate,
    Engine,
    Size,
    fastest_of,
    lasts,
    lived,
    plan_of,
    sensible_s,
    trained,
)
from experiments.argument.options import Endurance
from experiments.keeping import kept, place
from experiments.reporting import publish
from experiments.tasks import wilson
from hybridwm.judging.figures import COLOURS, canvas
from hybridwm.learning.rivals import FittedRival
from hybridwm.logs.recordings import Dataset
from hybridwm.results import Claim

REST, SLOW = 1e-3, 0.01
"""m: the target at rest; m/s: at rest."""
FLOWS = (("push", "pushes", "#d9783c"), ("contact", "contacts", "#3a6ea5"), ("damp", "rolling", "#9a9a9a"))


def size_of(options: Endurance) -> Size:
    """The study's, or a first look's."""
    if options.quick:
        return Size(min(options.seeds, 12), min(options.seconds, 20.0), 12.0, 300, (8, 4.0))
    return Size(options.seeds, options.seconds, 24.0, 800, (16, 8.0))


class Lives:
    """What is lived, each part kept where it has been found; the record is made again only for a network still to be trained."""

    def __init__(self, options: Endurance, watch: Callable[[str], None]) -> None:
        self.size, self.folder, self.watch = size_of(options), place(options) / f"worlds-{options.seeds}", watch
        self.scene, self.networks = crowd(), dict[Candidate, FittedRival]()

    @cached_property
    def engine(self) -> Engine:
        """Compiled when first needed."""
        return Engine(self.scene, self.size.worlds)

    @cached_property
    def record(self) -> Dataset:
        """What the networks learn from."""
        self.watch("the record that networks learn from")
        return self.engine.record(self.size.training_s)

    def told(self, name: str, work: Callable[[], Any]) -> Any:
        """A part by its name."""
        self.watch(name)
        return kept(self.folder / f"{name.replace(' ', '-')}.json", work)

    def all(self) -> dict[str, Any]:
        """Everything that the study tells."""
        engine = self.told("the engine", lambda: self.engine.judged(self.size.seconds))
        fastest = self.told("fastest in the record", lambda: fastest_of(self.record))
        tried = [self._tried(one, fastest) for one in self.candidates()]
        best = _candidate(max(tried, key=_lasting))
        tried.append(self._tried(best._replace(length=4), fastest))
        best = _candidate(max(tried, key=_lasting))
        network = self.told("the network chosen", partial(self._judged, best, fastest))
        return {"engine": engine, "network": network, "tried": tried, "fastest": fastest}

    def candidates(self) -> tuple[Candidate, ...]:
        """Those of the study, or of a first look."""
        return FEW if self.size.tuning[1] < 10 else CANDIDATES

    def _tried(self, one: Candidate, fastest: float) -> dict[str, Any]:
        return self.told(f"network {one}", partial(self._try, one, fastest))

    def _try(self, one: Candidate, fastest: float) -> dict[str, Any]:
        fitted = self._trained(one)
        return one._asdict() | {"error_1s": fitted.error, "lasts": lasts(self.scene, fitted, self.size, fastest)}

    def _trained(self, one: Candidate) -> FittedRival:
        """Each once, as long as the study is not interrupted."""
        if one not in self.networks:
            self.networks[one] = trained(self.record, one, one.length * self.size.updates)
        return self.networks[one]

    def _judged(self, one: Candidate, fastest: float) -> dict[str, Any]:
        plan = plan_of(self.size.worlds, self.size.seconds, JUDGED)
        return one._asdict() | {"looks": lived(self.scene, self._trained(one), self.size.worlds, plan)}


def _candidate(found: dict[str, Any]) -> Candidate:
    return Candidate(found["stride"], found["noise"], tuple(found["hidden"]), found["length"])


def _lasting(found: dict[str, Any]) -> tuple[float, float]:
    return float(np.median(found["lasts"])), float(np.mean(found["lasts"]))


def at_rest(found: dict[str, Any]) -> np.ndarray:
    """[cycles, W] m of overlap at the end of each cycle; NaN where something still moves."""
    ends = slice(CYCLE * SLOT // LOOK - 1, None, CYCLE * SLOT // LOOK)
    return np.where(found["looks"]["speed"][ends] < SLOW, found["looks"]["depth"][ends], np.nan)


def missing(found: dict[str, Any]) -> np.ndarray:
    """[W] what the books miss at the end, as a share of what the pushes put in."""
    put = np.maximum(found["push"], 0).sum(0)
    return (found["energy"][-1] - found["first"] - sum(found[k].sum(0) for k in ("push", "contact", "damp"))) / put


def run(options: Endurance) -> None:
    """Three minutes in every world, then results.json, table and figure."""
    from rich.console import Console

    console = Console(highlight=False)
    with console.status("endurance") as status:
        found = Lives(options, lambda doing: status.update(f"endurance: {doing}")).all()
    engine, network = (_arrays(found[name]) for name in ("engine", "network"))
    numbers, claimed = summary(engine, network, float(found["fastest"]))
    chosen = _candidate(found["network"])
    numbers |= {"tuning": found["tried"], "chosen": chosen._asdict()}
    draw(engine, network, float(found["fastest"]), options)
    tables = {"Beside it": _rows(numbers), "Networks tried, under pushes of their own": _tuned(found["tried"], chosen)}
    publish("endurance", options, numbers, claimed, tables, seeds=range(numbers["worlds"]), figure="endurance.png")


def _arrays(found: dict[str, Any]) -> dict[str, Any]:
    """What JSON kept, with null for what was not finite."""
    whole = lambda x: np.where(np.isnan(y := np.array(x, float)), np.inf, y)  # noqa: E731
    return {
        k: {n: whole(v) for n, v in x.items()} if k == "looks" else whole(x)
        for k, x in found.items()
        if k in ("looks", "first", *bookkeeping.Books._fields)
    }


def summary(engine: dict[str, Any], network: dict[str, Any], fastest: float) -> tuple[dict[str, Any], list[Claim]]:
    """Numbers and claims."""
    worlds = engine["looks"]["depth"].shape[1]
    still = at_rest(engine)
    rest, deepest = np.nanmax(still, 0), np.maximum(engine["depth"].max(0), engine["looks"]["depth"].max(0))
    off, out = (
        np.abs(missing(engine)),
        (engine["contact"] + engine["damp"]).sum(0) / np.maximum(engine["push"], 0).sum(0),
    )
    whole = (engine["looks"]["present"] == BODIES).all(0)
    seconds = len(engine["looks"]["depth"]) * LOOK * STEP_S
    sane, lasted = sensible_s(engine["looks"], fastest), sensible_s(network["looks"], fastest)
    numbers = {
        "worlds": worlds, "seconds": seconds, "looks_at_rest": float(np.isfinite(still).mean()),
        "engine": {"rest_mm": 1e3 * rest, "deepest_mm": 1e3 * deepest, "books_off": off, "sensible_s": sane,
                   "push_J": engine["push"].sum(0), "contact_J": engine["contact"].sum(0), "damp_J": engine["damp"].sum(0)},
        "network": {"sensible_s": lasted, "deepest_mm": 1e3 * network["looks"]["depth"].max(0),
                    "bodies_left": network["looks"]["present"][-1], "speed_at_end": network["looks"]["speed"][-1]},
        "fastest_in_training": fastest,
    }  # fmt: skip
    finite = np.isfinite(engine["looks"]["depth"]).all(0) & np.isfinite(engine["energy"]).all(0)
    claimed = [
        _share("finite", f"share of {worlds} worlds with no state that is not finite in {seconds:g} s", finite),
        _share("six_stay_six", f"share of {worlds} worlds in which all six bodies are there at every look", whole),
        _over(np.max, "overlap_at_rest_mm", "deepest overlap of two bodies at rest, worst world (mm)", 1e3 * rest, 1e3 * REST),
        _over(np.max, "overlap_at_impact_mm", "deepest overlap ever, worst world (mm)", 1e3 * deepest, 1e3 * DEEP),
        _over(np.max, "books", "energy that the books miss, share of the pushes' work, worst world", off, 0.01),
        _over(np.max, "no_free_energy", "work of contacts and damping over that of pushes, worst (below 0: taken out)", out, 0.0),
        _share("sensible", f"share of {worlds} worlds of the engine with no nonsense in {seconds:g} s", sane >= seconds),
        _over(np.median, "network_sensible_s", f"median seconds until the network fails, of {seconds:g}", lasted, seconds / 2),
    ]  # fmt: skip
    return numbers, claimed


def _share(name: str, statement: str, good: np.ndarray) -> Claim:
    value = float(good.mean())
    return Claim(
        id=name,
        statement=statement,
        value=value,
        interval=wilson(int(good.sum()), len(good)),
        target=1.0,
        better="higher",
    )


def _over(of: Callable[..., Any], name: str, statement: str, values: np.ndarray, target: float) -> Claim:
    """The maximum or median of the worlds' values, beside their middle 95 %."""
    interval = (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))
    return Claim(
        id=name, statement=statement, value=float(of(values)), interval=interval, target=target, better="lower"
    )


def _rows(numbers: dict[str, Any]) -> list[tuple[str, ...]]:
    engine, network = numbers["engine"], numbers["network"]
    middle = lambda x: f"{np.median(x):.3g} [{np.quantile(x, 0.025):.3g}, {np.quantile(x, 0.975):.3g}]"  # noqa: E731
    return [
        ("median over worlds [middle 95 %]", "engine", "network alone"),
        ("seconds until nonsense", middle(engine["sensible_s"]), middle(network["sensible_s"])),
        ("deepest overlap (mm)", middle(engine["deepest_mm"]), middle(network["deepest_mm"])),
        ("bodies at the end", str(BODIES), middle(network["bodies_left"])),
        ("work of the pushes (J)", middle(engine["push_J"]), "–"),
        ("taken by contacts (J)", middle(-engine["contact_J"]), "–"),
        ("taken by rolling (J)", middle(-engine["damp_J"]), "–"),
        ("missed by the books (share)", middle(engine["books_off"]), "–"),
    ]


def _tuned(tried: list[dict[str, Any]], chosen: Candidate) -> list[tuple[str, ...]]:
    head = ("network alone", "error over 1 s (m)", "seconds until nonsense, median", "mean", "")
    rows = [
        (
            str(one),
            f"{found['error_1s']:.3g}",
            *(f"{x:.2f}" for x in _lasting(found)),
            "chosen" if one == chosen else "",
        )
        for one, found in zip(map(_candidate, tried), tried, strict=True)
    ]
    return [head, *rows]


def draw(engine: dict[str, Any], network: dict[str, Any], fastest: float, options: Endurance) -> None:
    """Who is still sensible, how deep bodies stand in one another, and where the energy went in the first world."""
    figure, (left, middle, right) = canvas(3)
    time = (np.arange(len(engine["looks"]["depth"])) + 1) * LOOK * STEP_S
    for name, found, colour in (("engine", engine, COLOURS[3]), ("network", network, COLOURS[4])):
        until = sensible_s(found["looks"], fastest)
        whole = until >= time[-1]
        left.step(time, [np.mean(whole | (until > t)) for t in time], color=colour, lw=2, label=name)
        depth = 1e3 * np.minimum(np.where(np.isfinite(found["looks"]["depth"]), found["looks"]["depth"], 10), 10)
        low, mid, high = np.quantile(depth, [0.025, 0.5, 0.975], axis=1)
        middle.plot(time, np.maximum(mid, 1e-3), color=colour, lw=1.2, label=name)
        middle.fill_between(time, np.maximum(low, 1e-3), np.maximum(high, 1e-3), color=colour, alpha=0.2, lw=0)
    left.set(xlabel="time (s)", ylabel="share of worlds that make sense", xscale="log", ylim=(-0.03, 1.05))
    left.legend()
    middle.axhline(1e3 * DEEP, color="black", ls=":", lw=1)
    middle.set(xlabel="time (s)", ylabel="deepest overlap (mm)", xscale="log", yscale="log")
    slots = (np.arange(len(engine["push"])) + 1) * SLOT * STEP_S
    flows = [(word, np.cumsum(engine[key][:, 0]), colour) for key, word, colour in FLOWS]
    flows.append(("stored", engine["energy"][:, 0] - engine["first"][0], "black"))
    for word, flow, colour in flows:
        right.plot(slots, flow, color=colour)
        right.text(1.02 * slots[-1], flow[-1], word, color=colour, va="center")
    right.set(xlabel="time (s)", ylabel="energy in one world (J)", xlim=(0, 1.25 * slots[-1]))
    figure.savefig(options.out / "endurance.png")
