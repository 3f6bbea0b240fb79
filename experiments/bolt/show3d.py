"""The 3D replay of one bolt: how it turned, and beside it what the model promised at one moment."""

from collections.abc import Mapping
from typing import Any

import numpy as np

import physics
from experiments.bolt.rack import CONTROL_S
from hybridwm.report import Replay

SCENE = """<mujoco model="bolt"><worldbody>
  <geom contype="0" conaffinity="0" type="box" size=".12 .12 .03" pos="0 0 -.03" rgba=".75 .75 .73 1"/>
  <geom contype="0" conaffinity="0" type="box" size=".08 .08 .012" pos="0 0 .012" rgba=".62 .66 .7 1"/>
  <body name="bolt" pos="0 0 .04"><joint name="down" type="slide" axis="0 0 1"/><joint name="bolt" type="hinge" axis="0 0 1"/>
    <geom contype="0" conaffinity="0" type="cylinder" size=".012 .05" pos="0 0 -.03" rgba=".5 .5 .52 1" mass="1"/>
    <geom contype="0" conaffinity="0" type="box" size=".03 .026 .012" pos="0 0 .012" rgba=".3 .32 .36 1" mass="1"/>
    <geom contype="0" conaffinity="0" type="box" size=".026 .03 .0119" pos="0 0 .012" rgba=".3 .32 .36 1" mass="1"/></body>
  <body name="driver" pos="0 0 .1"><joint name="driver" type="hinge" axis="0 0 1"/>
    <geom contype="0" conaffinity="0" type="cylinder" size=".022 .03" pos="0 0 0" rgba=".85 .47 .24 1" mass="1"/>
    <geom contype="0" conaffinity="0" type="box" size=".09 .01 .01" pos=".07 0 .02" rgba=".85 .47 .24 1" mass="1"/></body>
</worldbody></mujoco>"""
LIFT = 0.008
"""m a radian: the thread's own pitch, forty times, so that it can be seen."""


def replays(found: Mapping[str, Any]) -> list[Replay]:
    """One replay; none where the viewer is not installed."""
    try:
        from hybridwm.replay import Marker, Track, replay
    except ImportError:
        return []
    scene, row = physics.load_scene(SCENE), int(found["row"])
    real, told = moved(np.asarray(found["real"], float)), moved(np.asarray(found["promised"], float))
    promise = np.concatenate([np.full((row + 1, told.shape[1]), np.nan), told])
    force = np.asarray(found["force"], float)
    reached = int(np.argmax(force > 0.99 * force[-1]))
    markers = [
        Marker(row * CONTROL_S, "the model promises the next second", (0.0, 0.0, 0.19), (0.16, 0.42, 0.85)),
        Marker(reached * CONTROL_S, f"{force[-1] / 1e3:.2f} kN", (0.0, 0.0, 0.15), (0.2, 0.55, 0.3)),
    ]
    tracks = [Track("reality", real), Track("promised", promise, ghost=True)]
    try:
        text = replay(scene, tracks, dt=CONTROL_S, markers=markers, speed=0.5)
    except ValueError:
        return []
    kilo = float(np.asarray(found["promised_force"])[-1]) / 1e3
    words = (
        f"Reality, at half speed; the ghost is what the model promised at {row * CONTROL_S:.1f} s, given the commands: "
    )
    return [
        Replay(
            text,
            words + f"{kilo:.2f} kN promised, {force[-1] / 1e3:.2f} kN reached. The bolt's way down is drawn 40 times.",
        )
    ]


def moved(qpos: np.ndarray) -> np.ndarray:
    """Poses [T, 3] of the drawn scene from angles of driver and bolt [T, 2]."""
    return np.stack([-LIFT * qpos[:, 1], qpos[:, 1], qpos[:, 0]], 1)
