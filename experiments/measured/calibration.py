"""Is a stated probability what happens? The probability integral transform, and probabilities of a yes or no.

If a law is right, u = P(break below the force at which it broke) is uniform on [0, 1]: Kolmogorov and Smirnov's D is
the largest distance between the share of u below a value and that value.
"""

from typing import NamedTuple

import numpy as np


class Uniform(NamedTuple):
    """Kolmogorov and Smirnov's test: the largest distance, and how often chance alone gives a larger one."""

    distance: float
    p_value: float


def uniform_test(u: np.ndarray) -> Uniform:
    """Whether `u` [n] could be uniform on [0, 1] (the series of Kolmogorov with Stephens's correction for small n)."""
    ordered, n = np.sort(np.asarray(u, float)), len(u)
    if n == 0 or not np.all(np.isfinite(ordered)):
        raise ValueError(f"the test needs finite numbers, at least one; {n} were given")
    above = np.max(np.arange(1, n + 1) / n - ordered)
    below = np.max(ordered - np.arange(n) / n)
    distance = float(max(above, below))
    scaled, k = (np.sqrt(n) + 0.12 + 0.11 / np.sqrt(n)) * distance, np.arange(1, 101)
    p_value = 1.0 if scaled < 0.2 else 2 * np.sum((-1.0) ** (k - 1) * np.exp(-2 * (k * scaled) ** 2))
    return Uniform(distance, float(np.clip(p_value, 0.0, 1.0)))


def reliability(p: np.ndarray, happened: np.ndarray, bins: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean stated probability, observed share and count in `bins` groups of equal size, sorted by probability."""
    parts = np.array_split(np.argsort(p, kind="stable"), bins)
    stated = np.array([p[part].mean() for part in parts])
    return stated, np.array([happened[part].mean() for part in parts]), np.array([len(part) for part in parts])


def log_loss(p: np.ndarray, happened: np.ndarray) -> np.ndarray:
    """Minus the log probability of what happened, nats, entry by entry."""
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return -np.where(happened, np.log(p), np.log1p(-p))
