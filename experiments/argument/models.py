"""What is set against one another on the table, all from the same number of transitions.

    given        the physics as the scene has it
    identified   the physics with the damping that the data ask for
    hybrid       that with a residual, and trust
    untrusted    the same, believed everywhere
    network      an ensemble that foretells the next state (PETS), the better of two strides on validation

The residual asks each puck by itself and alike ones together (hybridwm/world/objects.py): knowing that there are objects is
part of what an engine gives. The network alone sees the whole table at once. That, twice the episodes and a larger share of them to
judge by came after a first run whose results were seen; reality and test episodes are those of before.

The engines see episodes of nominal masses only and are told masses through θ, not through the motors without gear. Half of the
network's episodes have varied masses, which it is told: it cannot know what a mass does without having seen some.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import physics
from experiments.argument import table
from experiments.argument.table import Asked
from hybridwm.learning.fitting import FitOptions, Fitted, fit
from hybridwm.learning.rivals import FittedRival, RivalOptions, fit_rival
from hybridwm.learning.training import Stage
from hybridwm.learning.unknowns import Unknown
from hybridwm.logs.recordings import Dataset
from hybridwm.world.model import ModelOptions, WorldParams

STRIDES_S = (0.02, 0.05)
DAMPING = (Unknown(leaf="dof_damping", label="damping", prior_std=2.0),)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is learned."""

    episodes: int = 60
    """Of nominal masses; the network has half of them, and as many with varied masses."""
    seconds: float = 2.0
    hidden: tuple[int, ...] = (32, 32)
    """Of the residual, which sees one puck."""
    rival_hidden: tuple[int, ...] = (96, 96)
    members: int = 3
    updates: int = 6000
    validation: float = 0.3
    """Share of the episodes: of few ones, a handful with hard knocks decides whether a residual is kept."""


QUICK = Budget(episodes=18, updates=1000)


class Contender(NamedTuple):
    """A model, its parameters, and whether it is told masses through θ."""

    model: Any
    params: Any
    told: bool = True


def learn_hybrid(dataset: Dataset, budget: Budget, seed: int) -> Fitted:
    """Damping, residual, trust."""
    stage = Stage(horizon=0, updates=budget.updates, batch=256, look=max(50, budget.updates // 4))
    model = ModelOptions(hidden=budget.hidden, members=budget.members, apart=True)
    options = FitOptions(model=model, stages=(stage,), lag=False, exact=True, validation=budget.validation, seed=seed)
    return fit(dataset, options, unknowns=DAMPING)


def learn_network(
    dataset: Dataset, budget: Budget, seed: int, *, strides: tuple[float, ...] = STRIDES_S
) -> FittedRival:
    """The ensemble, on as many updates as the hybrid for each stride."""
    options = RivalOptions(strides=strides, hidden=budget.rival_hidden, members=budget.members, place=True,
                           updates=budget.updates, look=max(50, budget.updates // 4), validation=budget.validation,
                           seed=seed)  # fmt: skip
    return fit_rival(dataset, options)


def mixed(nominal: Dataset, varied: Dataset) -> Dataset:
    """As many episodes as of nominal masses, half of them varied."""
    rest = len(nominal.recordings) - len(varied.recordings)
    return nominal._replace(recordings=(*nominal.recordings[:rest], *varied.recordings))


def contenders(seed: int, budget: Budget) -> tuple[dict[str, Contender], dict[str, Any]]:
    """Everything fitted for one seed, and how that came out."""
    scene = table.table()
    nominal, varied = table.training(scene, seed, budget.episodes, budget.seconds)
    fitted, rival = learn_hybrid(nominal, budget, seed), learn_network(mixed(nominal, varied), budget, seed)
    assert fitted.identified is not None
    given = WorldParams(theta=jax.tree.map(jnp.asarray, physics.nominal(scene)))
    found = {
        "given": Contender(fitted.model, given),
        "identified": Contender(fitted.model, WorldParams(theta=fitted.identified.params.theta)),
        "hybrid": Contender(fitted.model, fitted.params),
        "untrusted": Contender(fitted.model, fitted.params._replace(trust=None)),
        "network": Contender(rival.model, rival.params, told=False),
    }
    return found, {"kept": fitted.kept, "worth": fitted.worth, "rival_tried": rival.tried}


def foretold(contender: Contender, given: Asked) -> np.ndarray:
    """[H, 2 P, W] what a model says happens."""
    params = contender.params
    if contender.told:
        heavy = table.heavier(params.theta, given.factor)
        params = params._replace(theta=jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), heavy))
        given = given._replace(ctrl=table.untold(given.ctrl))
    arrays = (jnp.asarray(x, jnp.result_type(float)) for x in (given.qpos[0], given.qvel, given.ctrl))
    return np.asarray(_runner(contender.model)(params, *arrays), float)


@lru_cache(maxsize=2)
def _runner(model: Any) -> Callable[..., Any]:
    """Compiled once for all contenders that are made of one model."""

    def run(params: Any, qpos: Any, qvel: Any, ctrl: Any) -> Any:
        state = model.init(params, qpos, qvel)
        return model.rollout(params, state, ctrl, output=lambda state, info: state.qpos)[1]

    return jax.jit(run)
