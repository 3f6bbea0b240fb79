"""Six bodies on a floor and what pushes them: boxes and balls that are shoved and lifted at random, always towards another one.

    slots     of half a second: in each world one body is pushed for 0.2 s
    cycle     of 4 s: five slots of pushing, three of peace in which everything comes to rest
    push      0.6 to 1.4 of a box's weight, 0.2 to 0.6 of a ball's, towards another body; one in five lifts: 1.2 to 1.5 of it

Every body moves on three slides and a ball joint, so that a push is a control: what the network alone is told, and what the engine
counts as work. Legend: B bodies, W worlds (last axis).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import physics

BODIES = 6
STEP_S, SLOT, PUSH, CYCLE, BUSY = 0.01, 50, 20, 8, 5
"""s; steps to a slot; steps of a push; slots to a cycle; of them busy."""
SIZES = ((0.05, 0.045, 0.04), (0.056, 0.05, 0.05), (0.062, 0.045, 0.06))  # m, half sides of the boxes
RADIUS, DENSITY, DAMPING = 0.05, 500.0, 3e-3  # m, kg/m³, N m s/rad of a rolling ball

_PAGE = """<mujoco model="crowd">
  <option timestep="{step}" iterations="100" ls_iterations="50" tolerance="1e-10"/>
  <default><geom density="{density}" friction="0.5 0.005 0.0001"/></default>
  <worldbody>
    <geom name="floor" type="plane" size="3 3 1" rgba="0.93 0.92 0.88 1"/>{bodies}
  </worldbody>
  <actuator>{motors}</actuator>
  <keyframe><key name="home" qpos="{home}"/></keyframe>
</mujoco>"""
_BODY = """
    <body name="{name}">
      <joint name="{name}.x" type="slide" axis="1 0 0"/>
      <joint name="{name}.y" type="slide" axis="0 1 0"/>
      <joint name="{name}.z" type="slide" axis="0 0 1"/>
      <joint name="{name}.turn" type="ball" damping="{damping}"/>
      <geom name="{name}" {shape}/>
    </body>"""


def crowd() -> physics.Scene:
    """Three boxes and three balls on a ring of 22 cm."""
    bodies, home = [], []
    for b in range(BODIES):
        box = b < len(SIZES)
        size = SIZES[b] if box else (RADIUS,)
        shape = f'type="{"box" if box else "sphere"}" size="{" ".join(map(str, size))}"'
        bodies.append(_BODY.format(name=_name(b), shape=shape, damping=0.0 if box else DAMPING))
        angle = 2 * np.pi * b / BODIES
        home += [0.22 * np.cos(angle), 0.22 * np.sin(angle), size[-1], 1.0, 0.0, 0.0, 0.0]
    motors = "".join(
        f'<motor name="{_name(b)}.{axis}" joint="{_name(b)}.{axis}" ctrllimited="true" ctrlrange="-30 30"/>'
        for b in range(BODIES)
        for axis in "xyz"
    )
    page = _PAGE.format(
        step=STEP_S, density=DENSITY, bodies="".join(bodies), motors=motors, home=" ".join(f"{x:.9g}" for x in home)
    )
    return physics.load_scene(page)


def _name(body: int) -> str:
    return f"{'box' if body < len(SIZES) else 'ball'}{body}"


class Pushes(NamedTuple):
    """What happens in one slot, [W] each."""

    body: np.ndarray
    towards: np.ndarray
    size: np.ndarray  # share of the weight
    lift: np.ndarray


def pushes(rng: np.random.Generator, slots: int, worlds: int) -> list[Pushes]:
    """The pushes of W worlds, slot by slot; in the peaceful ones their size is 0."""
    out = []
    for slot in range(slots):
        body = rng.integers(0, BODIES, worlds)
        towards = (body + rng.integers(1, BODIES, worlds)) % BODIES
        lift, strong = rng.random(worlds) < 0.2, rng.random(worlds)
        size = np.where(body < len(SIZES), 0.6 + 0.8 * strong, 0.2 + 0.4 * strong)
        size = np.where(lift, 1.2 + 0.3 * strong, size) * (slot % CYCLE < BUSY)
        out.append(Pushes(body, towards, size, lift))
    return out


def forces(scene: physics.Scene, push: Pushes, qpos: np.ndarray) -> np.ndarray:
    """The controls of one slot [SLOT, 3 B, W] in the state qpos [7 B, W] with which it begins."""
    worlds = np.arange(qpos.shape[-1])
    place = np.nan_to_num(qpos.reshape(BODIES, 7, -1)[:, :3])
    way = place[push.towards, :, worlds].T - place[push.body, :, worlds].T  # [3, W]
    way[2] = 0.0
    way /= np.maximum(np.linalg.norm(way, axis=0), 1e-9)
    way = np.where(push.lift, np.array([[0.0], [0.0], [1.0]]), way)
    weight = scene.model.body_mass[1:][push.body] * 9.81
    out = np.zeros((SLOT, BODIES, 3, len(worlds)))
    out[:PUSH, push.body, :, worlds] = (push.size * weight * way).T[:, None]
    return out.reshape(SLOT, 3 * BODIES, -1)


def wrench_of(ctrl: Any, xp: Any) -> Any:
    """The controls [3 B, W] as wrenches on the bodies [B + 1, 6, W], for the engine's bookkeeping."""
    given = ctrl.reshape(BODIES, 3, -1)
    whole = xp.concatenate([given, xp.zeros_like(given)], 1)
    return xp.concatenate([xp.zeros_like(whole[:1]), whole])


def live(
    scene: physics.Scene,
    plan: list[Pushes],
    state: Any,
    advance: Callable[[Any, np.ndarray], tuple[Any, Any]],
    watch: Callable[[int, Any, np.ndarray], None],
) -> None:
    """Push for as long as `plan` says: state ← advance(state, ctrl), and watch(slot, what it told, ctrl)."""
    for slot, push in enumerate(plan):
        ctrl = forces(scene, push, np.asarray(state.qpos, float))
        state, told = advance(state, ctrl)
        watch(slot, told, ctrl)
