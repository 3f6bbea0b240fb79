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
from experiments.toss.fitting import Effort, identify, learn
from experiments.toss.models import Fitted, Model, Start
from experiments.toss.sets import Set, score
from experiments.toss.things import Thing
from experiments.toss.windows import Throws, whole

Array = jax.Array
SHOWN = 3  # predicted throws of the first group that are kept
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
    """The weights of every group with the φ of its physics, and its scores."""
    known = [fewer[f"weights{i}"] for i in range(len(fewer)) if f"weights{i}" in fewer] if fewer else None
    weights = learn(thing, model, phi, groups.parts(size), effort, seed, known)
    leaves = {f"weights{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(weights))}
    return {"phi": phi} | leaves | judged(thing, model, Fitted(jnp.asarray(phi), weights), groups)
