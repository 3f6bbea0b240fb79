"""What data cannot tell apart, in words.

    S = P^½ D P^½ = V μ Vᵀ,   P = diag s²          information of the data in units of the prior
    std along v after / before = 1/√(1 + μ)        above 0.8: the data has nothing to say about v

A direction with one large entry is an unknown that the data does not see. One with two is a pair of which it sees one combination:
in logarithms, what may rise together with a fall of the other leaves their product; what rises together leaves their ratio.
"""

from collections.abc import Sequence

import numpy as np

from hybridwm.learning.unknowns import Place

BLIND = 0.8
ALIKE = 0.98
_SHARE = 0.35  # of the largest entry of a direction: what takes part in it


def confounded(data: np.ndarray, covariance: np.ndarray, places: Sequence[Place]) -> tuple[str, ...]:
    """Sentences for blind directions of the data's information [p, p], then for pairs whose correlation is above 0.98."""
    prior = np.array([place.unknown.prior_std for place in places])
    values, vectors = np.linalg.eigh(data * np.outer(prior, prior))
    said: list[str] = []
    seen: list[frozenset[int]] = []
    for value, v in zip(values, vectors.T, strict=True):
        left = 1 / np.sqrt(1 + max(value, 0))
        if left > BLIND:
            part = np.flatnonzero(np.abs(v) > _SHARE * np.abs(v).max())
            seen.append(frozenset(part.tolist()))
            said.append(_blind(part, v * prior, places, float(left)))
    std = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(std, std)
    for i in range(len(places)):
        for j in range(i + 1, len(places)):
            if abs(correlation[i, j]) > ALIKE and not any({i, j} <= part for part in seen):
                said.append(
                    f"{_pair(i, j, bool(correlation[i, j] > 0), places)} (correlation {correlation[i, j]:+.3f})"
                )
    return tuple(said)


def _blind(part: np.ndarray, v: np.ndarray, places: Sequence[Place], left: float) -> str:
    tail = f"the data leaves {left:.0%} of the prior's spread"
    if len(part) == 1:
        return f"{places[part[0]].label}: not identifiable from this data ({tail})"
    if len(part) == 2:
        return f"{_pair(int(part[0]), int(part[1]), bool(np.prod(v[part]) > 0), places)} ({tail})"
    words = [f"{places[i].label} {'up' if v[i] * v[part[0]] > 0 else 'down'}" for i in part]
    return f"{', '.join(words)}, all together: not identifiable from this data ({tail})"


def _pair(i: int, j: int, together: bool, places: Sequence[Place]) -> str:
    """`together`: the two may rise together unseen."""
    kept = (
        ("ratio" if together else "product")
        if places[i].log and places[j].log
        else ("difference" if together else "sum")
    )
    return f"{places[i].label} and {places[j].label}: only their {kept} is determined"
