"""One set of fits: M groups of throws, each scored on throws that it never saw.

    group m of size N       N throws drawn from all but fold m, scored on fold m
    with a part kept aside  N throws drawn from all of the data, scored on the part

The draws of a fold are nested: 4 of the 8, 8 of the 16 …
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.measured.splits import group_folds
from experiments.toss.fitting import Effort, identify, learn, objective
from experiments.toss.models import Fitted, Model, Start
from experiments.toss.sets import Set, score
from experiments.toss.things import Thing
from experiments.toss.windows import Throws, Windows, whole

Array = jax.Array
SHOWN = 3  # predicted throws of the first group that are kept
MEMBERS = 3  # networks of an ensemble, of the hybrid and of the network alone: one by itself varies by 5 % of its error
ROWS = 32  # whole throws are predicted in multiples of so many rows, so that another set asks for no new program


class Groups(NamedTuple):
    """Who learns from what, and who is asked about what."""

    known: list[np.ndarray]  # per group: throws in the order in which they are drawn
    asked: list[np.ndarray]  # per group
    learn_from: Throws
    ask_about: Throws

    def parts(self, size: int | None) -> list[Throws]:
        """The throws that each group of this size knows."""
        return [self.learn_from.of(k[:size]) for k in self.known]

    @property
    def most(self) -> int:
        """The largest size."""
        return min(map(len, self.known))


def groups_of(data: Set, aside: Set | None, folds: int, seed: int) -> Groups:
    """The folds of one seed."""
    n, rng = data.throws.number, np.random.default_rng(seed + 1000)
    if aside is not None:
        every = np.arange(aside.throws.number)
        return Groups([rng.permutation(n) for _ in range(folds)], [every] * folds, data.throws, aside.throws)
    fold = group_folds(np.arange(n), folds, seed)
    known = [rng.permutation(np.flatnonzero(fold != m)) for m in range(folds)]
    return Groups(known, [np.flatnonzero(fold == m) for m in range(folds)], data.throws, data.throws)


def predict(model: Model, fitted: Fitted, groups: Groups) -> list[np.ndarray]:
    """Each group's asked throws, predicted from their first rows: [R, nq, n_m]."""
    most, rows = max(map(len, groups.asked)), len(groups.ask_about.seen) - 1
    rows = -(-rows // ROWS) * ROWS
    index = np.concatenate([np.resize(a, most) for a in groups.asked])
    start = whole(groups.ask_about.of(index), 1)
    found = np.asarray(_roll(model, rows)(fitted, Start(*map(jnp.asarray, (start.qpos, start.qvel, start.heading)))))
    found = np.concatenate([start.qpos[None], found])[: len(groups.ask_about.seen)]
    parts = np.split(found, len(groups.asked), -1)
    return [part[..., : len(a)] for part, a in zip(parts, groups.asked, strict=True)]


@functools.cache
def _roll(model: Model, rows: int) -> Any:
    return jax.jit(lambda fitted, start: model.rollout(fitted, start, rows)[0])


def judged(thing: Thing, model: Model, fitted: Fitted, groups: Groups) -> dict[str, np.ndarray]:
    """Scores of every asked throw, one column per measure: [n, 5], its group and its number; a few predictions to look at."""
    found = predict(model, fitted, groups)
    table = [np.column_stack(score(thing, q, groups.ask_about.of(a))) for q, a in zip(found, groups.asked, strict=True)]
    return {
        "shown": found[0][..., :SHOWN],
        "scores": np.concatenate(table),
        "throw": np.concatenate(groups.asked),
        "group": np.concatenate([np.full(len(a), m) for m, a in enumerate(groups.asked)]),
    }


Part = dict[str, np.ndarray]
TRUSTS = (0.0, 0.5, 1.0)
HANDICAP = (0.03, 0.0, 0.0)  # of each, as a share of the loss: a correction is dropped when it is clearly worse
LEAST_TRUSTED = 32  # throws
MOST_JUDGED = 4  # batches


def weights_of(model: Model, part: Part) -> tuple[Any, ...]:
    """The weights of every member that a part holds."""
    fresh = model.fresh(jax.random.key(0), part["phi"].shape[1])
    structure, count = jax.tree.structure(fresh), len(jax.tree.leaves(fresh))
    leaves = lambda k: [jnp.asarray(part[f"weights{k}-{i}"]) for i in range(count)]  # noqa: E731
    return tuple(jax.tree.unflatten(structure, leaves(k)) for k in range(MEMBERS))


def trusted(
    thing: Thing, model: Model, groups: Groups, part: Part, effort: Effort, fewer: Part | None, known: int, size: int
) -> Part:
    """Scores of a hybrid that is trusted as far as it has earned.

    With fewer than `LEAST_TRUSTED` throws nothing is trusted. From then on the weights that `fewer`, the first `known` throws,
    gave are asked about the throws that came since, and each group takes the trust of the lowest loss there.
    """
    trust = np.zeros(len(groups.known), np.float32)
    if fewer is not None and size >= LEAST_TRUSTED:
        since = [groups.learn_from.of(k[known:size]) for k in groups.known]
        old = weights_of(model, fewer)
        table = [_asked(thing, model, Fitted(jnp.asarray(fewer["phi"]), old, g), since, effort) for g in TRUSTS]
        trust = np.array(TRUSTS, np.float32)[(np.stack(table) / table[0] + np.array(HANDICAP)[:, None]).argmin(0)]
    fitted = Fitted(jnp.asarray(part["phi"]), weights_of(model, part), jnp.asarray(trust))
    return {"phi": part["phi"], "trust": trust} | judged(thing, model, fitted, groups)


def _asked(thing: Thing, model: Model, fitted: Fitted, parts: list[Throws], effort: Effort) -> np.ndarray:
    """Mean loss of each group over whole throws, [M], in batches of one shape."""
    value, count = objective(thing, model, train_phi=False).value, parts[0].number
    rounds, found = min(-(-count // effort.batch), MOST_JUDGED), []
    for i in range(rounds):
        rows = np.arange(i * effort.batch, (i + 1) * effort.batch) % count
        cut = [whole(part.of(rows), effort.rows) for part in parts]
        batch = Windows(*(np.concatenate(x, -1) for x in zip(*cut, strict=True)))
        trust = jnp.broadcast_to(jnp.asarray(fitted.trust, jnp.float32), len(parts))
        found.append(np.asarray(value(fitted._replace(trust=trust), batch)).mean(1))
    return np.mean(found, 0)


def fit_physics(
    thing: Thing, model: Model, groups: Groups, size: int | None, effort: Effort, seed: int, fewer: Part | None
) -> Part:
    """φ of every group, and its scores; `fewer` is the same from fewer throws."""
    phi = identify(thing, model, groups.parts(size), effort, seed, fewer["phi"] if fewer else None)
    return {"phi": phi} | judged(thing, model, Fitted(jnp.asarray(phi), None), groups)


def fit_network(
    thing: Thing, model: Model, groups: Groups, size: int | None, effort: Effort, seed: int, fewer: Part | None,
    phi: np.ndarray,
) -> Part:  # fmt: skip
    """The weights of every group and member with the φ of its physics, and its scores."""
    known = weights_of(model, fewer) if fewer else (None,) * MEMBERS
    parts = groups.parts(size)
    weights = tuple(learn(thing, model, phi, parts, effort, seed + 1000 * k, known[k]) for k in range(MEMBERS))
    leaves = {
        f"weights{k}-{i}": np.asarray(leaf)
        for k in range(MEMBERS)
        for i, leaf in enumerate(jax.tree.leaves(weights[k]))
    }
    return {"phi": phi} | leaves | judged(thing, model, Fitted(jnp.asarray(phi), weights), groups)
