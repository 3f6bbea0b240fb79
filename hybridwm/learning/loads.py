"""What the bonds of a log have felt: logs hold poses, not loads, so the model is run along them.

    row a of the log, brought onto the bonds that hold ──▶ `warm` steps to settle ──▶ `every` steps whose loads are kept

A restart knows neither the stretch of the welds nor the contacts' pressure; both settle within some 50 ms, so no load is taken from
nearer to a restart. The loads kept are strung together into one series per episode, along which filters and damage run on unbroken.
A bond that broke in step b is held for `slack` more steps, to see what it would have felt had the break been logged late.

Legend: T engine steps, R episodes, S stretches (one restart each, the worlds of the rollout), nb bonds, E events.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hybridwm.learning.projection import Projection
from hybridwm.logs.recordings import Dataset
from hybridwm.world import events
from hybridwm.world.model import WorldModel, WorldParams, body_of

Array = jax.Array
SETTLE_S = 0.05
SLACK = 1  # rows by which the log may be wrong about when
_AT_ONCE = 4096


class Loads(NamedTuple):
    """What was felt in R episodes, step by step, and when the bonds broke."""

    bonds: np.ndarray  # [T, nb, 5, R] felt loads, see events.FELT
    declared: tuple[np.ndarray, ...]  # of each declared event [T, F, R]
    broke: np.ndarray  # [nb, R] engine step in which the bond broke; T where it did not, −1 where it never held
    length: np.ndarray  # [R] engine steps of the episode
    substeps: int  # engine steps to one row of the log


def some(given: Loads, index: np.ndarray) -> Loads:
    """The loads of some of the episodes."""
    arrays = (given.bonds, given.declared, given.broke, given.length)
    return Loads(*jax.tree.map(lambda x: x[..., index], arrays), substeps=given.substeps)


class _Stretches(NamedTuple):
    """Where the restarts are, and what is given to each."""

    episode: np.ndarray  # [S]
    begin: np.ndarray  # [S] row of the restart
    first: np.ndarray  # [S] row whose load is kept first
    given: dict[str, np.ndarray]  # worlds last


def replay(
    model: WorldModel, params: WorldParams, dataset: Dataset, *, every: int = 50, warm: int | None = None, past: int = 0
) -> Loads:
    """The loads along all episodes; `every` rows are kept of each restart, after `warm` rows that are not (none given: 50 ms).

    With `every` as long as the episodes the model runs on by itself, as it does when it predicts.
    """
    warm = -(-round(1e6 * SETTLE_S) // round(1e6 * dataset.dt)) if warm is None else warm
    if every < 1 or warm < 0:
        raise ValueError(f"every={every}, warm={warm}: give at least 1 and 0 rows")
    parts = _stretches(model, dataset, every, warm, past)
    run = jax.jit(partial(_run, model, Projection(model.engine), dataset.substeps))
    pieces, total = list[Any](), len(parts.begin)
    size = min(_AT_ONCE, -(-total // -(-total // _AT_ONCE)))
    for i in range(0, total, size):
        index = np.resize(
            np.arange(i, min(i + size, total)), size
        )  # the last piece is filled up: one shape, one program
        found = run(
            params, {name: jnp.asarray(x[..., index], jnp.result_type(float)) for name, x in parts.given.items()}
        )
        pieces.append(jax.tree.map(lambda x, i=i: np.asarray(x)[..., : total - i], found))
    felt = jax.tree.map(lambda *xs: np.concatenate(xs, -1), *pieces)
    return _strung(dataset, parts, every, *felt)


def _stretches(model: WorldModel, dataset: Dataset, every: int, warm: int, past: int) -> _Stretches:
    """Cut the episodes: every row but the padding is kept exactly once."""
    lengths = [len(recording.ctrl) for recording in dataset.recordings]
    places = [(e, first) for e, n in enumerate(lengths) for first in range(0, n, every)]
    episode, first = np.array(places).T
    begin = np.maximum(first - warm, 0)
    rows = np.arange(min(warm, max(lengths)) + every)

    def cut(field: str, offsets: np.ndarray) -> np.ndarray:
        taken = []
        for e, b in zip(episode, begin, strict=True):
            table = getattr(dataset.recordings[e], field)
            taken.append(table[np.clip(b + offsets, 0, len(table) - 1)])
        return np.stack(taken, -1)

    holds = cut("intact", rows + 1)
    late = np.concatenate([cut("intact", np.array([0])), holds])[: len(rows)]  # one row later than logged
    given = {
        "qpos": cut("qpos", np.array([0]))[0],
        "qvel": cut("qvel", np.array([0]))[0],
        "intact": cut("intact", np.array([0]))[0],
        "ctrl": cut("ctrl", rows),
        "past": cut("ctrl", np.arange(-past, 0)),
        "broken": 1 - late,
    }
    return _Stretches(episode, begin, first, given)


def _run(model: WorldModel, project: Projection, substeps: int, params: WorldParams, given: Any) -> Any:
    """Felt loads of all steps of all stretches: ([rows, substeps, nb, 5, S], declared features [rows, substeps, F, S])."""
    params = params._replace(theta=model.engine.prepare(params.theta))
    qpos, qvel = project(params.theta, given["qpos"], given["qvel"], given["intact"])
    state = model.init(params, qpos, qvel, intact=given["intact"], past=given["past"])
    spec, rest = model.spec, len(model.spec.declared)

    def step(state: Any, given: Any) -> tuple[Any, Any]:
        ctrl, broken = given
        forced = jnp.concatenate([broken, jnp.zeros((rest, *broken.shape[1:]))]).astype(jnp.int8)
        after, info = model.step(params, state, ctrl, forced=forced)
        before, theta = body_of(state), params.theta.params
        bonds = (
            events.felt(spec, before, info.engine.bond_load)
            if spec.scene.bonds
            else jnp.zeros((0, 5, *state.time.shape))
        )
        return after, (bonds, tuple(event.features(theta, before, info.engine, ctrl) for event in spec.declared))

    def row(state: Any, given: Any) -> tuple[Any, Any]:
        """What is to break does so in the last step: a load that vanished within the row would tell of the break."""
        ctrl, broken = given
        last = jnp.arange(substeps) == substeps - 1
        return lax.scan(lambda s, now: step(s, (ctrl, jnp.where(now, broken, 0))), state, last)

    return lax.scan(row, state, (given["ctrl"], given["broken"]))[1]


def _strung(
    dataset: Dataset, parts: _Stretches, every: int, bonds: np.ndarray, declared: tuple[np.ndarray, ...]
) -> Loads:
    """One series per episode out of the stretches."""
    lengths = np.array([len(recording.ctrl) for recording in dataset.recordings])
    rows, k = int(lengths.max()), dataset.substeps

    def string(x: np.ndarray) -> np.ndarray:
        out = np.zeros((-(-rows // every) * every, *x.shape[1:-1], len(lengths)), x.dtype)
        for s, (e, begin, first) in enumerate(zip(parts.episode, parts.begin, parts.first, strict=True)):
            out[first : first + every, ..., e] = x[first - begin : first - begin + every, ..., s]
        return out[:rows].reshape(rows * k, *x.shape[2:-1], len(lengths))

    held = np.stack([_padded(recording.intact, rows + 1) for recording in dataset.recordings], -1)  # [rows + 1, nb, R]
    gone = held[1:] < 0.5
    broke = np.where(gone.any(0), gone.argmax(0), rows)
    return Loads(
        bonds=string(bonds),
        declared=tuple(string(x) for x in declared),
        broke=k * np.where(held[0] > 0.5, broke, -1),
        length=k * lengths,
        substeps=k,
    )


def _padded(intact: np.ndarray, rows: int) -> np.ndarray:
    return intact[np.minimum(np.arange(rows), len(intact) - 1)]
