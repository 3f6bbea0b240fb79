"""Where the worlds of each scene start and what they are told to do: in contact where the scene has contacts.

MuJoCo C settles one world under a constant control u₀; W copies of it start from there, velocities v + 0.01·N(0, 1),
controls u₀ + s·N(0, 1) within the actuators' limits. All is rounded to float32, so that every rival gets the same.
"""

from typing import Any, NamedTuple

import mujoco
import numpy as np

import physics

SPEED_STD = 0.01  # m/s or rad/s


class Recipe(NamedTuple):
    """How a scene starts."""

    settle: int = 0  # steps under `ctrl` from home
    ctrl: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0


RECIPES = {
    "pushed_box": Recipe(settle=50, ctrl=1.0, std=1.5),  # at rest on the floor, the pusher driven into it
    "arm": Recipe(std=(40, 40, 30, 30, 10, 10, 5)),
    "stacked_boxes": Recipe(settle=200),  # at rest
    "glass": Recipe(settle=250, ctrl=(0.1085, 0.0), std=(0.002, 0.005)),  # standing, the finger leaning on its tip
    "cartpole": Recipe(),
    "snapping_rod": Recipe(settle=100, std=2.0),
}


class Start(NamedTuple):
    """W worlds and H controls, float32."""

    qpos: np.ndarray  # [nq W]
    qvel: np.ndarray  # [nv W]
    ctrl: np.ndarray  # [H nu W]


def model_of(scene: physics.Scene) -> mujoco.MjModel:
    """What MuJoCo and MJX step: the scene's own solver options, and no contacts between the two bodies of a bond."""
    model = physics.Reference(scene).model
    for option in ("iterations", "ls_iterations", "tolerance", "ls_tolerance"):
        setattr(model.opt, option, getattr(scene.model.opt, option))
    return model


def begin(scene: physics.Scene, worlds: int, steps: int, seed: int = 0) -> Start:
    """The start of a scene that has a recipe."""
    recipe, rng, model = RECIPES[scene.name], np.random.default_rng(seed), scene.model
    qpos, qvel = _settled(physics.Reference(scene), recipe)
    noise = np.reshape(recipe.std, (-1, 1)) * rng.standard_normal((steps, model.nu, worlds))
    limited = model.actuator_ctrllimited[:, None].astype(bool)
    low, high = np.where(limited, model.actuator_ctrlrange, (-np.inf, np.inf)).T[..., None]
    ctrl = np.clip(np.reshape(recipe.ctrl, (-1, 1)) + noise, low, high)
    spread = qvel[:, None] + SPEED_STD * rng.standard_normal((model.nv, worlds))
    return Start(*(x.astype(np.float32) for x in (np.repeat(qpos[:, None], worlds, 1), spread, ctrl)))


def exact(scene: physics.Scene, start: Start) -> np.ndarray:
    """qpos [nq W] after the last step in MuJoCo C, converged."""
    return physics.Reference(scene).rollout(*start).qpos[-1]


def rounded(scene: physics.Scene, start: Start, wanted: np.ndarray, seed: int = 1) -> float:
    """How far from `wanted` MuJoCo C itself lands when its starts differ by what float32 cannot tell apart, m or rad."""
    rng, eps = np.random.default_rng(seed), float(np.finfo(np.float32).eps)
    qpos, qvel = (x * (1 + 0.5 * eps * rng.uniform(-1, 1, x.shape)) for x in (start.qpos, start.qvel))
    return float(np.abs(exact(scene, Start(qpos, qvel, start.ctrl)) - wanted).max())


def _settled(reference: physics.Reference, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    ctrl: Any = np.broadcast_to(recipe.ctrl, reference.model.nu)
    for _ in range(recipe.settle):
        reference.step(ctrl)
    state = reference.state()
    return np.asarray(state.qpos), np.asarray(state.qvel)
