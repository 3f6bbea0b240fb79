"""Differences and steps between poses: the tangent space of qpos, in MuJoCo's order and frames.

    q ⊕ v       lengths and angles add; a quaternion turns in its own frame: r ⊗ exp(v/2)
    q′ ⊖ q      the v with q ⊕ v = q′, the shorter way round

Structure first: qpos [nq, ...], v [nv, ...]; everything broadcasts over what follows. `xp` is numpy or jax.numpy; both
have finite gradients where nothing turns.
"""

from typing import Any

import numpy as np

_FREE, _BALL = 0, 1  # MuJoCo's joint types with a quaternion


def quaternions(model: Any) -> list[tuple[int, int]]:
    """(address in qpos, address in qvel) of every quaternion and the turn that belongs to it."""
    found = zip(model.jnt_type.tolist(), model.jnt_qposadr.tolist(), model.jnt_dofadr.tolist(), strict=True)
    return [(q + 3, v + 3) if kind == _FREE else (q, v) for kind, q, v in found if kind in (_FREE, _BALL)]


def scalars(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """(addresses in qpos, addresses in qvel) of everything that is not a quaternion, pairwise."""
    turns = quaternions(model)
    q = np.setdiff1d(np.arange(model.nq), [at + i for at, _ in turns for i in range(4)])
    v = np.setdiff1d(np.arange(model.nv), [at + i for _, at in turns for i in range(3)])
    return q.astype(int), v.astype(int)


def advance(model: Any, qpos: Any, v: Any, *, xp: Any = np) -> Any:
    """qpos ⊕ v."""
    q_at, v_at = scalars(model)
    plain = dict(zip(q_at.tolist(), v_at.tolist(), strict=True))
    rows = {q: qpos[q] + v[dof] for q, dof in plain.items()}
    for q, dof in quaternions(model):
        turned = product(qpos[q : q + 4], _exp(v[dof : dof + 3], xp), xp)
        rows |= {q + i: turned[i] for i in range(4)}
    return xp.stack([rows[i] for i in range(model.nq)]) if rows else qpos


def difference(model: Any, qpos: Any, other: Any, *, xp: Any = np) -> Any:
    """other ⊖ qpos."""
    q_at, v_at = scalars(model)
    rows = {v: other[q] - qpos[q] for q, v in zip(q_at.tolist(), v_at.tolist(), strict=True)}
    for q, dof in quaternions(model):
        back = xp.stack([qpos[q], -qpos[q + 1], -qpos[q + 2], -qpos[q + 3]])
        turn = _log(product(back, other[q : q + 4], xp), xp)
        rows |= {dof + i: turn[i] for i in range(3)}
    return xp.stack([rows[i] for i in range(model.nv)]) if rows else qpos[:0]


def unit(model: Any, qpos: Any, *, xp: Any = np) -> Any:
    """qpos with its quaternions made unit."""
    rows = list(qpos)
    for q, _ in quaternions(model):
        norm = xp.sqrt(sum(x * x for x in rows[q : q + 4]))
        rows[q : q + 4] = [x / norm for x in rows[q : q + 4]]
    return xp.stack(rows) if rows else qpos


def _exp(v: Any, xp: Any) -> Any:
    """exp(v / 2) as a quaternion."""
    half, squared = 0.5 * v, 0.25 * xp.sum(v * v, 0)
    small = squared < 1e-8
    angle = xp.sqrt(xp.where(small, 1.0, squared))
    sinc = xp.where(small, 1 - squared / 6, xp.sin(angle) / angle)
    cosine = xp.where(small, 1 - squared / 2, xp.cos(angle))
    return xp.concatenate([cosine[None], sinc * half])


def _log(r: Any, xp: Any) -> Any:
    """2 log r, at most half a turn."""
    r = xp.where(r[0] < 0, -r, r)
    squared = xp.sum(r[1:] * r[1:], 0)
    small = squared < 1e-8
    sine = xp.sqrt(xp.where(small, 1.0, squared))
    return xp.where(small, 2 / r[0], 2 * xp.arctan2(sine, r[0]) / sine) * r[1:]


def product(a: Any, b: Any, xp: Any) -> Any:
    """a ⊗ b, each [4, ...]."""
    return xp.stack(
        [
            a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
            a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
            a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
            a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
        ]
    )
