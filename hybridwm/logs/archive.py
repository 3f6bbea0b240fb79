"""Recordings on disk: one .npz per episode and a meta.jsonl that says what they are. Nothing is pickled, nothing is trusted.

    meta.jsonl   line 1   {"format": "hybridwm recordings 1", "scene", "digest", "dt", "units", "columns": {"qpos": [...], ...}}
                 then     {"file": "00000.npz", ...} for each episode; what else stands there is kept and not read
    00000.npz    qpos [H+1, nq], qvel [H+1, nv] (may be missing), ctrl [H, nu], intact [H+1, nb] (where there are bonds),
                 time [H+1] (may be missing)

What a file's headers ask for is checked before anything is unpacked. meta.jsonl is written last: without it a folder is no dataset.
"""

import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from hybridwm.logs.plausible import admitted
from hybridwm.logs.recordings import Dataset, Recording, columns, substeps
from hybridwm.logs.smoothing import smooth
from physics.scene import Scene

FORMAT = "hybridwm recordings 1"
MAX_EPISODES = 10_000
MAX_ROWS = 1_000_000  # of one episode
MAX_BYTES = 4_000_000_000  # of all arrays together, unpacked
MAX_META = 64_000_000  # bytes
UNITS = {
    "qpos": "m, rad, unit quaternion (w x y z)",
    "qvel": "m/s, rad/s",
    "ctrl": "as the actuators take it",
    "time": "s",
}
_NDIM = {"time": 1, "qpos": 2, "qvel": 2, "ctrl": 2, "intact": 2}
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def write_recordings(folder: str | Path, dataset: Dataset) -> Path:
    """Write a dataset into a new folder; meta["episodes"], where it has one entry each, goes into the episodes' lines."""
    folder = Path(folder)
    vacant(folder)
    more = dataset.meta.get("episodes") or [{}] * len(dataset.recordings)
    lines = [_header(dataset)]
    for i, (recording, extra) in enumerate(zip(dataset.recordings, more, strict=True)):
        path = folder / f"{i:05d}.npz"
        _write(path, recording, dataset.dt)
        lines.append({**extra, "file": path.name, "name": recording.name, "steps": len(recording.ctrl)})
    meta = folder / "meta.jsonl"
    text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
    _part(meta).write_text(text, encoding="utf-8")
    _part(meta).replace(meta)
    return folder


def _write(path: Path, recording: Recording, dt: float) -> None:
    _, qpos, qvel, ctrl, intact = recording
    with _part(path).open("wb") as file:
        np.savez_compressed(file, time=dt * np.arange(len(qpos)), qpos=qpos, qvel=qvel, ctrl=ctrl, intact=intact)
    _part(path).replace(path)


def vacant(folder: Path) -> None:
    """Make a folder for recordings, or refuse one that already holds some."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "meta.jsonl").exists():
        raise ValueError(f"{folder} already holds recordings; give a new folder, or remove it first")


def read_recordings(
    folder: str | Path, scene: Scene, *, smoothing: str = "auto", other_physics: bool = False
) -> Dataset:
    """Read a folder of recordings of `scene`.

    smoothing: take out noise where there is some (auto), everywhere, or nowhere; missing velocities are estimated always.
    other_physics: accept recordings of a scene with the same joints, controls and bonds, but other masses, sizes, ….
    """
    folder = Path(folder)
    header, *entries = _lines(folder)
    meta = folder / "meta.jsonl"
    dt = _agreed(header, scene, f"{meta} row 1", other_physics)
    if not entries:
        raise ValueError(f"{meta} lists no episodes; expected one line for each .npz file")
    left, recordings, known = MAX_BYTES, list[Recording](), set[bool]()
    for row, entry in enumerate(entries, start=2):
        path = _named(folder, entry, f"{meta} row {row}")
        arrays = _arrays(path, left)
        left -= sum(array.nbytes for array in arrays.values())
        _same_rate(arrays.pop("time", None), entry, dt, str(path))
        known.add("qvel" in arrays)
        if len(known) > 1:
            raise ValueError(f"{path}: {'has' if 'qvel' in arrays else 'lacks'} qvel, unlike the files before it")
        recordings.append(admitted(scene, _recording(scene, path, arrays), str(path)))
    dataset = Dataset(scene, dt, tuple(recordings), {**header, "episodes": entries})
    return with_noise(*smooth(dataset, smoothing, velocities=known == {True}))


def with_noise(dataset: Dataset, noise: Any) -> Dataset:
    """Note in `meta` what the smoother found."""
    return dataset._replace(meta={**dataset.meta, "noise": {key: x.tolist() for key, x in noise._asdict().items()}})


def _header(dataset: Dataset) -> dict[str, Any]:
    scene = dataset.scene
    said = {"format": FORMAT, "scene": scene.name, "digest": scene.digest, "dt": dataset.dt, "units": UNITS}
    own = {key: value for key, value in dataset.meta.items() if key not in ("noise", "episodes")}
    return {**own, **said, "columns": columns(scene)._asdict()}


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / "meta.jsonl"
    if not path.is_file():
        found = "an empty folder" if folder.is_dir() and not any(folder.iterdir()) else "no meta.jsonl in it"
        raise ValueError(
            f"{folder}: {found if folder.is_dir() else 'no such folder'}; expected recordings with a meta.jsonl"
        )
    if path.stat().st_size > MAX_META:
        raise ValueError(f"{path}: more than {MAX_META:,} bytes")
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    if not 1 <= len(lines) <= MAX_EPISODES + 1:
        raise ValueError(
            f"{path}: {len(lines)} rows; expected 1 and then one for each of at most {MAX_EPISODES:,} episodes"
        )
    return [_object(line, f"{path} row {row}") for row, line in enumerate(lines, start=1)]


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{where}: expected a JSON object, found {line[:40]!r}")
    return found


def _agreed(header: dict[str, Any], scene: Scene, where: str, other_physics: bool) -> float:
    """dt, when the header is of this format and of this scene."""
    if header.get("format") != FORMAT:
        raise ValueError(f"{where}: format is {header.get('format')!r}; expected {FORMAT!r}")
    names = header.get("columns")
    for field, wanted in columns(scene)._asdict().items():
        given = names.get(field) if isinstance(names, dict) else None
        if given != list(wanted):
            raise ValueError(f"{where}: {field} columns are {_short(given)}; scene {scene.name!r} has {_short(wanted)}")
    if header.get("digest") != scene.digest and not other_physics:
        raise ValueError(
            f"{where}: recorded with scene {header.get('scene')!r} ({str(header.get('digest'))[:12]}), this is {scene.name!r} "
            f"({scene.digest[:12]}) with other masses, sizes or options; accept it with other_physics (--other-physics)"
        )
    dt = header.get("dt")
    if not isinstance(dt, (int, float)) or isinstance(dt, bool):
        raise ValueError(f"{where}: dt is {dt!r}; expected seconds between rows")
    try:
        substeps(scene, float(dt))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return float(dt)


def _named(folder: Path, entry: dict[str, Any], where: str) -> Path:
    name = entry.get("file")
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".npz") or name.startswith("."):
        raise ValueError(f"{where}: file is {name!r}; expected the name of an .npz file in the same folder")
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"{where}: {name} is no file in {folder}")
    return path


def _arrays(path: Path, limit: int) -> dict[str, np.ndarray]:
    """The arrays of one .npz; every header is checked before its data are unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename.removesuffix(".npy") for member in members]
            if len(set(names)) < len(names) or not set(names) <= set(_NDIM):
                raise ValueError(f"{path}: holds {', '.join(map(repr, names[:8]))}; expected {', '.join(_NDIM)}")
            if sum(member.file_size for member in members) > limit:
                raise ValueError(f"{path}: unpacks to more than the {limit:,} bytes that are left of {MAX_BYTES:,}")
            return {
                name: _array(archive, member, f"{path}: {name}") for name, member in zip(names, members, strict=True)
            }
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path}: not a readable .npz file ({error})") from None


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> np.ndarray:
    with archive.open(member) as file:
        try:
            version = np.lib.format.read_magic(file)
            shape, fortran, dtype = _HEADERS[version](file, max_header_size=10_000)
        except (ValueError, KeyError):
            raise ValueError(f"{where}: not a NumPy array") from None
        if dtype.kind not in "fiub" or dtype.itemsize > 8:
            raise ValueError(f"{where}: of type {dtype}; expected plain numbers")
        if min(shape, default=0) < 0 or len(shape) != _NDIM[where.rpartition(" ")[2]]:
            raise ValueError(f"{where} has {len(shape)} axes; expected {_NDIM[where.rpartition(' ')[2]]}")
        if shape[0] > MAX_ROWS + 1:
            raise ValueError(f"{where} has {shape[0]:,} rows; expected at most {MAX_ROWS:,}")
        wanted = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if wanted > member.file_size or len(data := file.read(wanted + 1)) != wanted:
            raise ValueError(f"{where}: its header promises {wanted:,} bytes, the file holds something else")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").astype(float)


def _same_rate(time: np.ndarray | None, entry: dict[str, Any], dt: float, where: str) -> None:
    if entry.get("dt", dt) != dt:
        raise ValueError(f"{where}: rows {entry['dt']} s apart by meta.jsonl; expected {dt:g} s as in its first row")
    if time is not None:
        even(time, dt, where)


def even(time: np.ndarray, dt: float, where: str) -> None:
    """Refuse times that are not dt apart, to a hundredth of dt."""
    bad = np.flatnonzero(~(np.abs(np.diff(time) - dt) <= 0.01 * dt))
    if len(bad):
        step = float(time[bad[0] + 1] - time[bad[0]])
        raise ValueError(
            f"{where}: time row {bad[0] + 1} comes {step:.6g} s after the row before; expected {dt:g} s throughout"
        )


def _recording(scene: Scene, path: Path, arrays: dict[str, np.ndarray]) -> Recording:
    for field in ("qpos", "ctrl") + (("intact",) if scene.bonds else ()):
        if field not in arrays:
            raise ValueError(
                f"{path}: no array {field!r}; expected qpos and ctrl, and intact where the scene has bonds"
            )
    rows = len(arrays["qpos"])
    arrays.setdefault("qvel", np.zeros((rows, scene.model.nv)))
    arrays.setdefault("intact", np.zeros((rows, 0)))
    return Recording(path.stem, arrays["qpos"], arrays["qvel"], arrays["ctrl"], arrays["intact"])


def _short(names: Any) -> str:
    listed = [str(name) for name in names] if isinstance(names, (list, tuple)) else [repr(names)]
    return ", ".join(listed[:12])[:200] + (" …" if len(listed) > 12 else "") if listed else "none"
