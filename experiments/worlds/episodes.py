"""The episodes of the study: made once, kept on disk; how many; how far outside; and how near to breaking the truth was.

A bond that broke is carried by no load any more, so how near a window came is told by the same world with a bond that cannot
break: the most of L/s, filtered load over the strength at its rate (physics/wear.py), within the window.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

import physics
from experiments.worlds.realities import FINE_STEPS, INSIDE, Beyond, World, explored, starts
from hybridwm.logs.archive import read_recordings, write_recordings
from hybridwm.logs.recordings import Dataset
from physics.reality import Reality
from physics.wear import Fatigue, LoadBreak

TEST_SEED = 1_000_000


class Size(NamedTuple):
    """How much is done."""

    training: int  # episodes
    test: int  # episodes inside
    outside: int  # episodes per shift
    updates: float  # factor on the training's updates


FULL = {"pendulum": Size(40, 6, 4, 2.0), "box": Size(60, 20, 4, 0.5), "rod": Size(160, 60, 4, 0.5)}
QUICK = {"pendulum": Size(4, 2, 2, 0.1), "box": Size(12, 6, 2, 0.1), "rod": Size(30, 20, 2, 0.2)}

SHIFTS = {
    "pendulum": [Beyond(speed=1 + x) for x in (0.01, 0.1, 1.0, 3.0)] + [Beyond(command=1 + x) for x in (0.01, 0.1, 0.5)]
    + [Beyond(place=x) for x in (0.001, 0.01, 0.1)] + [Beyond(mass=1 + x) for x in (0.1, 1.0)],
    "box": [Beyond(place=x) for x in (0.001, 0.01, 0.1, 1.0)] + [Beyond(speed=1 + x) for x in (0.1, 1.0, 3.0)]
    + [Beyond(mass=1 + x) for x in (0.1, 0.5)],
    "rod": [Beyond(place=x) for x in (0.001, 0.01, 0.1)] + [Beyond(command=1 + x) for x in (0.01, 0.1)],
}  # fmt: skip

STEP_S = {"pendulum": 0.0002, "box": 0.001, "rod": 0.002}
"""Time step of the models. At 2 ms the stops of the pendulum alone cost 0.04 rad in a second, at 0.25 ms 0.002; the pusher's
contact chatters, so that MuJoCo C itself, with all effects, misses 2 mm of a second at 2 ms, and nothing at reality's 1 ms."""


def model_scene(world: World, *, step: float | None = None) -> physics.Scene:
    """The scene that all models run: the world's own, in finer steps or those that are asked for."""
    finer = STEP_S[world.name] if step is None else step
    step = float(physics.load_scene(world.scene).model.opt.timestep)
    text = (Path(physics.__file__).parent / "scenes" / f"{world.scene}.xml").read_text(encoding="utf-8")
    return physics.load_scene(text.replace(f'timestep="{step:g}"', f'timestep="{finer:g}"'))


def said(beyond: dict[str, float]) -> str:
    """A shift in words."""
    if beyond["place"]:
        return f"place +{1000 * beyond['place']:g} mm"
    return next((f"{k} x{v:g}" for k, v in beyond.items() if k != "place" and v != 1), "none")


def recorded(
    world: World, folder: Path, *, episodes: int, seed: int, seconds: float | None, beyond: Beyond = INSIDE
) -> Dataset:
    """Episodes of the world, kept on disk so that a study that was interrupted goes on."""
    if not (folder / "meta.jsonl").exists():
        write_recordings(folder, explored(world, episodes=episodes, seed=seed, seconds=seconds, beyond=beyond))
    read = read_recordings(folder, physics.load_scene(world.scene), smoothing="never")
    return read._replace(scene=model_scene(world))


@dataclass(frozen=True, kw_only=True)
class _Witness(LoadBreak):
    """A bond by the same rule that cannot break; `seen` gets L/s of every fine step."""

    seen: list[float] = field(default_factory=list)

    def wear(self, memory: Fatigue, load: np.ndarray, dt: float) -> tuple[Fatigue, int | None]:
        """See `Effect.wear`."""
        share = float(np.hypot(*(np.linalg.norm(load[memory.bond].reshape(2, 3), axis=1) / self.strength)))
        filtered = memory.filtered + (share - memory.filtered) * (1 - float(np.exp(-dt / self.filter_s)))
        speed = abs(filtered - memory.filtered) / dt
        self.seen.append(filtered / max(0.5, 1 + self.rate_gain * float(np.log1p(speed / self.rate))))
        return memory._replace(filtered=filtered), None


def nearness(world: World, folder: Path, *, episodes: int, seed: int) -> np.ndarray:
    """[episodes, H] the most of L/s within each control step, in the world whose bond cannot break; kept on disk."""
    path = folder / "nearness.npy"
    if not path.exists():
        np.save(path, np.stack([_witnessed(world, seed, number) for number in range(episodes)]))
    return np.load(path)


def _witnessed(world: World, seed: int, number: int) -> np.ndarray:
    scene = physics.load_scene(world.scene)
    rule = next(effect for effect in world.effects if isinstance(effect, LoadBreak))
    witness = _Witness(**{f.name: getattr(rule, f.name) for f in fields(LoadBreak)})
    effects = [witness if effect is rule else effect for effect in world.effects]
    real = Reality(scene, effects, params=world.truth(physics.nominal(scene)), substeps=FINE_STEPS)
    begin, steps = starts(world, scene, seed, number, None)
    real.episode(begin.ctrl, seed=number, horizon=steps, qpos=begin.qpos, qvel=begin.qvel)
    return np.array(witness.seen).reshape(steps, FINE_STEPS).max(1)
