"""Claim: in minutes of interaction nothing vanishes, nothing melts into another, and energy is accounted for.

    looks      every 0.1 s; overlap of bodies by MuJoCo C's narrow phase, for the engine's states and for the network's alike
    nonsense   the first look at which a state is not finite, bodies stand 2 cm in one another (half of the smallest half side), or
               one is twice as fast as the fastest ever was in the training record
    at rest    at the end of a cycle, every body slower than 1 cm/s
    books      r = ΔE − (pushes + contacts + damping), see bookkeeping.py

The network alone is trained on the engine's own record of as many other worlds. Intervals: the middle 95 % of the worlds, of shares
Wilson's.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import physics
from experiments.argument import bookkeeping
from experiments.argument.crowd import BODIES, CYCLE, SLOT, STEP_S, crowd, live, pushes
from experiments.argument.options import Endurance
from experiments.keeping import kept, place
from experiments.measured.reporting import sections
from experiments.tasks import wilson
from hybridwm import claims, results
from hybridwm.judging.figures import COLOURS, canvas
from hybridwm.learning.rivals import RivalOptions, fit_rival
from hybridwm.logs.recordings import Dataset, Recording
from hybridwm.results import Claim
from physics.overlap import overlap

LOOK = 10
"""Steps from look to look."""
DEEP, REST, SLOW, FAR = 0.02, 1e-3, 0.01, 5.0
"""m: nonsense, the target at rest; m/s: at rest; m from the middle: out of the scene."""


class Size(NamedTuple):
    """How much is done."""

    worlds: int
    seconds: float
    training_s: float  # of each of as many worlds
    updates: int


class Looks(NamedTuple):
    """What a model's worlds look like, at each look [L, W]."""

    depth: np.ndarray  # m
    speed: np.ndarray  # m/s
    present: np.ndarray  # bodies that are where bodies can be


def size_of(options: Endurance) -> Size:
    """The study's, or a first look's."""
    if options.quick:
        return Size(min(options.seeds, 12), min(options.seconds, 20.0), 12.0, 600)
    return Size(options.seeds, options.seconds, 24.0, 4000)


def plan_of(size: Size, seconds: float, seed: int) -> Any:
    """Pushes for so many seconds, whole cycles."""
    slots = max(1, round(seconds / STEP_S / SLOT / CYCLE)) * CYCLE
    return pushes(np.random.default_rng([1988, seed]), slots, size.worlds)


def looked(scene: physics.Scene, path: bookkeeping.Path) -> Looks:
    """The looks of one slot."""
    qpos, qvel = (np.asarray(x[LOOK - 1 :: LOOK], float) for x in (path.qpos, path.qvel))
    depth = np.stack([overlap(scene, q) for q in qpos])
    speed = np.stack([np.asarray(bookkeeping.fastest(v)) for v in qvel])
    place = qpos.reshape(len(qpos), BODIES, 7, -1)[:, :, :3]
    inside = np.isfinite(place).all(2) & (np.abs(place[:, :, :2]) < FAR).all(2) & (place[:, :, 2] > 0)
    return Looks(depth, np.where(np.isfinite(speed), speed, np.inf), inside.sum(1))


def engine_worlds(scene: physics.Scene, size: Size) -> tuple[dict[str, Any], Dataset]:
    """The engine's three minutes with their books, and the record of other worlds that the network learns from."""
    engine = physics.brax_engine(scene)
    theta = jax.tree.map(jnp.asarray, physics.nominal(scene))
    slot = bookkeeping.keeper(engine)
    begin = engine.init(theta, *_home(scene, size.worlds))
    advance = lambda state, ctrl: slot(theta, state, jnp.asarray(ctrl, jnp.float32))  # noqa: E731
    record, books, looks = list[Any](), list[Any](), list[Looks]()

    def remember(number: int, told: Any, ctrl: np.ndarray) -> None:
        record.append((*(np.asarray(x) for x in told[1]), ctrl))

    def watch(number: int, told: Any, ctrl: np.ndarray) -> None:
        books.append(jax.tree.map(lambda x: np.asarray(x, float), told[0]))
        looks.append(looked(scene, told[1]))

    live(scene, plan_of(size, size.training_s, 1), begin, advance, remember)
    live(scene, plan_of(size, size.seconds, 0), begin, advance, watch)
    first = np.asarray(physics.energy(scene, theta, begin).total, float)
    account = {name: np.stack([getattr(b, name) for b in books]) for name in bookkeeping.Books._fields}
    return account | {"first": first, "looks": _joined(looks)}, _dataset(scene, record)


def network_worlds(scene: physics.Scene, size: Size, record: Dataset) -> dict[str, Any]:
    """The same pushes in the network's world."""
    options = RivalOptions(strides=(0.02, 0.05), place=True, updates=size.updates, look=max(100, size.updates // 8))
    fitted = fit_rival(record, options)
    qpos, qvel = _home(scene, size.worlds)
    read = lambda state, info: bookkeeping.Path(state.qpos, state.qvel)  # noqa: E731
    slot = jax.jit(lambda params, state, ctrl: fitted.model.rollout(params, state, ctrl, output=read))
    advance = lambda state, ctrl: slot(fitted.params, state, jnp.asarray(ctrl, jnp.float32))  # noqa: E731
    looks = list[Looks]()
    watch = lambda number, told, ctrl: looks.append(looked(scene, told))  # noqa: E731
    live(scene, plan_of(size, size.seconds, 0), fitted.model.init(fitted.params, qpos, qvel), advance, watch)
    return {"looks": _joined(looks), "tried": fitted.tried}


def _home(scene: physics.Scene, worlds: int) -> tuple[np.ndarray, np.ndarray]:
    qpos, qvel = scene.home()
    return np.repeat(qpos[:, None], worlds, 1), np.repeat(qvel[:, None], worlds, 1)


def _joined(looks: list[Looks]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([getattr(look, name) for look in looks]) for name in Looks._fields}


def _dataset(scene: physics.Scene, record: list[Any]) -> Dataset:
    """The record as episodes, one to a world."""
    qpos, qvel, ctrl = (np.concatenate(x) for x in zip(*record, strict=True))
    none = np.ones((len(qpos), 0))
    episodes = [
        Recording(f"crowd-{w}", qpos[..., w], qvel[..., w], ctrl[1:, :, w], none) for w in range(qpos.shape[-1])
    ]
    return Dataset(scene, STEP_S, tuple(episodes), {})


def measured(options: Endurance) -> dict[str, Any]:
    """Both worlds."""
    scene, size = crowd(), size_of(options)
    engine, record = engine_worlds(scene, size)
    fastest = max(float(bookkeeping.fastest(r.qvel.T).max()) for r in record.recordings)
    return {"engine": engine, "network": network_worlds(scene, size, record), "fastest": fastest}


def sensible_s(looks: dict[str, np.ndarray], fastest: float) -> np.ndarray:
    """[W] seconds until nonsense; all of them where there is none."""
    bad = (looks["depth"] > DEEP) | (looks["speed"] > 2 * fastest) | (looks["present"] < BODIES)
    return np.where(bad.any(0), bad.argmax(0) + 1, len(bad)) * LOOK * STEP_S


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

    found = kept(place(options) / f"worlds-{options.seeds}.json", lambda: measured(options))
    engine, network = (_arrays(found[name]) for name in ("engine", "network"))
    numbers, claimed = summary(engine, network, float(found["fastest"]))
    written = results.write(
        options.out, study="endurance", config=options, numbers=numbers | {"rival_tried": found["network"]["tried"]},
        claims=claimed, seeds=range(options.seeds),
    )  # fmt: skip
    draw(engine, network, float(found["fastest"]), options)
    claims.publish(written, options.out / "table.md", sections({"Beside it": _rows(numbers)}), Console())
    print(f"results, table and figure: {options.out}")


def _arrays(found: dict[str, Any]) -> dict[str, Any]:
    """What JSON kept, with null for what was not finite."""
    whole = lambda x: np.where(np.isnan(y := np.array(x, float)), np.inf, y)  # noqa: E731
    return {
        k: {n: whole(v) for n, v in x.items()} if k == "looks" else whole(x) for k, x in found.items() if k != "tried"
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
    for name, colour in (("push", "#d9783c"), ("contact", "#3a6ea5"), ("damp", "#9a9a9a")):
        right.plot(
            slots,
            np.cumsum(engine[name][:, 0]),
            color=colour,
            label={"push": "pushes", "contact": "contacts", "damp": "rolling"}[name],
        )
    right.plot(slots, engine["energy"][:, 0] - engine["first"][0], color="black", label="stored")
    right.set(xlabel="time (s)", ylabel="energy in one world (J)")
    right.legend()
    figure.savefig(options.out / "endurance.png")
