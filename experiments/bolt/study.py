"""Claim: from current and angle alone, late and noisy, a model that learns each bolt as it turns reaches the asked clamp force,
where controllers of torque cannot.

    collect   bolts on the rig (lab.py)                             kept in data/
    fit       identified physics, hybrid, network alone (fit.py)    kept in models/
    drive     every controller on the same unseen bolts             kept in episodes/, rack by rack
    judge     prediction over 1 s, events, an error budget          then results.json, figures, table, page

Reality is `rack.py`, fixed before the first fit. What is kept is used again, so a run that was stopped goes on.
"""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bolt import fit, judge, rivals
from experiments.bolt.control import Controller, Ways, mpc
from experiments.bolt.drive import Driven, drive
from experiments.bolt.fit import Fit, Own
from experiments.bolt.lab import Logs, explored, joined, kept
from experiments.bolt.model import NOMINAL, Bolted, Params, bolted
from experiments.bolt.options import Bolt
from experiments.bolt.pages import publish
from hybridwm.runtime import core_count

TEST = 10_000
"""Seeds of the judged bolts begin here."""


class Size(NamedTuple):
    """How much is done for each seed."""

    racks: int  # of 40 bolts on the rig
    identify: int  # updates
    learn: int
    network: int


FULL, QUICK = Size(3, 1000, 2000, 4000), Size(1, 400, 600, 1000)
CONTROLLERS = ("hybrid", "blind", "identified", "given", "network", "pid", "threshold")


class Known(NamedTuple):
    """Everything fitted with one seed."""

    hybrid: Fit
    identified: Fit
    network: Any
    ratio: float


def run(options: Bolt) -> None:
    """Do the study and write `options.out`."""
    from rich.console import Console

    console, models = Console(), {True: bolted(), False: bolted(events=False)}
    parts, acts = [], dict[str, Any]()
    for seed in range(options.seed, options.seed + options.seeds):
        say = lambda words, seed=seed: console.print(f"[dim]seed {seed}:[/dim] {words}")  # noqa: E731
        known, logs = learned(options, seed, models, say)
        driven = {}
        for name in CONTROLLERS:
            for sensors in (True, False) if name in ("hybrid", "identified") else (True,):
                driven[name, sensors] = turned(options, seed, name, sensors, known, models, acts, say)
        say("judging predictions and events")
        parts.append(judged(options, seed, driven, known, logs, models))
    publish(options, parts)


def learned(options: Bolt, seed: int, models: dict[bool, Bolted], say: Any) -> tuple[Known, Logs]:
    """The rig's logs and all that is fitted to them."""
    size = QUICK if options.quick else FULL
    say(f"{40 * size.racks} bolts on the rig")
    logs = kept(options.out / "data" / f"rig-{seed}.npz",
                lambda: joined([explored(40, 100 * seed + i) for i in range(size.racks)]))  # fmt: skip
    plain, told = models[False], Told(say)
    path = options.out / "models"
    start = Own(*fit.begin(logs))
    like = Fit(Params(NOMINAL), start, 0.0, [])

    def identify() -> Fit:
        found = fit.identified(plain, logs, updates=size.identify, seed=seed, watch=told("identify", size.identify))
        return found._replace(params=fit.strengths(plain, found, logs))

    identified = stored(path / f"identified-{seed}.npz", like, identify)
    like = like._replace(params=like.params._replace(weights=fit.fresh_weights(0), low=np.zeros(28), high=np.zeros(28)))

    def learn() -> Fit:
        found = fit.hybrid(plain, identified, logs, updates=size.learn, seed=seed, watch=told("residual", size.learn))
        return found._replace(params=fit.strengths(plain, found, logs))

    hybrid = stored(path / f"hybrid-{seed}.npz", like, learn)

    def network() -> Any:
        law = identified.params.law
        return rivals.fit_network(law, identified.own, logs, updates=size.network, seed=seed,
                                  watch=told("network alone", size.network))  # fmt: skip

    weights = rivals.ensemble(jax.random.key(0), rivals.MEMBERS, rivals.INPUTS, rivals.HIDDEN, rivals.OUTPUTS)
    zeros = np.zeros(rivals.INPUTS)
    alone = stored(path / f"network-{seed}.npz", rivals.NetworkParams(NOMINAL, weights, zeros, zeros), network)
    return Known(hybrid, identified, alone, rivals.ratio(logs)), logs


class Told:
    """Progress of a fit, four times."""

    def __init__(self, say: Any) -> None:
        self.say = say

    def __call__(self, word: str, total: int) -> Any:
        """What a fit calls after so many updates."""
        return lambda n: self.say(f"{word}: {n} of {total} updates") if n % max(total // 4 // 100 * 100, 100) == 0 else None


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


def controller(name: str, sensors: bool, known: Known, models: dict[bool, Bolted]) -> tuple[Controller, Any]:
    """(controller, its parameters)."""
    if name in ("threshold", "pid"):
        return getattr(rivals, name)(known.ratio), known.identified.params
    if name == "network":
        ways = Ways(speed=0.3, grip=0.05, usual=1e9)
        return mpc(rivals.network_model(), fit.population(known.identified.own), sensors=sensors, ways=ways,
                   events=False), known.network  # fmt: skip
    found = known.hybrid if name in ("hybrid", "blind") else known.identified
    params = Params(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), NOMINAL)) if name == "given" else found.params
    ways = Ways() if name in ("hybrid", "blind") else Ways(grip=0.06)
    known_bolts = fit.population(found.own)
    if name == "given":
        known_bolts = known_bolts._replace(grip=0.0)
    return mpc(models[name != "blind"], known_bolts, sensors=sensors, ways=ways, events=name != "blind"), params


def turned(
    options: Bolt, seed: int, name: str, sensors: bool, known: Known, models: dict[bool, Bolted], acts: Any, say: Any
) -> Driven:  # fmt: skip
    """One controller on this seed's unseen bolts."""
    word = f"{name}-{'sensors' if sensors else 'truth'}"
    path = options.out / "episodes" / f"{seed}-{word}.npz"
    if not path.exists():
        start = time.perf_counter()
        made, params = controller(name, sensors, known, models)
        population = (name, sensors, seed)
        act = acts.setdefault((name, sensors) if name not in ("threshold", "pid") else population, jax.jit(made.act))
        found = drive(made, params, count=options.bolts, seed=TEST + seed, sensors=sensors, act=act)
        off = np.abs(found.force / found.target - 1)
        say(f"{word}: {np.median(off):.2%} off (median), {found.stripped.sum()} stripped, "
            f"{time.perf_counter() - start:.0f} s")  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        flat = {f"logs.{k}": v for k, v in found.logs._asdict().items()} | {f"told.{k}": v for k, v in found.told.items()}
        flat |= {k: getattr(found, k) for k in ("target", "force", "stripped", "settled_s", "took_s")}
        part = path.with_suffix(".part.npz")
        np.savez_compressed(part, **flat)
        part.replace(path)
    with np.load(path, allow_pickle=False) as f:
        return Driven(
            Logs(**{k[5:]: f[k] for k in f.files if k.startswith("logs.")}),
            f["target"], f["force"], f["stripped"], f["settled_s"],
            {k[5:]: f[k] for k in f.files if k.startswith("told.")}, f["took_s"],
        )  # fmt: skip


def judged(
    options: Bolt, seed: int, driven: dict[Any, Driven], known: Known, logs: Logs, models: dict[bool, Bolted]
) -> dict[str, Any]:  # fmt: skip
    """One seed's numbers."""
    from hybridwm import results

    path = options.out / "parts" / f"{seed}.json"
    if not path.exists():
        test = kept(options.out / "data" / f"test-{seed}.npz", lambda: explored(40, TEST + seed + 500))
        named = {name: controller(name, False, known, models) for name in ("hybrid", "identified", "given", "network")}
        which = {name: (models[True] if name != "network" else rivals.network_model(), made[1]) for name, made in named.items()}
        belong = {name: fit.population(known.hybrid.own if name == "hybrid" else known.identified.own) for name in named}
        found = {
            "racks": {f"{n}-{'sensors' if s else 'truth'}": judge.rack_numbers(d) for (n, s), d in driven.items()},
            "prediction": judge.predictions(which, belong, driven["hybrid", True].logs),
            "events": {n: judge.events(*which[n], belong[n], test) for n in ("hybrid", "identified")},
            "traces": judge.traces(driven),
            "cores": core_count(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_text(json.dumps(results.plain(found)), encoding="utf-8")
        path.with_suffix(".part").replace(path)
    return json.loads(path.read_text(encoding="utf-8"))
