"""Where a residual may be believed, and whether it is worth having: both settled on data that it was not trained on.

low, high   the extremes of the training features
limit       what the members' spread stays below in 99.5 % of validation steps
reach       the largest of a few for which the hybrid is nowhere worse than the physics, on validation windows whose
            features were pushed outside the box by shrinking the box: for every share s of its size, the windows that leave
            the box s·[low, high] are judged with that box
worth       mean over validation windows of  error(hybrid) / error(physics), with its 95 % interval over episodes:
            an upper end above 1 refuses the residual
"""

from functools import partial
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from hybridwm.learning.measure import worth
from hybridwm.learning.training import Batch
from hybridwm.world.model import WorldModel, WorldParams
from hybridwm.world.residual import disagreement, normalised
from hybridwm.world.trust import TrustParams, support

Array = jax.Array
REACHES = (2.0, 1.0, 0.5, 0.25, 0.1)  # standard deviations of the features
SHARES = (0.5, 0.7)


@runtime_checkable
class Judge(Protocol):
    """Errors on validation windows, each of an `episode`."""

    windows: Batch
    episode: np.ndarray

    def error(self, params: WorldParams) -> np.ndarray:
        """In each window."""
        ...


def trusted(model: WorldModel, params: WorldParams, raw: Array, judge: Judge) -> WorldParams:
    """The parameters with their trust. raw: the training features."""
    assert params.residual is not None
    z = np.asarray(normalised(params.residual, raw))
    spread = np.asarray(jax.jit(partial(_spread, model))(params, _first_steps(judge.windows)))
    limit = max(float(np.quantile(spread, 0.995)), 1e-3)
    physics = judge.error(params._replace(residual=None))
    for reach in REACHES:
        shrunk = [params._replace(trust=_shrunk(z, share, reach, limit)) for share in SHARES]
        if all(worth(judge.error(small), physics, judge.episode).interval[1] <= 1.0 for small in shrunk):
            return params._replace(trust=support(jnp.asarray(z), reach=reach, limit=limit))
    return params._replace(trust=support(jnp.asarray(z), reach=REACHES[-1], limit=limit))


def _shrunk(z: np.ndarray, share: float, reach: float, limit: float) -> TrustParams:
    low, high = z.min(1, keepdims=True), z.max(1, keepdims=True)
    middle, half = (low + high) / 2, share * (high - low) / 2
    return support(jnp.asarray(np.concatenate([middle - half, middle + half], 1)), reach=reach, limit=limit)


def _first_steps(given: Batch) -> Batch:
    return Batch(
        given.qpos[:2], given.qvel[:2], given.ctrl[: len(given.ctrl) // (len(given.qpos) - 1)], given.intact, given.past
    )


def _spread(model: WorldModel, params: WorldParams, given: Batch) -> Array:
    """[W] at the start of the windows."""
    assert params.residual is not None
    state = model.init(params, given.qpos[0], given.qvel[0], intact=given.intact, past=given.past)
    raw = model.features(params, state, given.ctrl[0])
    return disagreement(params.residual, model.residual(params.residual, raw))
