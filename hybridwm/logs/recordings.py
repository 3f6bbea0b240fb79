"""What was logged: episodes of one scene at one rate, their split into training and test, windows to learn from.

Time in front. Row h of `ctrl` is held from row h to row h+1 of the states, so an episode of H steps has H+1 states.
Legend: H steps, W windows, D past controls, nq coordinates, nv dofs, nu controls, nb bonds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from physics.scene import Scene


class Recording(NamedTuple):
    """One episode as logged, float64."""

    name: str
    qpos: np.ndarray  # [H+1, nq] m, rad, unit quaternions
    qvel: np.ndarray  # [H+1, nv] m/s, rad/s
    ctrl: np.ndarray  # [H, nu] held over step h
    intact: np.ndarray  # [H+1, nb] 1 while a bond holds, 0 for ever after


class Dataset(NamedTuple):
    """Episodes of one scene; `dt` in s is its time step or a whole multiple of it."""

    scene: Scene
    dt: float
    recordings: tuple[Recording, ...]
    meta: Mapping[str, Any]  # where they come from, what was found and done on reading

    @property
    def steps(self) -> int:
        """Transitions in all episodes together."""
        return sum(len(recording.ctrl) for recording in self.recordings)

    @property
    def substeps(self) -> int:
        """Engine steps to one row."""
        return substeps(self.scene, self.dt)


class Windows(NamedTuple):
    """W stretches of H steps, worlds last."""

    qpos: np.ndarray  # [H+1, nq, W]
    qvel: np.ndarray  # [H+1, nv, W]
    ctrl: np.ndarray  # [H, nu, W]
    intact: np.ndarray  # [H+1, nb, W]
    past: np.ndarray
    """[D, nu, W] controls before the window, newest last; before an episode zeros, or its first one if its meta is `settled`."""
    episode: np.ndarray  # [W] which recording
    start: np.ndarray  # [W] at which row


class Columns(NamedTuple):
    """What each column of a log is called."""

    qpos: tuple[str, ...]
    qvel: tuple[str, ...]
    ctrl: tuple[str, ...]
    intact: tuple[str, ...]


def columns(scene: Scene) -> Columns:
    """The names of a scene's columns: joints (with .x … .qw … where they have several), actuators, bonds."""
    model, qpos, qvel = scene.model, list[str](), list[str]()
    parts = {0: ("x", "y", "z", "qw", "qx", "qy", "qz"), 1: ("qw", "qx", "qy", "qz")}
    rates = {0: ("vx", "vy", "vz", "wx", "wy", "wz"), 1: ("wx", "wy", "wz")}
    for j in range(model.njnt):
        name, kind = model.joint(j).name or f"joint{j}", int(model.jnt_type[j])
        qpos += [f"{name}.{part}" for part in parts[kind]] if kind in parts else [name]
        qvel += [f"{name}.{rate}" for rate in rates[kind]] if kind in rates else [name]
    motors = tuple(model.actuator(i).name or f"actuator{i}" for i in range(model.nu))
    return Columns(tuple(qpos), tuple(qvel), motors, tuple(bond.name for bond in scene.bonds))


def substeps(scene: Scene, dt: float) -> int:
    """Engine steps to one row of a log; refuses a rate that is no whole fraction of the engine's."""
    step = float(scene.model.opt.timestep)
    ratio = dt / step if np.isfinite(dt) else 0.0
    if round(ratio) < 1 or abs(ratio - round(ratio)) > 1e-6 * ratio:
        raise ValueError(f"dt = {dt:g} s: expected {step:g} s, the step of scene {scene.name!r}, or a multiple of it")
    return round(ratio)


def split(dataset: Dataset, shares: Sequence[float] = (0.7, 0.15, 0.15), *, seed: int = 0) -> tuple[Dataset, ...]:
    """Cut by episode, at random but always alike for a seed; each part gets at least one episode."""
    total, cut = len(dataset.recordings), np.asarray(shares, float)
    if cut.ndim != 1 or not len(cut) or not (cut > 0).all() or abs(cut.sum() - 1) > 1e-6:
        raise ValueError(f"shares {tuple(shares)}: give positive numbers that add up to 1")
    if total < len(cut):
        raise ValueError(f"{total} episodes cannot be split into {len(cut)} parts: record more, or give fewer shares")
    ends = np.round(np.cumsum(cut) * total).astype(int)
    for i in range(len(ends)):  # none empty, whichever way they rounded
        ends[i] = min(max(ends[i], i + 1, ends[i - 1] + 1 if i else 1), total - (len(ends) - 1 - i))
    order = np.random.default_rng(seed).permutation(total)
    parts = np.split(order, ends[:-1])
    return tuple(chosen(dataset, sorted(part.tolist())) for part in parts)


def chosen(dataset: Dataset, episodes: Sequence[int]) -> Dataset:
    """Some of the episodes, with what `meta` says of them."""
    lines = dataset.meta.get("episodes")
    said = {"episodes": [lines[i] for i in episodes]} if lines else {}
    recordings = tuple(dataset.recordings[i] for i in episodes)
    return dataset._replace(recordings=recordings, meta={**dataset.meta, **said})


def windows(dataset: Dataset, length: int, *, stride: int | None = None, past: int = 0) -> Windows:
    """All windows of `length` steps that begin every `stride` rows (none given: side by side), with `past` controls before."""
    stride = length if stride is None else stride
    if length < 1 or stride < 1 or past < 0:
        raise ValueError(f"length={length}, stride={stride}, past={past}: give at least 1, 1 and 0")
    ends = [len(recording.ctrl) - length for recording in dataset.recordings]
    places = [(e, s) for e, last in enumerate(ends) for s in range(0, last + 1, stride)]
    if not places:
        longest = max((len(recording.ctrl) for recording in dataset.recordings), default=0)
        raise ValueError(f"windows of {length} steps: the longest of {len(ends)} episodes has {longest}")
    episode, start = np.array(places).T
    states, steps, before = np.arange(length + 1), np.arange(length), np.arange(-past, 0)

    def cut(field: str, rows: np.ndarray) -> np.ndarray:
        cuts = [getattr(dataset.recordings[e], field)[np.maximum(s + rows, 0)] for e, s in places]
        return np.stack(cuts, axis=-1)

    return Windows(
        qpos=cut("qpos", states),
        qvel=cut("qvel", states),
        ctrl=cut("ctrl", steps),
        intact=cut("intact", states),
        past=cut("ctrl", before) * ((start + before[:, None, None] >= 0) | bool(dataset.meta.get("settled"))),
        episode=episode,
        start=start,
    )
