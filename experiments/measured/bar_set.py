"""The set `tensile_break`: printed bars pulled until they break, as a table of materials × directions × trials.

A break and a false start look different in the force over time. A bar that breaks lets go within one sample (10 ms); a
bar that was only handled is unloaded by hand, over 0.3 s. A record whose force never falls by `SUDDEN` of its peak
within 20 ms is therefore no break: it says only that the bar held up to its peak, a censored observation. This is
decided from the bar's own curve, so it does not look at the other bars of the group, as the column `suspect` does.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.measured.reading import Column, MeasuredSet, join, read_set

AXES = ("xy", "z")  # in the plane of the layers, across them
SUDDEN = 0.15
COLUMNS = {
    "force": Column(-500.0, 20_000.0, "N", per_sample=True),
    "break_force": Column(20.0, 20_000.0, "N"),
    "area_mm2": Column(5.0, 500.0, "mm²"),
    "material": Column(),
    "axis": Column(),
    "trial": Column(0, 10_000),
    "suspect": Column(0, 1),
}
_FIBRE = re.compile(r"(?<![A-Z])(CF|GF)\d*(?![A-Z])")
FAMILIES = {"PLA": "PLA", "PETG": "PETG|PCTG", "PET": "PET", "styrene": "ABS|ASA|HIPS", "nylon": "PA|NYLON", "PC": "PC",
            "soft": "TPU|TPE|FLEX", "other": ""}  # fmt: skip
"""Base polymers by the words of a name; the last is for names that say none."""


class Bars(NamedTuple):
    """M materials × 2 directions × K trials at most; `used` says which cells hold a bar."""

    materials: tuple[str, ...]
    log_load: np.ndarray  # [M, 2, K] log N at the break, or at the peak of a bar that held
    broke: np.ndarray  # [M, 2, K] bool
    used: np.ndarray  # [M, 2, K] bool
    kept_aside: np.ndarray  # [M, 2, K] bool: from the folder that is only scored
    log_area: np.ndarray  # [M, 2] log mm², the median of its direction where unknown
    area_std: np.ndarray  # [M, 2] what is unknown of log_area
    fibre: np.ndarray  # [M] 1 with carbon or glass fibre in the name
    family: np.ndarray  # [M] place of its base polymer in FAMILIES
    trial: np.ndarray  # [M, 2, K] number of the bar
    marked: np.ndarray  # [M, 2, K] bool: the set's own column `suspect`
    digest: str


def read_bars(data: Path, holdout: Path | None = None) -> tuple[Bars, tuple[Path, ...]]:
    """All bars of a folder (and of a part kept aside), and the files they come from."""
    found = read_set(data, "tensile_break", COLUMNS)
    own = len(found.columns["break_force"])
    found = join(found, read_set(holdout, "tensile_break", COLUMNS)) if holdout else found
    return tabulate(found, np.arange(len(found.columns["break_force"])) >= own), found.files


def tabulate(found: MeasuredSet, aside: np.ndarray) -> Bars:
    """The records as a table."""
    of = found.columns
    unknown = set(np.unique(of["axis"])) - set(AXES)
    if unknown:
        raise ValueError(f"{found.files[0]}: axis {', '.join(sorted(unknown))} is unknown; xy and z are allowed")
    materials, m = np.unique(of["material"], return_inverse=True)
    a = (of["axis"] == "z").astype(int)
    k = _count_up(m * 2 + a)
    if len(set(zip(m, a, of["trial"], strict=True))) < len(m):
        raise ValueError(f"{found.files[0]}: the same trial of one material and axis is there twice")
    shape = (len(materials), 2, int(k.max()) + 1)

    def cells(values: np.ndarray, empty: float) -> np.ndarray:
        table = np.full(shape, empty, dtype=np.asarray(values).dtype)
        table[m, a, k] = values
        return table

    log_area, area_std = _areas(of["area_mm2"], m, a, len(materials))
    broke = np.array([is_break(found.record(i, "force")) for i in range(len(m))])
    return Bars(
        tuple(str(name) for name in materials),
        *(cells(np.log(of["break_force"]), 0.0), cells(broke, False), cells(np.ones(len(m), bool), False)),
        *(cells(aside, False), log_area, area_std, np.array([has_fibre(str(name)) for name in materials])),
        np.array([family(str(name)) for name in materials]),
        *(cells(of["trial"].astype(int), -1), cells(of["suspect"] > 0, False), found.digest),
    )


def is_break(force: np.ndarray) -> bool:
    """Whether the force [N] of one record, at 100 Hz, lets go suddenly after its peak."""
    after = force[int(np.argmax(force)) :]
    return len(after) > 2 and float(np.max(after[:-2] - after[2:])) >= SUDDEN * float(force.max())


def has_fibre(material: str) -> float:
    """1 if the name of a material says that it holds cut carbon or glass fibre, else 0."""
    return float(bool(_FIBRE.search(material.upper())))


def family(material: str) -> int:
    """The base polymer that the name of a material says, as a place in FAMILIES."""
    found = (i for i, words in enumerate(FAMILIES.values()) if re.search(rf"\b({words})\d*\b", material.upper()))
    return next(found)


def _count_up(groups: np.ndarray) -> np.ndarray:
    """0, 1, 2, … within each group, in the order of the records."""
    order = np.argsort(groups, kind="stable")
    ranked = groups[order]
    starts = np.searchsorted(ranked, ranked, side="left")
    count = np.empty_like(order)
    count[order] = np.arange(len(order)) - starts
    return count


def _areas(area: np.ndarray, m: np.ndarray, a: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """log area of each material and direction, and its standard deviation where the area is not known."""
    log_area, std = np.zeros((count, 2)), np.zeros((count, 2))
    for axis in range(2):
        known = np.log(area[(a == axis) & np.isfinite(area)])
        usual, spread = (np.median(known), np.std(known)) if known.size else (np.log(25.0), 0.3)
        for i in range(count):
            mine = area[(m == i) & (a == axis) & np.isfinite(area)]
            log_area[i, axis], std[i, axis] = (np.log(np.median(mine)), 0.0) if mine.size else (usual, spread)
    return log_area, std
