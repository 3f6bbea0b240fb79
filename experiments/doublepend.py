"""The study `doublepend`: where will a measured double pendulum be, given the torque that its motors measured?

Folds by controller: all runs of some controllers are hidden, and of the other controllers some runs. Physics as published,
identified physics, a network alone and the hybrid (`measured.double_pendulum`, `measured.pendulum_fit`) are fitted to the
rest and asked for the angles 0.1 to 2 s ahead, from the state at the beginning of a window and the measured torque alone.

The residual is trusted as far as runs set aside say (`measured.pendulum_trust`).

    error     root mean square over both joints of the angle error, rad; median over the windows of a group
    group     one design under one controller; many are balanced where errors grow 50-fold in a second, hence medians
    ratio     geometric mean over groups of the ratio of medians; intervals by drawing runs
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.measured import pendulum_figures, pendulum_fit, pendulum_replay, tracking
from experiments.measured.double_pendulum import published
from experiments.measured.options import Doublepend as Options
from experiments.measured.pendulum_fit import HORIZONS_S, Models
from experiments.measured.pendulum_set import Run, read_runs
from experiments.measured.pendulum_trust import GRID, KINDS, calibrated, kind_of
from experiments.measured.splits import fingerprint, finished, group_folds
from experiments.reporting import publish
from hybridwm.results import Claim

FOLDS, PARTS = 5, 5
MODELS = ("published", "identified", "network", "hybrid")
AT = HORIZONS_S.index(1.0)


class Split(NamedTuple):
    """Indices of runs: to learn from, to choose by, to ask about; which of the asked are of controllers never seen."""

    name: str
    seed: int
    learned: list[int]
    chosen: list[int]
    asked: list[int]
    unseen: list[bool]


def splits(runs: Sequence[Run], options: Options) -> Iterator[Split]:
    """Five folds by controller for each seed; with a part kept aside one fit for each seed on everything else."""
    own = [i for i, run in enumerate(runs) if not run.aside]
    driven = sorted({runs[i].kind for i in own if not runs[i].kind.startswith("sysid")})
    if len(driven) < 2:
        raise ValueError(f"{len(driven)} controllers beside system identification; at least two are needed to hide one")
    for seed in range(options.seeds):
        parts = _parts([runs[i].group for i in own], seed)
        if options.holdout:
            seen = {runs[i].kind for i in own}
            asked = [i for i, run in enumerate(runs) if run.aside]
            kept = [i for i, part in zip(own, parts, strict=True) if part == 0]
            rest = [i for i in own if i not in kept]
            yield Split(f"aside-{seed}", seed, rest, kept, asked, [runs[i].kind not in seen for i in asked])
            continue
        count = min(FOLDS, len(driven))
        fold_of = dict(zip(driven, group_folds(driven, count, seed).tolist(), strict=True))
        for fold in range(count):
            hidden = {i for i in own if fold_of.get(runs[i].kind) == fold}
            asked = [i for i, part in zip(own, parts, strict=True) if i in hidden or part == fold % PARTS]
            kept = [i for i, part in zip(own, parts, strict=True) if i not in asked and part == (fold + 1) % PARTS]
            rest = [i for i in own if i not in asked and i not in kept]
            yield Split(f"fold-{seed}-{fold}", seed, rest, kept or rest, asked, [i in hidden for i in asked])


def _parts(groups: Sequence[str], seed: int) -> list[int]:
    """A part 0 … PARTS−1 of each run, spread evenly within its group; a group of one run is always learned from."""
    rng, parts = np.random.default_rng(seed), np.full(len(groups), -1)
    for group in sorted(set(groups)):
        rows = np.flatnonzero(np.array(groups) == group)
        if len(rows) > 1:
            parts[rows] = (rng.permutation(len(rows)) + rng.integers(PARTS)) % PARTS
    return parts.tolist()


def score(runs: Sequence[Run], split: Split, *, quick: bool) -> dict[str, np.ndarray]:
    """Fit without the runs asked about, and forecast them: errors [windows, models, horizons] and what was learned."""
    pick = lambda rows: [runs[i] for i in rows]  # noqa: E731
    found = pendulum_fit.fit(pick(split.learned), pick(split.chosen), seed=split.seed, updates=60 if quick else 800)
    asked = pick(split.asked)
    places = pendulum_fit.every(asked, most=8 if quick else 40)
    ways = (("identified", published(), None), ("identified", found.theta, None), ("network", found.theta, found.network),
            ("hybrid", found.theta, found.residual))  # fmt: skip
    error = np.stack([pendulum_fit.errors(*way, asked, places) for way in ways], 1)
    at = np.array([i for i, _ in places])
    return {
        "error": error,
        "run": np.array(split.asked)[at],
        "unseen": np.array(split.unseen)[at],
        "theta": found.theta,
        "refused": np.array(found.residual is None),
        **_packed("residual", found.residual),
        **_packed("network", found.network),
    }


def trusted(runs: Sequence[Run], split: Split, part: dict[str, np.ndarray], *, quick: bool) -> dict[str, np.ndarray]:
    """How far the residual is to be trusted, and the hybrid's errors then, [windows, horizons]."""
    models, asked = unpacked(part), [runs[i] for i in split.asked]
    much = calibrated(models, [runs[i] for i in split.chosen])
    places = pendulum_fit.every(asked, most=8 if quick else 40)
    error = pendulum_fit.errors("hybrid", models.theta, models.residual, asked, places, lambda run: much[kind_of(run)])
    return {"error": error, "trust": np.array([much[kind] for kind in KINDS])}


def _packed(name: str, weights: nnx.State | None) -> dict[str, np.ndarray]:
    return {f"{name}_{i}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(weights))}


def unpacked(part: dict[str, np.ndarray]) -> Models:
    """The models that a finished part holds."""

    def state(name: str, kind: str) -> nnx.State | None:
        shape = pendulum_fit.graph_of(kind)[1]
        leaves, tree = jax.tree.flatten(shape)
        found = [part.get(f"{name}_{i}") for i in range(len(leaves))]
        return None if found[0] is None else jax.tree.unflatten(tree, [jnp.asarray(x) for x in found])

    network = state("network", "network")
    assert network is not None
    return Models(part["theta"], state("residual", "hybrid"), network)


def run(options: Options) -> None:
    """Fit and score every split, track in a fitted reference world, write results.json, figures and a table."""
    runs, found = read_runs(options.data, options.holdout)
    print(f"reading {', '.join(str(path) for path in found.files)}: {len(runs)} runs")
    parts = []
    for split in splits(runs, options):
        digest = fingerprint("doublepend", found.digest, split.name, options.quick, options.holdout is not None)
        path = options.out / "parts" / f"{split.name}.npz"
        print(f"{split.name}: {len(split.learned)} runs to learn from, {len(split.asked)} asked about")
        part = finished(path, digest, lambda split=split: score(runs, split, quick=options.quick))
        again = finished(
            options.out / "parts" / f"trust-{split.name}.npz",
            fingerprint("trust", digest, GRID),
            lambda split=split, part=part: trusted(runs, split, part, quick=options.quick),
        )
        part["error"][:, MODELS.index("hybrid")], part["trust"] = again["error"], again["trust"]
        parts.append(part)
        print(f"  trust: {dict(zip(KINDS, again['trust'].tolist(), strict=True))}")
        print(
            f"  medians at 1 s (rad): {dict(zip(MODELS, np.median(part['error'][..., AT], 0).round(3).tolist(), strict=True))}"
        )
    scored = {key: np.concatenate([part[key] for part in parts]) for key in ("error", "run", "unseen")}
    if not scored["unseen"].any():
        raise ValueError(f"no run under a controller never seen lasts {HORIZONS_S[-1]:g} s: give more runs")
    numbers = summary(runs, scored)
    numbers |= {"trust": {kind: [part["trust"][k] for part in parts] for k, kind in enumerate(KINDS)}}
    numbers |= {"refused": sum(bool(part["refused"]) for part in parts), "fits": len(parts)}
    digest = fingerprint("tracking", found.digest, options.quick, options.seeds)
    track = finished(
        options.out / "parts" / "tracking.npz", digest, lambda: tracking.study(unpacked(parts[0]), quick=options.quick)
    )
    numbers["tracking"] = tracking.summary(track)
    pendulum_figures.draw(numbers, track, options)
    first: Split = next(splits(runs, options))
    much: dict[str, float] = dict(zip(KINDS, parts[0]["trust"].tolist(), strict=True))
    shown = [runs[i] for i, unseen in zip(first.asked, first.unseen, strict=True) if unseen]
    pendulum_replay.write(shown, unpacked(parts[0]), lambda run: much[kind_of(run)], options.out)
    claims = [*claims_of(numbers), *tracking.claims(numbers["tracking"])]
    tables = {
        "by group, 1 s ahead (median, rad)": by_group(numbers),
        "by horizon": by_horizon(numbers),
        "tracking": tracking.rows(numbers["tracking"]),
    }
    publish("doublepend", options.told, numbers, claims, tables, seeds=range(options.seeds))


def summary(runs: Sequence[Run], scored: dict[str, np.ndarray]) -> dict[str, Any]:
    """Medians by group and horizon, and ratios to the hybrid's rivals."""
    name = np.array([runs[i].group for i in scored["run"]])
    found: dict[str, Any] = {"measured_torque": sum(run.measured for run in runs), "runs": len(runs)}
    for what, rows in (("unseen", scored["unseen"]), ("seen", ~scored["unseen"])):
        groups = {}
        for group in sorted(set(name[rows].tolist())):
            mine = rows & (name == group)
            groups[group] = {
                "runs": len(np.unique(scored["run"][mine])), "windows": int(mine.sum()),
                "median": {m: np.median(scored["error"][mine, k], 0) for k, m in enumerate(MODELS)},
            }  # fmt: skip
        found[what] = {"groups": groups, "ratio": _ratios(scored, name, rows)} if groups else None
    return found


def _ratios(scored: dict[str, np.ndarray], name: np.ndarray, rows: np.ndarray, draws: int = 400) -> dict[str, Any]:
    """Hybrid over each rival at each horizon, geometric mean over groups; 95 % by drawing runs within each group."""
    tables = []
    rng = np.random.default_rng(0)
    for group in sorted(set(name[rows].tolist())):
        mine = np.flatnonzero(rows & (name == group))
        of = [mine[scored["run"][mine] == r] for r in np.unique(scored["run"][mine])]
        picks = [np.arange(len(of)), *rng.integers(len(of), size=(draws, len(of)))]
        tables.append([np.log(np.median(scored["error"][np.concatenate([of[i] for i in pick])], 0)) for pick in picks])
    logs = np.array(tables)  # [groups, 1 + draws, models, horizons]
    out = {}
    for k, rival in enumerate(MODELS[:-1]):
        each = logs[:, :, -1] - logs[:, :, k]
        mean = np.exp(each.mean(0))
        out[rival] = {
            "value": mean[0],
            "interval": np.percentile(mean[1:], [2.5, 97.5], axis=0).T,
            "by_group": np.exp(each[:, 0]),
        }
    return out


def claims_of(numbers: dict[str, Any]) -> list[Claim]:
    """At 1 s on controllers never seen against both rivals, and on every group against the identified physics."""
    claims = []
    for rival, what in (("identified", "the identified physics'"), ("network", "network alone's")):
        ratio = numbers["unseen"]["ratio"][rival]
        claims.append(
            Claim(
                id=f"doublepend_vs_{rival}",
                statement=f"1 s ahead, controllers never seen: hybrid's error / {what}",
                value=float(ratio["value"][AT]),
                interval=(float(ratio["interval"][AT][0]), float(ratio["interval"][AT][1])),
                target=0.5,
                better="lower",
            )
        )
    worst = max(
        float(np.max(numbers[what]["ratio"]["identified"]["by_group"][:, AT]))
        for what in ("unseen", "seen")
        if numbers[what]
    )
    return [
        *claims,
        Claim(
            id="doublepend_every_group",
            statement="1 s ahead: hybrid's error / the identified physics' in the worst group of runs",
            value=worst,
            target=1.05,
            better="lower",
        ),
    ]


def by_group(numbers: dict[str, Any]) -> list[tuple[str, ...]]:
    """Medians at 1 s."""
    rows: list[tuple[str, ...]] = [("asked about", "group", "runs", "windows", *MODELS, "hybrid / identified")]
    for what in ("unseen", "seen"):
        for group, found in (numbers[what] or {"groups": {}})["groups"].items():
            errors = [found["median"][m][AT] for m in MODELS]
            ratio = errors[-1] / errors[1]
            counts = str(found["runs"]), str(found["windows"])
            rows.append((f"{what} controller", group, *counts, *(f"{e:.3f}" for e in errors), f"{ratio:.2f}"))
    return rows


def by_horizon(numbers: dict[str, Any]) -> list[tuple[str, ...]]:
    """Hybrid over each rival, geometric mean over groups."""
    rows: list[tuple[str, ...]] = [("asked about", "hybrid over", *(f"{h:g} s" for h in HORIZONS_S))]
    for what in ("unseen", "seen"):
        for rival, found in (numbers[what] or {"ratio": {}})["ratio"].items():
            cells = [f"{v:.2f} [{a:.2f}, {b:.2f}]" for v, (a, b) in zip(found["value"], found["interval"], strict=True)]
            rows.append((f"{what} controllers", rival, *cells))
    return rows
