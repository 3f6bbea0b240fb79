"""A replay and a page stand alone: they name no other place, hold what they were given, and run nothing they were told."""

import re

import numpy as np
import pytest

import physics
from hybridwm import report, results
from hybridwm.replay import Track, breaks, replay
from physics.shapes import poses, shapes


@pytest.fixture(scope="module")
def scene():
    return physics.load_scene("snapping_rod")


def test_shapes_are_closed_and_turn_with_their_bodies(scene):
    for shape in shapes(scene):
        if shape.kind == "capsule":
            edges = np.sort(np.stack([shape.faces, np.roll(shape.faces, -1, 1)], -1).reshape(-1, 2), 1)
            ends = np.linalg.norm(shape.vertices[edges[:, 0]] - shape.vertices[edges[:, 1]], axis=1) > 1e-9
            assert (np.unique(edges[ends], axis=0, return_counts=True)[1] == 2).all(), (
                "every edge belongs to two triangles"
            )
            assert np.abs(shape.vertices).max(0) == pytest.approx([*shape.size[[0, 0]], shape.size[:2].sum()], abs=1e-6)
    qpos = np.stack([scene.home()[0]] * 2)
    qpos[1, 0] = np.pi / 2
    qpos[1, 1] = np.nan
    found = poses(scene, qpos)
    assert np.isfinite(found.position[0]).all()
    assert np.isnan(found.position[1]).all()
    assert found.bond[0, 0] == pytest.approx([0, 0, 0.62])


def test_replay_stands_alone(scene):
    qpos = np.stack([scene.home()[0]] * 30)
    told = qpos.copy()
    told[:10] = np.nan
    marks = breaks(scene, qpos, [("weld", 0.1)], dt=0.01)
    assert marks[0].position == pytest.approx((0, 0, 0.62))
    assert "weld" in marks[0].text
    text = replay(scene, [Track("reality", qpos), Track("promised", told, ghost=True)], dt=0.01, markers=marks)
    assert text.startswith("<!")
    assert "__VISER_EMBED_DATA__=" in text
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']https?:", text)
    with pytest.raises(ValueError, match="rows of 8"):
        replay(scene, [Track("short", qpos[:, :3])], dt=0.01)


def test_page_escapes_and_embeds(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    figure.savefig(tmp_path / "a.png")
    claim = results.Claim(id="a", statement="1 < 2", value=3.0, target=2.0, better="lower")
    written = results.write(tmp_path, study="s", config={}, numbers={}, claims=[claim])
    path = report.page(
        tmp_path,
        title="<script>alert(1)</script>",
        lead="lead",
        results=written,
        tables=[report.Table("t", ("a", "b"), [("x & y", "1")], loud=("x & y",))],
        figures=[report.Figure(tmp_path / "a.png", 'quote "')],
        replays=[report.Replay("<p></script>", "r")],
    )
    text = path.read_text()
    assert "<script>alert" not in text
    assert "1 &lt; 2" in text
    assert "MISSED" in text
    assert "x &amp; y" in text
    assert "data:image/png;base64," in text
    assert "<p></script>" not in text
    assert not list(tmp_path.glob(".report*"))
