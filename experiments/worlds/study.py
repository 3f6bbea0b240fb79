"""Claim: where the engine is wrong the hybrid learns it, where it was not trained it is no worse than the engine.

    inside     fresh episodes of the exploration that training saw: ratio of median errors of a second, mean over seeds
    outside    positions, speeds, commands, masses beyond it: mean of paired ratios over windows and seeds
    intervals  95 %: over seeds inside (t), over seeds and windows outside (windows drawn again)

Reality is `realities.py`. Each seed draws its own training data and its own networks; the test episodes are the same for all.
"""

from typing import Any

import numpy as np

from experiments.keeping import kept, place
from experiments.seeds import over_seeds
from experiments.worlds import figures
from experiments.worlds.asking import measured
from experiments.worlds.episodes import said
from experiments.worlds.options import NAMES, Worlds
from experiments.worlds.realities import WORLDS
from hybridwm import claims, results
from hybridwm.learning.contenders import HYBRID, IDENTIFIED, NETWORK
from hybridwm.learning.measure import paired
from hybridwm.results import Claim

SHARES = ((IDENTIFIED, 0.5), (NETWORK, 0.25))


def run(options: Worlds) -> None:
    """Measure every world with every seed, one part on disk after another; then results.json, table and figures."""
    from rich.console import Console

    console, found = Console(highlight=False), dict[str, list[Any]]()
    for seed in options.each:
        for name in options.only or NAMES:
            found.setdefault(name, []).append(_part(name, seed, options, console))
    numbers, claimed = summary(found)
    written = results.write(
        options.out,
        study="worlds",
        config=options,
        numbers=numbers,
        claims=claimed,
        seeds=options.each,
        figure="horizon.png",
    )
    figures.draw(found, numbers, options.out)
    claims.publish(written, options.out / "table.md", table(numbers), console)
    console.print(f"results, table and figures: {options.out}")


def _part(name: str, seed: int, options: Worlds, console: Any) -> Any:
    """One world with one seed; read where it has been measured before."""

    def ask() -> Any:
        with console.status(f"{name}, seed {seed}") as status:
            return measured(WORLDS[name], seed, options, lambda doing: status.update(f"{name}, seed {seed}: {doing}"))

    path = place(options) / f"{name}-{seed}.json"
    found = kept(path, ask)
    console.print(f"{name}, seed {seed}: {path}")
    return found


def summary(found: dict[str, list[Any]]) -> tuple[dict[str, Any], list[Claim]]:
    """Numbers and claims of all worlds."""
    numbers, claimed = dict[str, Any](), list[Claim]()
    for name, parts in found.items():
        length = WORLDS[name].length
        inside = {m: [float(np.median(_array(p["inside"][m]))) for p in parts] for m in parts[0]["inside"]}
        numbers[name] = {"median_error_m": inside, "fit": [p["fit"] for p in parts]}
        for rival, target in SHARES:
            ratio = np.array(inside[HYBRID]) / np.array(inside[rival])
            word = rival.split()[-1] if rival == IDENTIFIED else "network"
            what = f"{name}, a second inside: error of the hybrid / {rival}"
            claimed.append(over_seeds(f"{name}_inside_{word}", what, ratio, target))
        if name == "pendulum":
            share = np.array(inside[HYBRID]) / (2 * length)
            claimed.append(
                over_seeds("pendulum_share_of_length", "pendulum: error of the hybrid / its length", share, 0.001)
            )
        numbers[name]["outside"] = [_outside([p["outside"][i] for p in parts]) for i in range(len(parts[0]["outside"]))]
        claimed.append(_worst(name, numbers[name]["outside"]))
        if "events" in parts[0]:
            numbers[name]["events"], more = _events(name, [p["events"] for p in parts])
            claimed += more
    return numbers, claimed


def _array(x: Any) -> np.ndarray:
    """Numbers of a part; what was not finite is infinite again."""
    return np.array([np.inf if v is None else v for v in x], float)


def _outside(parts: list[Any]) -> dict[str, Any]:
    """One shift over the seeds: paired ratio to the identified physics, windows and seeds drawn again together."""
    out: dict[str, Any] = {"beyond": parts[0]["beyond"]}
    for model in (HYBRID, NETWORK):
        ratio = np.array([paired(_array(p["error"][model]), _array(p["error"][IDENTIFIED])) for p in parts])
        rng, means = np.random.default_rng(0), []
        for _ in range(2000):
            rows, columns = (rng.integers(0, n, n) for n in ratio.shape)
            means.append(ratio[np.ix_(rows, columns)].mean())
        out[model] = {"ratio": float(ratio.mean()), "interval": [float(x) for x in np.quantile(means, [0.025, 0.975])]}
    return out


def _worst(name: str, outside: list[Any]) -> Claim:
    worst = max(outside, key=lambda o: o[HYBRID]["interval"][1])
    return Claim(
        id=f"{name}_outside",
        statement=f"{name}, worst shift ({said(worst['beyond'])}): upper bound of error hybrid / physics identified",
        value=worst[HYBRID]["interval"][1], target=1.05, better="lower", interval=tuple(worst[HYBRID]["interval"]),
    )  # fmt: skip


def _events(name: str, parts: list[Any]) -> tuple[dict[str, Any], list[Claim]]:
    scores = ("f1", "timing_steps", "log_loss", "ece", "breaking", "mended", "sure")
    models = [m for m in parts[0] if m not in ("threshold", "decided")]
    numbers: dict[str, Any] = {m: {k: [p[m][k] for p in parts] for k in scores} for m in models}
    numbers["threshold"] = {k: [p["threshold"][k] for p in parts] for k in ("log_loss", "ece")}
    numbers["decided"] = [p["decided"] for p in parts]
    mine, rule = ({k: np.array(v, float) for k, v in numbers[m].items()} for m in (HYBRID, "threshold"))
    make = lambda key, words, value, target, better="lower": over_seeds(f"{name}_{key}", words, value, target, better)  # noqa: E731
    return numbers, [
        make("f1", "rod: F1 of breaks, matched within 2 steps", mine["f1"], 0.98, "higher"),
        make("timing", "rod: median error of a break's time, steps", mine["timing_steps"], 1.0),
        make("ece", "rod: calibration error of the chance of a break", mine["ece"], 0.02),
        make("log_loss", "rod: log-loss over that of the best single-load threshold", mine["log_loss"] / rule["log_loss"], 1.0),
        make("sure", "rod: chances below 0.02 or above 0.98, load 5 % from breaking", mine["sure"], 0.95, "higher"),
        make("mended", "rod: bonds that were whole again", mine["mended"], 0.0),
    ]  # fmt: skip


def table(numbers: dict[str, Any]) -> str:
    """Every world's errors, shifts and events as Markdown."""
    lines: list[str] = []
    for name, world in numbers.items():
        lines += ["", f"## {name}", "", "| model | median error of a second inside, mm |", "|---|---|"]
        lines += [f"| {m} | {1000 * np.mean(x):.3g} |" for m, x in world["median_error_m"].items()]
        lines += ["", "| shift | hybrid / identified | network alone / identified |", "|---|---|---|"]
        for shift in world["outside"]:
            cells = [
                f"{o['ratio']:.3f} ({o['interval'][0]:.3f} to {o['interval'][1]:.3f})"
                for o in (shift[HYBRID], shift[NETWORK])
            ]
            lines.append(f"| {said(shift['beyond'])} | {' | '.join(cells)} |")
        if "events" in world:
            lines += [
                "",
                "| model | F1 | timing, steps | log-loss | ECE | decided | un-breakings |",
                "|---|---|---|---|---|---|---|",
            ]
            for m, score in world["events"].items():
                if m != "decided":
                    mean = {k: float(np.nanmean(np.array(v, float))) for k, v in score.items()}
                    row = [mean.get(k, np.nan) for k in ("f1", "timing_steps", "log_loss", "ece", "sure", "mended")]
                    lines.append(f"| {m} | " + " | ".join("" if np.isnan(x) else f"{x:.3g}" for x in row) + " |")
    return "\n".join(lines) + "\n"
