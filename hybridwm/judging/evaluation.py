"""How good a world model is: error against horizon, what each part explains, and whether its events are true.

    position    d of measure.py, m, turns of bodies included      velocity    likewise, m/s
    turn        geodesic angle of free and ball joints, rad
    share of a part   1 − (error with it)² / (error without it)²
    F1          a break counts as found within 2 steps of the true one
    ECE         √ Σ_b n_b/N [(p̄_b − ȳ_b)² − ȳ_b (1 − ȳ_b)/(n_b − 1)], which is unbiased under the root
    intervals   bootstrap over episodes, since windows of one episode are not independent

A model is anything with the init and rollout of a WorldModel; all are asked the same windows. Legend: H steps, W windows, nb bonds.
"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hybridwm.learning.contenders import Subject
from hybridwm.learning.measure import lengths
from hybridwm.learning.projection import Projection
from hybridwm.logs import tangent
from hybridwm.logs.recordings import Windows
from hybridwm.world.model import WorldState
from physics.scene import Scene

MATCH = 2  # steps
BINS = 10


class Prediction(NamedTuple):
    """What a model says of W windows."""

    qpos: np.ndarray  # [H, nq, W]
    qvel: np.ndarray  # [H, nv, W]
    intact: np.ndarray  # [H, nb, W] what it takes to be most likely
    chance: np.ndarray  # [nb, W] that each bond breaks within the window


class Breaks(NamedTuple):
    """Events of bonds that held when their window began, [n] each."""

    found: np.ndarray  # step in which the model breaks it; H: never
    true: np.ndarray  # step in which it broke; H: never
    chance: np.ndarray  # the model's
    episode: np.ndarray


def predict(subject: Subject, given: Windows, *, every: int = 1, project: bool = True, lead: int = 0) -> Prediction:
    """Roll a model over windows, `every` engine steps to a row; `project`: start on the bonds that hold, as noisy logs need;
    `lead`: see `foreteller`."""
    return foreteller(subject.model, every=every, project=project, lead=lead)(subject.params, given)


def foreteller(
    model: Any, *, every: int = 1, project: bool = True, lead: int = 0
) -> Callable[[Any, Windows], Prediction]:
    """(params, windows) -> prediction of the rows after the first `lead`, compiled once for each shape of both.

    Along the lead every bond is held, so that its memory of loads is as warm as a real bond's; at its end the state is the log's.
    """
    nb, ahead = len(model.engine.scene.bonds), lead * every
    read = lambda state, info: (state.qpos, state.qvel, state.intact, info.event_probability[:nb])  # noqa: E731
    place = Projection(model.engine) if project and nb else None

    def begin(params: Any, given: Windows, row: int) -> Any:
        qpos, qvel = given.qpos[row], given.qvel[row]
        if place is not None:
            qpos, qvel = place(params.theta, qpos, qvel, given.intact[row])
        past = jnp.concatenate([given.past, given.ctrl[: row * every]])
        return model.init(params, qpos, qvel, intact=given.intact[row], past=past)

    @jax.jit
    def run(params: Any, given: Windows, forced: Any) -> Any:
        state = begin(params, given, lead)
        if isinstance(state, WorldState) and state.events is not None and lead:
            held = jnp.zeros((ahead, *forced.shape[1:]), jnp.int8)
            warm, _ = model.rollout(params, begin(params, given, 0), given.ctrl[:ahead], forced=held)
            state = state._replace(events=warm.events)
        *path, hazard = model.rollout(params, state, given.ctrl[ahead:], forced=forced, output=read)[1]
        return *(x[every - 1 :: every] for x in path), hazard

    def ask(params: Any, given: Windows) -> Prediction:
        past, ctrl = (np.repeat(x, every, 0) for x in (given.past, given.ctrl))
        cut = jax.tree.map(lambda x: jnp.asarray(x, float), given._replace(past=past, ctrl=ctrl))
        free = np.full((len(ctrl) - ahead, len(model.spec.names), ctrl.shape[-1]), -1, np.int8)
        told = partial(run, params, cut)
        qpos, qvel, intact, _ = (np.asarray(x) for x in told(jnp.asarray(free)))
        chances = [_chance(told, free, bond) for bond in range(nb)]
        return Prediction(qpos, qvel, intact, np.array(chances).reshape(nb, ctrl.shape[-1]))

    return ask


def after(given: Windows, lead: int) -> Windows:
    """The windows without their first `lead` rows; past commands as many as before."""
    past = np.concatenate([given.past, given.ctrl[:lead]])[lead:]
    rows = {name: getattr(given, name)[lead:] for name in ("qpos", "qvel", "ctrl", "intact")}
    return given._replace(**rows, past=past, start=given.start + lead)


def _chance(told: Callable[..., Any], free: np.ndarray, bond: int) -> np.ndarray:
    """That the bond breaks within each window, along the way on which it holds."""
    held = free.copy()
    held[:, bond] = 0
    hazard = np.asarray(told(jnp.asarray(held))[3], float)[:, bond]
    return -np.expm1(np.log1p(-np.clip(hazard, 0, 1 - 1e-12)).sum(0))


def errors(scene: Scene, given: Windows, found: Prediction) -> dict[str, np.ndarray]:
    """Error of each quantity at each step [H, W]; turns of whole bodies, which position counts too, also by themselves."""
    apart = np.stack(
        [tangent.difference(scene.model, a, b) for a, b in zip(given.qpos[1:], found.qpos.astype(float), strict=True)]
    )
    size, speed = lengths(scene)[:, None], found.qvel - given.qvel[1:]
    turns = [dof + i for _, dof in tangent.quaternions(scene.model) for i in range(3)]
    norm = lambda x: np.sqrt(np.sum(np.square(x), 1))  # noqa: E731
    out = {"position (m)": norm(apart * size), "velocity (m/s)": norm(speed * size)}
    if turns:
        bodies = np.sqrt(len(turns) // 3)
        out["turn (rad)"] = norm(apart[:, turns]) / bodies
        out["spin (rad/s)"] = norm(speed[:, turns]) / bodies
    return out


def explained(chain: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Share of the first entry's squared error (median over windows) that each later model takes away; the rest is `left`."""
    squares = {name: float(np.median(np.square(error))) for name, error in chain.items()}
    names, whole = list(squares), max(next(iter(squares.values())), 1e-300)
    out = {b: (squares[a] - squares[b]) / whole for a, b in pairwise(names)}
    return out | {"left": squares[names[-1]] / whole}


def breaks(given: Windows, found: Prediction) -> Breaks:
    """Bonds that held at the start of their window."""
    horizon = len(given.ctrl)

    def first(intact: np.ndarray) -> np.ndarray:
        gone = intact < 0.5
        return np.where(gone.any(0), gone.argmax(0), horizon)

    held = given.intact[0] > 0.5
    episode = np.broadcast_to(given.episode, held.shape)
    return Breaks(first(found.intact)[held], first(given.intact[1:])[held], found.chance[held], episode[held])


def mended(given: Windows, found: Prediction) -> int:
    """How often a broken bond was whole again in the next step; it must be 0."""
    intact = np.concatenate([given.intact[:1], found.intact])
    return int((np.diff(intact, axis=0) > 0).sum())


def event_scores(said: Breaks, horizon: int) -> dict[str, float]:
    """F1, median timing error in steps, log-loss, ECE, share of windows in which something broke."""
    happened, claimed = said.true < horizon, said.found < horizon
    match = happened & claimed & (np.abs(said.found - said.true) <= MATCH)
    asked = happened.sum() + claimed.sum()
    both = happened & claimed
    late = np.abs(said.found - said.true)[both]
    return {
        "f1": float(2 * match.sum() / asked) if asked else float("nan"),
        "timing_steps": float(np.median(late)) if both.any() else float("nan"),
        "log_loss": log_loss(said.chance, happened),
        "ece": calibration_error(said.chance, happened),
        "breaking": float(happened.mean()),
        "n": float(len(happened)),
    }


def log_loss(chance: np.ndarray, happened: np.ndarray) -> float:
    """Mean −log of the chance given to what came, chances kept 1e-4 from 0 and 1."""
    p = np.clip(chance, 1e-4, 1 - 1e-4)
    return float(-np.mean(np.where(happened, np.log(p), np.log1p(-p))))


def reliability(chance: np.ndarray, happened: np.ndarray, bins: int = BINS) -> np.ndarray:
    """[bins, 3] mean chance, share that happened, count, in bins of equal width; NaN where empty."""
    index = np.minimum((chance * bins).astype(int), bins - 1)
    rows = [(chance[index == b], happened[index == b]) for b in range(bins)]
    return np.array([(p.mean(), y.mean(), len(p)) if len(p) else (np.nan, np.nan, 0) for p, y in rows])


def calibration_error(chance: np.ndarray, happened: np.ndarray, bins: int = BINS) -> float:
    """Debiased ECE (root mean square over bins)."""
    table = reliability(chance, happened, bins)
    p, y, n = table[table[:, 2] > 1].T
    excess = (p - y) ** 2 - y * (1 - y) / np.maximum(n - 1, 1)
    return float(np.sqrt(max(np.sum(n * excess) / max(len(chance), 1), 0.0)))


def threshold_rule(load: np.ndarray, happened: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The best rule `breaks above c` on one of the loads [K, n]; its two chances are the shares that broke, by add-one counts."""

    def rule(k: int, c: float) -> tuple[float, Callable[[np.ndarray], np.ndarray]]:
        above = load[k] > c
        high, low = ((happened[side].sum() + 1) / (side.sum() + 2) for side in (above, ~above))
        chance = lambda x: np.where(x[k] > c, high, low)  # noqa: E731
        return log_loss(chance(load), happened), chance

    places = [(k, c) for k, row in enumerate(load) for c in np.quantile(row, np.linspace(0.01, 0.99, 99))]
    return min((rule(k, c) for k, c in places), key=lambda found: found[0])[1]


def bootstrap(
    statistic: Callable[[np.ndarray], float], episode: np.ndarray, *, seed: int = 0, draws: int = 1000
) -> tuple[float, float]:
    """95 % interval of statistic(index of windows), episodes drawn with replacement."""
    rng, names = np.random.default_rng(seed), np.unique(episode)
    where = [np.flatnonzero(episode == name) for name in names]
    values = [
        statistic(np.concatenate([where[i] for i in rng.integers(0, len(names), len(names))])) for _ in range(draws)
    ]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)
