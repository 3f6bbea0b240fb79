"""What the learned part costs: rollouts of the hybrid beside those of its engine, and a fit beside rolling the engine once.

    cost   512 worlds of the pushed box: four members (two hidden layers of 64), spread and trust; medians of rounds that alternate
           asked in every step, and asked every fifth (ModelOptions.hold)
    fit    wall time of `fit` on 10,000 transitions, compiling included, over the time of the engine rolled over them once

python benchmarks/world_model.py [--quick] [--parts cost fit] --out DIR
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from hybridwm import results, runtime
from hybridwm.results import Claim

PARTS = ("cost", "fit")
WORLDS, STEPS, TRANSITIONS = 512, 50, 10_000


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time the world model beside its engine."""

    out: Path = Path("runs/benchmarks/world_model")
    """Folder for results.json."""
    quick: bool = False
    """Three rounds in place of fifteen, a tenth of the fit's updates."""
    parts: tuple[str, ...] = PARTS
    """What to time: cost, fit."""


def split(run: Callable[..., Any]) -> Callable[..., Any]:
    """run(params, state, ctrls) compiled with the worlds split over the devices."""
    import jax
    from jax.sharding import AxisType, Mesh, PartitionSpec

    mesh = Mesh(np.array(jax.devices()), ("worlds",), axis_types=(AxisType.Auto,))
    last = lambda x: PartitionSpec(*([None] * (x.ndim - 1)), "worlds")  # noqa: E731

    @jax.jit
    def rolled(params: Any, state: Any, ctrls: Any) -> Any:
        shapes = jax.eval_shape(run, params, state, ctrls)
        specs = (PartitionSpec(), *jax.tree.map(last, (state, ctrls)))
        outs = jax.tree.map(last, shapes)
        return jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=outs, check_vma=False)(params, state, ctrls)

    return rolled


def contestants() -> dict[str, Callable[[], Any]]:
    """Name -> one rollout, compiled."""
    import jax
    import jax.numpy as jnp

    import physics
    from hybridwm.world.model import ModelOptions, WorldParams, world_model
    from hybridwm.world.trust import everywhere

    scene = physics.load_scene("pushed_box")
    engine, rng = physics.brax_engine(scene), np.random.default_rng(0)
    qpos, qvel = (np.repeat(np.asarray(x, np.float32)[:, None], WORLDS, 1) for x in scene.home())
    ctrls = jnp.asarray(rng.uniform(-1, 1, (STEPS, scene.model.nu, WORLDS)), jnp.float32)
    theta = jax.tree.map(jnp.asarray, physics.nominal(scene))

    def hybrid(hold: int) -> Callable[[], Any]:
        model = world_model(engine, ModelOptions(hold=hold))
        fresh = model.residual.fresh(jax.random.key(0))
        noisy = jax.tree.map(lambda x: x + 0.01 * rng.standard_normal(x.shape).astype(np.float32), fresh.weights)
        params = WorldParams(
            theta=engine.prepare(theta), residual=fresh._replace(weights=noisy), trust=everywhere(len(fresh.centre))
        )
        read = lambda state, info: (state.qpos, info.spread, info.trust)  # noqa: E731
        return partial(split(partial(model.rollout, output=read)), params, model.init(params, qpos, qvel), ctrls)

    plain = split(partial(engine.rollout, output=lambda state, info: state.qpos))
    ready = engine.prepare(theta)
    runs = {"engine": partial(plain, ready, engine.init(ready, qpos, qvel), ctrls)}
    return runs | {"asked every step": hybrid(1), "asked every fifth step": hybrid(5)}


def cost(rounds: int) -> tuple[dict[str, Any], list[Claim]]:
    """µs per world and step, and ratios to the engine."""
    import jax

    runs = contestants()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            if turn:  # the first one compiles
                seconds[name].append(time.perf_counter() - start)
    micro = {name: 1e6 * statistics.median(x) / (WORLDS * STEPS) for name, x in seconds.items()}
    claims = []
    for name, key in (
        ("asked every step", "hybrid_over_engine"),
        ("asked every fifth step", "hybrid_held_over_engine"),
    ):
        each = sorted(a / b for a, b in zip(seconds[name], seconds["engine"], strict=True))
        claims.append(Claim(
            id=key, statement=f"512 worlds: four members with spread and trust, {name}, over the engine alone",
            value=micro[name] / micro["engine"], interval=(each[0], each[-1]), target=1.3, better="lower",
        ))  # fmt: skip
    return {"us_per_world_step": micro, "rounds": rounds}, claims


def fitted(share: float) -> tuple[dict[str, Any], list[Claim]]:
    """Wall time of a fit on 10,000 transitions over that of the engine rolled over them."""
    import jax
    import jax.numpy as jnp

    import physics
    from hybridwm.learning.fitting import FitOptions, fit, stages
    from hybridwm.logs.collecting import collect
    from hybridwm.logs.stepping import ready

    scene = physics.load_scene("double_pendulum")
    episodes, steps = 20, TRANSITIONS // 20
    seconds = steps * float(scene.model.opt.timestep)
    logs = collect(physics.Reality(scene), episodes=episodes, seconds=seconds, seed=0)
    engine = physics.brax_engine(scene)
    stack = lambda name: jnp.asarray(np.stack([getattr(r, name) for r in logs.recordings], -1), float)  # noqa: E731
    theta = engine.prepare(jax.tree.map(jnp.asarray, physics.nominal(scene)))
    state = engine.init(theta, stack("qpos")[0], stack("qvel")[0])
    run, times = split(engine.rollout), []
    for _ in range(4):
        start = time.perf_counter()
        jax.block_until_ready(run(theta, state, stack("ctrl")))
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    fit(ready(logs), FitOptions(stages=stages(share), exact=True, seed=0))
    took, once = time.perf_counter() - start, statistics.median(times[1:])
    numbers = {"fit_s": took, "rolled_once_s": once, "updates": share}
    claims = [
        Claim(id="fit_over_rolling", statement="fit on 10,000 transitions over rolling the engine once", value=took / once,
              interval=None, target=200.0, better="lower"),
        Claim(id="fit_s", statement="fit on 10,000 transitions, s, compiling included", value=took, interval=None,
              target=60.0, better="lower"),
    ]  # fmt: skip
    return numbers, claims


def main(options: Options) -> None:
    """Measure, write, print."""
    if unknown := set(options.parts) - set(PARTS):
        raise ValueError(f"--parts {', '.join(sorted(unknown))}: the parts are {', '.join(PARTS)}")
    runtime.prepare()
    numbers, claims = dict[str, Any](), list[Claim]()
    for part in options.parts:
        found = cost(3 if options.quick else 15) if part == "cost" else fitted(0.1 if options.quick else 1.0)
        numbers[part] = found[0]
        claims += found[1]
    results.write(options.out, study="world_model", config=options, numbers=numbers, claims=claims)
    for claim in claims:
        print(f"{claim.statement}: {claim.value:.3g} (target ≤ {claim.target:g})")


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.FlagCreatePairsOff,)))
