"""A 3D replay as one stand-alone HTML text: reality beside what the model promised, with markers where something broke.

    html = replay(scene, [Track("reality", qpos), Track("promised", told, ghost=True)], dt=0.02,
                  markers=[Marker(0.42, "stem breaks", position)])

It opens from disk without a network, plays in any browser, and can be turned and stopped there. Rows that are not finite
hide the track. Needs the extra `replay` (viser); its server listens on this machine alone and ends with the call.
"""

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any, NamedTuple

import numpy as np

from physics import Scene
from physics.shapes import Shape, poses, shapes

GHOST = (0.16, 0.42, 0.85)
FLOOR = 4.0


class Track(NamedTuple):
    """One motion of the scene."""

    name: str
    qpos: np.ndarray
    """`[T, nq]`, a row each `dt`."""
    ghost: bool = False
    """Translucent and blue: a promise, not a fact."""
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Where the whole scene stands beside the others, m."""


class Marker(NamedTuple):
    """Something that happened."""

    at_s: float
    text: str
    position: Sequence[float]
    """`[3]` m."""
    colour: tuple[float, float, float] = (0.83, 0.16, 0.12)


class Camera(NamedTuple):
    """Where the viewer stands at first."""

    position: tuple[float, float, float]
    look_at: tuple[float, float, float]


def replay(
    scene: Scene,
    tracks: Sequence[Track],
    *,
    dt: float,
    markers: Sequence[Marker] = (),
    camera: Camera | None = None,
    speed: float = 1.0,
    fps: float = 25.0,
) -> str:
    """The tracks side by side as one HTML text. `speed` below 1 is slow motion; ends of shorter tracks stand still."""
    for track in tracks:
        if np.ndim(track.qpos) != 2 or track.qpos.shape[1] != scene.model.nq or not len(track.qpos):
            raise ValueError(
                f"track {track.name!r} has shape {np.shape(track.qpos)}; needed are rows of {scene.model.nq}"
            )
    if not tracks or not (dt > 0 and speed > 0 and fps > 0):
        raise ValueError("a replay needs at least one track, and dt, speed and fps above 0")
    stride = max(1, round(speed / (fps * dt)))
    frames = np.arange(0, max(len(track.qpos) for track in tracks), stride)
    server = _server()
    try:
        actors = [_Actor(server, scene, track, frames) for track in tracks]
        signs = [_sign(server, number, marker) for number, marker in enumerate(markers)]
        _look(server, camera or _view(actors))
        record = server.get_scene_serializer()
        for count, frame in enumerate(frames):
            for actor in actors:
                actor.show(count)
            for marker, handles in zip(markers, signs, strict=True):
                _reveal(handles, bool(frame * dt >= marker.at_s))
            record.insert_sleep(stride * dt / speed)
        record.insert_sleep(1.0)
        return record.as_html()
    finally:
        with redirect_stdout(StringIO()):
            server.stop()


def breaks(scene: Scene, qpos: np.ndarray, found: Sequence[tuple[str, float]], *, dt: float, word: str = "breaks",
           **options: Any) -> list[Marker]:  # fmt: skip
    """A marker at each bond of `found` (name, time in s), where it was then."""
    names, out = [bond.name for bond in scene.bonds], list[Marker]()
    for name, at in found:
        row = min(round(at / dt), len(qpos) - 1)
        where = poses(scene, qpos[row : row + 1]).bond[0, names.index(name)]
        out.append(Marker(at, f"{name} {word} at {at:.2f} s", tuple(where), **options))
    return out


class _Actor:
    """The shapes of one track in the viewer, moved frame by frame; what does not move is drawn once."""

    def __init__(self, server: Any, scene: Scene, track: Track, frames: np.ndarray) -> None:
        kinds = shapes(scene)
        rows = np.minimum(frames, len(track.qpos) - 1)
        seen = poses(scene, track.qpos[rows])
        self.position, self.quaternion = seen.position + np.asarray(track.offset), seen.quaternion
        self.moving = [g for g, shape in enumerate(kinds) if shape.moving]
        drawn = self.moving if track.ghost else range(len(kinds))
        first = np.flatnonzero(np.isfinite(self.position).all((1, 2)))
        at = int(first[0]) if len(first) else 0
        self.handles = {
            g: _draw(server, f"/{track.name}/{kinds[g].name}", kinds[g], track.ghost, self.position[at, g],
                     self.quaternion[at, g]) for g in drawn
        }  # fmt: skip
        self.visible = True

    def show(self, frame: int) -> None:
        visible = bool(np.isfinite(self.position[frame]).all())
        for g in self.moving:
            handle = self.handles[g]
            if visible != self.visible:
                handle.visible = visible
            if visible:
                handle.position, handle.wxyz = self.position[frame, g], self.quaternion[frame, g]
        self.visible = visible


def _server() -> Any:
    try:
        import viser
    except ImportError as error:
        raise ValueError("a 3D replay needs viser: pip install 'hybridwm[replay]'") from error
    with redirect_stdout(StringIO()):
        server = viser.ViserServer(host="127.0.0.1", port=8080, verbose=False)
    server.scene.set_up_direction("+z")
    return server


def _draw(server: Any, name: str, shape: Shape, ghost: bool, position: np.ndarray, quaternion: np.ndarray) -> Any:
    if shape.kind == "plane":
        return server.scene.add_grid(
            name, width=FLOOR, height=FLOOR, cell_size=0.1, section_size=0.5, cell_color=(215, 215, 215),
            section_color=(190, 190, 190), plane_color=(246, 246, 244), plane_opacity=1.0, position=position,
        )  # fmt: skip
    colour = GHOST if ghost else tuple(shape.rgba[:3])
    opacity = 0.3 if ghost else float(shape.rgba[3])
    return server.scene.add_mesh_simple(
        name, shape.vertices, shape.faces, color=colour, opacity=opacity if opacity < 1 else None,
        flat_shading=shape.kind == "box", side="double" if shape.kind == "box" else "front", position=position,
        wxyz=quaternion, cast_shadow=not ghost,
    )  # fmt: skip


def _sign(server: Any, number: int, marker: Marker) -> tuple[Any, ...]:
    position = np.asarray(marker.position, float)
    ball = server.scene.add_icosphere(
        f"/event{number}/ball", radius=0.012, color=marker.colour, opacity=0.7, position=position, visible=False
    )
    label = server.scene.add_label(
        f"/event{number}/text", marker.text, position=position + np.array([0, 0, 0.03 + 0.03 * number]), visible=False
    )
    return ball, label


def _reveal(handles: tuple[Any, ...], visible: bool) -> None:
    for handle in handles:
        if handle.visible != visible:
            handle.visible = visible


def _view(actors: Sequence[_Actor]) -> Camera:
    """Beside the middle of what moves, as far off as it reaches."""
    moved = np.concatenate([actor.position[:, actor.moving].reshape(-1, 3) for actor in actors])
    moved = moved[np.isfinite(moved).all(1)]
    low, high = np.quantile(moved, [0.1, 0.9], axis=0) if len(moved) else (np.zeros(3), np.ones(3))
    centre, reach = (low + high) / 2, max(0.4, float(np.linalg.norm(high - low)))
    x, y, z = (centre + reach * np.array([0.45, -1.25, 0.55])).tolist()
    return Camera((x, y, z), tuple(centre.tolist()))


def _look(server: Any, camera: Camera) -> None:
    server.initial_camera.position, server.initial_camera.look_at = camera.position, camera.look_at
    server.initial_camera.up = (0.0, 0.0, 1.0)
