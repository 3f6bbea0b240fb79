"""What the fits of the study `toss` showed: numbers, claims and tables.

Intervals: throws are drawn with replacement, 95 %.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.measured.splits import bootstrap
from experiments.toss import things
from experiments.toss.sets import MEASURES
from hybridwm.results import Claim

Part = dict[str, np.ndarray]
Parts = Mapping[str, list[Part]]
PUBLISHED = (
    ("Drake, as published (Acosta, Yang, Posa 2022)", 13.5, 16.5),
    ("Bullet, as published", 14.9, 16.5),
    ("MuJoCo, as published", 25.1, 21.7),
)
POSITION, ROTATION, FACE, DEPTH, DEEPEST = range(5)
NAMES = {
    "identified": "our engine, elliptic cone, identified",
    "pyramidal": "our engine, pyramidal cone, identified",
    "hybrid": "hybrid: identified engine and learned correction",
    "untested": "the same, trusted without a test",
    "network": "network alone",
}


def line(part: Part) -> str:
    """One line about one part."""
    s = part["scores"]
    return f"position {s[:, 0].mean():6.2f} %  rotation {s[:, 1].mean():6.2f}°  same face {s[:, 2].mean():.2f}"


def joined(parts: Sequence[Part]) -> tuple[np.ndarray, np.ndarray]:
    """Scores [n, 5] of all seeds and the throw of each."""
    return np.concatenate([p["scores"] for p in parts]), np.concatenate([p["throw"] for p in parts])


def summary(parts: Sequence[Part]) -> dict[str, Any]:
    """Means with their intervals, and medians."""
    scores, throw = joined(parts)
    out: dict[str, Any] = {}
    for i, name in enumerate(MEASURES):
        out[name] = {"mean": scores[:, i].mean(), "interval": bootstrap(scores[:, i], throw)}
        if name in ("position", "rotation"):
            out[name]["median"] = np.median(scores[:, i])
    return out


def of(found: Mapping[str, Parts]) -> tuple[dict[str, Any], list[Claim], dict[str, list[tuple[str, ...]]]]:
    """Numbers, claims and tables of all things."""
    numbers: dict[str, Any] = {}
    tables: dict[str, list[tuple[str, ...]]] = {}
    for name, parts in found.items():
        thing = things.cube() if name == "cube" else things.elbow()
        numbers[name] = {key: summary(p) for key, p in parts.items()}
        numbers[name]["unknowns"] = {key: _unknowns(thing, p) for key, p in parts.items() if "phi" in p[0]}
        numbers[name]["ratios"] = ratios(parts)
        trusts = {size: np.mean([p["trust"] for p in parts[f"hybrid-{size}"]]) for size in sizes(parts)}
        numbers[name]["trust"] = trusts
        tables[f"{name}: whole throws from their first row"] = _table(name, numbers[name])
        if len(sizes(parts)) > 1:
            tables[f"{name}: from few throws to many"] = _curve_table(numbers[name], sizes(parts))
    return numbers, _claims(found["cube"], numbers["cube"]), tables


def _unknowns(thing: things.Thing, parts: Sequence[Part]) -> dict[str, Any]:
    values = np.asarray(thing.values(np.concatenate([p["phi"] for p in parts], 1)))
    return {
        u.name: {"mean": v.mean(), "std": v.std(), "groups": v} for u, v in zip(thing.unknowns, values, strict=True)
    }


def _table(name: str, numbers: Mapping[str, Any]) -> list[tuple[str, ...]]:
    head = ("model", "position %", "median", "rotation °", "median", "same face", "penetration %", "deepest %")
    rows = [_row(NAMES[k], numbers[f"{k}-all"]) for k in NAMES if f"{k}-all" in numbers]
    if name == "cube":
        rows += [(who, f"{p}", "", f"{r}", "", "", "", "") for who, p, r in PUBLISHED]
    return [head, *rows]


def _row(label: str, s: Mapping[str, Any]) -> tuple[str, ...]:
    spread = lambda m: "{:.2f} [{:.2f}, {:.2f}]".format(m["mean"], *m["interval"])  # noqa: E731
    p, r = s["position"], s["rotation"]
    return (
        label, spread(p), f"{p['median']:.2f}", spread(r), f"{r['median']:.2f}", f"{s['face']['mean']:.3f}",
        f"{s['penetration']['mean']:.2f}", f"{s['deepest']['mean']:.1f}",
    )  # fmt: skip


def _claims(parts: Parts, numbers: Mapping[str, Any]) -> list[Claim]:
    asked = [
        ("identified", "position", 13.5, "position error, % of the width"),
        ("identified", "rotation", 17.0, "rotation error, degrees"),
        ("hybrid", "position", 12.0, "position error, % of the width"),
        ("hybrid", "rotation", 16.0, "rotation error, degrees"),
        ("identified", "penetration", 0.6, "mean penetration, % of the width"),
        ("hybrid", "penetration", 0.6, "mean penetration, % of the width"),
    ]
    claims = []
    for kind, measure, target, what in asked:
        if f"{kind}-all" in numbers:
            s = numbers[f"{kind}-all"][measure]
            claims.append(
                _claim(f"toss_{kind}_{measure}", f"cube, {NAMES[kind]}: {what}", s["mean"], s["interval"], target)
            )
    return claims + _curve(numbers["ratios"]) + _from_32(parts) + _over_pyramid(parts)


def _claim(name: str, statement: str, value: float, interval: Any, target: float) -> Claim:
    return Claim(id=name, statement=statement, value=float(value), interval=interval, target=target, better="lower")


def sizes(parts: Mapping[str, Any]) -> list[str]:
    """The numbers of known throws, as they are named, from few to all."""
    return [key.removeprefix("hybrid-") for key in parts if key.startswith("hybrid-")]


def ratios(parts: Parts) -> dict[str, Any]:
    """Hybrid over each rival at each number of known throws: ratio of mean errors with its interval."""
    return {
        rival: {
            size: {what: dict(zip(("value", "interval"), ratio(parts[f"hybrid-{size}"], parts[f"{rival}-{size}"], column),
                                  strict=True))
                   for what, column in (("position", POSITION), ("rotation", ROTATION))}
            for size in sizes(parts)
        }
        for rival in ("identified", "network")
    }  # fmt: skip


def _curve(found: Mapping[str, Any]) -> list[Claim]:
    """The worst number of throws for the hybrid, and the worst from 32 on, against each rival and in each measure."""
    claims = []
    for rival in ("identified", "network"):
        for what in ("position", "rotation"):
            values = {size: each[what] for size, each in found[rival].items()}
            many = {size: v for size, v in values.items() if size == "all" or int(size) >= 32}
            for name, few, target in (("every_size", values, 1.02), ("from_32", many, 1.0)):
                size, worst = max(few.items(), key=lambda item: item[1]["value"])
                when = "at every number of throws" if name == "every_size" else "from 32 throws on"
                text = f"cube, {what} error: hybrid over {NAMES[rival]}, {when}; the worst: {size} throws"
                claims.append(_claim(f"toss_{name}_{rival}_{what}", text, worst["value"], worst["interval"], target))
    return claims


def _curve_table(numbers: Mapping[str, Any], named: Sequence[str]) -> list[tuple[str, ...]]:
    """Position % and rotation ° of each model, and the hybrid's share of each rival's."""
    head = (
        "throws known",
        "identified",
        "network alone",
        "hybrid",
        "untested",
        "trust",
        "hybrid / identified",
        "hybrid / network",
    )
    rows: list[tuple[str, ...]] = [head]
    both = lambda m: f"{m['position']['mean']:.2f} %, {m['rotation']['mean']:.2f}°"  # noqa: E731
    for size in named:
        share = (numbers["ratios"][rival][size] for rival in ("identified", "network"))
        kinds = (both(numbers[f"{kind}-{size}"]) for kind in ("identified", "network", "hybrid", "untested"))
        ratios = (f"{r['position']['value']:.3f}, {r['rotation']['value']:.3f}" for r in share)
        rows.append((size, *kinds, f"{numbers['trust'][size]:.2f}", *ratios))
    return rows


def _from_32(parts: Parts) -> list[Claim]:
    """The worst of the draws against the fit to all throws of all folds."""
    if "identified-32" not in parts:
        return []
    few, every = (np.concatenate([p["phi"] for p in parts[f"identified-{k}"]], 1) for k in (32, "all"))
    claims = []
    for i, name, target in ((0, "friction", 0.05), (3, "half_width", 0.005)):
        off = np.abs(np.exp(few[i] - every[i].mean()) - 1)
        text = f"cube, {name.replace('_', ' ')} from 32 throws against the fit to all, worst of {len(off)} draws"
        claims.append(_claim(f"toss_{name}_from_32", text, off.max(), (off.min(), off.max()), target))
    return claims


def _over_pyramid(parts: Parts) -> list[Claim]:
    if "pyramidal-all" not in parts:
        return []
    value, interval = ratio(parts["identified-all"], parts["pyramidal-all"], POSITION)
    return [
        _claim(
            "toss_cone",
            "cube, position error: elliptic cone over pyramidal cone, both identified",
            value,
            interval,
            1.0,
        )
    ]


def ratio(one: Sequence[Part], two: Sequence[Part], column: int) -> tuple[float, tuple[float, float]]:
    """Mean error of one model over that of another, on the same throws, with its interval."""
    (a, throw), (b, _) = joined(one), joined(two)
    pair = np.column_stack([a[:, column], b[:, column]])
    of_sums = lambda total: float(total[0] / total[1])  # noqa: E731
    return of_sums(pair.sum(0)), bootstrap(pair, throw, statistic=of_sums)
