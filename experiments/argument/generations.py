"""Claim: a hybrid fitted to a hybrid's rollouts, five times over, still knows gravity; its fifth generation is as good.

    generation 1     fitted to reality
    generation k+1   fitted to throws that generation k foretells
    gravity          of falling balls (balls.gravity)
    energy, momentum after a second, against reality's
    penetration      deepest overlap at every 50 ms (MuJoCo C)
    error            RMS over a second of both balls' place, m

All on the same throws of reality, never trained on. Each generation has as many transitions and updates as the first. The physics
may change its gravity and its damping, so it too could decay; the hybrid's physics is fitted anew in each generation. Engines take
reality's own four steps to a row of the logs: in one, a bounce alone costs 10 mm in a second, and that is no blur of a model. (A
network has no use for them.)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.argument import balls, ending
from experiments.argument.balls import FINE_STEPS, STEP_S, Throws
from experiments.argument.learned_options import Generations
from experiments.reporting import publish
from experiments.seeds import over_seeds, told
from hybridwm.judging.figures import canvas
from hybridwm.learning.fitting import FitOptions, fit
from hybridwm.learning.rivals import RivalOptions, fit_rival
from hybridwm.learning.training import Stage
from hybridwm.learning.unknowns import Unknown
from hybridwm.logs.recordings import Dataset, Recording
from hybridwm.logs.stepping import stepped
from hybridwm.results import Claim
from hybridwm.world.model import ModelOptions, WorldParams
from physics.overlap import overlap

LINES = ("physics", "hybrid", "network")
UNKNOWNS = (
    Unknown(leaf="gravity", component=2, scale="linear", prior_std=5.0, label="gravity"),
    Unknown(
        leaf="dof_damping",
        names=tuple(f"b{b}.{a}" for b in range(2) for a in "xyz"),
        scale="linear",
        prior_std=0.2,
        low=0.0,
    ),
)
STEPS, TEST_SEED = 200, 3_000_000
GOOD = 10.0
"""m from the start: what is further away is not handed on."""


class Size(NamedTuple):
    """How much is done."""

    throws: int
    seconds: float
    test: int
    updates: int


FULL, QUICK = Size(100, 1.5, 32, 2000), Size(12, 1.5, 16, 500)
STRIDES_S, VALIDATION = (0.02, 0.05), 0.3


class Descendant(NamedTuple):
    """One generation of one line."""

    model: Any
    params: Any
    stride_s: float | None = None
    every: int = 1
    """Engine steps to a row."""


def fitted(line: str, dataset: Dataset, size: Size, seed: int, stride: float | None) -> Descendant:
    """The next generation. The network's first chooses its stride on validation, the others keep it."""
    look = max(50, size.updates // 4)
    if line == "network":
        strides = STRIDES_S if stride is None else (stride,)
        rival = RivalOptions(strides=strides, members=3, place=True, updates=size.updates, look=look,
                             validation=VALIDATION, seed=seed)  # fmt: skip
        found = fit_rival(dataset, rival)
        return Descendant(found.model, found.params, found.model.every * STEP_S)
    stages = (Stage(horizon=0, updates=size.updates, batch=256, look=look),) if line == "hybrid" else ()
    options = FitOptions(
        model=ModelOptions(hidden=(32, 32), members=3, apart=True), stages=stages, lag=False, exact=True, validation=VALIDATION,
        seed=seed,
    )  # fmt: skip
    got = fit(dataset._replace(scene=balls.balls(finer=FINE_STEPS)), options, unknowns=UNKNOWNS)
    assert got.identified is not None
    params = got.params if line == "hybrid" else WorldParams(theta=got.identified.params.theta)
    return Descendant(got.model, params, every=FINE_STEPS)


def foretold(one: Descendant, given: Throws) -> tuple[np.ndarray, np.ndarray]:
    """(qpos [H+1, 6, W], qvel)."""

    @jax.jit
    def run(params: Any, qpos: Any, qvel: Any, ctrl: Any) -> Any:
        state = one.model.init(params, qpos, qvel)
        return one.model.rollout(params, state, ctrl, output=lambda state, info: (state.qpos, state.qvel))[1]

    given = given._replace(ctrl=np.repeat(given.ctrl, one.every, 0))
    found = run(one.params, *(jnp.asarray(x, jnp.result_type(float)) for x in given))
    rows = (np.asarray(x, float)[one.every - 1 :: one.every] for x in found)
    return tuple(np.concatenate([b[None], x]) for b, x in zip((given.qpos, given.qvel), rows, strict=True))  # type: ignore


def offspring(one: Descendant, given: Throws) -> Dataset:
    """What the next generation learns from; a throw is cut where it is not finite or further off than anything can fly."""
    qpos, qvel = foretold(one, given)
    fine = np.isfinite(qpos).all(1) & np.isfinite(qvel).all(1) & (np.abs(np.nan_to_num(qpos, nan=1e9)).max(1) < GOOD)
    out = list[Recording]()
    for w in range(qpos.shape[-1]):
        rows = int(fine[:, w].argmin()) if not fine[:, w].all() else len(fine)
        if rows > STEPS:
            out.append(
                Recording(
                    f"{w}", qpos[:rows, :, w], qvel[:rows, :, w], given.ctrl[: rows - 1, :, w], np.ones((rows, 0))
                )
            )
    return Dataset(balls.balls(), STEP_S, tuple(out), {})


class Truth(NamedTuple):
    """Throws that no generation is trained on, from their second row on, and what came of them."""

    given: Throws
    qpos: np.ndarray  # [H+1, 6, W]
    qvel: np.ndarray


def truth(size: Size) -> dict[str, Truth]:
    """Of each line, the same for all seeds: velocities are as the line's model means them (stepping.py)."""
    thrown = balls.thrown(balls.balls(), balls.throws(np.random.default_rng(TEST_SEED), size.test, STEPS + 1))

    def read(real: Dataset) -> Truth:
        rows = (np.stack([getattr(r, n)[1:] for r in real.recordings], -1) for n in ("qpos", "qvel", "ctrl"))
        qpos, qvel, ctrl = rows
        return Truth(Throws(qpos[0], qvel[0], ctrl), qpos, qvel)

    fine = read(thrown)
    return {"physics": fine, "hybrid": fine, "network": read(stepped(thrown))}


def examined(one: Descendant, true: Truth) -> dict[str, float]:
    """What a generation still knows."""
    qpos, qvel = foretold(one, true.given)
    gap = np.sqrt(np.square(qpos[1:] - true.qpos[1:]).sum(1).mean(0))
    force = lambda v: balls.MASS * (v[-1, :3] + v[-1, 3:])  # noqa: E731
    begun = balls.energy(true.qpos[0], true.qvel[0])
    off = (balls.energy(qpos[-1], qvel[-1]) - balls.energy(true.qpos[-1], true.qvel[-1])) / begun
    return {
        "error_m": _median(gap),
        "gravity": balls.gravity(qpos, qvel),
        "energy": _median(np.abs(off)),
        "momentum": _median(np.linalg.norm(force(qvel) - force(true.qvel), axis=0)),
        "penetration_mm": 1e3 * _median(np.max([overlap(balls.balls(), q) for q in qpos[::10]], axis=0)),
    }


def _median(x: np.ndarray) -> float:
    return float(np.median(np.where(np.isfinite(x), x, np.inf)))


def lineage(line: str, seed: int, options: Generations, size: Size, true: Truth) -> list[dict[str, float]]:
    """Generation after generation; one that can no longer be fitted ends the line, with nothing known any more."""
    steps = round(size.seconds / STEP_S)
    dataset, out = balls.thrown(balls.balls(), balls.throws(np.random.default_rng([seed, 0]), size.throws, steps)), []
    stride: float | None = None
    for generation in range(options.generations):
        if len(dataset.recordings) < 4:
            out.append(
                {"error_m": np.inf, "gravity": np.inf, "energy": np.inf, "momentum": np.inf, "penetration_mm": np.inf}
            )
            continue
        one = fitted(line, dataset, size, seed, stride)
        stride = one.stride_s
        out.append(examined(one, true))
        dataset = offspring(one, balls.throws(np.random.default_rng([seed, generation + 1]), size.throws, steps))
    return out


def descent(line: str, seed: int, options: Generations, size: Size, true: Truth) -> list[dict[str, Any]]:
    """A lineage, read where an earlier run found it."""
    return ending.part(options, f"{line}-{seed}", lambda: lineage(line, seed, options, size, true))


def run(options: Generations) -> None:
    """Every line and seed, then results.json, table and figure."""
    size = QUICK if options.quick else FULL
    true = truth(size)
    each = [{line: descent(line, s, options, size, true[line]) for line in LINES} for s in options.each]
    found = {line: [one[line] for one in each] for line in LINES}
    real = balls.gravity(true["hybrid"].qpos, true["hybrid"].qvel)
    numbers = {line: {key: _grid(runs, key) for key in runs[0][0]} for line, runs in found.items()} | {
        "gravity_seen": real
    }
    draw(numbers, options)
    publish(
        "generations",
        options,
        numbers,
        claims(numbers),
        {"Generation by generation": rows(numbers)},
        seeds=options.each,
        figure="generations.png",
    )


def _grid(runs: list[list[dict[str, Any]]], key: str) -> np.ndarray:
    """[seeds, generations]."""
    return np.array([[np.inf if g[key] is None else g[key] for g in run] for run in runs], float)


def claims(numbers: dict[str, Any]) -> list[Claim]:
    """The last generation against the first, and against the other lines."""
    hybrid, count = numbers["hybrid"], numbers["hybrid"]["error_m"].shape[1]
    last = {line: numbers[line]["error_m"][:, -1] for line in LINES}
    grown = {key: hybrid[key][:, -1] / hybrid[key][:, 0] for key in ("error_m", "penetration_mm")}
    off = np.abs(hybrid["gravity"][:, -1] / numbers["gravity_seen"] - 1)
    here = f"generation {count}"
    return [
        over_seeds("hybrid_keeps", f"hybrid: error of {here} / generation 1", grown["error_m"], 1.2),
        over_seeds("hybrid_gravity", f"hybrid: gravity in {here}, off by (share)", off, 0.02),
        over_seeds("hybrid_energy", f"hybrid: energy after a second in {here}, off by", hybrid["energy"][:, -1], 0.05),
        over_seeds("hybrid_depth", f"hybrid: penetration in {here} / generation 1", grown["penetration_mm"], 1.2),
        over_seeds("network_beaten", f"{here}: error hybrid / network alone", last["hybrid"] / last["network"], 0.5),
        over_seeds("physics_beaten", f"{here}: error hybrid / physics", last["hybrid"] / last["physics"], 1.0),
    ]


_QUANTITIES = (
    ("error_m", "error over 1 s (mm)", 1e3),
    ("gravity", "gravity (m/s²)", 1.0),
    ("energy", "energy after 1 s, off by (%)", 100.0),
    ("momentum", "momentum after 1 s, off by (N s)", 1.0),
    ("penetration_mm", "penetration (mm)", 1.0),
)


def rows(numbers: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table."""
    count = numbers["hybrid"]["error_m"].shape[1]
    out: list[tuple[str, ...]] = [("", "", *(f"generation {g + 1}" for g in range(count)))]
    for key, title, unit in _QUANTITIES:
        out += [(title, line, *(told(unit * numbers[line][key][:, g]) for g in range(count))) for line in LINES]
    return out


def draw(numbers: dict[str, Any], options: Generations) -> None:
    """Error, gravity, energy and penetration over the generations: mean and range over seeds."""
    chosen = [q for q in _QUANTITIES if q[0] != "momentum"]
    figure, axes = canvas(len(chosen), width=3.4)
    for axis, (key, title, unit) in zip(axes, chosen, strict=True):
        at = np.arange(1, options.generations + 1)
        for line in LINES:
            values = unit * np.clip(numbers[line][key], -1e3, 1e3)
            axis.plot(at, values.mean(0), "o-", color=ending.COLOUR[line], lw=2, ms=4, label=line)
            axis.fill_between(at, values.min(0), values.max(0), color=ending.COLOUR[line], alpha=0.15, lw=0)
        axis.set(title=title, xlabel="generation", xticks=at, yscale="linear" if key == "gravity" else "log")
    axes[1].axhline(numbers["gravity_seen"], color="black", ls=":", lw=1)
    axes[0].legend()
    figure.savefig(options.out / "generations.png")
