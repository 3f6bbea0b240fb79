"""Where named bodies and sites are and how they move: what costs and goals are written on. Worlds last.

    p = p_b + R_b p₀        q = q_b ⊗ q₀        v = v_b + ω × (p − p_b)        in the world's axes

A body that was fused into its carrier (see `fuse.py`) is found at its own place there.
"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from physics import dynamics
from physics import lanes as ln
from physics.fuse import Place
from physics.stage import fused
from physics.tree import Tree, forward
from physics.types import Params, State

Array = jax.Array


class Frames(NamedTuple):
    """P frames in the world."""

    pos: Array  # [P, 3, W] m
    quat: Array  # [P, 4, W] w first
    linear: Array  # [P, 3, W] m/s
    angular: Array  # [P, 3, W] rad/s


def frames(scene: Any, names: Sequence[tuple[str, str]]) -> Callable[[Params, State], Frames]:
    """(params, state) -> Frames of `names`: pairs of "body" or "site" and its name in the MJCF."""
    tree = Tree(scene.model)
    places = tuple(_place(scene, kind, name) for kind, name in names)

    def read(params: Params, state: Any) -> Frames:
        like = state.qpos[0] * 0
        theta: Params = getattr(params, "params", params)
        ipos = tuple(map(ln.lanes, ln.rows(theta.body_ipos)))
        found = fused(partial(_read, tree, places), ipos, ln.lanes(state.qpos), ln.lanes(state.qvel))
        return Frames(*(jnp.stack([ln.stack(row, like) for row in part]) for part in found))

    return read


def _place(scene: Any, kind: str, name: str) -> Place:
    if kind == "body":
        return scene.body(name)
    if kind != "site":
        raise ValueError(f"a frame is that of a body or a site, not of {kind!r}")
    m = scene.model
    site = mujoco.mj_name2id(m, mujoco.mjtObj.mjOBJ_SITE, name)
    if site < 0:
        known = [m.site(i).name for i in range(m.nsite) if m.site(i).name]
        near = get_close_matches(name, known, 1, 0.0)
        raise ValueError(f"site {name!r}: not in scene {scene.name!r}; " +
                         (f"did you mean {near[0]!r}?" if near else "it has none"))  # fmt: skip
    return Place(int(m.site_bodyid[site]), m.site_pos[site].copy(), m.site_quat[site].copy())


def _read(tree: Tree, places: tuple[Place, ...], ipos: Any, qpos: Any, qvel: Any) -> tuple[list[Any], ...]:
    pose = forward(tree, ipos, qpos)
    motion = dynamics.velocities(tree, pose, qvel)
    return tuple(map(list, zip(*(_frame(pose, motion, place) for place in places), strict=True)))


def _frame(pose: Any, motion: Any, place: Place) -> tuple[Any, Any, Any, Any]:
    b = place.body
    pos = ln.vadd(pose.pos[b], ln.matvec(pose.rot[b], ln.static(np.asarray(place.pos, float))))
    angular, at_ref = motion[b]
    linear = ln.vadd(at_ref, ln.cross(angular, ln.vsub(pos, pose.ref[b])))
    return pos, ln.quat_mul(pose.quat[b], ln.static(np.asarray(place.quat, float))), linear, angular
