"""Claim: where the engine is wrong the hybrid learns it, where it was not trained it is no worse than the engine.

    error   RMS over 1 s of position (angle × length), per window;  ratio  error(hybrid) / error(rival), medians inside,
            paired means outside with their 95 % interval over windows
    inside  fresh episodes of the exploration that training saw;  outside  positions, speeds, commands, masses beyond it

Reality is `realities.py`. Each seed draws its own training data and its own networks; the test episodes are the same for all.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import physics
from experiments.contenders import Contender, errors, foretell, physical
from experiments.options import Worlds
from experiments.realities import INSIDE, WORLDS, Beyond, World, explored
from hybridwm import results
from hybridwm.learning.believing import worth
from hybridwm.learning.fitting import FitOptions, Fitted, fit
from hybridwm.learning.training import Batch, Stage, batch_of, take
from hybridwm.logs.archive import read_recordings, write_recordings
from hybridwm.logs.recordings import Dataset, Windows, windows
from hybridwm.logs.stepping import stepped
from hybridwm.results import Claim
from hybridwm.world.model import ModelOptions, WorldParams

TEST_SEED = 1_000_000
MEMORY_S = 0.3


class Size(NamedTuple):
    """How much is done."""

    training: int  # episodes
    test: int  # episodes inside
    outside: int  # episodes per shift
    updates: float  # factor on the training's updates


FULL = {"pendulum": Size(60, 20, 24, 1.0), "box": Size(120, 40, 24, 1.0), "rod": Size(150, 100, 24, 1.0)}
QUICK = {"pendulum": Size(12, 6, 6, 0.2), "box": Size(20, 8, 6, 0.2), "rod": Size(30, 20, 6, 0.2)}

SHIFTS = {
    "pendulum": [Beyond(speed=1 + x) for x in (0.01, 0.1, 1.0, 3.0)] + [Beyond(command=1 + x) for x in (0.01, 0.1, 0.5)]
    + [Beyond(place=x) for x in (0.001, 0.01, 0.1)] + [Beyond(mass=1 + x) for x in (0.1, 1.0)],
    "box": [Beyond(place=x) for x in (0.001, 0.01, 0.1, 1.0)] + [Beyond(speed=1 + x) for x in (0.1, 1.0, 3.0)]
    + [Beyond(mass=1 + x) for x in (0.1, 0.5)],
    "rod": [Beyond(place=x) for x in (0.001, 0.01, 0.1)] + [Beyond(command=1 + x) for x in (0.01, 0.1)],
}  # fmt: skip


STEP_S = {"pendulum": 0.00025, "box": 0.002, "rod": 0.002}
"""Time step of the models. At 2 ms the stops of the pendulum alone cost 0.04 rad in a second, at 0.25 ms 0.002."""


def model_scene(world: World) -> physics.Scene:
    """The scene that all models run: the world's own, in finer steps."""
    step = float(physics.load_scene(world.scene).model.opt.timestep)
    text = (Path(physics.__file__).parent / "scenes" / f"{world.scene}.xml").read_text(encoding="utf-8")
    return physics.load_scene(text.replace(f'timestep="{step:g}"', f'timestep="{STEP_S[world.name]:g}"'))


def recorded(
    world: World, folder: Path, *, episodes: int, seed: int, seconds: float | None, beyond: Beyond = INSIDE
) -> Dataset:
    """Episodes of the world, kept on disk so that a study that was interrupted goes on."""
    scene = physics.load_scene(world.scene)
    if not (folder / "meta.jsonl").exists():
        write_recordings(folder, explored(world, episodes=episodes, seed=seed, seconds=seconds, beyond=beyond))
    return read_recordings(folder, scene, smoothing="never")._replace(scene=model_scene(world))


def options_of(world: World, size: Size, seed: int) -> FitOptions:
    """How each world's model is fitted."""
    many = lambda n: max(20, round(n * size.updates))  # noqa: E731
    if world.name == "box":
        stages = (Stage(horizon=10, updates=many(1500), batch=64, look=50),)
        model = ModelOptions(place=world.place, corrections=("friction",), force=False)
        return FitOptions(model=model, stages=stages, lag=False, seed=seed)
    stages = (
        Stage(horizon=0, updates=many(20_000), batch=512, look=2000),
        Stage(horizon=8, updates=many(300), batch=32, learning_rate=1e-3),
    )
    return FitOptions(model=ModelOptions(), stages=stages, lag=world.name == "pendulum", memory_s=MEMORY_S, seed=seed)


def judged(dataset: Dataset, seconds: float = 1.0) -> tuple[Windows, Batch]:
    """Windows of one second, side by side, with the engine's velocities where its step is the log's."""
    ready = stepped(dataset) if dataset.substeps == 1 else dataset
    cut = windows(ready, round(seconds / dataset.dt), past=round(MEMORY_S / dataset.dt))
    whole = np.flatnonzero((cut.intact[0] > 0).all(0)) if cut.intact.shape[1] else np.arange(len(cut.start))
    cut = take(cut, whole)
    return cut, jax.tree.map(jnp.asarray, batch_of(cut, dataset.substeps))


def contenders(world: World, training: Dataset, options: FitOptions) -> tuple[Fitted, list[Contender]]:
    """Everything fitted to the same data."""
    fitted = fit(training, options)
    assert fitted.identified is not None
    nominal = WorldParams(theta=jax.tree.map(jnp.asarray, physics.nominal(training.scene)))
    plain = WorldParams(theta=fitted.identified.params.theta)
    named = {"given": nominal, "identified": plain, "hybrid": fitted.params}
    if fitted.params.residual is not None:
        named["untrusted"] = fitted.params._replace(trust=None)
    return fitted, [physical(fitted, params, name) for name, params in named.items()]


def measured(world: World, seed: int, options: Worlds) -> dict[str, Any]:
    """One world with one seed: errors of every model, inside and outside."""
    size = (QUICK if options.quick else FULL)[world.name]
    data = options.out / "data" / world.name
    training = recorded(world, data / f"train-{seed}", episodes=size.training, seed=seed, seconds=None)
    fitted, models = contenders(world, training, options_of(world, size, seed))
    inside = recorded(world, data / "inside", episodes=size.test, seed=TEST_SEED, seconds=None)
    tell = {contender.name: foretell(contender) for contender in models}
    found: dict[str, Any] = {
        "kept": fitted.kept,
        "worth": fitted.worth,
        "report": fitted.identified.report if fitted.identified else (),
    }
    cut, given = judged(inside)
    found["inside"] = {
        c.name: errors(training.scene, world.length, tell[c.name](c.params, given)[0], given) for c in models
    }
    found["episode"] = cut.episode
    found["outside"] = []
    for number, beyond in enumerate(SHIFTS[world.name]):
        outside = recorded(
            world, data / f"outside-{number}", episodes=size.outside, seed=TEST_SEED + 1, seconds=1.3, beyond=beyond
        )
        _, given = judged(outside)
        told = {c.name: tell[c.name](c.heavier(c.params, beyond.mass), given)[0] for c in models}
        found["outside"].append(
            {"beyond": beyond._asdict()}
            | {name: errors(training.scene, world.length, q, given) for name, q in told.items()}
        )
    return found


def run(options: Worlds) -> None:
    """Measure every world with every seed, then write results.json, table and figures."""
    found: dict[str, Any] = {}
    for name in options.only or tuple(WORLDS):
        for seed in range(options.seeds):
            path = options.out / "parts" / f"{name}-{seed}.json"
            if not path.exists():
                part = measured(WORLDS[name], seed, options)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_suffix(".part").write_text(json.dumps(results.plain(part)), encoding="utf-8")
                path.with_suffix(".part").replace(path)
            found.setdefault(name, []).append(json.loads(path.read_text(encoding="utf-8")))
    numbers, claims = summary(found)
    results.write(
        options.out, study="worlds", config=options, numbers=numbers, claims=claims, seeds=range(options.seeds)
    )


def summary(found: dict[str, Any]) -> tuple[dict[str, Any], list[Claim]]:
    """Ratios of medians inside and paired ratios outside, over the seeds."""
    numbers, claims = {}, []
    for name, parts in found.items():
        inside = {m: [float(np.median(p["inside"][m])) for p in parts] for m in parts[0]["inside"]}
        numbers[name] = {"median_error_m": inside, "kept": [p["kept"] for p in parts]}
        for rival, target in (("identified", 0.5), ("network", 0.25)):
            if rival in inside:
                ratio = np.array(inside["hybrid"]) / np.array(inside[rival])
                claims.append(
                    _claim(
                        f"{name}_inside_{rival}",
                        f"{name}, inside, 1 s: hybrid / {rival}",
                        ratio,
                        target,
                    )
                )
        outside = []
        for number, shift in enumerate(parts[0]["outside"]):
            pairs = [worth(np.array(p["outside"][number]["hybrid"], float), np.array(p["outside"][number]["identified"], float),
                           np.arange(len(p["outside"][number]["hybrid"]))) for p in parts]  # fmt: skip
            outside.append(
                {"beyond": shift["beyond"], "ratio": [p.ratio for p in pairs], "upper": [p.interval[1] for p in pairs]}
            )
        numbers[name]["outside"] = outside
        if outside:
            worst = max(float(np.mean(o["upper"])) for o in outside)
            claims.append(Claim(id=f"{name}_outside", statement=f"{name}, worst shift: upper bound of hybrid / identified",
                                value=worst, target=1.05, better="lower"))  # fmt: skip
    return numbers, claims


def _claim(id_: str, statement: str, ratio: np.ndarray, target: float) -> Claim:
    half = 1.96 * ratio.std(ddof=1) / np.sqrt(len(ratio)) if len(ratio) > 1 else 0.0
    mean = float(ratio.mean())
    return Claim(
        id=id_, statement=statement, value=mean, target=target, better="lower", interval=(mean - half, mean + half)
    )
