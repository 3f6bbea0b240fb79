"""Claim: a planner that knows what breaks carries a glass faster and breaks it less, snaps it where asked, and rescues it.

    collect ──▶ fit ──▶ plan in closed loop ──▶ compare ──▶ report         every stage and every batch is kept in `out`

Reality is `reality.py`, fixed before the first fit. All models are fitted to the same episodes and drive the same wishes with the
same seeds, samples and iterations. `careful` is the planner blind to events with a limit on its force: the loosest limit of
`FORCES` whose breaks are no more than the full hybrid's on the first seed, or the tightest.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from rich.progress import Progress

from experiments.glass import budget, comparing, models, realtime, tasks, telling
from experiments.glass.driving import Driven, Pilot, drive, pilot
from experiments.glass.keeping import read_batch, write_batch
from experiments.glass.models import Models, ready
from experiments.glass.options import Glass
from experiments.glass.reality import broke, explored, scene
from experiments.keeping import kept, place
from experiments.reporting import of_page, sections
from hybridwm import report, results
from hybridwm.logs.archive import read_recordings, write_recordings
from hybridwm.logs.recordings import Dataset
from hybridwm.study import command

RIVALS = ("given", "identified", "network", "blind", "hybrid")
FORCES = (4.0, 3.0, 2.2, 1.6)
"""N."""
EPISODES, QUICK_EPISODES, LIVE = 120, 48, 20


class Study:
    """One run: what was fitted, and the pilots, each made when it is first needed."""

    def __init__(self, options: Glass, progress: Progress) -> None:
        self.options, self.progress = options, progress
        self.job = progress.add_task("glass", total=None)
        self.place = place(replace(options, live=False))
        self._models: dict[int, Models] = {}
        self._networks: dict[int, Any] = {}
        self._pilots: dict[str, Pilot] = {}

    def tell(self, words: str) -> None:
        """What is going on."""
        self.progress.update(self.job, description=words)

    def dataset(self, seed: int) -> Dataset:
        """The episodes that everything is fitted to."""
        folder = self.place / "data" / f"train-{seed}"
        if not (folder / "meta.jsonl").exists():
            self.tell(f"seed {seed}: collect")
            write_recordings(folder, explored(QUICK_EPISODES if self.options.quick else EPISODES, seed))
        found = read_recordings(folder, scene(), smoothing="never")
        return found._replace(meta={**found.meta, "settled": True})

    def models(self, seed: int) -> Models:
        """What is fitted to them."""
        if seed not in self._models:
            dataset = self.dataset(seed)
            watch = lambda stage, progress: self.tell(f"seed {seed}: fit, {stage}")  # noqa: E731
            folder = self.place / "models" / str(seed)
            self._models[seed] = models.fitted(
                dataset, folder, seed, quick=self.options.quick, residual=self.options.residual, watch=watch
            )
        return self._models[seed]

    def network(self, seed: int) -> Any:
        """The network alone, fitted to them."""
        if seed not in self._networks:
            self._networks[seed] = self.models(seed).network()
        return self._networks[seed]

    def batch(self, task: str, name: str, seed: int, *, force: float = tasks.NEVER, part: str = "") -> list[Driven]:
        """The episodes of one task, model and seed; driven unless they are kept already. `part`: of the error budget."""
        label = part or (name if force == tasks.NEVER else f"careful-{force:g}")
        path = self.place / "episodes" / f"{task}-{label}-{seed}.npz"
        rng = np.random.default_rng([seed, len(task), 77])
        wishes = [tasks.wish(task, rng, force=force) for _ in range(self.options.many)]
        if not path.exists():
            found = self.models(seed)
            self.tell(f"seed {seed}: {task}, {label}")
            alone = self.network(seed) if name == "network" else None
            kind = "network" if alone else "engine"
            if kind not in self._pilots:
                self._pilots[kind] = pilot(found.world, alone)
            params, how = (alone.params, {}) if alone else budget.varied(part, found.params[name])
            params = params if alone else ready(found.world, params)
            write_batch(path, drive(self._pilots[kind], params, wishes, seed=1000 * seed, **how))
        return read_batch(path, wishes)

    def live(self) -> dict[str, Any]:
        """Carries by the full hybrid while the clock runs."""
        first = self.options.each[0]
        found, rng = self.models(first), np.random.default_rng([first, 5, 78])
        pilot_of_one, params = pilot(found.world), ready(found.world, found.params["hybrid"])
        wishes = [tasks.wish("carry", rng) for _ in range(LIVE + 1)]
        self.tell("real time")
        return realtime.numbers([realtime.live(pilot_of_one, params, one, seed=n) for n, one in enumerate(wishes)][1:])

    def careful(self) -> float:
        """The force limit, N."""
        first = self.options.each[0]
        most = comparing.breaks(self.batch("carry", "hybrid", first))
        for force in FORCES[1::2] if self.options.quick else FORCES:
            if comparing.breaks(self.batch("carry", "blind", first, force=force)) <= most:
                return force
        return FORCES[-1]


def run(options: Glass) -> None:
    """Everything; what is in `options.out` already is not done again."""
    with Progress(transient=True) as progress:
        study = Study(options, progress)
        driven = {task: _driven(study, task) for task in options.only}
        numbers = {task: comparing.numbers(found) for task, found in driven.items()}
        numbers["data"] = {str(seed): {"broke": broke(study.dataset(seed))} for seed in options.each}
        study.tell("predict, certify")
        seen = comparing.predictions(study.models(options.each[0]), study.network(options.each[0]), driven)
        numbers["prediction"] = seen.numbers
        numbers["certificates"] = comparing.certified(driven)
        if "carry" in driven:
            numbers["budget"] = {part: comparing.summary(study.batch("carry", "hybrid", options.each[0], part=part))
                                 for part in budget.parts(quick=options.quick)}  # fmt: skip
            numbers["shares"] = budget.shares(seen)
        if options.live:
            numbers["live"] = kept(study.place / "live.json", study.live)
        study.tell("report")
        claims = comparing.claims(numbers)
        found = results.write(
            options.out,
            study="glass",
            config=options,
            numbers=numbers,
            claims=claims,
            seeds=options.each,
            command=command("glass", options),
            figure="success.png",
        )
        figures = telling.figures(options.out, driven, seen)
        replays = telling.replays(driven)
    tables = telling.tables(numbers, options)
    page = report.page(options.out, title="The glass", lead=telling.lead(options), results=found, replays=replays,
                       tables=tables, figures=figures, notes=telling.NOTES)  # fmt: skip
    (options.out / "table.md").write_text(sections(of_page([*tables, report.claims_table(claims)])), encoding="utf-8")
    report.show([*tables, report.claims_table(claims)], page)


def _driven(study: Study, task: str) -> dict[str, list[Driven]]:
    """Episodes of all seeds by model."""
    found: dict[str, list[Driven]] = {}
    for seed in study.options.each:
        for name in RIVALS:
            found.setdefault(name, []).extend(study.batch(task, name, seed))
    if task == "carry":
        force = study.careful()
        found["careful"] = [one for seed in study.options.each for one in study.batch(task, "blind", seed, force=force)]
    return found
