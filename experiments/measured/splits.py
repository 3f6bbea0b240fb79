"""Folds by group, the parts of a study that are finished, and intervals from resampled groups.

A group (workpiece, material, throw) is never on both sides of a split, and it is the unit that the bootstrap draws: what
happens within one is not independent.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.keeping import save


def group_folds(groups: Sequence[Any] | np.ndarray, count: int, seed: int) -> np.ndarray:
    """The fold 0 … count−1 of each entry, [n]; entries of one group share a fold, folds differ by one group at most."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < count:
        raise ValueError(f"{len(names)} groups cannot be cut into {count} folds")
    return (np.random.default_rng(seed).permutation(len(names)) % count)[index]


def bootstrap(
    values: np.ndarray,
    groups: Sequence[Any] | np.ndarray,
    *,
    statistic: Callable[[np.ndarray], float] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % interval of a statistic (the mean) when whole groups are drawn with replacement.

    `values` is [n] or [n, k]; `statistic` sees the sum over entries, [k + 1], whose last number counts the entries.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    table = np.column_stack([values, np.ones(len(index))])
    sums = np.zeros((len(names), table.shape[1]))
    np.add.at(sums, index, table)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws) @ sums
    found = np.array([(statistic or _mean)(total) for total in drawn])
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def _mean(total: np.ndarray) -> float:
    return float(total[0] / total[-1])


def fingerprint(*things: Any) -> str:
    """A digest of settings and data, so that a finished part is used again only for the same question."""
    text = json.dumps(list(things), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def finished(path: Path, digest: str, compute: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of one part: read from `path` if it was finished for the same `digest`, else computed and kept."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            if str(archive["digest"]) == digest:
                return {key: archive[key] for key in archive.files if key != "digest"}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        pass  # not there, or cut short when the study was stopped
    found = {key: np.asarray(value) for key, value in compute().items()}
    save(path, {"digest": digest, **found})
    return found
