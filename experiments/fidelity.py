"""Claim: our engine is MuJoCo C's physics, converged, to 1e-5 m in float64 and 1e-3 m in float32.

    gap(t) = max over worlds and coordinates of |qpos(t) − qpos_C(t)|        m for lengths, rad for angles

Every world starts at the scene's home with a random small velocity and feels random smooth controls, the same in both.
"""

from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import physics
from experiments.options import Fidelity
from hybridwm import results
from hybridwm.results import Claim

QUICK_SCENES = ("falling_box", "pendulum", "pushed_box")
TARGET = {"float64": 1e-5, "float32": 1e-3}
SPEED_STD = 0.2  # m/s or rad/s


class Start(NamedTuple):
    """Where W worlds begin, and what they are told to do."""

    qpos: np.ndarray  # [nq, W]
    qvel: np.ndarray  # [nv, W]
    ctrl: np.ndarray  # [H, nu, W]


def start(scene: physics.Scene, options: Fidelity, seed: int) -> Start:
    """Random velocities and sine controls with half the allowed amplitude, all of one seed."""
    rng, model, worlds = np.random.default_rng(seed), scene.model, options.worlds
    qpos, qvel = (np.repeat(np.asarray(x)[:, None], worlds, axis=1) for x in scene.home())
    qvel = qvel + SPEED_STD * rng.standard_normal(qvel.shape)
    limited = model.actuator_ctrllimited[:, None].astype(bool)
    low, high = np.where(limited, model.actuator_ctrlrange, (-1.0, 1.0)).T[..., None]
    hz, phase = rng.uniform(0.5, 2.0, (model.nu, worlds)), rng.uniform(0.0, 2 * np.pi, (model.nu, worlds))
    t = np.arange(options.steps)[:, None, None] * model.opt.timestep
    ctrl = (low + high) / 2 + (high - low) / 4 * np.sin(2 * np.pi * hz * t + phase)
    return Start(qpos, qvel, ctrl)


def roll(scene: physics.Scene, begin: Start) -> np.ndarray:
    """Our engine's qpos after each step, [H, nq, W]."""
    engine, params = physics.brax_engine(scene), physics.nominal(scene)

    def step(state: physics.State, ctrl: jax.Array) -> tuple[physics.State, jax.Array]:
        state, _ = engine.step(params, state, ctrl)
        return state, state.qpos

    state = engine.init(params, jnp.asarray(begin.qpos), jnp.asarray(begin.qvel))
    return np.asarray(jax.jit(lambda s, c: jax.lax.scan(step, s, c)[1])(state, jnp.asarray(begin.ctrl)))


def gaps(scene: physics.Scene, options: Fidelity) -> np.ndarray:
    """gap(t) of each seed, [seeds, H]; what is not finite counts as infinitely far."""
    reference, found = physics.Reference(scene), []
    for seed in range(options.seeds):
        begin = start(scene, options, seed)
        exact = reference.rollout(*begin).qpos[1:]
        gap = np.abs(roll(scene, begin) - exact).max(axis=(1, 2))
        found.append(np.where(np.isfinite(gap), gap, np.inf))
    return np.stack(found)


def run(options: Fidelity) -> None:
    """Measure every scene, write results.json, a figure and a table, and print the claims."""
    precision = str(jnp.zeros(()).dtype)
    measured: dict[str, np.ndarray] = {}
    numbers: dict[str, Any] = {}
    for name in QUICK_SCENES if options.quick else physics.shipped_scenes():
        begun = perf_counter()
        measured[name] = gaps(physics.load_scene(name), options)
        numbers[name] = {"gap": measured[name].max(axis=0), "seconds": perf_counter() - begun}
        print(f"{name:<16} {measured[name].max():.1e}  ({numbers[name]['seconds']:.1f} s)", flush=True)
    claims = [claim(name, gap, options.steps, precision) for name, gap in measured.items()]
    written = results.write(
        options.out,
        study="fidelity",
        config=options,
        numbers={"precision": precision, "scenes": numbers},
        claims=claims,
        seeds=range(options.seeds),
    )
    draw(measured, TARGET[precision], options.out / "gap.png")
    report(written, options.out)


def claim(name: str, gap: np.ndarray, steps: int, precision: str) -> Claim:
    """The largest gap of a scene; the interval is the spread over seeds."""
    worst = gap.max(axis=1)
    return Claim(
        id=f"fidelity_{name}_{precision}",
        statement=f"{name}: largest distance from MuJoCo C within {steps} steps, {precision} (m, rad)",
        value=float(worst.max()),
        interval=(float(worst.min()), float(worst.max())),
        target=TARGET[precision],
        better="lower",
    )


def draw(measured: dict[str, np.ndarray], target: float, path: Path) -> None:
    """gap(t) of every scene, and the target."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, gap in measured.items():
        axes.semilogy(np.arange(1, gap.shape[1] + 1), np.maximum(gap.max(axis=0), 1e-17), label=name)
    axes.axhline(target, color="black", linestyle="--", label="target")
    axes.set(xlabel="step", ylabel="distance from MuJoCo C (m, rad)")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def report(written: results.Results, out: Path) -> None:
    """The claims, on the terminal and in `out`."""
    from rich.console import Console

    from hybridwm import claims

    claims.write_table([written], out / "claims.md")
    claims.show([written], Console())
    print(f"results, table and figure: {out}")
