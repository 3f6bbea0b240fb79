"""Claim: our engine is MuJoCo C's physics, converged, to 1e-5 m in float64 and 1e-3 m in float32.

    gap(t) = max over worlds and coordinates of |qpos(t) − qpos_C(t)|        m for lengths, rad for angles

Every world starts at the scene's home with a random small velocity and feels random smooth controls, the same in both.
"""

from collections.abc import Callable
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


class Measured(NamedTuple):
    """What one scene showed."""

    gap: np.ndarray  # [seeds, H] gap(t)
    moved: float  # how far anything went, so that agreement is not that of two things at rest


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


def roller(scene: physics.Scene) -> Callable[[Start], np.ndarray]:
    """Our engine, compiled once: a start -> qpos after each step, [H, nq, W]."""
    engine, params = physics.brax_engine(scene), physics.nominal(scene)

    @jax.jit
    def roll(state: physics.State, ctrl: jax.Array) -> jax.Array:
        return engine.rollout(params, state, ctrl, output=lambda state, info: state.qpos)[1]

    return lambda begin: np.asarray(roll(engine.init(params, begin.qpos, begin.qvel), jnp.asarray(begin.ctrl)))


def measure(scene: physics.Scene, options: Fidelity) -> Measured:
    """Both engines from the same starts; what is not finite counts as infinitely far."""
    reference, roll, found, moved = physics.Reference(scene), roller(scene), [], 0.0
    for seed in range(options.seeds):
        begin = start(scene, options, seed)
        exact = reference.rollout(*begin).qpos
        gap = np.abs(roll(begin) - exact[1:]).max(axis=(1, 2))
        found.append(np.where(np.isfinite(gap), gap, np.inf))
        moved = max(moved, float(np.abs(exact - exact[0]).max()))
    return Measured(np.stack(found), moved)


def run(options: Fidelity) -> None:
    """Measure every scene, write results.json, a figure and a table, and print the claims."""
    precision = str(jnp.zeros(()).dtype)
    gaps: dict[str, np.ndarray] = {}
    numbers: dict[str, Any] = {}
    for name in QUICK_SCENES if options.quick else physics.shipped_scenes():
        begun = perf_counter()
        gaps[name], moved = measure(physics.load_scene(name), options)
        seconds = perf_counter() - begun
        numbers[name] = {"gap": gaps[name].max(axis=0), "moved": moved, "seconds": seconds}
        print(f"{name:<16} gap {gaps[name].max():.1e}, moved {moved:.2f}  ({seconds:.1f} s)", flush=True)
    claims = [claim(name, gap, options.steps, precision) for name, gap in gaps.items()]
    written = results.write(
        options.out,
        study="fidelity",
        config=options,
        numbers={"precision": precision, "scenes": numbers},
        claims=claims,
        seeds=range(options.seeds),
    )
    draw(gaps, TARGET[precision], options.out / "gap.png")
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


def draw(gaps: dict[str, np.ndarray], target: float, path: Path) -> None:
    """gap(t) of every scene, and the target."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, gap in gaps.items():
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
