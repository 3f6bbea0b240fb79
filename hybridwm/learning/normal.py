"""The normal equations of windows, their starts eliminated; how far a window is believed; how wide the unknowns remain.

    r_wt = e_wt / σ,     κ_wt = smooth_wt · min(1, 3 / max_{u≤t} ‖r_wu‖)        after a surprise less is believed, for ever after
    ⎡A_w  B_w⎤ ⎡δz ⎤     ⎡g_w⎤
    ⎣B_wᵀ C_w⎦ ⎣δy_w⎦ = − ⎣h_w⎦                 Gauss–Newton; y_w belongs to its window alone, so it is eliminated:
    D = Σ_w A_w − B_w C_w⁻¹ B_wᵀ                what the data says of z
    p_w = g_w − B_w C_w⁻¹ h_w                   how window w pulls at z
    Cov z = N (s⁻² + max(c D, Q)) N + δ δᵀ      N = (D + s⁻²)⁻¹
    Q   = E/(E−1) Σ_e p_e p_eᵀ, p_e = Σ_{w∈e} p_w       how much the E episodes disagree: errors of one episode are not independent,
                                                 and where the model is wrong they are larger than σ says
    c ≥ 1: how much more the windows disagree than σ explains;    δ: the step that is still asked for but lowers no cost

Everything is in units of the prior and by eigenvectors: no variance can come out negative, and none wider than the prior's.
Legend: as in sensitivity.py; E episodes.
"""

from typing import NamedTuple

import numpy as np

from hybridwm.learning.sensitivity import Look, Sensitivity

SURPRISE = 3.0
_CLIP = 1.345
_CLIPPED = 0.7101645  # mean of min(r², _CLIP²) for a normal r
_AT_ONCE = 1024


class Sums(NamedTuple):
    """Normal equations of all windows."""

    data: np.ndarray  # [p, p] D
    pull: np.ndarray  # [W, p] p_w
    starts: np.ndarray  # [n, W] −C⁻¹ h: step of the starts at δz = 0
    follow: np.ndarray  # [n, p, W] −C⁻¹ Bᵀ


def spread(fit: Sensitivity, at: Look, given: np.ndarray | None, fitted: bool) -> np.ndarray:
    """σ [n]: root mean square of the errors clipped at _CLIP σ, in the rows that are looked at; not below what rounding makes."""
    first = 0 if fitted else 1
    squares, seen = np.square(at.errors[first:]), at.smooth[first:]
    seen = seen if seen.sum() > 10 else np.ones_like(seen)
    least = np.square(fit.rounding * fit.size)
    mean = lambda x: np.sum(x * seen, (0, 2)) / np.sum(seen)  # noqa: E731
    variance = mean(squares) + least
    for _ in range(50):
        variance = mean(np.minimum(squares, _CLIP**2 * variance[:, None])) / _CLIPPED + least
    rows = float(np.sum(seen) / seen.shape[-1])
    found = np.sqrt(variance * rows / max(rows - fitted, 1))  # each window's start took one row
    known = np.full(fit.numbers, np.nan) if given is None else np.asarray(given, float)
    return np.where(np.isnan(known), found, known)


def belief(at: Look, sigma: np.ndarray) -> np.ndarray:
    """κ [H+1, 1, W]."""
    r = at.errors / sigma[:, None]
    seen = max(int(np.any(r, (0, 2)).sum()), 1)  # numbers of a row that are looked at
    worst = np.maximum.accumulate(np.sqrt(np.sum(np.square(r), 1, keepdims=True) / seen), 0)
    return at.smooth * (SURPRISE / np.maximum(worst, SURPRISE))


def costs(errors: np.ndarray, sigma: np.ndarray, kappa: np.ndarray) -> np.ndarray:
    """½ Σ κ |r|² of each window [W]; infinite where the prediction is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = 0.5 * np.sum(np.where(kappa > 0, kappa * np.square(errors / sigma[:, None]), 0), (0, 1))
    return np.where(np.isfinite(found), found, np.inf)


def sums(fit: Sensitivity, at: Look, sigma: np.ndarray, damping: np.ndarray | None) -> Sums:
    """Normal equations; a window whose start has not settled (large damping [W]) says little.

    Without damping the starts stay where they are.
    """
    p, root = len(fit.places), np.sqrt(belief(at, sigma))
    directions = p if damping is None else len(at.change)
    damping = np.zeros(fit.count) if damping is None else damping
    parts = []
    for i in range(0, fit.count, _AT_ONCE):
        cut = slice(i, i + _AT_ONCE)
        weigh = root[..., cut] / sigma[:, None]
        with np.errstate(invalid="ignore"):
            r, change = (np.where(weigh > 0, weigh * x[..., cut], 0) for x in (at.errors, at.change[:directions]))
        parts.append(_reduced(p, r, change, damping[cut]))
    data, pull, starts, follow = zip(*parts, strict=True)
    join = lambda xs: np.concatenate(xs, -1)  # noqa: E731
    return Sums(np.sum(np.stack(data), 0), np.concatenate(pull), join(starts), join(follow))


def _reduced(p: int, r: np.ndarray, change: np.ndarray, damping: np.ndarray) -> tuple[np.ndarray, ...]:
    """D, p_w and the starts' steps from weighted errors [H+1, n, W], derivatives [D, H+1, n, W] and a damping [W]."""
    windows, directions = r.shape[-1], len(change)
    flat = lambda x: np.moveaxis(x.reshape(*x.shape[:-3], -1, windows), -1, 0)  # noqa: E731
    jac = flat(change).astype(float)  # [W, D, N]
    block = jac @ jac.swapaxes(1, 2)  # [W, D, D]
    slope = (jac @ flat(r)[..., None])[..., 0]  # [W, D]
    if directions == p:
        return block.sum(0), slope, np.zeros((0, windows)), np.zeros((0, p, windows))
    inside, mixed = block[:, p:, p:] + 1e-9 * np.eye(directions - p), block[:, :p, p:]
    solve = lambda c: np.linalg.solve(c, np.concatenate([mixed.swapaxes(1, 2), slope[:, p:, None]], -1))  # noqa: E731
    solved, step = solve(inside), solve(inside * (1 + damping[:, None, None] * np.eye(directions - p)))
    settled = 1 / (1 + damping[:, None])
    data = settled[..., None] * (block[:, :p, :p] - mixed @ solved[..., :p])
    own = settled * (slope[:, :p] - (mixed @ solved[..., p:])[..., 0])
    return data.sum(0), own, -step[..., p].T, -np.moveaxis(step[..., :p], 0, -1)


def seen(data: np.ndarray, s: np.ndarray, rounding: float) -> np.ndarray:
    """D [p, p] less what derivatives of finite precision pretend to see; s [p] std of the prior."""
    values, vectors = np.linalg.eigh(data * np.outer(s, s))
    blur = (10 * rounding) ** 2 * values[-1]
    return (vectors * np.maximum(values - blur, 0)) @ vectors.T / np.outer(s, s)


def posterior(
    found: Sums, s: np.ndarray, episode: np.ndarray, rounding: float, left: np.ndarray | None = None
) -> np.ndarray:
    """Cov z [p, p]; s [p]: std of the prior; episode [W] of each window; `left`: δ."""
    values, vectors = np.linalg.eigh(seen(found.data, s, rounding) * np.outer(s, s))
    values = np.maximum(values, 0)
    narrow, data = (vectors / (1 + values)) @ vectors.T, (vectors * values) @ vectors.T
    pull, delta = found.pull * s, np.zeros(len(s)) if left is None else left / s
    c = max(1.0, np.sum((pull @ narrow) * pull) / max(np.trace(narrow @ data), 1e-9))
    disagree = c * data
    disagree = disagree + _positive(_clustered(pull, episode) - disagree)
    half = narrow @ _root(np.eye(len(s)) + disagree)
    wide, turn = np.linalg.eigh(half @ half.T + np.outer(delta, delta))
    return (turn * np.clip(wide, 0, 1)) @ turn.T * np.outer(s, s)


def _clustered(pull: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """Q [p, p]; 0 of a single episode, which has nothing to disagree with."""
    names, place = np.unique(episode, return_inverse=True)
    if len(names) < 2:
        return np.zeros((pull.shape[1],) * 2)
    each = np.zeros((len(names), pull.shape[1]))
    np.add.at(each, place, pull)
    each = each - each.mean(0)
    return each.T @ each * len(names) / (len(names) - 1)


def _positive(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 0)) @ vectors.T


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0))
