"""Logs of others: CSV files, one episode each, and a map from their columns to the scene's.

    qpos: [x, y, z, qw, qx, qy, qz]     titles or numbers of columns (from 0), or "2:9" for a run of them (9 not included)
    qvel: "9:15"                        may be missing: velocities are then estimated
    ctrl: [torque]                      held from its row to the next; that of the last row is not used
    intact: [stem]                      where the scene has bonds: 1 holds, 0 broken
    time: t                             or dt: 0.002 where the files have no time
    scale: {hinge_deg: 0.017453293}     factors on columns: degrees, millimetres
    unwrap: [hinge_deg]                 angles that jump by a whole turn are made continuous (after scaling)
    quaternion: xyzw                    the files' order of the quaternions in qpos; wxyz unless said

The first row may hold titles. The map is YAML, or `name=columns` words on the command line, columns separated by commas.
"""

import csv
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hybridwm.logs import tangent
from hybridwm.logs.archive import MAX_EPISODES, MAX_ROWS, even, with_noise
from hybridwm.logs.plausible import admitted
from hybridwm.logs.recordings import Columns, Dataset, Recording, columns, substeps
from hybridwm.logs.smoothing import smooth
from physics.scene import Scene

MAX_BYTES = 1_000_000_000  # of one file
MAX_MAP = 100_000  # bytes of a YAML map
_KEYS = (*Columns._fields, "time", "dt", "scale", "unwrap", "quaternion")
_ORDERS = {"wxyz": [0, 1, 2, 3], "xyzw": [3, 0, 1, 2]}


class _Table(NamedTuple):
    path: Path
    titles: list[str]  # empty: the file has none
    values: np.ndarray  # [rows, columns]


def import_csv(source: str | Path, scene: Scene, columns: Mapping[str, Any], *, smoothing: str = "auto") -> Dataset:
    """Read a CSV file, or all in a folder in the order of their names, through a map of columns (see above)."""
    asked = _checked(columns, scene)
    paths = _paths(Path(source))
    found, dt = list[Recording](), float(asked["dt"]) if "dt" in asked else None
    for path in paths:
        table = _table(path)
        dt = _step(table, asked, scene, dt)
        found.append(admitted(scene, _recording(table, asked, scene), str(path)))
    assert dt is not None
    meta = {"imported": {"map": {key: asked[key] for key in asked}, "files": [path.name for path in paths]}}
    return with_noise(*smooth(Dataset(scene, dt, tuple(found), meta), smoothing, velocities="qvel" in asked))


def read_map(words: Sequence[str]) -> dict[str, Any]:
    """A map from the command line: one YAML file, or words like qpos=2:9."""
    if len(words) == 1 and "=" not in words[0]:
        return _yaml(Path(words[0]))
    pairs = [word.partition("=") for word in words]
    for key, equals, value in pairs:
        if not (key and equals and value):
            raise ValueError(f"--map {key}: give words like qpos=2:9, or the path of one YAML file")
    found: dict[str, Any] = {key: [part for part in value.split(",") if part] for key, _, value in pairs}
    found |= {key: found[key][0] for key in ("time", "dt", "quaternion") if key in found}
    factors = (part.partition(":") for part in found.get("scale", ()))
    return found | ({"scale": {name: factor for name, _, factor in factors}} if "scale" in found else {})


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        if path.stat().st_size > MAX_MAP:
            raise ValueError(f"{path}: more than {MAX_MAP:,} bytes; expected a map of columns")
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--map {path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise ValueError(f"{path}: not YAML") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a map like `qpos: [x, y]`")
    return found


def _checked(given: Mapping[str, Any], scene: Scene) -> dict[str, Any]:
    if unknown := [key for key in given if key not in _KEYS]:
        raise ValueError(f"map: {unknown[0]!r} is no entry; allowed are {', '.join(_KEYS)}")
    names = columns(scene)
    for field in ("qpos", *(("ctrl",) if names.ctrl else ()), *(("intact",) if names.intact else ())):
        if field not in given:
            raise ValueError(f"map: {field} is missing; expected the columns of {', '.join(getattr(names, field))}")
    if ("time" in given) == ("dt" in given):
        raise ValueError("map: give either time (a column) or dt (in s)")
    if given.get("quaternion", "wxyz") not in _ORDERS:
        raise ValueError(f"map: quaternion is {given['quaternion']!r}; allowed are wxyz and xyzw")
    if not isinstance(given.get("scale", {}), Mapping):
        raise ValueError("map: scale is no map; expected factors like {hinge: 0.01745}")
    return {**given} | {key: _number(given[key], f"map: {key}") for key in ("dt",) if key in given}


def _number(value: Any, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{where} is {value!r}; expected a number") from None


def _paths(source: Path) -> list[Path]:
    found = sorted(source.glob("*.csv")) if source.is_dir() else [source]
    if not found:
        raise ValueError(f"{source}: no .csv file in this folder")
    if len(found) > MAX_EPISODES:
        raise ValueError(f"{source}: {len(found):,} files; expected at most {MAX_EPISODES:,}")
    return found


def _table(path: Path) -> _Table:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path}: more than {MAX_BYTES:,} bytes")
        with path.open(newline="", encoding="utf-8-sig") as file:
            separator = max(",;\t", key=file.readline(100_000).count)
            file.seek(0)
            return _parsed(path, csv.reader(file, delimiter=separator))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a CSV file ({error})") from None


def _parsed(path: Path, rows: Any) -> _Table:
    titles, values, width = list[str](), array("d"), 0
    for row in rows:
        where = f"{path} line {rows.line_num}"
        if not row:
            continue
        if not width:
            width = len(row)
            if not all(map(_is_number, row)):
                titles = [title.strip() for title in row]
                continue
        if len(row) != width:
            raise ValueError(f"{where} has {len(row)} columns; expected {width} as in the first line")
        try:
            values.extend(map(float, row))
        except ValueError:
            column = next(i for i, cell in enumerate(row) if not _is_number(cell))
            named = f" ({titles[column]})" if titles else ""
            raise ValueError(f"{where}, column {column}{named} is {row[column][:40]!r}; expected a number") from None
        if len(values) > width * (MAX_ROWS + 1):
            raise ValueError(f"{path}: more than {MAX_ROWS:,} rows")
    if len(values) < 2 * max(width, 1):
        raise ValueError(f"{path}: {len(values) // max(width, 1)} rows; expected at least two")
    return _Table(path, titles, np.array(values).reshape(-1, width))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _step(table: _Table, asked: Mapping[str, Any], scene: Scene, dt: float | None) -> float:
    """Seconds between rows: as asked, or from the first file's time; every file must agree."""
    where, time = str(table.path), None
    if "time" in asked:
        (at,) = _places(table, [asked["time"]], "time")
        time = table.values[:, at] * _factor(table, asked, at)
        if not np.isfinite(time).all():
            raise ValueError(f"{where}: time row {int(np.flatnonzero(~np.isfinite(time))[0])} is not a finite number")
        dt = float(np.median(np.diff(time))) if dt is None else dt
    assert dt is not None
    step = float(scene.model.opt.timestep)
    if round(dt / step) and abs(dt / step - round(dt / step)) < 1e-3:
        dt = round(dt / step) * step  # times in a file are rounded
    try:
        substeps(scene, dt)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if time is not None:
        even(time, dt, where)
    return dt


def _recording(table: _Table, asked: Mapping[str, Any], scene: Scene) -> Recording:
    model, rows = scene.model, len(table.values)
    names = columns(scene)
    parts = {"qvel": np.zeros((rows, model.nv)), "ctrl": np.zeros((rows, model.nu)), "intact": np.zeros((rows, 0))}
    unwrapped = _places(table, asked.get("unwrap", []), "unwrap")
    for field in (field for field in Columns._fields if field in asked):
        places = _places(table, asked[field], field)
        if len(places) != len(getattr(names, field)):
            wanted = ", ".join(getattr(names, field))
            raise ValueError(f"{table.path}: map {field} names {len(places)} columns; expected {wanted or 'none'}")
        parts[field] = np.stack(
            [_column(table, asked, at, at in unwrapped) for at in places] or [np.zeros((0, rows))], -1
        )
    order = _ORDERS[asked.get("quaternion", "wxyz")]
    for q, _ in tangent.quaternions(model):
        parts["qpos"][:, q : q + 4] = parts["qpos"][:, q : q + 4][:, order]
    return Recording(table.path.stem, parts["qpos"], parts["qvel"], parts["ctrl"][:-1], parts["intact"])


def _column(table: _Table, asked: Mapping[str, Any], at: int, unwrap: bool) -> np.ndarray:
    values = table.values[:, at] * _factor(table, asked, at)
    return np.unwrap(values) if unwrap else values


def _factor(table: _Table, asked: Mapping[str, Any], at: int) -> float:
    for name, factor in asked.get("scale", {}).items():
        if at in _places(table, [name], "scale"):
            return _number(factor, f"map: scale of {name}")
    return 1.0


def _places(table: _Table, names: Any, entry: str) -> list[int]:
    """Numbers of the columns that a map's entry means."""
    width, found = table.values.shape[1], list[int]()
    for name in names if isinstance(names, (list, tuple)) else [names]:
        word = str(name).strip()
        low, colon, high = word.partition(":")
        if word in table.titles:
            found.append(table.titles.index(word))
        elif word.isdecimal() and int(word) < width:
            found.append(int(word))
        elif colon and low.isdecimal() and high.isdecimal() and int(low) < int(high) <= width:
            found += range(int(low), int(high))
        else:
            titled = f"titles {', '.join(table.titles[:20])}" if table.titles else "no titles"
            raise ValueError(
                f"{table.path}: map {entry} names {word[:60]!r}; the file has columns 0 to {width - 1}, {titled}"
            )
    return found


def run_command(source: Path, scene: str, out: Path, words: Sequence[str], *, smoothing: str) -> None:
    """What `hybridwm import` does."""
    from rich.console import Console

    from hybridwm.logs.archive import vacant, write_recordings
    from physics.scene import load_scene

    vacant(out)
    dataset = import_csv(source, load_scene(scene), read_map(words), smoothing=smoothing)
    write_recordings(out, dataset)
    noise = max(dataset.meta["noise"]["qpos_std"], default=0.0)
    Console(highlight=False).print(
        f"{len(dataset.recordings)} episodes, {dataset.steps} steps of {dataset.dt * 1e3:g} ms, "
        f"noise of poses up to {noise:.2g} (m, rad): {out}"
    )
