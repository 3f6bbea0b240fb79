"""fit: logs in, a world model out. Physics explains what it can, then the residual, then the events.

    1. identify   θ, and the motors' lag if asked, with uncertainty            identification.py
    2. chart      the friction of the ground from place to place, if asked      charting.py
    3. residual   one step, then growing windows through the engine             training.py
    4. trust      support, spread and reach, on validation data                 believing.py
    5. events     loads from the engine, survival likelihood, calibration       survival.py

Never worse than its physics: a chart or a residual whose validation error is not below that of the identified physics, with its
interval, is refused, and the number is told. What is left is the best, on the same windows, of the physics with the motors' lag,
without it, and as given: few or noisy logs may lead θ astray. The training is saved after every chunk; started again it goes on
where it was, bit for bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import physics
from hybridwm.learning import training
from hybridwm.learning.believing import trusted
from hybridwm.learning.charting import charted
from hybridwm.learning.contenders import GIVEN, HYBRID, IDENTIFIED, as_given
from hybridwm.learning.identification import Identified, identify
from hybridwm.learning.measure import Worth, paired, window_errors, worth
from hybridwm.learning.survival import learn_events
from hybridwm.learning.training import Batch, Progress, Stage, Training, batch_of, evenly, unbroken
from hybridwm.learning.unknowns import Unknown
from hybridwm.logs.recordings import Dataset, Windows, split, windows
from hybridwm.logs.stepping import ready
from hybridwm.world.model import ModelOptions, WorldModel, WorldParams, matched, world_model
from hybridwm.world.trust import everywhere

Array = jax.Array
STAGES = (
    Stage(horizon=0, updates=10_000, batch=512, look=1000),
    Stage(horizon=8, updates=400, batch=64, learning_rate=1e-3),
)


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How a world model is fitted."""

    model: ModelOptions = field(default_factory=ModelOptions)
    stages: tuple[Stage, ...] = STAGES
    """Of the residual; none: no residual."""
    ground: bool = False
    """Whether the friction of the ground may differ from place to place; θ is then found once more, along with it."""
    lag: bool = True
    """Whether motors may lag behind their commands."""
    memory_s: float = 0.3
    """Seconds of past commands that the motors' lag is worked out from."""
    events: bool = True
    """Whether hazards are learned where bonds broke in the logs."""
    identify_s: float = 0.1
    """Length of the windows that θ is identified on."""
    identify_most: int = 512
    """How many of them, spread evenly."""
    exact: bool = False
    """The logs are free of noise: first states are taken as they are, and θ is sought by differences; both are cheaper."""
    validate_s: float = 1.0
    """Length of the windows that the residual is judged on."""
    validation: float = 0.15
    """Share of the episodes kept for that."""
    seed: int = 0


def stages(effort: float = 1.0) -> tuple[Stage, ...]:
    """The usual stages, with so many times the usual updates."""
    if not effort > 0:
        raise ValueError(f"effort is {effort}; give a number above 0")
    return tuple(replace(stage, updates=max(1, round(stage.updates * effort))) for stage in STAGES)


class Fitted(NamedTuple):
    """A fitted world model and how it came out."""

    model: WorldModel
    params: WorldParams
    identified: Identified | None
    """θ alone, as the rival `physics identified` has it."""
    worth: Worth | None
    """Validation error of what was learned over that of the identified physics."""
    kept: bool
    """Whether it was good enough to keep."""
    report: dict[str, Any]
    """`breaks` in the logs, and `stands_on`: hybrid, or which physics is left where that is better on held-out episodes."""


def default_unknowns(scene: physics.Scene) -> tuple[Unknown, ...]:
    """What logs are asked about where the user names nothing: masses, their places in free bodies, damping and friction."""
    model = scene.model
    moving = [model.body(b).name for b in range(1, model.nbody) if model.body_mass[b] > 0 and model.body(b).name]
    free = {int(model.jnt_bodyid[j]) for j in range(model.njnt) if int(model.jnt_type[j]) == 0}
    joints = [model.joint(j).name for j in range(model.njnt) if int(model.jnt_type[j]) > 1 and model.joint(j).name]
    rubbing = [
        model.geom(g).name for g in range(model.ngeom) if int(model.geom_bodyid[g]) in free and model.geom_contype[g]
    ]
    out = [Unknown(leaf="body_mass", names=(name,), prior_std=0.5) for name in moving]
    out += [
        Unknown(
            leaf="body_ipos",
            names=(name,),
            component=axis,
            scale="linear",
            prior_std=0.02,
            label=f"centre of {name}, {'xyz'[axis]}",
        )
        for name in moving
        if model.body(name).id in free
        for axis in range(3)
    ]
    out += [Unknown(leaf="dof_damping", names=(name,), scale="linear", prior_std=0.1, low=0.0) for name in joints]
    out += [
        Unknown(leaf="dof_frictionloss", names=(name,), scale="linear", prior_std=0.1, low=0.0)
        for name in dict.fromkeys(model.joint(int(model.dof_jntid[d])).name for d in scene.rubbing)
        if name
    ]
    if rubbing and all(rubbing):
        grounds = [model.geom(g).name for g in range(model.ngeom) if model.body_weldid[model.geom_bodyid[g]] == 0]
        named = tuple(name for name in (*rubbing, *grounds) if name)
        out.append(Unknown(leaf="geom_friction", names=named, prior_std=0.5, label="friction"))
    return tuple(out)


def prepared(dataset: Dataset, options: FitOptions) -> tuple[Dataset, Dataset]:
    """(training, validation) split by episode; with the engine's own velocities where each row is one of its steps."""
    parts = split(ready(dataset), (1 - options.validation, options.validation), seed=options.seed)
    return parts[0], parts[1]


def identified(
    dataset: Dataset,
    options: FitOptions,
    unknowns: Sequence[Unknown],
    *,
    lag: bool,
    engine: physics.Engine,
) -> tuple[WorldParams, Identified]:
    """θ (and the lag) from windows of the training data, as parameters of a model without anything learned."""
    model = world_model(engine, options.model)
    theta = jax.tree.map(jnp.asarray, physics.nominal(dataset.scene))
    params = WorldParams(theta=theta)
    if lag:
        steps = float(dataset.scene.model.opt.timestep)
        params = params._replace(lag_s=jnp.full(dataset.scene.model.nu, 5 * steps))
        unknowns = (*unknowns, Unknown(leaf="lag_s", prior_std=1.5, low=steps / 5, high=options.memory_s / 2))
    cut = _some(dataset, options, options.identify_s, options.identify_most)
    way = {"free_starts": False, "jacobian": "differences"} if options.exact else {}
    found = identify(model, cut, unknowns, params=params, every=dataset.substeps, **way)
    return found.params, found


def _some(dataset: Dataset, options: FitOptions, seconds: float, most: int) -> Windows:
    """Unbroken windows of so many seconds, at most so many, spread evenly."""
    steps = max(1, round(seconds / dataset.dt))
    return evenly(unbroken(windows(dataset, steps, past=memory(dataset, options))), most)


def judged_windows(held_out: Dataset, options: FitOptions) -> tuple[Batch, np.ndarray]:
    """Windows of held-out episodes that models are judged on, and the episode of each."""
    cut = _some(held_out, options, options.validate_s, 256)
    return batch_of(cut, held_out.substeps), np.asarray(cut.episode)


def _rows(dataset: Dataset, options: FitOptions) -> Batch:
    """Single rows."""
    return batch_of(_some(dataset, options, dataset.dt, 50_000), dataset.substeps)


class Judge:
    """What parameters are worth against the identified physics, on windows of held-out episodes."""

    def __init__(self, model: WorldModel, plain: WorldParams, held_out: Dataset, options: FitOptions) -> None:
        self.windows, self.episode = judged_windows(held_out, options)
        self._errors, self._plain = window_errors(model), plain
        residual = model.residual.fresh(jax.random.key(0)) if options.stages else None
        support = everywhere(len(model.residual.features.names)) if options.stages else None
        lag = jnp.zeros(model.engine.scene.model.nu) if options.lag else None
        self._room = WorldParams(None, lag_s=lag, residual=residual, trust=support)

    @cached_property
    def base(self) -> np.ndarray:
        """Error of the identified physics in each window."""
        return self.error(self._plain)

    def error(self, params: WorldParams) -> np.ndarray:
        """In each window; one program for all, whatever they have learned."""
        self._room = self._room._replace(ground=params.ground or self._room.ground)
        return np.asarray(self._errors(matched(params, self._room), self.windows))

    def worth(self, params: WorldParams) -> Worth:
        """Mean of the paired ratios and its interval."""
        error = self.error(params)
        return worth(error, self.base, self.episode)

    def score(self, params: WorldParams) -> float:
        """Geometric mean of the paired ratios."""
        error = self.error(params)
        return float(np.exp(np.mean(np.log(paired(error, self.base)))))

    def best(self, candidates: dict[str, WorldParams]) -> str:
        """The name of the one that is worth most; of equals the first."""
        errors = {name: self.error(params) for name, params in candidates.items()}
        return min(errors, key=lambda name: paired(errors[name], self.base).mean())


def memory(dataset: Dataset, options: FitOptions) -> int:
    """Past commands that a window carries."""
    return round(options.memory_s / dataset.dt) if options.lag else options.model.delay


def fit(
    dataset: Dataset,
    options: FitOptions = FitOptions(),
    *,
    unknowns: Sequence[Unknown] | None = None,
    watch: Callable[[str, Progress | None], None] = lambda stage, progress: None,
    log: Any = None,
) -> Fitted:
    """Fit a world model to logs. `watch` is told what goes on; `log` (a TrainingLog) makes the training resumable."""
    engine = physics.brax_engine(dataset.scene)
    train_set, held_out = prepared(dataset, options)
    unknowns = default_unknowns(dataset.scene) if unknowns is None else unknowns
    watch("identify", None)
    plain, found = identified(train_set, options, unknowns, lag=False, engine=engine)
    params = identified(train_set, options, unknowns, lag=True, engine=engine)[0] if options.lag else plain
    model = world_model(engine, options.model)
    judge = Judge(model, plain, held_out, options)
    params, score, kept = learned(model, params, options, unknowns, train_set, judge, watch, log)
    known = {HYBRID: params} | ({} if kept else {IDENTIFIED: plain}) | {GIVEN: as_given(dataset.scene)}
    stands_on = judge.best(known) if judge.episode.size else HYBRID
    params, kept = known[stands_on], kept and stands_on == HYBRID
    if options.events and broken(train_set):
        watch("events", None)
        params = learn_events(model, params, train_set, held_out, seed=options.seed, past=memory(train_set, options))
    return Fitted(model, params, found, score, kept, {"breaks": broken(train_set), "stands_on": stands_on})


def broken(dataset: Dataset) -> int:
    """How many bonds broke in the episodes, all together."""
    return sum(int((r.intact[0] > r.intact[-1]).sum()) for r in dataset.recordings)


def learned(
    model: WorldModel, params: WorldParams, options: FitOptions, unknowns: Sequence[Unknown], train_set: Dataset,
    judge: Judge, watch: Any, log: Any = None,
) -> tuple[WorldParams, Worth | None, bool]:  # fmt: skip
    """(parameters, worth, whether anything was kept): the chart, then the residual, each kept where it is worth having."""
    score, kept = None, False
    if options.ground:
        watch("chart", None)
        found = charted(model, params, unknowns, _rows(train_set, options))
        score = judge.worth(found)
        kept = score.holds
        params = found if kept else params
    if options.stages:
        found = _residual(model, params, options, train_set, judge, watch, log)
        better = judge.worth(found)
        if better.holds or score is None:
            score = better
        kept = kept or better.holds
        params = found if better.holds else params
    return params, score, kept


def _residual(
    model: WorldModel, params: WorldParams, options: FitOptions, train_set: Dataset, judge: Judge, watch: Any, log: Any
) -> WorldParams:
    """The residual with its trust."""
    past = memory(train_set, options)
    params = params._replace(residual=model.residual.fresh(jax.random.key(options.seed)))
    single = training.rows_of(model, params, train_set, past)
    params = training.normalisation(model, params, single)
    score = lambda weights: judge.score(with_weights(params, weights))  # noqa: E731
    now = begun = _resumed(log, training.begin(model, params, options.stages))
    for now, progress in training.train(
        model, params, options.stages, single, train_set, score, seed=options.seed, past=past, resume=begun
    ):
        watch("residual", progress)
        if log is not None:
            log.save(int(now.stage) * 1_000_000 + int(now.chunk), now)
    watch("trust", None)
    return trusted(model, with_weights(params, now.best), single.answer.raw, judge)


def _resumed(log: Any, begin: Training) -> Training:
    latest = None if log is None else log.latest(begin)
    return begin if latest is None else latest[1]


def with_weights(params: WorldParams, weights: Any) -> WorldParams:
    """The parameters with other weights of the residual, and no trust."""
    assert params.residual is not None
    return params._replace(residual=params.residual._replace(weights=weights), trust=None)
