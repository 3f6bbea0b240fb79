"""Throws as arrays: starts and what came after them, whole throws or short windows of them.

A window may begin at any row k ≥ 1 with the velocity that the poses say, v_k = (q_k ⊖ q_{k−1}) / h: that is the engine's own.
A whole throw begins at its first row with the velocity of its first row, as everybody scores it.

Legend: n throws, R rows, W windows.
"""

from typing import NamedTuple

import numpy as np

from experiments.measured.tosses import DT


class Throws(NamedTuple):
    """n throws; short ones are continued with their last row, which `seen` leaves out."""

    qpos: np.ndarray  # [R, nq, n]
    qvel: np.ndarray  # [R, nv, n] row 0 as measured, later rows from the poses
    seen: np.ndarray  # [R, n]

    @property
    def heading(self) -> np.ndarray:
        """Where each throw is going, [2, n]: the way from its first place to the middle of the board."""
        way = -self.qpos[0, :2]
        return way / np.maximum(np.linalg.norm(way, axis=0), 1e-6)

    def of(self, index: np.ndarray) -> "Throws":
        """Some of them."""
        return Throws(*(x[..., index] for x in self))

    @property
    def number(self) -> int:
        """n."""
        return self.seen.shape[1]


class Windows(NamedTuple):
    """Starts, and H rows after each."""

    qpos: np.ndarray  # [nq, W]
    qvel: np.ndarray  # [nv, W]
    heading: np.ndarray  # [2, W]
    truth: np.ndarray  # [H, nq, W]
    seen: np.ndarray  # [H, W]


def throws_of(qpos: list[np.ndarray], first: list[np.ndarray]) -> Throws:
    """From each throw's rows of qpos [R_i, nq] and its first qvel [nv]."""
    rows = max(map(len, qpos))
    wide = np.stack([q[np.minimum(np.arange(rows), len(q) - 1)] for q in qpos], -1)
    speeds = np.concatenate([np.stack(first, -1)[None], difference(wide[:-1], wide[1:]) / DT])
    seen = (np.arange(rows)[:, None] < np.array([len(q) for q in qpos])).astype(float)
    return Throws(*(x.astype(np.float32) for x in (wide, speeds, seen)))


def difference(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """two ⊖ one of free bodies with further hinges: [R, nq, n] -> [R, nv, n], turns in the body's frame."""
    a, b = np.moveaxis(one[:, 3:7], 1, 0), np.moveaxis(two[:, 3:7], 1, 0)
    w = np.sum(a * b, 0)
    v = a[0] * b[1:] - b[0] * a[1:] - np.cross(a[1:], b[1:], axis=0)
    v = np.where(w < 0, -v, v)
    length = np.linalg.norm(v, axis=0)
    scale = np.where(length > 1e-9, 2 * np.arctan2(length, np.abs(w)) / np.maximum(length, 1e-9), 2.0)
    return np.concatenate([two[:, :3] - one[:, :3], np.moveaxis(v * scale, 0, 1), two[:, 7:] - one[:, 7:]], 1)


def whole(throws: Throws, rows: int) -> Windows:
    """Every throw from its first row, the H = `rows` rows after it."""
    last = len(throws.seen) - 1
    at = np.minimum(np.arange(1, rows + 1), last)
    seen = throws.seen[at] * (np.arange(1, rows + 1) <= last)[:, None]
    return Windows(throws.qpos[0], throws.qvel[0], throws.heading, throws.qpos[at], seen)


def window(throws: Throws, start: np.ndarray, rows: int) -> Windows:
    """One window of each throw, from row `start` [n]."""
    n = np.arange(throws.number)
    at = np.minimum(start + np.arange(1, rows + 1)[:, None], len(throws.seen) - 1)
    truth = throws.qpos[at, :, n].transpose(0, 2, 1)
    seen = throws.seen[at, n] * (start + np.arange(1, rows + 1)[:, None] < len(throws.seen))
    return Windows(throws.qpos[start, :, n].T, throws.qvel[start, :, n].T, throws.heading, truth, seen)
