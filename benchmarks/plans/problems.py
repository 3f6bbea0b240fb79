"""What is planned: each case is a setting, or a problem of its own, with one planner and one state to plan from.

sized     128 samples × 50 steps of the pushed box under the hybrid model, 128 × 100 of the cart-pole: as mujoco.rollout
wished    the two problems of the peers (`wishes.py`), on their own scenes
shipped   a shipped task, each planner with the samples and iterations that the task gives its own
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from race.starts import begin

import physics
import planners as pl
from hybridwm.tasks.setting import build_task
from hybridwm.tasks.task import Task, load_task
from hybridwm.world.learned import plan_model
from hybridwm.world.model import WorldParams, world_model
from hybridwm.world.physics_model import Make, PlanModel, nominal_model
from hybridwm.world.trust import TrustParams
from plans import wishes
from plans.stock import stock_model

TOO_LONG = {
    ("reach", "ilqr"): "left out: XLA had not compiled iLQR through the arm, its gradient unrolled, within 13 minutes"
}


class Case(NamedTuple):
    """Something to plan."""

    problem: pl.Problem
    planner: pl.Planner
    params: pl.PlanParams
    state: Any
    scene: physics.Scene
    samples: int
    """Rollouts that one call makes, were none lost; 0 where that is the search's own choice."""
    options: dict[str, bool]
    """Of XLA."""


SIZED = {"pushed_box": ("push_box", 50, 6), "cartpole": ("cartpole_swingup", 100, 8)}
"""scene: (task, steps, knots)."""
SAMPLES = 128
PLANNERS = ("predictive_sampling", "cem", "mppi", "annealed_mppi", "mixture", "adam", "ilqr", "joint")
SHIPPED = ("pendulum_swingup", "cartpole_swingup", "push_box", "push_tblock", "reach", "snap_rod", "keep_rod")


def hybrid(scene: physics.Scene, every: int) -> PlanModel:
    """The hybrid as `fit` makes it by default: four networks of 64 × 64 on the physics, and trust; its weights random."""
    world = world_model(physics.brax_engine(scene))
    fresh = world.residual.fresh(jax.random.key(0))
    leaves, tree = jax.tree.flatten(fresh.weights)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    weights = [x + 0.05 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    residual = fresh._replace(weights=jax.tree.unflatten(tree, weights))
    wide = jnp.full(len(world.residual.features.names), 5.0)
    near = TrustParams(-wide, wide, jnp.ones(()), jnp.full((), 5.0))
    theta = jax.tree.map(jnp.asarray, physics.nominal(scene))
    return plan_model(world, WorldParams(theta=theta, residual=residual, trust=near), every=every)


def sized(scene: str, model: str) -> Case:
    """128 samples × the steps of `SIZED`, CEM, one iteration, from where `race.starts` begins."""
    name, steps, knots = SIZED[scene]
    task = load_task(name)
    loaded = physics.load_scene(scene)
    rate = round(1 / float(loaded.model.opt.timestep))
    one = {"samples": SAMPLES, "iterations": 1}
    task = replace(task, horizon=steps / rate, rate=rate, knots=knots, planner="cem", options=one)
    setting = build_task(task, model=hybrid if model == "hybrid" else None)
    start = begin(loaded, 1, steps)
    state = setting.begin(start.qpos[:, 0], start.qvel[:, 0])
    return _case(setting, SAMPLES, state)


def scene_of(path: str) -> physics.Scene:
    """A peer's scene without what our gate refuses and what does not move anything.

    A mocap body without contacts is a picture, and switched-off contacts are geoms that meet nothing.
    """
    spec = mujoco.MjSpec.from_file(path)
    off = int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
    if spec.option.disableflags & off:
        spec.option.disableflags &= 0x7FFFFFFF ^ off
        for geom in spec.geoms:
            geom.contype = geom.conaffinity = 0
    for body in spec.bodies:
        body.mocap = False
    for geom in spec.geoms:
        geom.material = ""
    for extra in (*spec.sensors, *spec.materials, *spec.textures):
        spec.delete(extra)
    spec.compile()
    return physics.load_scene(spec.to_xml())


def wished(name: str, path: str) -> Case:
    """One of the peers' problems, with predictive sampling as theirs."""
    wish, scene = wishes.WISHES[name], scene_of(path)
    body = nominal_model(physics.brax_engine(scene))
    cost = pl.Cost(
        lambda goal, state, ctrl: wish.dt * wishes.running(name, jnp, state.qpos, state.qvel, ctrl),
        lambda goal, state: wishes.terminal(name, jnp, state.qpos, state.qvel),
    )
    curve = {"zero": pl.hold, "linear": pl.linear, "cubic": pl.cubic}[wish.curve](wish.steps, wish.knots)
    devices = jax.devices() if wish.nv >= 4 and len(jax.devices()) > 1 else None
    problem = pl.Problem(body.model, cost, curve, devices=devices)
    planner = pl.predictive_sampling(problem, samples=wish.samples, iterations=1, std=wish.noise)
    state = pl.strong(body.init(body.params, np.asarray(wish.start), np.zeros(wish.nv)))
    return Case(problem, planner, pl.strong(pl.PlanParams(body.params)), state, scene, wish.samples, {})


def shipped(name: str, planner: str, engine: str) -> Case:
    """A shipped task with any planner on any engine."""
    if planner == "joint" and engine != "hybridwm":
        raise ValueError("the joint search needs bonds that may break, which stock engines do not have")
    if (name, planner) in TOO_LONG:
        raise ValueError(TOO_LONG[name, planner])
    task, makes = load_task(name), {"hybridwm": None, "brax": _stock("brax"), "mjx": _stock("mjx")}
    if task.events and engine != "hybridwm":
        raise ValueError(f"{engine} has no bonds that may break")
    setting = build_task(_with(task, planner), model=makes[engine])
    return _case(setting, _rollouts(setting.task), setting.state)


def _stock(kind: str) -> Make:
    return lambda scene, every: stock_model(kind, scene, every)


def _with(task: Task, planner: str) -> Task:
    """The task for another planner, with as many samples."""
    size = {name: task.options.get(name, default) for name, default in (("samples", 128), ("iterations", 4))}
    curve: dict[str, Any] = {}
    if planner == "ilqr":
        steps = round(task.horizon * task.rate)
        curve, size = {"curve": "hold", "knots": steps}, {}
    elif task.planner == "ilqr":
        curve, size = {"curve": "linear", "knots": None}, {"samples": 256, "iterations": 6}
    if planner == "adam":
        size = {}
    if planner == "joint":
        size = dict(task.options)
    return task if planner == task.planner else replace(task, planner=planner, options=size, **curve)


def _rollouts(task: Task) -> int:
    if task.planner in ("joint", "ilqr", "adam"):
        return 0
    return int(task.options.get("samples", 128) * task.options.get("iterations", 4))


def _case(setting: Any, samples: int, state: Any) -> Case:
    options = physics.gradient_options() if setting.task.planner in ("adam", "ilqr", "mixture") else {}
    return Case(setting.problem, setting.planner, setting.params, state, setting.scene, samples, options)


CASES: dict[str, Callable[..., Case]] = {"sized": sized, "wished": wished, "shipped": shipped}
