"""Read a measured set from a folder that the user names, or say in one sentence what is wrong with it.

A set `cube_toss` is every file `cube_toss.npz` or `cube_toss_*.npz` of the folder, joined: a part kept aside
(`cube_toss_holdout.npz`) is read by the same words. Each file holds arrays and no pickles: `offsets` (n + 1) cuts the
arrays with one entry per sample into n records, every other array has one entry per record. Files without `offsets`
have records only. `meta`, a JSON text, is optional.

Wrong units show as numbers out of range, so a study states a range for each column that it reads.
"""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

_DAMAGE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zipfile.LargeZipFile)


class Column(NamedTuple):
    """What a study expects of one array; `low` and `high` bound its finite values, in `unit`."""

    low: float | None = None
    high: float | None = None
    unit: str = ""
    per_sample: bool = False


class MeasuredSet(NamedTuple):
    """The columns asked for, all files joined."""

    name: str
    files: tuple[Path, ...]
    columns: dict[str, np.ndarray]
    offsets: np.ndarray | None  # [n + 1]
    digest: str  # of the file contents

    def record(self, index: int, column: str) -> np.ndarray:
        """The samples of one record in one per-sample column."""
        assert self.offsets is not None
        return self.columns[column][self.offsets[index] : self.offsets[index + 1]]


def read_set(folder: Path, name: str, columns: Mapping[str, Column]) -> MeasuredSet:
    """The set `name` (a trailing `_dev` is ignored) from `folder`; ValueError with one sentence if it is not there."""
    name = name.removesuffix("_dev")
    files = find_set(folder, name)
    cut = any(column.per_sample for column in columns.values())
    parts = [_read_file(path, columns, cut=cut) for path in files]
    joined = {key: np.concatenate([part[key] for part in parts]) for key in columns}
    offsets = _join_offsets([part["offsets"] for part in parts]) if cut else None
    digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()
    return MeasuredSet(name, tuple(files), joined, offsets, digest)


def find_set(folder: Path, name: str) -> list[Path]:
    """The files of a set in a folder."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; it must hold {name}.npz or {name}_*.npz")
    files = sorted(p for p in folder.glob("*.npz") if p.stem == name or p.stem.startswith(f"{name}_"))
    if not files:
        others = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
        raise ValueError(f"{folder} lacks the set {name} ({name}.npz or {name}_*.npz); it holds {others}")
    return files


def _read_file(path: Path, columns: Mapping[str, Column], *, cut: bool) -> dict[str, np.ndarray]:
    wanted = [*columns, *(["offsets"] if cut else [])]
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in wanted if key not in archive.files]
            arrays = {} if missing else {key: archive[key] for key in wanted}
    except _DAMAGE as error:
        raise ValueError(f"{path} cannot be read as .npz; half a download? ({type(error).__name__})") from error
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    _check_lengths(path, arrays, columns)
    for key, column in columns.items():
        _check_range(path, key, arrays[key], column)
    return arrays


def _check_lengths(path: Path, arrays: Mapping[str, np.ndarray], columns: Mapping[str, Column]) -> None:
    records = [key for key, column in columns.items() if not column.per_sample]
    n = len(arrays["offsets"]) - 1 if "offsets" in arrays else len(arrays[records[0]])
    if n < 1:
        raise ValueError(f"{path} holds no record")
    offsets = arrays.get("offsets", np.zeros(1, int))
    if not np.issubdtype(offsets.dtype, np.integer) or offsets[0] != 0 or np.any(np.diff(offsets) < 1):
        raise ValueError(f"{path}: offsets must be whole numbers that start at 0 and rise")
    for key, column in columns.items():
        expected = int(offsets[-1]) if column.per_sample else n
        if len(arrays[key]) != expected:
            raise ValueError(f"{path}: {key} has {len(arrays[key])} entries, {expected} are expected")


def _check_range(path: Path, key: str, values: np.ndarray, column: Column) -> None:
    if column.low is None or column.high is None:
        return
    if not np.issubdtype(values.dtype, np.number):
        raise ValueError(f"{path}: {key} is {values.dtype}, numbers are expected")
    finite = values[np.isfinite(values)]
    if finite.size and (finite.min() < column.low or finite.max() > column.high):
        raise ValueError(
            f"{path}: {key} goes from {finite.min():g} to {finite.max():g}, "
            f"{column.low:g} to {column.high:g} {column.unit} is allowed; other units?"
        )


def _join_offsets(parts: Sequence[np.ndarray]) -> np.ndarray:
    lengths = np.concatenate([np.diff(part.astype(np.int64)) for part in parts])
    return np.concatenate([[0], np.cumsum(lengths)])


def join(first: MeasuredSet, second: MeasuredSet) -> MeasuredSet:
    """Two sets of the same columns as one, the records of `first` in front."""
    columns = {key: np.concatenate([first.columns[key], second.columns[key]]) for key in first.columns}
    cuts = [part.offsets for part in (first, second) if part.offsets is not None]
    offsets = _join_offsets(cuts) if len(cuts) == 2 else None
    return MeasuredSet(first.name, first.files + second.files, columns, offsets, first.digest + second.digest)
