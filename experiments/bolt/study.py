"""Claim: from current and angle alone, late and noisy, a model that learns each bolt as it turns reaches the asked clamp force,
where controllers of torque cannot.

    collect   bolts on the rig (lab.py)
    fit       identified physics, hybrid, network alone (fit.py, rivals.py)
    drive     every controller on the same unseen bolts, in virtual time
    clock     twenty bolts in real time (realtime.py)
    judge     prediction over 1 s, events, an error budget; then results.json, figures, table, page (pages.py)

Reality is `rack.py`, fixed before the first fit. What is kept is used again, so a run that was stopped goes on where it was.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bolt import fit, judge, realtime, rivals
from experiments.bolt.control import Controller, mpc
from experiments.bolt.drive import Driven, drive
from experiments.bolt.fit import Fit, Own
from experiments.bolt.lab import Logs, explored, joined
from experiments.bolt.lab import kept as kept_logs
from experiments.bolt.model import NOMINAL, Bolted, Params, bolted
from experiments.bolt.options import Bolt
from experiments.bolt.pages import publish
from experiments.bolt.tracking import Ways
from experiments.keeping import kept, place

TEST = 10_000
"""Seeds of the judged bolts begin here."""
CLOCKED = 20
"""Bolts turned in real time."""


class Size(NamedTuple):
    """How much is learned for each seed."""

    racks: int  # of 40 bolts on the rig
    identify: int  # updates
    learn: int
    network: int


FULL, QUICK = Size(3, 1000, 2000, 3000), Size(1, 400, 700, 1000)
DRIVES = (
    ("hybrid", True), ("hybrid", False), ("identified", True), ("identified", False), ("blind", True), ("given", True),
    ("network", True), ("pid", True), ("threshold", True),
)  # fmt: skip
"""(controller, by sensors): what turns the unseen bolts."""


class Known(NamedTuple):
    """Everything fitted with one seed."""

    hybrid: Fit
    identified: Fit
    network: Any
    ratio: float
    logs: Logs


class Bench(NamedTuple):
    """What all seeds share: where parts are kept, the models, what has been compiled, and how to say something."""

    options: Bolt
    folder: Path
    models: dict[bool, Bolted]
    acts: dict[Any, Any]
    say: Any


def run(options: Bolt) -> None:
    """Do the study and write `options.out`."""
    from rich.console import Console

    console = Console()
    bench = Bench(options, place(options), {True: bolted(), False: bolted(events=False)}, {}, console.print)
    parts = [seed_part(bench, seed) for seed in options.each]
    clock = kept(bench.folder / "clock.json", partial(clocked, bench))
    publish(options, parts, clock, console)


def seed_part(bench: Bench, seed: int) -> dict[str, Any]:
    """One seed's numbers, kept."""

    def work() -> dict[str, Any]:
        known = learned(bench, seed)
        driven = {which: turned(bench, seed, *which, known) for which in DRIVES}
        bench.say(f"seed {seed}: judging predictions and events")
        return judged(bench, seed, driven, known)

    return kept(bench.folder / f"{seed}.json", work)


def learned(bench: Bench, seed: int) -> Known:
    """The rig's logs and all that is fitted to them."""
    size, folder = QUICK if bench.options.quick else FULL, bench.folder
    say = lambda words: bench.say(f"seed {seed}: {words}")  # noqa: E731
    rig = [partial(explored, 40, 100 * seed + i) for i in range(size.racks)]
    say(f"{40 * size.racks} bolts on the rig, then fits")
    logs = kept_logs(folder / f"rig-{seed}.npz", lambda: joined([draw() for draw in rig]))
    plain, begin = bench.models[False], fit.begin(logs)
    like = Fit(Params(NOMINAL), begin, 0.0, [])

    def identify() -> Fit:
        found = fit.identified(plain, logs, updates=size.identify, seed=seed)
        say(f"physics identified: loss {found.loss:.2f}")
        return found._replace(params=fit.strengths(plain, found, logs))

    identified = stored(folder / f"identified-{seed}.npz", like, identify)

    def learn() -> Fit:
        found = fit.hybrid(plain, identified, logs, updates=size.learn, seed=seed)
        say(f"hybrid: loss {found.loss:.2f}")
        return found._replace(params=fit.strengths(plain, found, logs))

    weighted = like.params._replace(weights=fit.fresh_weights(0), low=0, high=0)
    hybrid = stored(folder / f"hybrid-{seed}.npz", like._replace(params=weighted), learn)
    network = partial(rivals.fit_network, identified.params.law, identified.own, logs, updates=size.network, seed=seed)
    alone = stored(folder / f"network-{seed}.npz", rivals.like(), network)
    return Known(hybrid, identified, alone, rivals.ratio(logs), logs)


def stored(path: Path, like: Any, make: Any) -> Any:
    """The tree in the file, or what `make()` gives, which is then kept there. `like` has its structure."""
    if not path.exists():
        found = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        rest = found._replace(history=[]) if isinstance(found, Fit) else found
        np.savez(part, *[np.asarray(x) for x in jax.tree.leaves(rest)])  # pyright: ignore[reportArgumentType]
        part.replace(path)
    with np.load(path, allow_pickle=False) as found:
        leaves = [jnp.asarray(found[name], jnp.float32) for name in found.files]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def own_of(name: str, known: Known) -> Own:
    """The bolts of the rig as this model sees them."""
    return (known.hybrid if name in ("hybrid", "blind") else known.identified).own


def subject(bench: Bench, name: str, known: Known) -> tuple[Bolted, Any, Any]:
    """(model, parameters, distribution of bolts)."""
    belong = fit.population(own_of(name, known))
    if name == "network":
        return rivals.network_model(), known.network, belong
    if name == "given":
        nominal = Params(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), NOMINAL))
        return bench.models[True], nominal, belong._replace(grip=0.0)
    return (
        bench.models[name != "blind"],
        (known.hybrid if name in ("hybrid", "blind") else known.identified).params,
        belong,
    )


def controller(bench: Bench, name: str, sensors: bool, known: Known) -> tuple[Controller, Any, Any]:
    """(controller, its parameters, distribution of bolts)."""
    if name in ("threshold", "pid"):
        return getattr(rivals, name)(known.ratio), known.identified.params, None
    model, params, belong = subject(bench, name, known)
    return (
        mpc(model, sensors=sensors, ways=WAYS.get(name), events=name not in ("blind", "network")),
        params,
        belong,
    )


WAYS = {
    "network": Ways(speed=0.3, grip=0.05, usual=1e9),
    "identified": Ways(speed=0.3, grip=0.04, usual=1e9),
    "given": Ways(speed=0.3, grip=0.04, usual=1e9),
}
"""Without a residual there is nothing to lose trust in; and without its ripple the friction of a bolt has to move more."""


def turned(bench: Bench, seed: int, name: str, sensors: bool, known: Known) -> Driven:
    """One controller on this seed's unseen bolts."""
    word, options = f"{name}-{'sensors' if sensors else 'truth'}", bench.options
    path = bench.folder / f"{seed}-{word}.npz"
    if not path.exists():
        made, params, belong = controller(bench, name, sensors, known)
        plain = name in ("threshold", "pid")
        act = bench.acts.setdefault((word, seed) if plain else word, jax.jit(made.act))
        take = options.count if plain or name == "hybrid" else options.rival_count
        found = drive(
            made, params, known=belong, count=options.count, take=take, seed=TEST + seed, sensors=sensors, act=act
        )
        off = np.abs(found.force / found.target - 1)
        bench.say(f"seed {seed}: {word}: {np.median(off):.2%} off (median of {take}), {found.stripped.sum()} stripped")
        save(path, found)
    return load(path)


def save(path: Path, found: Driven) -> None:
    """Keep a drive."""
    flat: dict[str, Any] = {f"logs.{k}": v for k, v in found.logs._asdict().items()}
    flat |= {f"told.{k}": v for k, v in found.told.items()}
    flat |= {k: getattr(found, k) for k in ("target", "force", "stripped", "settled_s", "took_s")}
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, **flat)
    part.replace(path)


def load(path: Path) -> Driven:
    """A drive that was kept."""
    with np.load(path, allow_pickle=False) as f:
        logs = Logs(**{k[5:]: f[k] for k in f.files if k.startswith("logs.")})
        told = {k[5:]: f[k] for k in f.files if k.startswith("told.")}
        return Driven(logs, f["target"], f["force"], f["stripped"], f["settled_s"], told, f["took_s"])


def seen(bench: Bench, name: str, known: Known) -> judge.Subject:
    """A model as this seed fitted it; what is compiled serves all seeds."""
    model, params, belong = subject(bench, name, known)
    kind = f"judge {name}"
    if kind not in bench.acts:
        bench.acts[kind] = judge.lens(model)
    return judge.Subject(bench.acts[kind], params, belong)


def judged(bench: Bench, seed: int, driven: dict[Any, Driven], known: Known) -> dict[str, Any]:
    """One seed's numbers."""
    tested = TEST + seed + 500
    test = kept_logs(bench.folder / f"test-{seed}.npz", lambda: explored(40, tested))
    reachable = judge.most_known(test, explored(40, tested, lucky=False))
    subjects = {name: seen(bench, name, known) for name in ("hybrid", "identified", "given", "network")}
    return {
        "racks": {f"{n}-{'sensors' if s else 'truth'}": judge.rack_numbers(d) for (n, s), d in driven.items()},
        "prediction": judge.predictions(subjects, driven["hybrid", True].logs),
        "events": {n: judge.events(subjects[n], test) for n in ("hybrid", "identified")} | {"reality": reachable},
        "loss": {"identified": known.identified.loss, "hybrid": known.hybrid.loss},
        "traces": judge.traces(driven),
        "replay": judge.replay_of(subjects["hybrid"], driven["hybrid", True].logs),
    }


def clocked(bench: Bench) -> dict[str, Any]:
    """Bolts of the first seed in real time."""
    seed = bench.options.seed
    known = learned(bench, seed)
    made, params, belong = controller(bench, "hybrid", True, known)
    parts, count = realtime.compiled(made, params, belong), bench.options.count
    number = 3 if bench.options.quick else min(CLOCKED, count)
    bench.say(f"{number} bolts in real time")
    drive = partial(realtime.one, parts, made, params, belong, count=count)
    drive(number=0, seed=seed)  # a bolt that is not counted: whatever happens for the first time happens here
    found = [drive(number=i, seed=TEST + seed) for i in range(number)]
    return {name: [getattr(one, name) for one in found] for name in realtime.Timed._fields}
