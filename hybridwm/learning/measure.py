"""The one measure of how far a model is from what happened, and of how much better one model is than another.

    d_t    = √ Σ_j (length_j (q̂_t ⊖ q_t)_j)²      m; length: of a hinge or a turn how far what it carries reaches, else 1
    error  = √ mean_t d_t²                          of a window; what is not finite is infinite
    ratio  = mean over windows of (a + δ) / (b + δ)  of their errors; δ a twentieth of the mean of b: 1 where nothing happens
             its 95 % interval by drawing episodes again, since windows of one episode are not independent

Legend: H steps, W windows, nv dofs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hybridwm.learning.training import Batch, predicted
from hybridwm.logs import tangent
from physics import lanes as ln
from physics.scene import Scene
from physics.tree import FREE, HINGE, SLIDE, Tree, forward

Array = jax.Array
LOST = 1e6
"""m: further away than this a prediction is as bad as can be."""


class Worth(NamedTuple):
    """Error of one model over that of another, paired window by window."""

    ratio: float
    interval: tuple[float, float]

    @property
    def holds(self) -> bool:
        """Never worse, to 95 %."""
        return self.interval[1] <= 1.0


def lengths(scene: Scene, angle: float | None = None) -> np.ndarray:
    """[nv] m by which a dof counts: 1 for what moves in metres; for angles how far the bodies reach, or `angle` for all of them."""
    model, tree = scene.model, Tree(scene.model)
    pose = forward(tree, tuple(ln.static(row) for row in model.body_ipos), ln.static(model.qpos0))
    out = np.ones(model.nv)
    for j in range(model.njnt):
        dof, kind, body = int(model.jnt_dofadr[j]), int(model.jnt_type[j]), int(model.jnt_bodyid[j])
        if kind == SLIDE:
            continue
        first, count = (dof + 3, 3) if kind == FREE else (dof, 1 if kind == HINGE else 3)
        anchor = np.array(pose.pos[body]) + np.array(pose.rot[body]) @ model.jnt_pos[j]
        carried = [g for g in range(model.ngeom) if first in tree.chain[int(model.geom_bodyid[g])]]
        reach = max((_reach(model, pose, g, anchor) for g in carried), default=1.0)
        out[first : first + count] = reach if angle is None else angle
    return out


def _reach(model: Any, pose: Any, geom: int, anchor: np.ndarray) -> float:
    body = int(model.geom_bodyid[geom])
    centre = np.array(pose.pos[body]) + np.array(pose.rot[body]) @ model.geom_pos[geom]
    return float(np.linalg.norm(centre - anchor) + model.geom_rbound[geom])


def distances(scene: Scene, qpos: Any, found: Any, *, angle: float | None = None) -> Array:
    """d [H, W] of poses found [H, nq, W] from what happened."""
    apart = jax.vmap(partial(tangent.difference, scene.model, xp=jnp))(qpos, found)
    return jnp.sqrt(jnp.sum(jnp.square(apart * lengths(scene, angle)[:, None]), 1))


def over_window(distance: Any) -> np.ndarray:
    """Error [W] of windows from d [H, W]."""
    error = np.sqrt(np.mean(np.square(np.asarray(distance, float)), 0))
    return np.where(np.isfinite(error), error, np.inf)


def window_errors(model: Any) -> Callable[[Any, Batch], Array]:
    """Compiled (params, windows) -> error [W] of a model while the bonds hold that held at the start."""

    @jax.jit
    def run(params: Any, given: Batch) -> Array:
        qpos, _ = predicted(model, params, given)
        error = jnp.sqrt(jnp.mean(jnp.square(distances(model.engine.scene, given.qpos[1:], qpos)), 0))
        return jnp.where(jnp.isfinite(error), error, jnp.inf)

    return run


def paired(error: np.ndarray, against: np.ndarray) -> np.ndarray:
    """The ratio of each window."""
    least = 0.05 * float(np.mean(np.minimum(against, LOST))) + 1e-12
    return (np.minimum(error, LOST) + least) / (np.minimum(against, LOST) + least)


def worth(error: np.ndarray, against: np.ndarray, episode: np.ndarray, *, draws: int = 2000, seed: int = 0) -> Worth:
    """Mean of the paired ratios and its interval."""
    ratio = paired(error, against)
    names, place = np.unique(episode, return_inverse=True)
    total, count = np.bincount(place, ratio), np.bincount(place)
    pick = np.random.default_rng(seed).integers(0, len(names), (draws, len(names)))
    means = total[pick].sum(1) / count[pick].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Worth(float(ratio.mean()), (float(low), float(high)))
