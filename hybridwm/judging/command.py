"""`hybridwm eval`: a fitted model and the physics alone on the same logs, as numbers, a table and figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import physics
from hybridwm import results
from hybridwm.judging import evaluation, figures
from hybridwm.judging.evaluation import Prediction, predict
from hybridwm.learning.contenders import IDENTIFIED, NETWORK, Subject, contenders
from hybridwm.learning.measure import over_window, worth
from hybridwm.learning.training import take
from hybridwm.logs.recordings import Dataset, Windows, windows
from hybridwm.logs.stepping import ready


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What is asked."""

    window_s: float = 1.0
    """Length of the windows."""
    most: int = 512
    """Windows at most, spread evenly."""
    past_s: float = 0.3
    """Seconds of commands before each window that the model may see."""


def judge(given: Mapping[str, Subject], dataset: Dataset, asked: Judgement, out: Path) -> dict[str, Any]:
    """Ask every model the same windows; write figures and table.md into `out` and return the numbers."""
    out.mkdir(parents=True, exist_ok=True)
    cut = _cut(ready(dataset), asked)
    found = {name: predict(subject, cut, every=dataset.substeps) for name, subject in given.items()}
    whole = (cut.intact == cut.intact[:1]).all((0, 1)) if cut.intact.shape[1] else np.ones(len(cut.episode), bool)
    error = {name: evaluation.errors(dataset.scene, cut, one) for name, one in found.items()}
    kept = {name: {q: x[:, whole] for q, x in one.items()} for name, one in error.items()} if whole.any() else error
    motion = _motion(kept, cut.episode[whole] if whole.any() else cut.episode)
    figures.horizon(kept, dataset.dt, out / "horizon.png")
    figures.shares(motion["explained"], out / "explained.png")
    numbers: dict[str, Any] = {"windows": len(cut.episode), "unbroken": int(whole.sum()), "motion": motion}
    if cut.intact.shape[1] and (cut.intact[0] > 0.5).any():
        numbers["events"] = _events(found, cut, out)
    (out / "table.md").write_text(table(numbers), encoding="utf-8")
    return numbers


def _cut(dataset: Dataset, asked: Judgement) -> Windows:
    cut = windows(dataset, max(1, round(asked.window_s / dataset.dt)), past=round(asked.past_s / dataset.dt))
    keep = np.linspace(0, len(cut.start) - 1, min(asked.most, len(cut.start))).round().astype(int)
    return take(cut, keep)


def _motion(error: Mapping[str, Mapping[str, np.ndarray]], episode: np.ndarray) -> dict[str, Any]:
    """Per model and quantity the median over windows of the RMS; ratios to the identified physics; shares explained."""
    over = {name: {q: over_window(x) for q, x in one.items()} for name, one in error.items()}
    names, main = list(over), next(iter(next(iter(over.values()))))
    plain = over.get(IDENTIFIED, over[names[0]])[main]
    ratio = {name: worth(one[main], plain, episode) for name, one in over.items()}
    chain = {name: one[main] for name, one in over.items() if name != NETWORK}  # each made of the one before
    return {
        "median": {name: {q: float(np.median(x)) for q, x in one.items()} for name, one in over.items()},
        "ratio": {name: {"value": found.ratio, "interval": found.interval} for name, found in ratio.items()},
        "explained": evaluation.explained(chain),
    }


def _events(found: Mapping[str, Prediction], cut: Windows, out: Path) -> dict[str, Any]:
    horizon, numbers, tables, late = len(cut.ctrl), dict[str, Any](), dict[str, Any](), dict[str, Any]()
    for name, one in found.items():
        said = evaluation.breaks(cut, one)
        broke = said.true < horizon
        ece = evaluation.bootstrap(
            lambda i, s=said, y=broke: evaluation.calibration_error(s.chance[i], y[i]), said.episode
        )
        numbers[name] = evaluation.event_scores(said, horizon) | {
            "ece_interval": ece,
            "mended": evaluation.mended(cut, one),
        }
        tables[name] = evaluation.reliability(said.chance, broke)
        late[name] = (said.found - said.true)[broke & (said.found < horizon)]
    figures.reliability(tables, out / "reliability.png")
    figures.timing(late, out / "timing.png")
    return numbers


def table(numbers: Mapping[str, Any]) -> str:
    """The numbers as Markdown."""
    motion = numbers["motion"]
    quantities = list(next(iter(motion["median"].values())))
    lines = [f"| model | {' | '.join(quantities)} | ratio to identified |", "|---" * (len(quantities) + 2) + "|"]
    for name, one in motion["median"].items():
        value, (low, high) = motion["ratio"][name]["value"], motion["ratio"][name]["interval"]
        lines.append(
            f"| {name} | {' | '.join(f'{x:.3g}' for x in one.values())} | {value:.3f} ({low:.3f} to {high:.3f}) |"
        )
    if "events" in numbers:
        lines += ["", "| model | F1 | timing (steps) | log-loss | ECE | un-breakings |", "|---" * 6 + "|"]
        for name, one in numbers["events"].items():
            low, high = one["ece_interval"]
            lines.append(
                f"| {name} | {one['f1']:.3f} | {one['timing_steps']:.1f} | {one['log_loss']:.4f} "
                f"| {one['ece']:.3f} ({low:.3f} to {high:.3f}) | {one['mended']} |"
            )
    return "\n".join(lines) + "\n"


def execute(scene: str, data: Path, model: Path, out: Path, asked: Judgement) -> None:
    """Read, judge, write results.json and print the table."""
    from rich.console import Console

    from hybridwm.learning.checkpoint import load_saved
    from hybridwm.logs.archive import read_recordings

    place = physics.load_scene(scene)
    dataset = read_recordings(data, place)
    saved = load_saved(model, place)
    numbers = judge(contenders(saved.model, saved.params, saved.identified), dataset, asked, out)
    config = {"scene": scene, "data": str(data), "model": str(model), "window_s": asked.window_s, "most": asked.most}
    results.write(out, study="eval", config=config, numbers=numbers, claims=[])
    Console(highlight=False).print((out / "table.md").read_text(encoding="utf-8"))
