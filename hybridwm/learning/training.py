"""How the residual is learned: first on the engine's linear answer to it (response.py), then through the engine itself, over
windows that grow.

    e_k = (x̂_k − x_k) / σ_k                    σ_k: what the identified physics misses at step k, per dof, in pose and velocity
    L   = mean √(1 + e²) − 1                    over steps, dofs, windows: a square near zero, a modulus for what chaos took

Each member of the ensemble sees its own draw of the windows; the worlds of a batch stand in M groups, each asking its own
member, so that one engine step serves all members. All is a function of (options, data, seed): the same twice, bit for bit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hybridwm.learning.response import Response, respond, unexplained
from hybridwm.logs import tangent
from hybridwm.logs.recordings import Dataset, Windows, windows
from hybridwm.world.model import WorldModel, WorldParams
from hybridwm.world.objects import pooled
from physics.rollout import gradient_options

Array = jax.Array


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Windows of `horizon` rows (0: the linear answer of single rows), `batch` of them per update and member."""

    horizon: int
    updates: int
    batch: int = 256
    learning_rate: float = 3e-3
    look: int = 100
    """Updates between two looks at the validation error."""


class Batch(NamedTuple):
    """Windows of H rows as the loss takes them, each row k engine steps; worlds last."""

    qpos: Any  # [H+1, nq, W]
    qvel: Any  # [H+1, nv, W]
    ctrl: Any  # [H k, nu, W]
    intact: Any  # [nb, W]
    past: Any  # [D k, nu, W]


def batch_of(cut: Windows, every: int) -> Batch:
    """Windows as float arrays, `every` engine steps to a row; the bonds that hold at their start."""
    ctrl, past = (np.repeat(x, every, 0) for x in (cut.ctrl, cut.past))
    return Batch(*(np.asarray(x, jnp.result_type(float)) for x in (cut.qpos, cut.qvel, ctrl, cut.intact[0], past)))


def unbroken(cut: Windows) -> Windows:
    """The windows on whose way no bond breaks: what a residual is learned from."""
    whole = (cut.intact == cut.intact[:1]).all((0, 1)) if cut.intact.shape[1] else np.ones(len(cut.start), bool)
    return take(cut, np.flatnonzero(whole))


def take(cut: Windows, index: np.ndarray) -> Windows:
    """Some of the windows."""
    return Windows(*(x[..., index] for x in cut))


def rounded(count: int) -> int:
    """So many of `count` windows that there are few different numbers, and a program is compiled once for many data sets."""
    step = max(1, 2 ** (count.bit_length() - 4))
    return count // step * step


def evenly(cut: Windows, most: int) -> Windows:
    """At most so many of the windows, a rounded number, spread evenly."""
    count = len(cut.start)
    return take(cut, np.linspace(0, count - 1, min(most, rounded(count))).round().astype(int))


def predicted(model: Any, params: Any, given: Batch, *, grouped: bool = False) -> tuple[Array, Array]:
    """(qpos, qvel) after each row, [H, nq, W] and [H, nv, W], of any model with a WorldModel's init and rollout.

    Bonds hold as at the start; rows may be several engine steps.
    """
    state = model.init(params, given.qpos[0], given.qvel[0], intact=given.intact, past=given.past)
    held = jnp.zeros((len(given.ctrl), len(model.spec.names), given.qpos.shape[-1]), jnp.int8)
    read = lambda state, info: (state.qpos, state.qvel)  # noqa: E731
    every = len(given.ctrl) // (len(given.qpos) - 1)
    found = model.rollout(params, state, given.ctrl, forced=held, output=read, grouped=grouped)[1]
    return found[0][every - 1 :: every], found[1][every - 1 :: every]


def misses(model: WorldModel, params: WorldParams, given: Batch, *, grouped: bool = False) -> Array:
    """Error in pose and velocity at each step: [H, 2 nv, W]."""
    qpos, qvel = predicted(model, params, given, grouped=grouped)
    apart = jax.vmap(partial(tangent.difference, model.engine.scene.model, xp=jnp))(given.qpos[1:], qpos)
    return jnp.concatenate([apart, qvel - given.qvel[1:]], 1)


def physics_misses(model: WorldModel, params: WorldParams, given: Batch) -> Array:
    """σ [H, 2 nv] of the physics alone."""
    pose, speed = jnp.split(_usual(_misses(model)(params._replace(residual=None), given)), 2, -1)
    return jnp.concatenate([_floored(pose), _floored(speed)], -1)


def _usual(errors: Array) -> Array:
    """σ: what is missed in half of the windows, or a third of the root mean square where mostly nothing happens."""
    errors = jnp.abs(errors)
    return jnp.maximum(jnp.median(errors, -1), 0.3 * jnp.sqrt(jnp.mean(jnp.square(errors), -1)))


def _floored(size: Array) -> Array:
    """Nothing exact may weigh for ever."""
    return jnp.maximum(size, 0.02 * jnp.max(size, -1, keepdims=True) + 1e-9)


def _misses(model: WorldModel) -> Callable[..., Array]:
    return jax.jit(partial(misses, model))


def loss(model: WorldModel, weights: Any, params: WorldParams, size: Array, given: Batch | Response) -> Array:
    """L of the residual's weights on windows in M groups."""
    assert params.residual is not None
    residual = params.residual._replace(weights=weights)
    if isinstance(given, Response):
        e = unexplained(model, residual, given) / size[..., None]
    else:
        e = misses(model, params._replace(residual=residual, trust=None), given, grouped=True) / size[..., None]
    return jnp.mean(jnp.sqrt(1 + jnp.square(e)) - 1)


class Rows(NamedTuple):
    """Single rows of the logs on whose way no bond breaks."""

    answer: Response
    episode: np.ndarray
    seconds: float  # of each


def rows_of(model: WorldModel, params: WorldParams, training: Dataset, past: int, most: int = 100_000) -> Rows:
    """At most so many, spread evenly."""
    cut = evenly(unbroken(windows(training, 1, past=past)), most)
    answer = respond(model, params, jax.tree.map(jnp.asarray, batch_of(cut, training.substeps)))
    return Rows(answer, np.asarray(cut.episode), training.dt)


def normalisation(model: WorldModel, params: WorldParams, rows: Rows) -> WorldParams:
    """Centre and width of the features, and σ of the force that the data asks for."""
    assert params.residual is not None
    weight = jax.jit(lambda theta: model.engine.prepare(theta).dof_invweight)(params.theta)
    raw, missed, weight = (np.asarray(x, float) for x in (rows.answer.raw, rows.answer.missed, weight))
    asked = missed / (rows.seconds * weight[:, None])
    alike = partial(pooled, [kind.features for kind in model.residual.kinds])
    centre = alike(raw.mean(1))
    width = np.sqrt(alike(np.square(raw - centre[:, None]).mean(1)))
    clipped = np.clip(asked, *np.quantile(asked, [0.005, 0.995], axis=1)[..., None])
    size = np.sqrt(pooled([kind.dofs for kind in model.residual.kinds], np.square(clipped).mean(1)))
    dtype = jnp.result_type(float)
    return params._replace(
        residual=params.residual._replace(
            centre=jnp.asarray(centre, dtype),
            width=jnp.asarray(np.where(width > 1e-6, width, 1.0), dtype),
            scale=jnp.asarray(np.maximum(size, 1e-3 * size.max() + 1e-9), dtype),
        )
    )


class Training(NamedTuple):
    """Everything that an interrupted training needs to go on."""

    weights: Any
    optimiser: Any
    best: Any  # weights with the least validation error
    score: Array  # [] that error
    stage: Array  # [] int32
    chunk: Array  # [] int32 within the stage


def begin(model: WorldModel, params: WorldParams, stages: tuple[Stage, ...]) -> Training:
    """Before the first update."""
    assert params.residual is not None
    weights = params.residual.weights
    zero = jnp.zeros((), jnp.int32)
    return Training(weights, optimiser(stages[0]).init(weights), weights, jnp.full((), jnp.inf), zero, zero)


def optimiser(stage: Stage) -> optax.GradientTransformation:
    """Adam with a clipped gradient and a rate that falls to nothing over the stage."""
    warm = min(50, stage.updates // 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, stage.learning_rate, warm, stage.updates, 0.01 * stage.learning_rate)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def updater(model: WorldModel, stage: Stage) -> Callable[..., Any]:
    """(key, weights, optimiser state, params, σ, windows, ownership, count) -> (weights, state, loss) after `count` updates."""
    rule, members, devices = optimiser(stage), model.options.members, np.array(jax.devices())
    mesh = Mesh(devices, ("worlds",), axis_types=(AxisType.Auto,))
    share = max(stage.batch // devices.size, 1)

    def gradient(weights: Any, params: WorldParams, size: Array, given: Any) -> Any:
        value, slope = jax.value_and_grad(partial(loss, model))(weights, params, size, given)
        return jax.lax.pmean((value, slope), "worlds")

    flat, deep = PartitionSpec(None, "worlds"), PartitionSpec(None, None, "worlds")
    batch_spec = Batch(deep, deep, deep, flat, deep) if stage.horizon else Response(flat, flat, deep)
    whole = PartitionSpec()
    split_gradient = jax.shard_map(
        gradient, mesh=mesh, in_specs=(whole, whole, whole, batch_spec), out_specs=whole, check_vma=False
    )

    def one(carry: Any, key: Array, params: WorldParams, size: Array, data: Any, owned: Array) -> Any:
        weights, memory = carry
        drawn = jax.random.randint(key, (devices.size, members, share), 0, owned.shape[1])
        index = jnp.take_along_axis(owned[None], drawn, 2).reshape(-1)
        value, slope = split_gradient(weights, params, size, jax.tree.map(lambda x: x[..., index], data))
        step, memory = rule.update(slope, memory, weights)
        return (optax.apply_updates(weights, step), memory), value

    def run(
        key: Array, weights: Any, memory: Any, params: WorldParams, size: Array, data: Any, owned: Array, count: int
    ) -> Any:
        keys = jax.random.split(key, count)
        (weights, memory), values = jax.lax.scan(
            lambda carry, key: one(carry, key, params, size, data, owned), (weights, memory), keys
        )
        return weights, memory, jnp.mean(values)

    everywhere = NamedSharding(mesh, whole)
    compiled = jax.jit(run, static_argnames="count", out_shardings=everywhere, compiler_options=gradient_options())

    def placed(*given: Any, count: int) -> Any:
        """All on all devices at once: else the first call, whose weights lie on one, is compiled by itself."""
        return compiled(*jax.device_put(given, everywhere), count=count)

    return placed


def ownership(key: Array, members: int, episodes: np.ndarray, share: float = 0.9) -> Array:
    """Which windows each member may see, [M, n]: those of its own draw of the episodes, repeated to equal length."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    names = np.unique(episodes)
    rows = []
    for _ in range(members):
        mine = rng.permutation(names)[: max(1, round(share * len(names)))] if members > 1 else names
        rows.append(np.resize(rng.permutation(np.flatnonzero(np.isin(episodes, mine))), len(episodes)))
    return jnp.asarray(np.stack(rows), jnp.int32)


class Progress(NamedTuple):
    """What is told after each chunk of updates."""

    stage: int
    stages: int
    done: float  # share of all updates
    loss: float
    error: float  # validation rollout error over that of the physics
    best: float


def train(
    model: WorldModel, params: WorldParams, stages: tuple[Stage, ...], rows: Rows, training: Dataset,
    score: Callable[[Any], float], *, seed: int, past: int = 0, most: int = 100_000, resume: Training | None = None,
) -> Iterator[tuple[Training, Progress]]:  # fmt: skip
    """Train the residual of `params`, chunk by chunk; each chunk's Training can be saved and given back as `resume`.

    score(weights) is the validation error. `rows`: what stages without a horizon learn from; `most`: windows that the others keep.
    """
    now = resume or begin(model, params, stages)
    total, key, members = sum(s.updates for s in stages), jax.random.key(seed), model.options.members
    before = sum(s.updates for s in stages[: int(now.stage)])
    for number in range(int(now.stage), len(stages)):
        stage, start = stages[number], int(now.chunk)
        draw = jax.random.fold_in(key, 7 * number + 1)
        if stage.horizon:
            cut, owned, size = _prepared(model, params, stage, training, past, most, draw)
        else:
            cut, owned, size = rows.answer, ownership(draw, members, rows.episode), _floored(_usual(rows.answer.missed))
        update, chunk = updater(model, stage), stage.look
        for c in range(start, -(-stage.updates // chunk)):
            fresh = jax.random.fold_in(jax.random.fold_in(key, number), c)
            weights, memory, value = update(fresh, now.weights, now.optimiser, params, size, cut, owned, count=chunk)
            here = jax.device_get(weights)  # off the devices: who asks with them computes once, not on each
            error = score(here)
            better = error < float(now.score)
            last = (c + 1) * chunk >= stage.updates
            best, least = (here, jnp.asarray(error)) if better else (now.best, now.score)
            now = Training(weights, memory, best, least, jnp.int32(number), jnp.int32(c + 1))
            if last and number + 1 < len(stages):  # the next stage goes on from the best
                fresh_memory = optimiser(stages[number + 1]).init(best)
                now = Training(best, fresh_memory, best, least, jnp.int32(number + 1), jnp.int32(0))
            done = (before + min((c + 1) * chunk, stage.updates)) / total
            yield now, Progress(number, len(stages), done, float(value), error, float(least))
        before += stage.updates


def _prepared(
    model: WorldModel, params: WorldParams, stage: Stage, training: Dataset, past: int, most: int, key: Array
) -> tuple[Any, Array, Array]:
    """The windows of a stage, which of them each member sees, and σ."""
    cut = unbroken(windows(training, stage.horizon, stride=max(1, stage.horizon // 4), past=past))
    count = min(most, rounded(len(cut.start)))
    keep = np.sort(np.asarray(jax.random.permutation(key, len(cut.start)))[:count])
    cut = take(cut, keep)
    owned = ownership(key, model.options.members, np.asarray(cut.episode))
    data = jax.tree.map(jnp.asarray, batch_of(cut, training.substeps))
    few = jax.tree.map(lambda x: x[..., :: max(1, x.shape[-1] // 1024)], data)
    return data, owned, physics_misses(model, params, few)
