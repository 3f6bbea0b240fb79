"""collect: episodes of exploration in a reality, as a dataset.

The same reality, options and seed give the same dataset, on one process or on several: everything random is drawn before the
first episode, and each episode has a seed of its own. A step of `Reality` is Python around MuJoCo, so threads gain nothing;
processes are forked, which is safe only before JAX has started its backend, and otherwise one process does the work.
"""

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hybridwm.logs.exploring import Exploration, controls, starts
from hybridwm.logs.recordings import Dataset, Recording
from hybridwm.runtime import core_count
from physics.reality import Episode, Reality

LONGEST = 1_000_000  # steps of an episode
_forked: list[Callable[[int], Episode]] = []


def collect(
    reality: Reality,
    *,
    episodes: int,
    seconds: float,
    seed: int = 0,
    options: Exploration | None = None,
    begin: tuple[np.ndarray, np.ndarray] | None = None,
    processes: int | None = None,
    watch: Callable[[int], None] = lambda done: None,
) -> Dataset:
    """Explore for so many episodes of so many seconds.

    begin: (qpos [nq, episodes], qvel [nv, episodes]) instead of random starts. processes: None, as many as cores where that is
    safe. watch(done) is called after each episode. An episode that goes bad is cut there; one that is bad at once is left out.
    """
    options = options or Exploration()
    dt = reality.reference.dt
    steps = round(seconds / dt) if np.isfinite(seconds) else 0
    if episodes < 1 or not 1 <= steps <= LONGEST:
        raise ValueError(f"{episodes} episodes of {seconds} s: give at least one, of {dt:g} to {LONGEST * dt:g} s")
    rng = np.random.default_rng(seed)
    drive = controls(reality.scene, options, episodes, steps, rng)
    qpos, qvel = starts(reality, options, episodes, rng) if begin is None else begin
    seeds = rng.integers(2**31, size=episodes).tolist()

    def run(i: int) -> Episode:
        return reality.episode(drive[i], seed=seeds[i], qpos=qpos[:, i], qvel=qvel[:, i])

    found = []
    for episode in _each(run, episodes, processes):
        found.append(episode)
        watch(len(found))
    return _dataset(reality, found, seed, seeds, options)


def _each(run: Callable[[int], Episode], count: int, processes: int | None) -> Iterator[Episode]:
    """run(0), run(1) … in this order."""
    wanted = min(count, core_count() if processes is None else processes)
    if wanted < 2 or _jax_runs() or "fork" not in multiprocessing.get_all_start_methods():
        yield from map(run, range(count))
        return
    _forked.append(run)  # what a child inherits needs no pickling: scenes and effects of any kind
    try:
        with ProcessPoolExecutor(wanted, mp_context=multiprocessing.get_context("fork")) as pool:
            yield from pool.map(_in_child, range(count))
    finally:
        _forked.pop()


def _in_child(i: int) -> Episode:
    return _forked[-1](i)


def _jax_runs() -> bool:
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(bridge is not None and bridge.backends_are_initialized())


def _dataset(reality: Reality, found: list[Episode], seed: int, seeds: list[int], options: Exploration) -> Dataset:
    kept = [(i, episode) for i, episode in enumerate(found) if len(episode.ctrl)]
    if not kept:
        raise ValueError(f"no episode took a single step; the first says: {found[0].failure}")
    recordings = tuple(
        Recording(f"{i:05d}", episode.seen.qpos, episode.seen.qvel, episode.ctrl, episode.intact) for i, episode in kept
    )
    lines = [{"seed": seeds[i], "breaks": episode.breaks, "failure": episode.failure} for i, episode in kept]
    source: dict[str, Any] = {
        "seed": seed,
        "effects": [repr(effect) for effect in reality.effects],
        "fine_steps": reality.reference.substeps,
        "exploration": asdict(options),
        "left_out": len(found) - len(kept),
    }
    return Dataset(reality.scene, reality.reference.dt, recordings, {"collected": source, "episodes": lines})


def run_command(
    scene: str, out: Path, *, episodes: int, seconds: float, seed: int, noise: float, speed_noise: float
) -> None:
    """What `hybridwm collect` does."""
    from rich.console import Console
    from rich.progress import Progress

    from hybridwm.logs.archive import vacant, write_recordings
    from physics.effects import SensorNoise
    from physics.scene import load_scene

    vacant(out)
    effects = [SensorNoise(qpos_std=noise, qvel_std=speed_noise)] if noise or speed_noise else []
    reality = Reality(load_scene(scene), effects)
    console = Console(highlight=False)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"collecting {episodes} episodes", total=episodes)
        dataset = collect(
            reality,
            episodes=episodes,
            seconds=seconds,
            seed=seed,
            watch=lambda done: progress.update(task, completed=done),
        )
    write_recordings(out, dataset)
    broken = sum(bool(line["breaks"]) for line in dataset.meta["episodes"])
    console.print(
        f"{len(dataset.recordings)} episodes, {dataset.steps} steps of {dataset.dt * 1e3:g} ms, {broken} with a break: {out}"
    )
