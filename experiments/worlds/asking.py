"""What one world with one seed says: every contender fitted to the same data, and asked about the same episodes.

    error      RMS over 1 s of position (angle × length), per window                        hybridwm/learning/measure.py
    outside    windows of 1 s from starts, speeds, commands beyond the training's; of masses every engine is told
    events     1 s windows whose bond holds at first: F1, timing, ECE, log-loss, and how many chances are near 0 or 1

Every model is compiled once: all windows are asked in batches of one width.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.keeping import place
from experiments.worlds.episodes import FULL, QUICK, SHIFTS, TEST_SEED, Size, nearness, recorded
from experiments.worlds.options import Worlds
from experiments.worlds.realities import World, heavier
from hybridwm.judging import evaluation
from hybridwm.judging.evaluation import Prediction
from hybridwm.learning.contenders import HYBRID, Subject, contenders
from hybridwm.learning.fitting import FitOptions, Fitted, fit
from hybridwm.learning.measure import distances, over_window
from hybridwm.learning.rivals import RivalOptions, fit_rival
from hybridwm.learning.training import Stage, take
from hybridwm.logs.recordings import Dataset, Windows, windows
from hybridwm.logs.stepping import ready
from hybridwm.world.model import ModelOptions, WorldParams

WIDTH = 64
MEMORY_S = 0.3
VALIDATION = (
    0.25  # of the training episodes: of few, a handful of easy seconds decides whether what was learned is kept
)
LEAD_S = 0.1  # of log before a question about bonds, along which their memory of loads warms up
HOLD = {"pendulum": 5, "rod": 1}
"""Engine steps to an answer of the networks. Dry friction that were held for the pendulum's 2 ms, and the true law at that, would
miss 0.6 mm of a second, as the joints turn round in between; at 1 ms half of it."""
CURVE = 50  # points of error against horizon
NEAR = 0.05  # a load this near to the strength, relative, is one that may go either way
SURE = 0.02


class Asked(NamedTuple):
    """What the contenders say of some windows."""

    error: dict[str, np.ndarray]  # [W]
    curve: dict[str, np.ndarray]  # [CURVE, W] distance along the way
    said: dict[str, Prediction]


def options_of(world: World, size: Size, seed: int, *, quick: bool = False) -> FitOptions:
    """How each world's model is fitted; what the box's engine lacks is a chart of its ground. quick: on single rows alone."""
    many = lambda n: max(20, round(n * size.updates))  # noqa: E731
    stages = (Stage(horizon=0, updates=many(12_000), batch=512, look=many(2000)),)
    common: dict[str, Any] = {
        "exact": True,
        "identify_s": 0.05,
        "identify_most": 512,
        "memory_s": MEMORY_S,
        "validation": VALIDATION,
        "seed": seed,
    }
    if world.name == "rod":  # a weld is stiff: what single rows say does not yet last a second
        grown = Stage(horizon=20, updates=many(600), batch=64, look=many(100))
        single = Stage(horizon=0, updates=many(8000), batch=512, look=many(4000))
        stages = (single,) if quick else (single, grown)
    if world.name == "box":
        return FitOptions(stages=(), ground=world.place, lag=False, **common)
    model = ModelOptions(hold=HOLD[world.name], corrections=("friction",) if world.name == "pendulum" else ())
    return FitOptions(model=model, stages=stages, lag=world.name == "pendulum", **common)


def rival_of(world: World, size: Size, seed: int) -> RivalOptions:
    """How the network alone is fitted; its stride was the best of three or four on seed 0's held-out episodes."""
    updates = max(200, round(6000 * size.updates))
    strides = {"pendulum": (0.05,), "box": (0.05,), "rod": (0.05,)}[world.name]
    return RivalOptions(
        strides=strides, place=world.place, updates=updates, look=updates // 4, validation=VALIDATION, seed=seed
    )


def measured(world: World, seed: int, options: Worlds, watch: Callable[[str], None]) -> dict[str, Any]:
    """Everything that one world says with one seed, as plain numbers."""
    size = (QUICK if options.quick else FULL)[world.name]
    data = place(options) / "data" / world.name
    watch("data")
    training = recorded(world, data / f"train-{seed}", episodes=size.training, seed=seed, seconds=None)
    inside = recorded(world, data / "inside", episodes=size.test, seed=TEST_SEED, seconds=None)
    fitted = fit(training, options_of(world, size, seed, quick=options.quick), watch=lambda stage, _: watch(stage))
    watch("network alone")
    rival = fit_rival(training, rival_of(world, size, seed))
    plain = fitted.identified.params if fitted.identified else None
    ask = asker(world, contenders(fitted.model, fitted.params, plain, Subject(rival.model, rival.params)))
    watch("questions")
    lead = round(LEAD_S / inside.dt) if inside.scene.bonds else 0
    cut = either(inside, lead) if lead else windows_of(inside)
    found, cut = ask(cut, 1.0, lead), evaluation.after(cut, lead)
    whole = (cut.intact == cut.intact[:1]).all((0, 1)) if cut.intact.shape[1] else np.ones(len(cut.start), bool)
    out: dict[str, Any] = {
        "fit": _fit_numbers(training, fitted, rival),
        "episode": cut.episode[whole],
        "inside": {name: error[whole] for name, error in found.error.items()},
        "curve": {name: np.quantile(d[:, whole], [0.25, 0.5, 0.75], axis=1) for name, d in found.curve.items()},
        "outside": [],
    }
    if cut.intact.shape[1]:
        near = nearness(world, data / "inside", episodes=size.test, seed=TEST_SEED)
        out["events"] = events(fitted, training, cut, found.said, near)
    cuts = [
        unbroken_first(recorded(world, data / f"outside-{i}", episodes=size.outside, seed=TEST_SEED + 1, seconds=1.3,
                                beyond=beyond))
        for i, beyond in enumerate(SHIFTS[world.name])
    ]  # fmt: skip
    out["outside"] = beyond_training(world, ask, cuts)
    return out


def beyond_training(world: World, ask: Callable[..., Asked], cuts: list[Windows]) -> list[dict[str, Any]]:
    """Errors of each shift; all those of one mass are asked together."""
    found: dict[int, dict[str, Any]] = {}
    shifts = SHIFTS[world.name]
    for mass in sorted({beyond.mass for beyond in shifts}):
        mine = [i for i, beyond in enumerate(shifts) if beyond.mass == mass]
        ends = np.cumsum([len(cuts[i].start) for i in mine])[:-1]
        error = ask(Windows(*(np.concatenate(x, -1) for x in zip(*(cuts[i] for i in mine), strict=True))), mass).error
        for at, i in enumerate(mine):
            own = {name: np.split(e, ends)[at] for name, e in error.items()}
            found[i] = {"beyond": shifts[i]._asdict(), "error": own, "n": len(cuts[i].start)}
    return [found[i] for i in range(len(shifts))]


def _fit_numbers(training: Dataset, fitted: Fitted, rival: Any) -> dict[str, Any]:
    return {
        "transitions": training.steps,
        "breaks": sum(int((r.intact[0] > r.intact[-1]).sum()) for r in training.recordings),
        "kept": fitted.kept,
        "worth": fitted.worth,
        "identified": fitted.identified.report if fitted.identified else (),
        "network": rival.tried,
    }


def windows_of(dataset: Dataset, seconds: float = 1.0) -> Windows:
    """Windows side by side, of whatever held at their start."""
    cut = windows(ready(dataset), round(seconds / dataset.dt), past=round(MEMORY_S / dataset.dt))
    return take(cut, np.flatnonzero((cut.intact[0] > 0).all(0))) if cut.intact.shape[1] else cut


def either(dataset: Dataset, lead: int) -> Windows:
    """A window of every episode that breaks, with the break anywhere in it, and as many others, drawn once and for all.

    Each with `lead` rows before it, along which nothing breaks yet.
    """
    length = lead + round(1.0 / dataset.dt)
    cut = windows(ready(dataset), length, stride=10, past=round(MEMORY_S / dataset.dt))
    cut = take(cut, np.flatnonzero((cut.intact[lead] > 0).all(0)))
    broke, rng = (cut.intact[-1] < 1).any(0), np.random.default_rng(TEST_SEED)
    chosen = [rng.choice(np.flatnonzero(broke & (cut.episode == e))) for e in np.unique(cut.episode[broke])]
    others = rng.choice(np.flatnonzero(~broke), min(len(chosen), int((~broke).sum())), replace=False)
    return take(cut, np.sort(np.concatenate([chosen, others]).astype(int)))


def unbroken_first(dataset: Dataset) -> Windows:
    """The first second of each episode in which nothing broke."""
    cut = windows_of(dataset)
    whole = (cut.intact == 1).all((0, 1)) if cut.intact.shape[1] else True
    return take(cut, np.flatnonzero((cut.start == 0) & whole))


def asker(world: World, models: dict[str, Subject]) -> Callable[..., Asked]:
    """(windows, factor on the masses that the engines are told, rows before the question) -> what every model says."""
    tell: dict[tuple[int, int], Any] = {}

    def ask(cut: Windows, mass: float, lead: int = 0) -> Asked:
        scene = models[HYBRID].model.engine.scene
        every = max(1, round(world_dt(world) / float(scene.model.opt.timestep)))
        said, error, curve = {}, {}, {}
        for name, (model, params) in models.items():
            fresh = evaluation.foreteller(model, every=every, project=False, lead=lead)
            run = tell.setdefault((id(model), lead), fresh)
            said[name] = _batched(run, told_mass(params, mass), cut)
            apart = np.asarray(distances(scene, cut.qpos[1 + lead :], said[name].qpos, angle=world.length))
            error[name] = over_window(apart)
            at = np.linspace(0, len(apart) - 1, min(CURVE, len(apart))).round().astype(int)
            curve[name] = np.nan_to_num(apart[at], nan=np.inf)
        return Asked(error, curve, said)

    return ask


def world_dt(world: World) -> float:
    """s from row to row of the world's logs."""
    import physics

    return float(physics.load_scene(world.scene).model.opt.timestep)


def _batched(run: Any, params: Any, cut: Windows) -> Prediction:
    """In batches of one width, the last one filled up."""
    count = len(cut.start)
    parts = []
    for first in range(0, count, WIDTH):
        index = np.arange(first, first + WIDTH)
        part = run(params, take(cut, index % count))
        parts.append(Prediction(*(x[..., : min(WIDTH, count - first)] for x in part)))
    return Prediction(*(np.concatenate(x, -1) for x in zip(*parts, strict=True)))


def told_mass(params: Any, factor: float) -> Any:
    """θ with all masses and inertias times a factor; the network alone has no place to be told it."""
    if factor == 1.0 or not isinstance(params, WorldParams):
        return params
    return params._replace(theta=heavier(params.theta, factor))


def events(
    fitted: Fitted, training: Dataset, cut: Windows, said: dict[str, Prediction], near: np.ndarray
) -> dict[str, Any]:
    """Scores of every contender, the best single-load threshold, and how decided the chances are."""
    horizon = len(cut.ctrl)
    truth = np.array([near[e, s : s + horizon].max() for e, s in zip(cut.episode, cut.start, strict=True)])
    decided = np.abs(truth - 1) > NEAR
    out: dict[str, Any] = {"decided": float(decided.mean())}
    for name, one in said.items():
        breaks = evaluation.breaks(cut, one)
        broke = breaks.true < horizon
        sure = (breaks.chance < SURE) | (breaks.chance > 1 - SURE)
        late = (breaks.found - breaks.true)[broke & (breaks.found < horizon)]
        out[name] = evaluation.event_scores(breaks, horizon) | {
            "mended": evaluation.mended(cut, one),
            "sure": float(sure[decided].mean()),
            "reliability": evaluation.reliability(breaks.chance, broke),
            "late": late,
        }
    out["threshold"] = threshold(fitted, training, cut)
    return out


def threshold(fitted: Fitted, training: Dataset, cut: Windows) -> dict[str, float]:
    """The best rule `breaks when one load passes c`, chosen on training windows; loads as the hybrid foretells them."""
    run = jax.jit(lambda *given: _peaks(fitted, *given))

    def peaks(given: Windows) -> np.ndarray:
        parts, count = [], len(given.start)
        for first in range(0, count, WIDTH):
            part = take(given, np.arange(first, first + WIDTH) % count)
            begin = (part.qpos[0], part.qvel[0], part.intact[0], part.past, part.ctrl)
            parts.append(np.asarray(run(*(jnp.asarray(x, float) for x in begin)))[:, : min(WIDTH, count - first)])
        return np.concatenate(parts, 1)

    seen = windows_of(training)
    broke = [(x.intact[0] > x.intact[-1]).any(0) for x in (seen, cut)]
    rule = evaluation.threshold_rule(peaks(seen), broke[0])
    chance = rule(peaks(cut))
    return {"log_loss": evaluation.log_loss(chance, broke[1]), "ece": evaluation.calibration_error(chance, broke[1])}


def _peaks(fitted: Fitted, qpos: Any, qvel: Any, intact: Any, past: Any, ctrl: Any) -> Any:
    """[6, W] the most of force and torque in the window, as they come and filtered over 10 and 30 ms; nothing breaks."""
    model, params = fitted.model, fitted.params._replace(events=None)
    dt = float(model.engine.scene.model.opt.timestep)
    keep = jnp.exp(-dt / jnp.array([1e-9, 0.01, 0.03]))[:, None, None]
    state = model.init(params, qpos, qvel, intact=intact, past=past)
    held = jnp.zeros((len(model.spec.names), qpos.shape[-1]), jnp.int8)
    prepared = params._replace(theta=model.engine.prepare(params.theta))

    def step(carry: Any, ctrl: Any) -> Any:
        state, filtered, most = carry
        state, info = model.step(prepared, state, ctrl, forced=held)
        load = info.engine.bond_load[0].reshape(2, 3, -1)
        size = jnp.sqrt(jnp.sum(jnp.square(load), 1))[None]
        filtered = size + (filtered - size) * keep
        return (state, filtered, jnp.maximum(most, filtered)), None

    none = jnp.zeros((3, 2, qpos.shape[-1]))
    most = jax.lax.scan(step, (state, none, none), ctrl)[0][2]
    return most.reshape(6, -1)
