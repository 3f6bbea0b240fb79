"""The study `break`: at which force does a printed bar break, for a material and a direction?

A hazard over load with strengths that share what is known (`measured.strength`) is fitted without some bars and asked
about them:

    seen      one trial of each group is hidden in turn; the other trials of the group are shown
    unseen    all bars of some materials are hidden: only the name, the direction and other materials speak
    u = P(break below the force at which it broke)      must be uniform
    log density of the breaking force                   must be higher than that of the rivals (`measured.bar_rivals`)
    largest load with P(break) ≤ 1 %                    at most 1 % of the hidden bars may break below it

Records that are no break (`measured.bar_set`) are shown as "held up to here" and not scored.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from experiments.measured import bar_figures, bar_rivals, strength
from experiments.measured.bar_set import AXES, Bars, read_bars
from experiments.measured.calibration import uniform_test
from experiments.measured.options import Break
from experiments.measured.splits import bootstrap, fingerprint, finished, group_folds
from experiments.reporting import publish
from hybridwm.results import Claim

RISK = 0.01
RIVALS = {"seen": ("normal", "weibull", "student"), "unseen": ("normal", "weibull", "both_directions")}


class Split(NamedTuple):
    """Which bars are shown and which are asked about, [M, 2, K]."""

    kind: str
    name: str
    shown: np.ndarray
    asked: np.ndarray
    seed: int


def splits(bars: Bars, options: Break) -> Iterator[Split]:
    """All splits; with a part kept aside each seed is one fit on everything else."""
    for seed in range(options.seeds):
        if options.holdout:
            own = bars.used & ~bars.kept_aside
            new = ~own.any(axis=(1, 2), keepdims=True)
            for kind, where in (("seen", ~new), ("unseen", new)):
                yield Split(kind, f"{kind}-{seed}", own, bars.used & bars.kept_aside & where, seed)
            continue
        materials = group_folds(bars.materials, min(9, len(bars.materials)), seed)[:, None, None]
        for kind, folds, count in (("seen", trial_folds(bars, 5, seed), 5), ("unseen", materials, materials.max() + 1)):
            for fold in range(count):
                yield Split(
                    kind, f"{kind}-{seed}-{fold}", bars.used & (folds != fold), bars.used & (folds == fold), seed
                )


def trial_folds(bars: Bars, count: int, seed: int) -> np.ndarray:
    """Folds [M, 2, K] in which the bars of a group are spread as evenly as can be."""
    order = np.random.default_rng(seed).random(bars.used.shape) + 2.0 * ~bars.used
    turn = np.random.default_rng(seed + 1).integers(count, size=(*bars.used.shape[:2], 1))
    return (np.argsort(np.argsort(order, axis=2), axis=2) + turn) % count


def score(bars: Bars, split: Split, *, quick: bool) -> dict[str, np.ndarray]:
    """Fit without the hidden bars and ask about them: the hazard first, then the rivals."""
    asked = split.asked & bars.broke
    breaks = split.shown & bars.broke
    if split.kind == "seen":
        asked &= breaks.sum(-1, keepdims=True) >= 2  # else the rivals have nothing to fit
    fitted = strength.fit(bars, split.shown, seed=split.seed, steps=100 if quick else 180, draws=8 if quick else 16)
    density, chance = strength.predict(fitted, bars.log_load, bars.log_area)
    safe = strength.largest_load(fitted, bars.log_area, RISK)
    cells = np.argwhere(asked)
    laws = [_rival_laws(bars, breaks, split.kind, m, a) for m, a, _ in cells]
    rivals = [[law(bars.log_load[tuple(cell)][None]) for law in row] for cell, row in zip(cells, laws, strict=True)]
    rival = np.array(rivals, float).reshape(len(cells), len(RIVALS[split.kind]), 2)
    return {
        "cells": cells,
        "density": np.column_stack([density[asked], rival[..., 0]]),
        "u": np.column_stack([chance[asked], rival[..., 1]]),
        "safe": safe[cells[:, 0], cells[:, 1]],
        "load": np.exp(bars.log_load[asked]),
    }


def _rival_laws(bars: Bars, breaks: np.ndarray, kind: str, m: int, a: int) -> list[bar_rivals.Law]:
    if kind == "unseen":
        direction, both = bars.log_load[:, a][breaks[:, a]], bars.log_load[breaks]
        return [bar_rivals.normal(direction), bar_rivals.weibull(direction), bar_rivals.normal(both)]
    mine = bars.log_load[m, a][breaks[m, a]]
    groups = [x[row] for x, row in zip(bars.log_load[:, a], breaks[:, a], strict=True)]
    variance = bar_rivals.within_variance(groups)
    return [bar_rivals.normal(mine), bar_rivals.weibull(mine), bar_rivals.student(mine, variance)]


def run(options: Break) -> None:
    """Fit and score every split, write results.json, figures and a table, and print the claims."""
    bars, files = read_bars(options.data, options.holdout)
    held = bars.used & ~bars.broke
    print(f"reading {', '.join(str(path) for path in files)}: {bars.used.sum()} bars, {len(bars.materials)} materials")
    print(f"{held.sum()} records show no sudden break and are taken as held, not broken: {_names(bars, held)}")
    parts: dict[str, list[dict[str, np.ndarray]]] = {"seen": [], "unseen": []}
    for split in splits(bars, options):
        digest = fingerprint("break 2", bars.digest, split.name, options.quick, str(options.holdout))
        path = options.out / "parts" / f"{split.name}.npz"
        part = finished(path, digest, lambda split=split: score(bars, split, quick=options.quick))
        if len(part["cells"]):
            parts[split.kind].append(part | {"seed": np.full(len(part["cells"]), split.seed)})
            print(f"{split.name:<12} {len(part['cells']):>4} bars, log density {part['density'][:, 0].mean():+.3f}")
    scored = {
        kind: {key: np.concatenate([p[key] for p in found]) for key in found[0]}
        for kind, found in parts.items()
        if found
    }
    numbers = {kind: summary(kind, bars, found) for kind, found in scored.items()}
    numbers["records"] = {"bars": bars.used.sum(), "held": _names(bars, held), "suspect": _names(bars, bars.marked)}
    bar_figures.draw(scored, bars, options)
    claims = [claim for kind in scored for claim in claims_of(kind, numbers[kind])]
    publish(
        "break",
        options.told,
        numbers,
        claims,
        {kind: rows(kind, numbers[kind]) for kind in scored},
        seeds=range(options.seeds),
    )


def _names(bars: Bars, cells: np.ndarray) -> list[str]:
    return [f"{bars.materials[m]} {AXES[a]} {bars.trial[m, a, k]}" for m, a, k in np.argwhere(cells)]


def summary(kind: str, bars: Bars, scored: dict[str, np.ndarray]) -> dict[str, Any]:
    """What one kind of hidden bars showed; intervals by drawing materials."""
    groups, names = scored["cells"][:, 0], ("hazard", *RIVALS[kind])
    tests = [uniform_test(scored["u"][scored["seed"] == s, 0]) for s in np.unique(scored["seed"])]
    below = (scored["load"] < scored["safe"]).astype(float)
    gain = {name: scored["density"][:, 0] - scored["density"][:, i] for i, name in enumerate(names) if i}
    return {
        "bars": len(groups) // len(tests),
        "log_density": {name: scored["density"][:, i].mean() for i, name in enumerate(names)},
        "gain": {name: {"mean": g.mean(), "interval": bootstrap(g, groups)} for name, g in gain.items()},
        "ks_distance": [test.distance for test in tests],
        "ks_p": [test.p_value for test in tests],
        "ks_p_rivals": {name: uniform_test(scored["u"][:, i]).p_value for i, name in enumerate(names) if i},
        "broke_below_safe_load": {"share": below.mean(), "interval": bootstrap(below, groups)},
        "safe_load_over_break": float(np.median(scored["safe"] / scored["load"])),
    }


def claims_of(kind: str, found: dict[str, Any]) -> list[Claim]:
    """The claims about seen or unseen materials."""
    what = "unseen trials of seen materials" if kind == "seen" else "unseen materials"
    fit = "per-group" if kind == "seen" else "pooled"
    p = found["ks_p"]
    claims = [
        Claim(
            id=f"break_{kind}_uniform",
            statement=f"{what}: Kolmogorov-Smirnov p of the PIT (median and range over seeds)",
            value=float(np.median(p)),
            interval=(min(p), max(p)),
            target=0.05,
            better="higher",
        )
    ]
    for rival in ("normal", "weibull"):
        gain = found["gain"][rival]
        claims.append(
            Claim(
                id=f"break_{kind}_{rival}",
                statement=f"{what}: log density per bar above the {fit} {rival} fit (nats)",
                value=gain["mean"],
                interval=gain["interval"],
                target=0.0,
                better="higher",
            )
        )
    below = found["broke_below_safe_load"]
    return [
        *claims,
        Claim(
            id=f"break_{kind}_safe",
            statement=f"{what}: share that broke below the largest load with P(break) ≤ 1 %",
            value=below["share"],
            interval=below["interval"],
            target=RISK,
            better="lower",
        ),
    ]


def rows(kind: str, found: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table of one kind: mean log density and what the hazard is ahead by."""
    head = ("model", "log density per bar (nats)", "hazard ahead by", "KS p")
    first = ("hazard", f"{found['log_density']['hazard']:.3f}", "", f"{np.median(found['ks_p']):.2g}")
    rest = [
        (name, f"{found['log_density'][name]:.3f}", "{mean:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]".format(**gain),
         f"{found['ks_p_rivals'][name]:.2g}")
        for name, gain in found["gain"].items()
    ]  # fmt: skip
    return [head, first, *rest]
