"""A few stretches of the double pendulum, measured beside foretold, as replays.

Replays hold measured poses: they stay in `--out` and are not for committing. The arms have the published lengths of their
design; one stretch of each design, the one whose hybrid error at 1 s is the median of its windows, so that none is picked.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from experiments.measured.pendulum_fit import Models, every, forecasts, measured
from experiments.measured.pendulum_set import DESIGNS, STEP, Run
from hybridwm.replay import Track, replay
from physics import Scene
from physics.scene import load_scene

LENGTHS = {"A.0": (0.3, 0.2), "C.0": (0.2, 0.3), "C.1": (0.2, 0.3)}  # m
BESIDE = 0.7  # m between the hybrid's pendulum and the physics'
SPEED = 0.4


def write(runs: Sequence[Run], models: Models, trust: Callable[[Run], float], out: Path) -> None:
    """replays/DESIGN.html for each design among `runs`; without viser they are left out, and that is said."""
    found = every(runs)
    try:
        for design, name in enumerate(DESIGNS):
            if places := [(i, row) for i, row in found if runs[i].design == design]:
                folder = out / "replays"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{name}.html").write_text(_page(name, runs, places, models, trust))
    except ValueError as error:
        print(f"no replays: {error}")


def _page(
    name: str, runs: Sequence[Run], places: list[tuple[int, int]], models: Models, trust: Callable[[Run], float]
) -> str:
    truth = measured(runs, places)
    said = {
        "hybrid": forecasts("hybrid", models.theta, models.residual, runs, places, trust),
        "identified physics": forecasts("identified", models.theta, None, runs, places),
    }
    error = np.abs(said["hybrid"] - truth)[:, round(1 / STEP)].max(-1)
    k = int(np.argsort(error)[len(error) // 2])
    tracks = []
    for i, (model, path) in enumerate(said.items()):
        offset = (0.0, BESIDE * i, 0.0)
        tracks.append(Track(f"measured ({model} over it)", truth[k], offset=offset))
        tracks.append(Track(model, path[k], ghost=True, offset=offset))
    return replay(pendulum(name), tracks, dt=STEP, speed=SPEED)


def pendulum(name: str) -> Scene:
    """Two arms of a design's lengths, to be looked at."""
    one, two = LENGTHS[name]
    return load_scene(f"""<mujoco model="pendulum {name}"><worldbody>
      <body name="upper" pos="0 0 1"><joint name="shoulder" axis="0 1 0"/>
        <geom name="upper" type="capsule" fromto="0 0 0 0 0 {-one}" size="0.02" rgba="0.22 0.43 0.62 1"/>
        <body name="lower" pos="0 0 {-one}"><joint name="elbow" axis="0 1 0"/>
          <geom name="lower" type="capsule" fromto="0 0 0 0 0 {-two}" size="0.018" rgba="0.85 0.47 0.24 1"/>
        </body></body></worldbody></mujoco>""")
