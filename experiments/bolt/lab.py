"""What the models learn from: bolts turned on a rig that sees the bolt's angle and the clamp force too.

command   a ramp to a random torque, waves on it, a rest or a turn back now and then; a part goes far enough to strip
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.bolt.rack import CONTROL_S, WORK, Bolts, drawn, rack
from experiments.keeping import save

STEPS = 200


class Logs(NamedTuple):
    """H commands of W bolts; time in front, bolts last; numpy's or jax's arrays."""

    qpos: Any  # [H+1, 2, W] rad: driver, bolt
    qvel: Any  # [H+1, 2, W]
    motor: Any  # [H+1, W] torque of the motor, as a share
    ctrl: Any  # [H, W]
    force: Any  # [H+1, W] N, of the load cell
    work: Any  # [H+1, W] sliding work under load since the start, over E
    stripped: Any  # [W] row of the first state after it stripped; H+1 while whole
    snug: Any  # [W] as they are, for judging only
    friction: Any  # [W] as they are, for judging only


def explored(count: int, seed: int, *, lucky: bool = True) -> Logs:
    """So many bolts, each turned once."""
    bolts, rng = drawn(count, seed), np.random.default_rng([seed, 29])
    real, _ = rack(bolts, sensors=False, lucky=lucky)
    return logged(real.episode(wandering(rng, count), seed=seed), bolts)


def wandering(rng: np.random.Generator, count: int) -> np.ndarray:
    """Commands [STEPS, count]."""
    t = np.arange(STEPS)[:, None] * CONTROL_S
    top, rise = rng.uniform(0.25, 0.95, count), rng.uniform(0.3, 1.6, count)
    ctrl = 0.06 + top * np.clip((t - rng.uniform(0.0, 0.25, count)) / rise, 0, 1)
    for _ in range(3):
        hz, phase, size = rng.uniform(0.5, 8, count), rng.uniform(0, 6.3, count), rng.uniform(0, 0.12, count)
        ctrl = ctrl + size * np.sin(2 * np.pi * hz * t + phase)
    begin, length = rng.uniform(0.5, 1.7, count), rng.uniform(0.1, 0.4, count)
    pause = (t > begin) & (t < begin + length) & (rng.uniform(size=count) < 0.5)
    back = np.where(rng.uniform(size=count) < 0.4, -rng.uniform(0.1, 0.5, count), 0.0)
    return np.clip(np.where(pause, back, ctrl), -1, 1)


def logged(episode: object, bolts: Bolts) -> Logs:
    """An episode of a rack as logs."""
    from experiments.bolt.rack import fastening

    qpos, qvel = (np.stack([x[:, 0::2], x[:, 1::2]], 1) for x in (episode.qpos, episode.qvel))  # type: ignore[attr-defined]
    time, wound = episode.time, episode.memory[2]  # type: ignore[attr-defined]
    held = fastening(bolts)
    force = np.stack([held.clamp_force(q, t >= wound.stripped_at) for q, t in zip(qpos[:, 1], time, strict=True)])
    power = force * np.abs(qvel[:, 1]) / WORK
    work = np.concatenate([np.zeros((1, power.shape[1])), np.cumsum((power[1:] + power[:-1]) / 2 * CONTROL_S, 0)])
    stripped = np.where(np.isinf(wound.stripped_at), len(time), np.searchsorted(time, wound.stripped_at - 1e-9))
    return Logs(qpos, qvel, episode.effort, episode.ctrl, force, work, stripped, bolts.snug, bolts.friction)  # type: ignore[attr-defined]


def joined(parts: list[Logs]) -> Logs:
    """Side by side."""
    return Logs(*(np.concatenate(x, -1) for x in zip(*parts, strict=True)))


def kept(path: Path, make: Callable[[], Logs]) -> Logs:
    """What is in the file, or what `make()` gives, which is then kept there."""
    if not path.exists():
        save(path, make()._asdict())
    with np.load(path, allow_pickle=False) as found:
        return Logs(**{name: found[name] for name in Logs._fields})
