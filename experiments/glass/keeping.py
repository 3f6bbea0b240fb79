"""Episodes on disk, one file per batch: whole or not there, so that a study which was interrupted goes on after the last one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.glass.driving import Driven
from experiments.glass.tasks import Wish, judge
from experiments.keeping import save
from physics import Episode
from physics.effects import Observed

_ARRAYS = ("time", "qpos", "qvel", "ctrl", "intact", "load")


def write_batch(path: Path, batch: Sequence[Driven]) -> None:
    """Write `path`, a .npz without pickles."""
    table: dict[str, np.ndarray] = {"count": np.array(len(batch))}
    for number, one in enumerate(batch):
        mine = {name: getattr(one.episode, name) for name in _ARRAYS}
        mine |= {
            "effort": one.episode.effort,
            "promised": one.promised,
            "chance": one.chance,
            "planned": one.ctrls,
            "plan_s": one.plan_s,
        }
        mine["breaks"] = np.array([at for _, at in one.episode.breaks])
        mine["broken"] = np.array([name for name, _ in one.episode.breaks], dtype=str)
        mine["failure"] = np.array(one.episode.failure or "")
        table |= {f"{number}/{name}": value for name, value in mine.items()}
    save(path, table)


def read_batch(path: Path, wishes: Sequence[Wish]) -> list[Driven]:
    """The episodes of `path`, which were driven for these wishes."""
    with np.load(path, allow_pickle=False) as table:
        if int(table["count"]) != len(wishes):
            raise ValueError(
                f"{path} holds {int(table['count'])} episodes, {len(wishes)} are asked for; give another --out"
            )
        return [_one({k: table[f"{i}/{k}"] for k in _names(table, i)}, wish) for i, wish in enumerate(wishes)]


def _names(table: np.lib.npyio.NpzFile, number: int) -> list[str]:
    return [name.split("/", 1)[1] for name in table.files if name.startswith(f"{number}/")]


def _one(part: dict[str, np.ndarray], wish: Wish) -> Driven:
    found = zip(part["broken"].tolist(), part["breaks"].tolist(), strict=True)
    episode = Episode(
        **{name: part[name] for name in _ARRAYS},
        seen=Observed(part["qpos"], part["qvel"], np.zeros((len(part["qpos"]), 0)), part["effort"]),
        breaks=tuple(found),
        effort=part["effort"],
        memory=(),
        failure=str(part["failure"]) or None,
    )
    return Driven(
        wish, episode, judge(wish, episode), part["promised"], part["chance"], part["planned"], part["plan_s"]
    )
