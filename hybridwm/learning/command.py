"""The command `hybridwm fit`: a folder of recordings in, a fitted model out, with a table of what each part explains.

in distribution   validation episodes, windows of a second         shifted   the fifth of these windows furthest from the
                                                                              middle of the training features
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

import physics
from hybridwm.learning.contenders import HYBRID, IDENTIFIED, Subject, contenders
from hybridwm.learning.fitting import FitOptions, Fitted, fit, judged_windows, prepared
from hybridwm.learning.measure import window_errors, worth
from hybridwm.learning.rivals import RivalOptions, fit_rival
from hybridwm.learning.training import Batch
from hybridwm.logs.archive import read_recordings
from hybridwm.logs.recordings import Dataset
from hybridwm.world.model import WorldModel, WorldParams
from hybridwm.world.objects import described

FURTHEST = 0.2


class Row(NamedTuple):
    """One model in the table: median error over windows, m (measure.py)."""

    name: str
    inside: float
    shifted: float
    ratio: float  # paired, to the identified physics
    upper: float  # of its 95 % interval


def table_of(fitted: Fitted, dataset: Dataset, options: FitOptions, network: Subject | None = None) -> list[Row]:
    """All contenders, on validation windows."""
    _, held_out = prepared(dataset, options)
    given, episode = judged_windows(held_out, options)
    plain = fitted.identified.params if fitted.identified else None
    models = contenders(fitted.model, fitted.params, plain, network)
    errors = {id(model): window_errors(model) for model, _ in models.values()}  # compiled once for a model
    found = {name: np.asarray(errors[id(model)](params, given)) for name, (model, params) in models.items()}
    far = _far(fitted.model, fitted.params, given)
    return [_row(name, error, found[IDENTIFIED], far, episode) for name, error in found.items()]


def _row(name: str, error: np.ndarray, base: np.ndarray, far: np.ndarray, episode: np.ndarray) -> Row:
    against = worth(error, base, episode)
    return Row(name, float(np.median(error[~far])), float(np.median(error[far])), against.ratio, against.interval[1])


def _far(model: WorldModel, params: WorldParams, given: Batch) -> np.ndarray:
    """The windows that start furthest out."""
    state = model.init(params, given.qpos[0], given.qvel[0], intact=given.intact, past=given.past)
    raw = np.asarray(jax.jit(model.features)(params, state, given.ctrl[0]))
    spread = raw.std(1, keepdims=True)
    out = np.abs((raw - np.median(raw, 1, keepdims=True)) / np.where(spread > 1e-6, spread, 1.0)).max(0)
    return out >= np.quantile(out, 1 - FURTHEST)


def show(rows: list[Row], console: Console) -> None:
    """The table, in the terminal."""
    table = Table(title="error over a second of held-out episodes, m, median")
    for heading in ("model", "in distribution", "shifted", "paired ratio to identified", "upper 95 %"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for row in rows:
        table.add_row(row.name, f"{row.inside:.4g}", f"{row.shifted:.4g}", f"{row.ratio:.3f}", f"{row.upper:.3f}")
    console.print(table)


def watching(console: Console) -> tuple[Progress, Callable[..., None]]:
    """A progress line, and what tells it."""
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), console=console
    )
    line = progress.add_task("starting", total=1.0)

    def told(stage: str, now: Any) -> None:
        if now is None:
            progress.update(line, description=stage)
            return
        words = f"{stage} {now.stage + 1}/{now.stages}  loss {now.loss:.3g}  error / physics {now.error:.3f} (best {now.best:.3f})"
        progress.update(line, description=words, completed=now.done)

    return progress, told


def execute(scene: str, data: Path, out: Path, options: FitOptions, *, rival: bool = True) -> int:
    """Read, fit, show, save. An interrupted fit in the same folder goes on where it was."""
    from hybridwm.learning.checkpoint import TrainingLog, save_model
    from hybridwm.learning.encoding import encoded

    console = Console(highlight=False)
    dataset = read_recordings(data, physics.load_scene(scene))
    progress, told = watching(console)
    with progress:
        about = {"scene": dataset.scene.digest, "data": digest(dataset), "options": encoded(options)[0]}
        fitted = fit(dataset, options, watch=told, log=TrainingLog(out / "training", about))
        save_model(out / "model", fitted, options)
        network = _network(dataset, options, told) if rival else None
    if options.model.apart:
        console.print(described(fitted.model.residual.features, fitted.model.residual.kinds))
    if fitted.identified:
        console.print("\n".join(fitted.identified.report))
    show(table_of(fitted, dataset, options, network), console)
    if not fitted.kept and fitted.worth:
        console.print(f"What was learned was refused: its error is {fitted.worth.ratio:.3f} of the physics' on held-out episodes, "
                      f"up to {fitted.worth.interval[1]:.3f} at 95 %; it must stay below 1.")  # fmt: skip
    if (left := fitted.report["stands_on"]) != HYBRID:
        console.print(f"What was learned is worth less than {left} on held-out episodes: the model is {left}.")
    console.print(f"model: {out / 'model'}")
    return 0


def _network(dataset: Dataset, options: FitOptions, told: Callable[..., None]) -> Subject:
    """The network alone, on the same data, split and seed."""
    told("network alone, for comparison", None)
    asked = RivalOptions(
        place=options.model.place, validate_s=options.validate_s, validation=options.validation, seed=options.seed
    )
    return Subject(*fit_rival(dataset, asked)[:2])


def digest(dataset: Dataset) -> str:
    """What the recordings hold, as a number: an interrupted fit must go on with the same."""
    sum_ = hashlib.sha256()
    for recording in dataset.recordings:
        for array in recording[1:]:
            sum_.update(np.ascontiguousarray(array).tobytes())
    return sum_.hexdigest()
