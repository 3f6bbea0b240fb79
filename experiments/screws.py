"""The study `screws`: does the next use of a hole fail, and which torque will it take?

Five folds by workpiece; nothing is chosen on the holes that are asked about (ridges by inner folds, the rest fixed).

    next use    P(fail) from earlier uses of the hole: the mean of the filter over where its thread lies (`measured.seat`)
                and of a regression on earlier curves (`measured.screw_rivals`), against regressions on usage and failures
    torque      root mean square over the angle of each run, in N m (`measured.thread`): the friction model; with the
                hole's history alone, and that moved along the angle by hindsight, since a screw may find the old thread
                anywhere within a turn; with this run's own torque up to 1/32 … 1 turn before
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from experiments.measured import screw_figures, screw_rivals, seat, thread
from experiments.measured.calibration import log_loss
from experiments.measured.options import Screws as Options
from experiments.measured.screw_set import Screws, read_screws
from experiments.measured.splits import bootstrap, fingerprint, finished, group_folds
from experiments.reporting import publish
from hybridwm.results import Claim

FOLDS = 5
VERSION = 2  # of a part: parts of another one are not used
MODELS = ("hybrid", "filter", "curves", "plain", "recent", "constant")
SOON = thread.AHEAD.index(4)  # 1/8 turn


class Split(NamedTuple):
    """Which holes are shown and which are asked about, [H] bool."""

    name: str
    seed: int
    shown: np.ndarray
    asked: np.ndarray


def splits(screws: Screws, options: Options) -> Iterator[Split]:
    """Five folds by workpiece for each seed; with a part kept aside one fit for each seed on everything else."""
    for seed in range(options.seeds):
        if options.holdout:
            yield Split(f"aside-{seed}", seed, ~screws.kept_aside, screws.kept_aside)
            continue
        folds = group_folds(screws.workpiece, FOLDS, seed)
        for fold in range(FOLDS):
            yield Split(f"fold-{seed}-{fold}", seed, folds != fold, folds == fold)


def score(screws: Screws, split: Split, *, quick: bool) -> dict[str, np.ndarray]:
    """Fit to the holes shown, ask about the others: chances [H, K, models], torque errors [H, K, …]."""
    shown, asked = split.shown, split.asked
    level = np.concatenate(
        [screw_rivals.levels(screws), np.broadcast_to(screws.hole[:, None, None] % 2, (*screws.used.shape, 1))], -1
    )
    mine = level[shown][screws.used[shown]]
    features = (level - mine.mean(0)) / (mine.std(0) + 1e-9)
    found = {name: screw_rivals.foretell(screws, name, shown, asked) for name in ("plain", "recent", "curves")}
    found["filter"] = seat.foretell(
        screws, features, shown, asked, seed=split.seed, members=1 if quick else 3, steps=100 if quick else 180
    )
    found["hybrid"] = (found["filter"] + found["curves"]) / 2
    found["constant"] = np.full(found["plain"].shape, screws.failed[shown][screws.used[shown]].mean())
    first = (screws.failed[shown, 0].sum() + 0.5) / (shown.sum() + 1)  # all models alike: a fresh hole says nothing
    chance = np.stack([np.pad(found[name], ((0, 0), (1, 0)), constant_values=first) for name in MODELS], -1)
    chance[:, 0, -1] = found["constant"][:, 0]
    said = thread.foretell(screws, shown, asked, seed=split.seed, steps=500 if quick else 2000)
    curve = screws.curve[asked]
    begun = [np.where(np.isfinite(said.so_far[..., i]), curve, np.nan) for i in range(len(thread.AHEAD))]
    return {
        "holes": np.flatnonzero(asked),
        "chance": chance,
        "friction": thread.miss(said.friction, curve),
        "history": thread.miss(said.history, curve),
        "moved": thread.moved(said.history, curve),
        "so_far": np.stack([thread.miss(said.so_far[..., i], curve) for i in range(len(thread.AHEAD))], -1),
        "friction_begun": np.stack([thread.miss(said.friction, c) for c in begun], -1),
    }


def run(options: Options) -> None:
    """Fit and score every split, write results.json, figures and a table, and print the claims."""
    screws, files = read_screws(options.data, options.holdout)
    uses = int(screws.used.sum())
    print(f"reading {', '.join(str(path) for path in files)}: {uses} uses of {len(screws.hole)} holes")
    parts = []
    for split in splits(screws, options):
        digest = fingerprint("screws", VERSION, screws.digest, split.name, options.quick, options.holdout is not None)
        path = options.out / "parts" / f"{split.name}.npz"
        part = finished(path, digest, lambda split=split: score(screws, split, quick=options.quick))
        parts.append(part | {"seed": np.full(len(part["holes"]), split.seed)})
        loss = _losses(screws, part)
        print(f"{split.name:<10} log-loss {loss[..., 0][screws.used[part['holes']]].mean():.4f}")
    scored = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    numbers = summary(screws, scored)
    screw_figures.draw(screws, scored, options)
    publish(
        "screws",
        options.told,
        numbers,
        claims_of(numbers),
        {"next use": next_use(numbers), "torque": torque(numbers)},
        seeds=range(options.seeds),
    )


def _losses(screws: Screws, scored: dict[str, np.ndarray]) -> np.ndarray:
    return log_loss(scored["chance"], screws.failed[scored["holes"]][..., None])


def summary(screws: Screws, scored: dict[str, np.ndarray]) -> dict[str, Any]:
    """Log-losses in nats per use and torque errors; intervals by drawing workpieces."""
    rows = screws.used[scored["holes"]]
    groups = np.broadcast_to(screws.workpiece[scored["holes"]][:, None], rows.shape)[rows]
    loss = _losses(screws, scored)[rows]
    ratio = lambda total: float(total[0] / total[1])  # noqa: E731

    def against(error: np.ndarray, physics: np.ndarray) -> dict[str, Any]:
        there = np.isfinite(error) & np.isfinite(physics)
        pair = np.column_stack([error, physics])[there]
        return {"value": ratio(pair.sum(0)), "interval": bootstrap(pair, groups[there], statistic=ratio),
                "error": pair[:, 0].mean(), "friction": pair[:, 1].mean(),
                "median_ratio": np.median(pair[:, 0]) / np.median(pair[:, 1])}  # fmt: skip

    by_seed = np.broadcast_to(scored["seed"][:, None], rows.shape)[rows]
    return {
        "uses": int(screws.used.sum()), "failed": int(screws.failed.sum()),
        "log_loss": {m: {"mean": loss[:, i].mean(), "interval": bootstrap(loss[:, i], groups)} for i, m in enumerate(MODELS)},
        "by_seed": [loss[by_seed == s, 0].mean() for s in np.unique(by_seed)],
        "paired": {m: {"mean": (loss[:, 0] - loss[:, i]).mean(), "interval": bootstrap(loss[:, 0] - loss[:, i], groups)}
                   for i, m in enumerate(MODELS) if i},
        "history": against(scored["history"][rows], scored["friction"][rows]),
        "moved": against(scored["moved"][rows], scored["friction"][rows]),
        "so_far": {f"{h}/32 turn": against(scored["so_far"][..., i][rows], scored["friction_begun"][..., i][rows])
                   for i, h in enumerate(thread.AHEAD)},
    }  # fmt: skip


def claims_of(numbers: dict[str, Any]) -> list[Claim]:
    """Next use against both regressions and the aim; torque from history alone, and 1/8 turn ahead in a run."""
    loss, soon = numbers["log_loss"]["hybrid"], numbers["so_far"][f"{thread.AHEAD[SOON]}/32 turn"]
    rivals = {
        "plain": "a logistic regression on usage and earlier failures",
        "recent": "one that also weighs recent failures",
    }
    below = [
        Claim(id=f"screws_next_use_{name}", statement=f"next use: log-loss beyond that of {what}, paired (nats)",
              value=numbers["paired"][name]["mean"], interval=numbers["paired"][name]["interval"], target=0.0, better="lower")
        for name, what in rivals.items()
    ]  # fmt: skip
    rest = (
        ("screws_next_use", "next use: log-loss (nats per use; aim)", loss["mean"], loss["interval"], 0.38),
        (
            "screws_torque_history",
            "torque from the hole's history alone: error / identified friction model's",
            *(numbers["history"]["value"], numbers["history"]["interval"], 0.5),
        ),
        (
            "screws_torque_so_far",
            "torque 1/8 turn ahead within a run, from its torque so far too: error / identified friction model's",
            *(soon["value"], soon["interval"], 0.5),
        ),
    )
    return [
        *below,
        *(
            Claim(id=name, statement=text, value=value, interval=interval, target=target, better="lower")
            for name, text, value, interval, target in rest
        ),
    ]


def next_use(numbers: dict[str, Any]) -> list[tuple[str, ...]]:
    """Log-loss of each model, and what the hybrid is ahead by."""
    rows = [("model", "log-loss per use (nats)", "hybrid minus this, paired")]
    for name, found in numbers["log_loss"].items():
        gain = numbers["paired"].get(name)
        rows.append(
            (name, _with(found["mean"], found["interval"]), _with(gain["mean"], gain["interval"]) if gain else "")
        )
    return rows


def torque(numbers: dict[str, Any]) -> list[tuple[str, ...]]:
    """Torque errors beside the friction model's on the same angles."""
    rows = [("what is known", "error (N m)", "friction model (N m)", "ratio", "ratio of medians")]
    for name, found in (
        ("history alone", numbers["history"]),
        ("the same, moved along the angle by hindsight", numbers["moved"]),
        *((f"and this run up to {n} before", f) for n, f in numbers["so_far"].items()),
    ):
        rows.append((name, f"{found['error']:.4f}", f"{found['friction']:.4f}", _with(found["value"], found["interval"]),
                     f"{found['median_ratio']:.3f}"))  # fmt: skip
    return rows


def _with(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"
