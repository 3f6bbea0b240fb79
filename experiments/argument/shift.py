"""Claim: outside its training data the hybrid is its physics again; it does not collapse.

    kinds       position, speed, mass, command, number of contacts
    distance    d = 0 inside, else d times the size of the training region beyond its edge: 0.3 % (a millimetre) to 10 times;
                of contacts, how many more than one pair touch in the beginning
    ratio       error(model) / error(identified), paired by window, a second ahead (`believing.paired`), mean over windows
    interval    over seeds: each draws training data and networks anew; the test episodes are the same for all

Inside means 4 % to 96 % of everything at once: what training saw, drawn anew.
"""

from typing import Any

import numpy as np

from experiments.argument import drawing, models, table
from experiments.argument.options import Shift
from experiments.argument.reporting import Claim, claim, kept, over_seeds, parts, publish, told
from experiments.argument.table import BOX, HEAVIEST, RADIUS, STEP_S, Asked, Episode
from hybridwm.learning.believing import paired

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
    found = [kept(parts(options, f"seed-{s}"), lambda s=s: measured(s, options, where, given)) for s in range(options.seeds)]
    numbers = {"cells": summary(where, found), "fit": [part["fit"] for part in found]}
    publish("shift", options, numbers, claims(numbers["cells"]), {"Error over that of the identified physics": rows(numbers["cells"])})
    draw(numbers["cells"], options)


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
    """Inside, and of each kind the worst upper end over its distances."""
    inside = table_of[0]
    median = {name: np.array(x) for name, x in inside["median_m"].items()}
    out = [
        claim("inside", "inside, 1 s: median error of the hybrid over that of the identified physics", median["hybrid"] / median["identified"], 0.5),
        claim("inside_network", "inside, 1 s: median error of the hybrid over that of the network alone", median["hybrid"] / median["network"], 1.0),
    ]  # fmt: skip
    for kind in KINDS:
        mine = [c for c in table_of if c["kind"] == kind]
        worst = max(mine, key=lambda c: over_seeds(c["ratio"]["hybrid"])[1][1])
        interval = over_seeds(worst["ratio"]["hybrid"])[1]
        statement = f"{kind}: upper bound of hybrid / identified at the worst distance ({worst['distance']:g})"
        out.append(Claim(id=f"outside_{kind}", statement=statement, value=interval[1], interval=interval, target=1.05, better="lower"))  # fmt: skip
    return out


def rows(table_of: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The table."""
    names = ("hybrid", "untrusted", "network", "given")
    head = ("kind", "distance", *names, "identified, median error (mm)")
    return [head] + [
        (c["kind"], f"{c['distance']:g}", *(told(c["ratio"][n]) for n in names), f"{1e3 * np.mean(c['median_m']['identified']):.2g}")
        for c in table_of
    ]


def draw(table_of: list[dict[str, Any]], options: Shift) -> None:
    """Error against distance, kind by kind, on two logarithmic axes; inside stands at the left."""
    figure, (axes,) = drawing.canvas(len(KINDS), width=2.9, height=3.4)
    inside = table_of[0]
    for axis, kind in zip(axes, KINDS, strict=True):
        mine = [c for c in table_of if c["kind"] == kind]
        start = 0.3 if kind == "contacts" else 0.001
        place = [start, *(max(c["distance"], 0.6) if kind == "contacts" else c["distance"] for c in mine)]
        for name in ("network", "untrusted", "identified", "hybrid"):
            values = [1e3 * np.clip(c["median_m"][name], 1e-6, 1e2) for c in (inside, *mine)]
            middle = [float(np.mean(v)) for v in values]
            colour, width = drawing.COLOURS[name], 2.4 if name == "hybrid" else 1.6
            axis.plot(place, middle, "o-", color=colour, lw=width, ms=3, ls="--" if name == "untrusted" else "-", label=name)
            axis.fill_between(place, [v.min() for v in values], [v.max() for v in values], color=colour, alpha=0.15, lw=0)
        axis.set(xscale="log", yscale="log", title=kind, xlabel="pairs in touch beyond one" if kind == "contacts" else "distance (sizes of the training region)")  # fmt: skip
        axis.set_xticks([start, *([1, 4, 8] if kind == "contacts" else [0.01, 0.1, 1, 10])])
        axis.set_xticklabels(["inside", *(["1", "4", "8"] if kind == "contacts" else ["0.01", "0.1", "1", "10"])])
        axis.minorticks_off()
    axes[0].set_ylabel("median error over 1 s (mm)")
    axes[0].legend()
    drawing.save(figure, options.out / "shift.png")
