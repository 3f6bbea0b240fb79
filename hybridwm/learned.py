"""A fitted world model as what plans are made on: the seam between `hybridwm plan --model` and what `fit` saves."""

from importlib import import_module, util
from pathlib import Path
from typing import Any

from hybridwm.physics_model import Make, PlanModel, as_model
from physics import Scene


def plan_model(world: Any, params: Any, *, every: int) -> PlanModel:
    """A `WorldModel` and its `WorldParams` for a planner, `every` steps to one control."""
    ready = params._replace(theta=world.engine.prepare(params.theta))
    return PlanModel(as_model(world.engine.scene, world.step, every=every, events=world.spec.names), world.init, ready)


def load_plan_model(folder: Path) -> Make:
    """(scene, every) -> the model saved in `folder`; refused when it was fitted on another scene."""
    if util.find_spec("hybridwm.checkpoint") is None:
        raise ValueError(
            f"--model {folder}: this version cannot read fitted models; leave it out to plan on the physics"
        )
    load_model = import_module("hybridwm.checkpoint").load_model

    def make(scene: Scene, every: int) -> PlanModel:
        world, params = load_model(folder, scene)
        return plan_model(world, params, every=every)

    return make
