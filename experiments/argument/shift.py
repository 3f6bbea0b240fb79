"""Claim: outside its training data the hybrid is its physics again; it does not collapse.

    kinds       position, speed, mass, command, number of contacts
    distance    d times the size of the training region beyond its edge: 0.3 % (a millimetre) to 10 times;
                of contacts, how many more than one pair touch in the beginning
    inside      what training saw, drawn anew
    ratio       error(model) / error(identified), paired by window, a second ahead (`measure.paired`), mean over windows
    interval    over seeds: each draws training data and networks anew; the test episodes are the same for all

The residual sees no absolute place, the network alone has to: nothing else tells it where the other pucks are.
"""

from typing import Any

import numpy as np

from experiments.argument import ending, models, table
from experiments.argument.learned_options import Shift
from experiments.argument.table import BOX, HEAVIEST, RADIUS, Asked, Episode
from experiments.reporting import publish
from experiments.seeds import over_seeds, spread, told, upper
from hybridwm.judging.figures import canvas
from hybridwm.learning.measure import paired
from hybridwm.results import Claim

DISTANCES = (0.003, 0.03, 0.3, 1.0, 3.0, 10.0)
KINDS = ("position", "speed", "mass", "command", "contacts")
TOUCHING = (1, 2, 3, 5, 9)
"""Pairs in touch in the beginning, of `contacts`."""
STEPS = 202
TEST_SEED = 1_000_000


def shifted(kind: str, d: float, rng: np.random.Generator) -> Episode:
    """One episode at distance d, otherwise inside."""
    e = table.drawn(rng, STEPS, 3)
    if kind == "position":  # all together: what is outside is the place, not the arrangement
        move = np.array([-BOX * (1 + d) - e.place[e.present, 0].max(), 0.0])  # away from where pucks are parked
        return e._replace(place=e.place + e.present[:, None] * move)
    if kind == "speed":
        fastest = np.linalg.norm(e.speed, axis=1).max()
        return e._replace(speed=e.speed * table.SPEED / fastest * (1 + d))
    if kind == "mass":
        return e._replace(factor=np.where(e.present, HEAVIEST * (1 + d), 1.0))
    if kind == "command":
        return e._replace(ctrl=e.ctrl * table.FORCE / np.abs(e.ctrl).max() * (1 + d))
    return racked(e, round(1 + d), rng)


def racked(e: Episode, pairs: int, rng: np.random.Generator) -> Episode:
    """Pucks in touch: 1 to 5 pairs as a chain, 9 as a triangle of six; all fly together, and the driven one pushes."""
    r, angle = 2 * RADIUS, rng.uniform(0, 2 * np.pi)
    rows = [(0, 0), (1, -1), (1, 1), (2, -2), (2, 0), (2, 2)]
    chain = np.array([(i * r, 0.0) for i in range(pairs + 1)])
    triangle = np.array([(row * r * np.sqrt(3) / 2, side * r / 2) for row, side in rows])
    spots = triangle if pairs == 9 else chain
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    spots = (spots - spots.mean(0)) @ turn.T
    place, present = table.parked(), np.arange(table.PUCKS) < len(spots)
    place[present] = spots
    speed = rng.uniform(-0.3, 0.3, 2) + rng.uniform(-0.05, 0.05, (table.PUCKS, 2))
    return e._replace(place=place, present=present, speed=speed * present[:, None])


def cells(kind: str) -> list[float]:
    """The distances that a kind is asked at; 0 is inside."""
    return [float(n - 1) for n in TOUCHING] if kind == "contacts" else list(DISTANCES)


def episodes(options: Shift) -> tuple[list[tuple[str, float]], list[Episode]]:
    """Which cell each test episode belongs to, and the episodes."""
    count = min(options.windows, 8) if options.quick else options.windows
    where, out = list[tuple[str, float]](), list[Episode]()
    rng = np.random.default_rng(TEST_SEED)
    for i in range(2 * count):
        where.append(("inside", 0.0))
        out.append(table.drawn(rng, STEPS, 1 + i % 3))
    for kind in KINDS:
        for d in cells(kind):
            for _ in range(count):
                where.append((kind, d))
                out.append(shifted(kind, d, rng))
    return where, out


def measured(seed: int, options: Shift, where: list[tuple[str, float]], given: Asked) -> dict[str, Any]:
    """Error of every model in every window, for one seed."""
    found, came = models.contenders(seed, models.QUICK if options.quick else models.Budget())
    error = {name: table.errors(models.foretold(c, given), given) for name, c in found.items()}
    return {"fit": came, "error": error}


def run(options: Shift) -> None:
    """Every seed, then results.json, table and figure."""
    where, asked = episodes(options)
    scene = table.table()
    given = table.asked(table.recorded(scene, asked), asked)
    found = [ending.part(options, f"seed-{s}", lambda s=s: measured(s, options, where, given)) for s in options.each]
    numbers = {"cells": summary(where, found), "fit": [part["fit"] for part in found]}
    draw(numbers["cells"], options)
    table_of = {"Error over that of the identified physics": rows(numbers["cells"])}
    publish("shift", options, numbers, claims(numbers["cells"]), table_of, seeds=options.each, figure="shift.png")


def summary(where: list[tuple[str, float]], found: list[Any]) -> list[dict[str, Any]]:
    """Of each cell: median error and mean paired ratio of every model, seed by seed."""
    out = []
    for cell in dict.fromkeys(where):
        mine = np.array([w == cell for w in where])
        ratio, median = dict[str, list[float]](), dict[str, list[float]]()
        for part in found:
            error = {n: np.array([np.inf if x is None else x for x in e])[mine] for n, e in part["error"].items()}
            for name, e in error.items():
                ratio.setdefault(name, []).append(float(paired(e, error["identified"]).mean()))
                median.setdefault(name, []).append(float(np.median(e)))
        out.append({"kind": cell[0], "distance": cell[1], "ratio": ratio, "median_m": median})
    return out


def claims(table_of: list[dict[str, Any]]) -> list[Claim]:
    """Inside, and every distance of every kind."""
    inside = {name: np.array(x) for name, x in table_of[0]["median_m"].items()}
    what = "inside, a second ahead: median error of the hybrid over that of the"
    out = [
        over_seeds("inside", f"{what} identified physics", inside["hybrid"] / inside["identified"], 0.5),
        over_seeds("inside_network", f"{what} network alone", inside["hybrid"] / inside["network"], 1.0),
    ]
    for kind in KINDS:
        cells = [c for c in table_of if c["kind"] == kind]
        worst = max(cells, key=lambda c: spread(c["ratio"]["hybrid"])[1][1])
        where = f"worst of {len(cells)} distances, {worst['distance']:g}"
        said = f"{kind}: upper bound of error hybrid / identified physics ({where})"
        out.append(upper(f"outside_{kind}", said, worst["ratio"]["hybrid"], 1.05))
    return out


def rows(table_of: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The table."""
    names = ("hybrid", "untrusted", "network", "given")
    head = ("kind", "distance", *names, "identified, median error (mm)")
    return [head] + [
        (
            c["kind"],
            f"{c['distance']:g}",
            *(told(c["ratio"][n]) for n in names),
            f"{1e3 * np.mean(c['median_m']['identified']):.2g}",
        )
        for c in table_of
    ]


def draw(table_of: list[dict[str, Any]], options: Shift) -> None:
    """Error against distance, kind by kind, on two logarithmic axes; inside stands at the left."""
    figure, axes = canvas(len(KINDS), width=2.9)
    for axis, kind in zip(axes, KINDS, strict=True):
        cells = [c for c in table_of if c["kind"] == kind]
        counted = kind == "contacts"
        at = [0.3, *(max(c["distance"], 0.6) for c in cells)] if counted else [0.001, *DISTANCES]
        for name in ("network", "untrusted", "identified", "hybrid"):
            curve(axis, name, at, [c["median_m"][name] for c in (table_of[0], *cells)])
        marks = ["1", "4", "8"] if counted else ["0.01", "0.1", "1", "10"]
        axis.set(xscale="log", yscale="log", title=kind)
        axis.set(xlabel="pairs in touch beyond one" if counted else "sizes of the training region beyond its edge")
        axis.set_xticks([at[0], *map(float, marks)], ["inside", *marks])
        axis.minorticks_off()
    axes[0].set_ylabel("median error over a second (mm)")
    axes[0].legend()
    figure.savefig(options.out / "shift.png")


def curve(axis: Any, name: str, at: list[float], metres: list[list[float]]) -> None:
    """Mean and range over seeds of one model's error, in mm; what left for good is drawn at 100 m."""
    values = 1e3 * np.clip(np.array(metres, float), 1e-6, 1e2)
    style, width = "--" if name == "untrusted" else "-", 2.4 if name == "hybrid" else 1.6
    axis.plot(at, values.mean(1), "o", ls=style, color=ending.COLOUR[name], lw=width, ms=3, label=name)
    axis.fill_between(at, values.min(1), values.max(1), color=ending.COLOUR[name], alpha=0.15, lw=0)
