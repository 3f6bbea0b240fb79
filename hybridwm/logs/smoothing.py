"""Noise and missing velocities: a Rauch–Tung–Striebel smoother whose one free number is chosen by likelihood.

    y            a length, an angle, a component of a quaternion (continued without leaps of sign); time in rows
    y⃛ = w        white, of variance λ σ²: what moves it is not known, only how roughly it moves
    ŷ = y + σ ε,   ŷ′ = y′ + σ′ ε          what the log says; ŷ′ where it has velocities

λ maximises the marginal likelihood of the rows, of poses and of velocities alone, then of both together. Noise touches all rows
alike, an impact only a few: so σ is read from the median innovation, and a series is called noisy where that is not far below
the root mean square, and where λ ≤ 10 (else the motion is rougher than the noise, and smoothing would change little). What is
not noisy is left as it is, to the last bit. The parts of a vector share their λ. Quaternions come back unit, turning rates as
ω = 2 Im(r̄ ⊗ r′).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from hybridwm.logs import tangent
from hybridwm.logs.recordings import Dataset, Recording

LARGEST_NOISY, LEAST_EVEN = 10.0, 0.25  # λ; σ over the root mean square
_F = np.array([[1.0, 1.0, 0.5], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])  # (y, y′, y″) one row on
_W = np.array([[1 / 20, 1 / 8, 1 / 6], [1 / 8, 1 / 3, 1 / 2], [1 / 6, 1 / 2, 1.0]])
_LAMBDAS = 10.0 ** np.arange(-12.0, 8.1, 0.5)
_DIFFUSE = np.diag([1e12, 1e10, 1e8])  # at the start, σ² = 1; with two rows alone the slope is their difference
_FIRST = 3  # rows that only say where the motion begins
_LEAST = 1e-12  # of a standard deviation
_EPISODES, _ROWS = 8, 2_000  # that the likelihood looks at


class Noise(NamedTuple):
    """Standard deviations of the log's noise per dof, and which dofs were smoothed."""

    qpos_std: np.ndarray  # [nv] m, rad
    qvel_std: np.ndarray  # [nv] m/s, rad/s; nan where the log had no velocities
    smoothed: np.ndarray  # [nv] bool


class _Group(NamedTuple):
    """Addresses of what is smoothed together."""

    qpos: list[int]
    qvel: list[int]
    turns: bool  # a quaternion and its turning rate


class _Fit(NamedTuple):
    lam: float
    std: float  # σ
    noisy: bool


class _Gains(NamedTuple):
    """Of the filter and of the smoother; they depend on λ, not on the data. G candidates, O observations per row."""

    kalman: np.ndarray  # [T, O, G, 3]
    variance: np.ndarray  # [T, O, G] of the innovations
    back: np.ndarray  # [T-1, G, 3, 3]


def smooth(dataset: Dataset, when: str = "auto", *, velocities: bool = True) -> tuple[Dataset, Noise]:
    """The dataset with its noise taken out, and what was found. velocities=False: qvel is not known and is estimated."""
    if when not in ("auto", "always", "never"):
        raise ValueError(f"smooth is {when!r}; allowed are auto, always, never")
    nv = dataset.scene.model.nv
    noise = Noise(np.full(nv, np.nan), np.full(nv, np.nan), np.zeros(nv, bool))
    paths = [recording.qpos.copy() for recording in dataset.recordings]
    rates = [recording.qvel.copy() for recording in dataset.recordings]
    for group in _groups(dataset):
        _smooth_group(dataset, group, when, velocities, noise, paths, rates)
    smoothed = tuple(
        recording._replace(qpos=q, qvel=v) for recording, q, v in zip(dataset.recordings, paths, rates, strict=True)
    )
    return dataset._replace(recordings=smoothed), noise


def _groups(dataset: Dataset) -> Iterator[_Group]:
    """Every hinge and slide by itself, a free body's place, every quaternion."""
    model = dataset.scene.model
    for kind, q, v in zip(*(x.tolist() for x in (model.jnt_type, model.jnt_qposadr, model.jnt_dofadr)), strict=True):
        if kind == 0:
            yield _Group(list(range(q, q + 3)), list(range(v, v + 3)), False)
        elif kind > 1:
            yield _Group([q], [v], False)
    for q, v in tangent.quaternions(model):
        yield _Group(list(range(q, q + 4)), list(range(v, v + 3)), True)


def _smooth_group(
    dataset: Dataset,
    group: _Group,
    when: str,
    velocities: bool,
    noise: Noise,
    paths: list[np.ndarray],
    rates: list[np.ndarray],
) -> None:
    series = [_channels(recording, group, dataset.dt) for recording in dataset.recordings]
    kinds = list(zip(*series, strict=True))[: 1 + velocities]  # poses, slopes
    alone = [_likeliest([kind], [1.0]) for kind in kinds]
    for std, fit, rate in zip(noise, alone, (1.0, dataset.dt), strict=False):
        std[group.qvel] = _tangent(fit.std, group) / rate
    noisy = when == "always" or (when == "auto" and any(fit.noisy for fit in alone))
    if not noisy and velocities:
        return
    noise.smoothed[group.qvel] = True
    ratios = [float(np.clip((fit.std + _LEAST) / (alone[0].std + _LEAST), 1e-4, 1e4)) ** 2 for fit in alone]
    found = _smoothed(kinds, ratios, _likeliest(kinds, ratios).lam)
    for path, rate, (y, slope) in zip(paths, rates, found, strict=True):
        rate[:, group.qvel] = (_turning(y, slope) if group.turns else slope) / dataset.dt
        if noisy:
            path[:, group.qpos] = y / np.linalg.norm(y, axis=1, keepdims=True) if group.turns else y


def _channels(recording: Recording, group: _Group, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """What is smoothed, and its slope per row as the log has it, [T, channels]."""
    y, v = recording.qpos[:, group.qpos], recording.qvel[:, group.qvel] * dt
    if not group.turns:
        return y, v
    signs = np.cumprod(np.where((y[1:] * y[:-1]).sum(1) < 0, -1.0, 1.0))
    y = y * np.concatenate([[1.0], signs])[:, None]
    spin = np.concatenate([np.zeros((len(v), 1)), v], axis=1)
    return y, 0.5 * tangent.product(y.T, spin.T, np).T


def _turning(y: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """2 Im(r̄ ⊗ r′) / |r|², [T, 3]."""
    back = y * [1.0, -1.0, -1.0, -1.0]
    return 2 * tangent.product(back.T, slope.T, np)[1:].T / (y**2).sum(1, keepdims=True)


def _tangent(std: float, group: _Group) -> float:
    """A quaternion's four components hold three directions of noise, each half the angle."""
    return 2 * std * (4 / 3) ** 0.5 if group.turns else std


def _likeliest(observed: Sequence[Sequence[np.ndarray]], ratios: Sequence[float]) -> _Fit:
    """The likeliest λ and its σ; `observed` is [a series], or [poses, slopes], with their variances in σ²."""
    longest = max(len(y) for y in observed[0])
    chosen = [i for i, y in enumerate(observed[0]) if 2 * len(y) >= longest][:_EPISODES]
    rows = min(_ROWS, *(len(observed[0][i]) for i in chosen), _ROWS)
    data = np.stack([np.concatenate([kind[i][:rows] for i in chosen], axis=1) for kind in observed], axis=1)
    gains = _gains(_LAMBDAS, rows, ratios)
    scaled = _filtered(gains, data)[1] / np.sqrt(gains.variance)[..., None]
    scaled, logs = scaled[_FIRST:], np.log(gains.variance[_FIRST:]).sum((0, 1)) * data.shape[2]
    if not scaled.size:
        return _Fit(float(_LAMBDAS[-1]), 0.0, False)
    square = np.maximum((scaled**2).mean((0, 1, 3)), _LEAST**2)
    best = int(np.argmin(logs + scaled[:, :, 0].size * np.log(square)))
    lam, std = float(_LAMBDAS[best]), float(np.median(np.abs(scaled[:, :, best])) / 0.6745)
    return _Fit(lam, std, lam <= LARGEST_NOISY and std >= LEAST_EVEN * float(np.sqrt(square[best])))


def _gains(lambdas: np.ndarray, rows: int, ratios: Sequence[float]) -> _Gains:
    kalman, variance = np.empty((rows, len(ratios), len(lambdas), 3)), np.empty((rows, len(ratios), len(lambdas)))
    after, before = np.empty((2, rows, len(lambdas), 3, 3))
    p = np.broadcast_to(_DIFFUSE, (len(lambdas), 3, 3))
    for t in range(rows):
        before[t] = p if t == 0 else _F @ p @ _F.T + lambdas[:, None, None] * _W
        p = before[t]
        for i, ratio in enumerate(ratios):  # observation i is the i-th derivative
            variance[t, i] = p[:, i, i] + ratio
            kalman[t, i] = p[:, :, i] / variance[t, i][:, None]
            p = p - kalman[t, i][:, :, None] * p[:, None, i]
        after[t] = p = 0.5 * (p + p.swapaxes(1, 2))
    return _Gains(kalman, variance, after[:-1] @ _F.T @ _inverse(before[1:]))


def _inverse(p: np.ndarray) -> np.ndarray:
    """Of covariances whose parts differ by many orders of magnitude: scaled to correlations, which are kept off ±1."""
    size = np.sqrt(np.diagonal(p, axis1=-2, axis2=-1))
    scale = size[..., :, None] * size[..., None, :]
    return np.linalg.inv(p / scale + 1e-12 * np.eye(3)) / scale


def _filtered(gains: _Gains, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forward pass over data [T, O, N]: (means [T, G, 3, N], innovations [T, O, G, N])."""
    rows, kinds, many = data.shape
    candidates = gains.kalman.shape[2]
    means, innovations = np.empty((rows, candidates, 3, many)), np.empty((rows, kinds, candidates, many))
    mean = np.zeros((candidates, 3, many))
    for t in range(rows):
        mean = _F @ mean
        for i in range(kinds):
            innovations[t, i] = data[t, i] - mean[:, i]
            mean = mean + gains.kalman[t, i][:, :, None] * innovations[t, i][:, None]
        means[t] = mean
    return means, innovations


def _smoothed(
    observed: Sequence[Sequence[np.ndarray]], ratios: Sequence[float], lam: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(y, slope per row) of every episode, each [T, channels]; short episodes are padded, and read from their own end."""
    lengths = [len(y) for y in observed[0]]
    wide = observed[0][0].shape[1]
    data = np.zeros((max(lengths), len(observed), wide * len(lengths)))
    for i, kind in enumerate(observed):
        for e, y in enumerate(kind):
            data[: lengths[e], i, e * wide : (e + 1) * wide] = y
    gains, last = _gains(np.array([lam]), len(data), ratios), np.repeat(lengths, wide) - 1
    means = _filtered(gains, data)[0][:, 0]
    for t in range(len(data) - 2, -1, -1):
        means[t] += (t < last) * (gains.back[t, 0] @ (means[t + 1] - _F @ means[t]))
    return [
        (means[:n, 0, e * wide : (e + 1) * wide], means[:n, 1, e * wide : (e + 1) * wide])
        for e, n in enumerate(lengths)
    ]
