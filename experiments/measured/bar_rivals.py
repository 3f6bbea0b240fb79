"""What the hazard is compared with: laws fitted to a group of bars alone, or to all bars of a direction together.

    normal     F ~ N(m, s²)                         m, s² (n − 1) of the group
    Weibull    P(no break below F) = exp(−(F/F₀)^k) maximum likelihood
    Student    log F of a group: the normal law with an unknown variance, whose prior (weight of `PRIOR` bars) is the
               variance within all groups of that direction; the best of these for three bars

All see the breaks that the hazard sees; a bar that held is left out, as these fits have no place for it. Log densities
are of log F, those of the hazard too, so that they can be compared.
"""

from collections.abc import Callable, Sequence
from math import lgamma, pi

import numpy as np
from jax.scipy.special import betainc, ndtr

Law = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # log F [n] -> log density of log F, P(break below F)
PRIOR = 2.0
FLOOR = 1e-3  # of the mean: two equal bars must not make a law without width


def normal(x: np.ndarray) -> Law:
    """The normal law of F from logs of loads, at least two."""
    loads = np.exp(x)
    mean, std = loads.mean(), max(loads.std(ddof=1), FLOOR * loads.mean())

    def law(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = (np.exp(at) - mean) / std
        return -0.5 * z**2 - 0.5 * np.log(2 * pi) - np.log(std) + at, np.asarray(ndtr(z))

    return law


def weibull(x: np.ndarray) -> Law:
    """Weibull's law of F from logs of loads, at least two, by Newton steps on the shape k."""
    y, k = x - x.mean(), 1.2 / max(x.std(), FLOOR)
    for _ in range(100):
        w = np.exp(k * (y - y.max()))
        mean, square = (w * y).sum() / w.sum(), (w * y * y).sum() / w.sum()
        step = (1 / k + y.mean() - mean) / (1 / k**2 + square - mean**2)
        k = min(max(k + step, k / 2), 1 / FLOOR)
    scale = x.mean() + y.max() + np.log(np.exp(k * (y - y.max())).mean()) / k

    def law(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = k * (at - scale)
        hazard = np.exp(np.minimum(z, 500.0))
        return np.log(k) + z - hazard, -np.expm1(-hazard)

    return law


def student(x: np.ndarray, variance: float) -> Law:
    """Student's law of log F from at least one log of a load and the variance within groups."""
    n, freedom = len(x), PRIOR + len(x) - 1
    width = np.sqrt((PRIOR * variance + ((x - x.mean()) ** 2).sum()) / freedom * (1 + 1 / n))

    def law(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = (at - x.mean()) / width
        top = lgamma((freedom + 1) / 2) - lgamma(freedom / 2) - 0.5 * np.log(freedom * pi) - np.log(width)
        return top - (freedom + 1) / 2 * np.log1p(z**2 / freedom), _student_cdf(z, freedom)

    return law


def _student_cdf(z: np.ndarray, freedom: float) -> np.ndarray:
    """By the incomplete beta function."""
    tail = 0.5 * np.asarray(betainc(freedom / 2, 0.5, freedom / (freedom + z**2)))
    return np.where(z > 0, 1 - tail, tail)


def within_variance(groups: Sequence[np.ndarray]) -> float:
    """The variance of log F within groups of more than one bar."""
    several = [x for x in groups if len(x) > 1]
    freedom = sum(len(x) - 1 for x in several)
    return sum(float(((x - x.mean()) ** 2).sum()) for x in several) / freedom if freedom else 0.01
