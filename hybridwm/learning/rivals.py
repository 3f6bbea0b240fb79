"""The network alone, fitted: what a hybrid has to beat with the same logs, the same split, the same windows to be judged on.

    B, b, σ    least squares of (q⁺ ⊖ q, q̇⁺ − q̇) over one stride, and the spread of what it leaves
    e          = (target − B z − b)/σ − mean_m(z)
    L          = mean [ s^{2β} sg · ½ (e²/s² + ln s²) ] + mean BCE(l, broke)       sg: no gradient, β = ½
                 if bonds are soft, with mean (Δi − l)² / mean Δi² in place of the BCE, Δi: by how much the bond changed

With noise η the starts are shaken by η times the spread of a stride's change and the target leads back to the truth, so that a long
rollout returns from where its own errors take it (Sanchez-Gonzalez et al. 2020).

β = ½ keeps a Gaussian likelihood from giving up on what is hard to predict (Seitzer et al. 2022). Each member sees its own draw of
the episodes. Kept is what foretells a second of held-out episodes best, as for the hybrid; where bonds break, their BCE counts too.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import physics
from hybridwm.learning.fitting import FitOptions, judged_windows, prepared
from hybridwm.learning.measure import LOST, window_errors
from hybridwm.learning.training import evenly, ownership
from hybridwm.logs import tangent
from hybridwm.logs.recordings import Dataset, Windows, windows
from hybridwm.world import network
from hybridwm.world.rival import Rival, RivalParams, into_body, rival

Array = jax.Array


@dataclass(frozen=True, kw_only=True)
class RivalOptions:
    """How the network alone is built and fitted."""

    strides: tuple[float, ...] = (0.02,)
    """Seconds to one prediction; of several the best on validation is kept."""
    hidden: tuple[int, ...] = (128, 128)
    members: int = 5
    past: int = 4
    """Strides of past commands that it sees."""
    place: bool = False
    """Whether absolute position and heading matter."""
    soft: bool = False
    """Whether bonds are numbers that change by degrees."""
    noise: float = 0.0
    """η."""
    updates: int = 6000
    batch: int = 256
    learning_rate: float = 2e-3
    look: int = 500
    """Updates between two looks at the validation error."""
    most: int = 100_000
    """Transitions at most, spread evenly."""
    validate_s: float = 1.0
    validation: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.strides or min(self.strides) <= 0:
            raise ValueError(f"strides={self.strides}: give one or more times above 0, in s")


class Transitions(NamedTuple):
    """N strides, worlds last."""

    raw: Any  # [F, N]
    target: Any  # [2 nv, N] change of pose and velocity, of free bodies in their own frame
    broke: Any  # [E, N] 1 where a bond that held broke; −1 where it did not hold
    episode: np.ndarray  # [N]


class FittedRival(NamedTuple):
    """The network alone and how it came out."""

    model: Rival
    params: RivalParams
    error: float
    """Geometric mean over held-out windows of the error over a second, m; where bonds broke times the BCE of a second."""
    tried: dict[float, float]
    """Stride in s -> that error."""


def fit_rival(
    dataset: Dataset, options: RivalOptions = RivalOptions(), *, watch: Callable[[float, float], None] = lambda *_: None
) -> FittedRival:
    """Fit the network alone to logs, at every stride that is given; the best on validation. watch(share done, error)."""
    found: list[FittedRival] = []
    for number, stride in enumerate(options.strides):
        told = lambda done, error, n=number: watch((n + done) / len(options.strides), error)  # noqa: E731
        found.append(_fit(dataset, stride, options, told))
    best = min(found, key=lambda one: one.error)
    return best._replace(tried={s: one.error for s, one in zip(options.strides, found, strict=True)})


def _fit(dataset: Dataset, stride: float, options: RivalOptions, watch: Callable[[float, float], None]) -> FittedRival:
    engine = physics.brax_engine(dataset.scene)
    rows = max(1, round(stride / dataset.dt))
    model = rival(engine, every=rows * dataset.substeps, past=options.past, hidden=options.hidden,
                  members=options.members, place=options.place, soft=options.soft)  # fmt: skip
    split = FitOptions(validation=options.validation, validate_s=options.validate_s, seed=options.seed)
    split = replace(split, memory_s=options.past * rows * dataset.dt)
    train_set, held_out = prepared(dataset, split)
    data = transitions(model, train_set, rows, options.most, noise=options.noise, seed=options.seed)
    checked = transitions(model, held_out, rows, options.most)
    params = _linear(model, data, options.seed)._replace(
        theta=jax.tree.map(jnp.asarray, physics.nominal(dataset.scene))
    )
    score = _score(model, judged_windows(held_out, split)[0], checked)
    weights, error = _trained(model, params, data, score, options, watch)
    return FittedRival(model, params._replace(weights=weights), error, {})


def transitions(
    model: Rival, dataset: Dataset, rows: int, most: int, *, noise: float = 0.0, seed: int = 0
) -> Transitions:
    """Strides of so many rows, beginning anywhere, at most so many; their starts shaken by `noise`."""
    total = sum(max(0, len(r.ctrl) - rows + 1) for r in dataset.recordings)
    cut = windows(dataset, rows, stride=max(1, -(-total // most)), past=model.past * rows)
    cut = evenly(cut, len(cut.start))
    return _transitions(model, _shaken(model, cut, noise, np.random.default_rng([seed, 7])) if noise else cut, rows)


def _shaken(model: Rival, cut: Windows, noise: float, rng: np.random.Generator) -> Windows:
    body = model.engine.scene.model
    shift, speed = tangent.difference(body, cut.qpos[0], cut.qpos[-1]), cut.qvel[-1] - cut.qvel[0]
    off = [noise * x.std(1, keepdims=True) * rng.standard_normal(x.shape) for x in (shift, speed)]
    qpos, qvel = cut.qpos.copy(), cut.qvel.copy()
    qpos[0], qvel[0] = tangent.advance(body, qpos[0], off[0]), qvel[0] + off[1]
    return cut._replace(qpos=qpos, qvel=qvel)


def _transitions(model: Rival, cut: Windows, rows: int) -> Transitions:
    scene, dtype = model.engine.scene, jnp.result_type(float)
    shift = tangent.difference(scene.model, cut.qpos[0], cut.qpos[-1])
    change = np.stack([shift, cut.qvel[-1] - cut.qvel[0]])
    past = cut.past.reshape(model.past, rows, *cut.past.shape[1:]).mean(1) if model.past else cut.past

    @jax.jit
    def look(qpos: Any, qvel: Any, ctrl: Any, past: Any, intact: Any, change: Any) -> Any:
        own = [into_body(model.features, qpos, x) for x in change]
        return model.inputs(qpos, qvel, ctrl, past, intact), jnp.concatenate(own)

    given = (cut.qpos[0], cut.qvel[0], cut.ctrl.mean(0), past, cut.intact[0], change)
    raw, target = look(*(jnp.asarray(x, dtype) for x in given))
    broke = np.where(cut.intact[0] > 0.5, cut.intact[-1] < 0.5, -1)
    return Transitions(raw, target, jnp.asarray(broke, dtype), np.asarray(cut.episode))


def _linear(model: Rival, data: Transitions, seed: int) -> RivalParams:
    """Centres, widths, the linear part and fresh networks."""
    raw, target = np.asarray(data.raw, float), np.asarray(data.target, float)
    centre, width = raw.mean(1), raw.std(1)
    width = np.where(width > 1e-6, width, 1.0)
    z = np.vstack([(raw - centre[:, None]) / width[:, None], np.ones(raw.shape[1])])
    gram = z @ z.T + 1e-6 * raw.shape[1] * np.eye(len(z))
    linear = np.linalg.solve(gram, z @ target.T).T
    left = (target - linear @ z).std(1)
    held, broke = ((np.asarray(data.broke) >= x).sum(1) for x in (0, 1))
    odds = np.zeros(len(broke)) if model.soft else np.log((broke + 0.5) / (held - broke + 0.5))
    weights = network.ensemble(
        jax.random.key(seed), model.members, len(raw), model.hidden, 2 * len(target) + len(broke)
    )
    found = {"centre": centre, "width": width, "linear": linear[:, :-1], "constant": linear[:, -1], "odds": odds}
    found["scale"] = np.maximum(left, 1e-9 + 1e-4 * target.std(1))
    arrays = {name: jnp.asarray(x, data.raw.dtype) for name, x in found.items()}
    return RivalParams(theta=None, weights=weights, **arrays)


def loss(model: Rival, weights: Any, params: RivalParams, given: Transitions) -> Array:
    """L, the transitions in M groups, each for its own member."""
    params = params._replace(weights=weights)
    said = model.said(params, given.raw, own=True)
    apart = (given.target - model.change(params, given.raw, said.mean)) / params.scale[:, None]
    variance = jnp.exp(said.log_variance)
    weight = jax.lax.stop_gradient(jnp.sqrt(variance))
    gaussian = jnp.mean(weight * 0.5 * (jnp.square(apart) / variance + said.log_variance))
    return gaussian + _event_loss(model, said.logit, given.broke)


def _event_loss(model: Rival, logit: Array, broke: Array) -> Array:
    """Of the bonds."""
    if not model.soft:
        return _crossed(logit, broke)
    change = -jnp.maximum(broke, 0)
    share = jnp.mean(jnp.square(change), -1, keepdims=True) + 1e-3
    return jnp.sum(jnp.mean(jnp.square(change - logit) / share, -1))


def _crossed(logit: Array, broke: Array) -> Array:
    """Mean cross-entropy over the strides that began with the bond whole, summed over bonds."""
    each = jnp.where(broke < 0, 0.0, jax.nn.softplus(logit) - broke * logit)
    return jnp.sum(jnp.sum(each, -1) / jnp.maximum(jnp.sum(broke >= 0, -1), 1))


def _score(model: Rival, judged: Any, checked: Transitions) -> Callable[[RivalParams], float]:
    """The validation error: of a second, and where bonds broke the cross-entropy of a second's strides times it."""
    stride = model.every * float(model.engine.scene.model.opt.timestep)
    events, seconds = bool((np.asarray(checked.broke) > 0).any()), window_errors(model)

    @jax.jit
    def run(params: RivalParams, judged: Any, checked: Any) -> Array:
        logs = jnp.mean(jnp.log(jnp.minimum(seconds(params, judged), LOST) + 1e-9))
        if events:
            logit = jnp.mean(model.said(params, checked.raw).logit, 0)
            logs += jnp.log(_event_loss(model, logit, checked.broke) / stride)
        return logs

    checked = checked._replace(episode=None)  # type: ignore[arg-type]
    return lambda params: float(jnp.exp(run(params, judged, checked)))


def _trained(
    model: Rival, params: RivalParams, data: Transitions, score: Any, options: RivalOptions, watch: Any
) -> tuple[Any, float]:
    """(the best weights on validation, their error)."""
    key = jax.random.key(options.seed)
    owned = ownership(jax.random.fold_in(key, 1), model.members, data.episode)
    given = data._replace(episode=None)  # type: ignore[arg-type]
    rate = optax.warmup_cosine_decay_schedule(
        0.0, options.learning_rate, min(200, options.updates // 10), options.updates
    )
    rule = optax.chain(optax.clip_by_global_norm(10.0), optax.adamw(rate, weight_decay=1e-5))

    def one(carry: Any, key: Array, params: Any, given: Any, owned: Array) -> Any:
        weights, memory = carry
        drawn = jax.random.randint(key, (model.members, options.batch), 0, owned.shape[1])
        index = jnp.take_along_axis(owned, drawn, 1).reshape(-1)
        batch = jax.tree.map(lambda x: x[..., index], given)
        slope = jax.grad(partial(loss, model))(weights, params, batch)
        step, memory = rule.update(slope, memory, weights)
        return (optax.apply_updates(weights, step), memory), None

    @partial(jax.jit, static_argnames="count")
    def chunk(key: Array, carry: Any, params: Any, given: Any, owned: Array, count: int) -> Any:
        return jax.lax.scan(lambda c, k: one(c, k, params, given, owned), carry, jax.random.split(key, count))[0]

    carry, best, least = (params.weights, rule.init(params.weights)), params.weights, score(params)
    chunks = -(-options.updates // options.look)
    for c in range(chunks):
        carry = chunk(jax.random.fold_in(key, 100 + c), carry, params, given, owned, options.look)
        error = score(params._replace(weights=carry[0]))
        if error < least:
            best, least = carry[0], error
        watch((c + 1) / chunks, least)
    return best, least
