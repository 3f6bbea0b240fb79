"""Whether an episode can be what it says: sizes, finite numbers, unit quaternions, angles within reach, bonds that stay broken.

Each refusal names the file, the row and column (from 0), what stands there and what was expected.
"""

from collections.abc import Sequence

import numpy as np

from hybridwm.logs import tangent
from hybridwm.logs.recordings import Columns, Recording, columns
from physics.scene import Scene

UNIT_SLACK = 0.01  # of a quaternion's norm; within it, rounding is assumed and mended
LIMIT_SLACK = 0.1  # m, rad, and the same share of the range: soft limits give way
_SLIDE, _HINGE = 2, 3


def admitted(scene: Scene, recording: Recording, where: str) -> Recording:
    """The recording, its quaternions made exactly unit, or one sentence about what is wrong in `where`."""
    names = columns(scene)
    _sizes(recording, names, where)
    for field, titles in names._asdict().items():
        _finite(getattr(recording, field), titles, f"{where}: {field}")
    _quaternions(scene, recording.qpos, names, where)
    _limits(scene, recording.qpos, where)
    _leaps(scene, recording.qpos, where)
    _bonds(recording.intact, names, where)
    exact = tangent.unit(scene.model, recording.qpos.T).T
    return recording if np.allclose(exact, recording.qpos, rtol=0, atol=1e-12) else recording._replace(qpos=exact)


def _sizes(recording: Recording, names: Columns, where: str) -> None:
    rows = len(recording.ctrl) + 1
    for field, titles in names._asdict().items():
        array, height = getattr(recording, field), rows - (field == "ctrl")
        if array.ndim != 2 or array.shape[1] != len(titles):
            said = f"{array.shape[1]} columns" if array.ndim == 2 else f"{array.ndim} axes"
            raise ValueError(f"{where}: {field} has {said}; expected {len(titles)} columns: {_list(titles)}")
        if len(array) != height:
            raise ValueError(
                f"{where}: {field} has {len(array)} rows; expected {height}, one more state than the {rows - 1} controls"
            )
    if rows < 2:
        raise ValueError(f"{where}: no steps; expected at least one control and two states")


def _finite(array: np.ndarray, titles: Sequence[str], where: str) -> None:
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"{where} row {row}, column {column} ({titles[column]}) is {array[row, column]}; expected a finite number"
        )


def _quaternions(scene: Scene, qpos: np.ndarray, names: Columns, where: str) -> None:
    for at, _ in tangent.quaternions(scene.model):
        norm = np.linalg.norm(qpos[:, at : at + 4], axis=1)
        bad = np.flatnonzero(np.abs(norm - 1) > UNIT_SLACK)
        if len(bad):
            raise ValueError(
                f"{where}: qpos row {bad[0]}, columns {at} to {at + 3} ({names.qpos[at]} …): a quaternion of length "
                f"{norm[bad[0]]:.4g}; expected 1"
            )


def _limits(scene: Scene, qpos: np.ndarray, where: str) -> None:
    model = scene.model
    for j in np.flatnonzero(model.jnt_limited & np.isin(model.jnt_type, (_SLIDE, _HINGE))):
        (low, high), at = model.jnt_range[j].tolist(), int(model.jnt_qposadr[j])
        slack = LIMIT_SLACK * (1 + high - low)
        bad = np.flatnonzero((qpos[:, at] < low - slack) | (qpos[:, at] > high + slack))
        if len(bad):
            unit, hint = ("rad", " (are these degrees?)") if model.jnt_type[j] == _HINGE else ("m", "")
            raise ValueError(
                f"{where}: qpos row {bad[0]}, column {at} ({model.joint(int(j)).name}) is {qpos[bad[0], at]:.5g}; "
                f"expected {low:.4g} to {high:.4g} {unit}{hint}"
            )


def _leaps(scene: Scene, qpos: np.ndarray, where: str) -> None:
    model = scene.model
    for j in np.flatnonzero(model.jnt_type == _HINGE):
        at = int(model.jnt_qposadr[j])
        leap = np.diff(qpos[:, at])
        bad = np.flatnonzero(np.abs(leap) > np.pi)
        if len(bad):
            raise ValueError(
                f"{where}: qpos row {bad[0] + 1}, column {at} ({model.joint(int(j)).name}) leaps by {leap[bad[0]]:.4g} rad "
                "from the row before; expected at most half a turn (unwrap the angle, or are these degrees?)"
            )


def _bonds(intact: np.ndarray, names: Columns, where: str) -> None:
    bad = np.argwhere((intact != 0) & (intact != 1))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"{where}: intact row {row}, column {column} ({names.intact[column]}) is {intact[row, column]:g}; "
            "expected 1 (holds) or 0 (broken)"
        )
    bad = np.argwhere(np.diff(intact, axis=0) > 0)
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"{where}: intact row {row + 1}, column {column} ({names.intact[column]}) holds again; "
            "expected that what is broken stays broken"
        )


def _list(titles: Sequence[str]) -> str:
    return ", ".join(titles[:12]) + (" …" if len(titles) > 12 else "") or "none"
