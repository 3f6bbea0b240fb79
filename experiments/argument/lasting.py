"""The worlds of `endurance`: the engine's with their books, and those of networks tuned to last.

    looks      every 0.1 s; overlap of bodies by MuJoCo C's narrow phase, for the engine's states and for the network's alike
    nonsense   the first look at which a state is not finite, bodies stand 2 cm in one another (half of the smallest half side), or
               one is twice as fast as the fastest ever was in the training record
    tuning     every stride, noise and width below is trained on the engine's record of other worlds, and lives through other pushes
               than the ones it is judged by; the one that lasts longest is also trained four times as long

Legend: L looks, W worlds.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import physics
from experiments.argument import bookkeeping
from experiments.argument.crowd import BODIES, CYCLE, SLOT, STEP_S, live, pushes
from hybridwm.learning.rivals import FittedRival, RivalOptions, fit_rival
from hybridwm.logs.recordings import Dataset, Recording
from physics.overlap import overlap

LOOK = 10
"""Steps from look to look."""
DEEP, FAR = 0.02, 5.0
"""m of overlap that are nonsense; m from the middle that are out of the scene."""
JUDGED, TRAINED, TUNED = 0, 1, 2
"""Seeds of the pushes."""


class Size(NamedTuple):
    """How much is done."""

    worlds: int
    seconds: float
    training_s: float  # of each of as many worlds
    updates: int  # of each candidate
    tuning: tuple[int, float]  # worlds, seconds


class Candidate(NamedTuple):
    """How the network alone may be built."""

    stride: float = 0.02  # s
    noise: float = 0.0  # on its starts, of the spread of a stride's change
    hidden: tuple[int, ...] = (128, 128)
    length: int = 1  # of the training, in that of the first look

    def __str__(self) -> str:
        width = "x".join(map(str, self.hidden))
        longer = f", {self.length} times as long" if self.length > 1 else ""
        return f"{1000 * self.stride:g} ms, noise {self.noise:g}, {width}{longer}"


CANDIDATES = (Candidate(0.02), Candidate(0.05), Candidate(0.1), Candidate(0.1, 0.3))
FEW = (Candidate(0.02), Candidate(0.05), Candidate(0.05, 0.3))


class Looks(NamedTuple):
    """What a model's worlds look like, at each look [L, W]."""

    depth: np.ndarray  # m
    speed: np.ndarray  # m/s
    present: np.ndarray  # bodies that are where bodies can be


def plan_of(worlds: int, seconds: float, seed: int) -> Any:
    """Pushes for so many seconds, whole cycles."""
    slots = max(1, round(seconds / STEP_S / SLOT / CYCLE)) * CYCLE
    return pushes(np.random.default_rng([1988, seed]), slots, worlds)


def looked(scene: physics.Scene, path: bookkeeping.Path) -> Looks:
    """The looks of one slot."""
    qpos, qvel = (np.asarray(x[LOOK - 1 :: LOOK], float) for x in (path.qpos, path.qvel))
    depth = np.stack([overlap(scene, q) for q in qpos])
    speed = np.stack([np.asarray(bookkeeping.fastest(v)) for v in qvel])
    place = qpos.reshape(len(qpos), BODIES, 7, -1)[:, :, :3]
    inside = np.isfinite(place).all(2) & (np.abs(place[:, :, :2]) < FAR).all(2) & (place[:, :, 2] > 0)
    return Looks(depth, np.where(np.isfinite(speed), speed, np.inf), inside.sum(1))


def joined(looks: list[Looks]) -> dict[str, np.ndarray]:
    """All looks of a life."""
    return {name: np.concatenate([getattr(look, name) for look in looks]) for name in Looks._fields}


def sensible_s(looks: dict[str, np.ndarray], fastest: float) -> np.ndarray:
    """[W] seconds until nonsense; all of them where there is none."""
    bad = (looks["depth"] > DEEP) | (looks["speed"] > 2 * fastest) | (looks["present"] < BODIES)
    return np.where(bad.any(0), bad.argmax(0) + 1, len(bad)) * LOOK * STEP_S


class Engine:
    """The engine's worlds; compiled once for the record and for the judged life."""

    def __init__(self, scene: physics.Scene, worlds: int) -> None:
        engine = physics.brax_engine(scene)
        self.scene, self.worlds = scene, worlds
        self.theta = jax.tree.map(jnp.asarray, physics.nominal(scene))
        self.slot = bookkeeping.keeper(engine)
        self.begin = engine.init(self.theta, *home(scene, worlds))

    def live(self, plan: Any, watch: Any) -> None:
        """A life of pushes."""
        advance = lambda state, ctrl: self.slot(self.theta, state, jnp.asarray(ctrl, jnp.float32))  # noqa: E731
        live(self.scene, plan, self.begin, advance, watch)

    def record(self, seconds: float) -> Dataset:
        """What the network learns from: one episode to a world."""
        rows = list[Any]()

        def remember(number: int, told: Any, ctrl: np.ndarray) -> None:
            rows.append((*(np.asarray(x) for x in told[1]), ctrl))

        self.live(plan_of(self.worlds, seconds, TRAINED), remember)
        qpos, qvel, ctrl = (np.concatenate(x) for x in zip(*rows, strict=True))
        none = np.ones((len(qpos), 0))
        each = [Recording(f"crowd-{w}", qpos[..., w], qvel[..., w], ctrl[1:, :, w], none) for w in range(self.worlds)]
        return Dataset(self.scene, STEP_S, tuple(each), {})

    def judged(self, seconds: float) -> dict[str, Any]:
        """Books and looks of the life by which all are judged."""
        books, looks = list[Any](), list[Looks]()

        def watch(number: int, told: Any, ctrl: np.ndarray) -> None:
            books.append(jax.tree.map(lambda x: np.asarray(x, float), told[0]))
            looks.append(looked(self.scene, told[1]))

        self.live(plan_of(self.worlds, seconds, JUDGED), watch)
        first = np.asarray(physics.energy(self.scene, self.theta, self.begin).total, float)
        account = {name: np.stack([getattr(b, name) for b in books]) for name in bookkeeping.Books._fields}
        return account | {"first": first, "looks": joined(looks)}


def home(scene: physics.Scene, worlds: int) -> tuple[np.ndarray, np.ndarray]:
    """Where all worlds begin."""
    qpos, qvel = scene.home()
    return np.repeat(qpos[:, None], worlds, 1), np.repeat(qvel[:, None], worlds, 1)


def fastest_of(record: Dataset) -> float:
    """m/s."""
    return max(float(bookkeeping.fastest(r.qvel.T).max()) for r in record.recordings)


def trained(record: Dataset, one: Candidate, updates: int) -> FittedRival:
    """A network alone."""
    options = RivalOptions(
        strides=(one.stride,), noise=one.noise, hidden=one.hidden, place=True, updates=updates,
        look=max(100, updates // 8),
    )  # fmt: skip
    return fit_rival(record, options)


def lived(scene: physics.Scene, fitted: FittedRival, worlds: int, plan: Any) -> dict[str, np.ndarray]:
    """The looks of a network's life under these pushes."""
    read = lambda state, info: bookkeeping.Path(state.qpos, state.qvel)  # noqa: E731
    slot = jax.jit(lambda params, state, ctrl: fitted.model.rollout(params, state, ctrl, output=read))
    advance = lambda state, ctrl: slot(fitted.params, state, jnp.asarray(ctrl, jnp.float32))  # noqa: E731
    looks = list[Looks]()
    watch = lambda number, told, ctrl: looks.append(looked(scene, told))  # noqa: E731
    live(scene, plan, fitted.model.init(fitted.params, *home(scene, worlds)), advance, watch)
    return joined(looks)


def lasts(scene: physics.Scene, fitted: FittedRival, size: Size, fastest: float) -> np.ndarray:
    """[W] seconds that a network makes sense under the pushes that it is tuned by."""
    worlds, seconds = size.tuning
    return sensible_s(lived(scene, fitted, worlds, plan_of(worlds, seconds, TUNED)), fastest)
