"""Scenes from people who mean harm, or did not look: one sentence as ValueError, in no time, whatever the input."""

import copy
import os
import random
import re
import struct
import xml.etree.ElementTree as ET
import zlib
from functools import cache
from importlib import resources

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from physics.engine import brax_engine
from physics.params import nominal
from physics.scene import Scene, load_scene, shipped_scenes

# Generous against a busy machine; what it catches takes minutes or for ever.
calm = settings(max_examples=100, deadline=5000, suppress_health_check=[HealthCheck.too_slow], derandomize=True)

BODY = '<body name="ball"><joint name="j"/><geom name="g" size=".1"/></body>'


def scene_text(inside="", after="", before=""):
    return f"<mujoco>{before}<worldbody>{BODY}{inside}</worldbody>{after}</mujoco>"


def outcome(source):
    """The scene, or the sentence that says why there is none."""
    try:
        return load_scene(source)
    except ValueError as error:
        sentence = str(error)
        assert sentence
        assert "\n" not in sentence
        assert len(sentence) < 700
        return sentence


def refusal(source):
    """The sentence; a scene is a failure."""
    sentence = outcome(source)
    assert isinstance(sentence, str)
    return sentence


def nested(tag, depth):
    return f"<{tag}>" * depth + f"</{tag}>" * depth


BOMBS = {
    "laughs": '<!DOCTYPE m [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><mujoco model="&b;"/>',
    "outside entity": '<!DOCTYPE m [<!ENTITY a SYSTEM "file:///etc/passwd">]><mujoco model="&a;"/>',
    "only a document type": "<!DOCTYPE mujoco><mujoco/>",
    "unknown entity": "<mujoco model='&lol;'/>",
    "deep": "<mujoco><worldbody>" + nested("body", 5000) + "</worldbody></mujoco>",
    "wide": scene_text('<site name=""/>' * 20_000),
    "long": scene_text("<!--" + "x" * 5_000_000 + "-->"),
    "replicate": scene_text('<replicate count="1000000000"><site/></replicate>'),
    "replicate in replicate": scene_text('<replicate count="90">' * 5 + "<site/>" + "</replicate>" * 5),
    "replicate of nothing": scene_text('<replicate count="900000000"/>'),
    "replicate, not a number": scene_text('<replicate count="1e9"><site/></replicate>'),
    "replicate, negative": scene_text('<replicate count="-5"><site/></replicate>'),
    "composite": scene_text('<composite type="cable" count="100000 1 1"/>'),
    "flexcomp": scene_text('<flexcomp name="f" type="grid" count="900 900 900"/>'),
    "texture": scene_text(before='<asset><texture name="t" builtin="flat" width="90000" height="90000"/></asset>'),
    "height field": scene_text(before='<asset><hfield name="h" nrow="90000" ncol="90000" size="1 1 1 1"/></asset>'),
    "memory": scene_text(before='<size memory="900G"/>'),
    "keyframes": scene_text(before='<size nkey="2000000000"/>'),
    "user data": scene_text(before='<size nuserdata="2000000000"/>'),
    "numeric": scene_text(after='<custom><numeric name="n" size="2000000000"/></custom>'),
    "sensor history": scene_text(after='<sensor><jointpos joint="j" nsample="2000000000"/></sensor>'),
    "length range": scene_text(before='<compiler><lengthrange mode="all" inttotal="1e12"/></compiler>'),
    "plugin": scene_text(before='<extension><plugin plugin="mujoco.elasticity.cable"/></extension>'),
    "sub-model": scene_text(before='<asset><model name="m" file="/etc/passwd"/></asset>'),
    "far anchor": scene_text(after='<equality><connect body1="ball" anchor="1e150 1e150 1e150"/></equality>'),
    "empty anchor": scene_text(after='<equality><connect body1="ball" anchor=""/></equality>'),
    "far margin": scene_text(before='<default><geom margin="1e308"/></default>'),
    "zero step": scene_text(before='<option timestep="0"/>'),
    "negative step": scene_text(before='<option timestep="-0.01"/>'),
    "zero size": scene_text('<geom type="box" size="0 1 1"/>'),
    "zero mass": '<mujoco><worldbody><body><freejoint/><geom size=".1" mass="0"/></body></worldbody></mujoco>',
    "negative mass": scene_text('<body><freejoint/><geom size=".1"/><body><geom size=".1" mass="-1"/></body></body>'),
    "not MJCF": "<robot name='r'/>",
    "empty": "",
    "blank": "  \n ",
    "not XML": "<mujoco><worldbody></mujoco>",
    "two roots": "<mujoco/><mujoco/>",
    "NUL": "<mujoco>\0</mujoco>",
    "half a character": "<mujoco model='\ud800'/>",
    "unknown scene": "pushed_bx",
    "path with NUL": "scenes/\0.xml",
    "endless path": "a" * 10_000 + ".xml",
    "a folder": "/tmp",
    "a device": "/dev/zero",
    "name without end": scene_text(f'<site name="{"n" * 10_000}"/>'),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb(name):
    assert refusal(BOMBS[name])


def test_a_huge_count_is_told_the_ceiling():
    for count in ("1000000000", "9" * 5000):
        assert "too large; at most 5,000" in refusal(scene_text(f'<replicate count="{count}"><site/></replicate>'))


def test_nearest_name():
    assert "did you mean 'pushed_box'" in refusal("pushed_bx")


# ---- files ----


@pytest.fixture
def folder(tmp_path):
    """A folder with a scene's parts, beside a secret that no scene may reach."""
    (tmp_path / "secret.xml").write_text("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
    inside = tmp_path / "scene"
    (inside / "parts").mkdir(parents=True)
    (inside / "parts" / "ball.xml").write_text(f"<mujocoinclude>{BODY}</mujocoinclude>")
    (inside / "tetra.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n")
    (inside / "link.xml").symlink_to(tmp_path / "secret.xml")
    (inside / "out").symlink_to(tmp_path)
    (inside / "circle.xml").symlink_to(inside / "circle.xml")
    (inside / "loop.xml").write_text('<mujocoinclude><include file="loop.xml"/></mujocoinclude>')
    (inside / "big.xml").write_text("<mujocoinclude>" + " " * 5_000_000 + "</mujocoinclude>")
    (inside / "latin.xml").write_bytes(b"<mujocoinclude>\xff\xfe</mujocoinclude>")
    os.mkfifo(inside / "pipe.xml")
    return inside


def written(folder, text):
    path = folder / "main.xml"
    path.write_text(text)
    return path


def test_files_inside_the_folder_are_read(folder):
    text = """<mujoco><compiler meshdir="."/><asset><mesh file="tetra.obj"/></asset><worldbody>
    <include file="parts/ball.xml"/><geom type="mesh" mesh="tetra" contype="0" conaffinity="0"/></worldbody></mujoco>"""
    scene = load_scene(written(folder, text))
    assert scene.model.nmesh == 1
    assert scene.body("ball").body == 1
    (folder / "parts" / "ball.xml").write_text(f"<mujocoinclude>{BODY.replace('.1', '.2')}</mujocoinclude>")
    assert load_scene(written(folder, text)) != scene  # cached by content, not by path


@pytest.mark.parametrize(
    "file",
    [
        "../secret.xml", "parts/../../secret.xml", "/etc/passwd", "~/secret.xml", "link.xml", "out/secret.xml",
        "circle.xml", "loop.xml", "big.xml", "latin.xml", "pipe.xml", "parts", "", ".", "none.xml", "C:\\secret.xml",
        "..\\secret.xml", "a" * 5000, "\u0000", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_files_outside_or_broken_are_refused(folder, file):
    if "\0" not in file:
        assert refusal(written(folder, f'<mujoco><include file="{file}"/></mujoco>'))
    mesh = f'<mujoco><asset><mesh name="m" file="{file}"/></asset><worldbody>{BODY}</worldbody></mujoco>'
    assert refusal(written(folder, mesh))


@pytest.mark.parametrize("folders", ['meshdir="/etc"', 'meshdir=".."', 'assetdir="~"', 'meshdir="out"'])
def test_asset_folders_stay_inside(folder, folders):
    mesh = '<asset><mesh name="m" file="passwd.obj"/></asset>'
    text = f"<mujoco><compiler {folders}/>{mesh}<worldbody>{BODY}</worldbody></mujoco>"
    assert refusal(written(folder, text))


def test_a_string_has_no_folder(folder):
    text = '<mujoco><include file="parts/ball.xml"/></mujoco>'
    assert "no folder" in refusal(text)


def test_too_many_files(folder):
    text = "<mujoco><worldbody>" + '<include file="parts/ball.xml"/>' * 100 + "</worldbody></mujoco>"
    assert "files in one scene" in refusal(written(folder, text))


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_picture_bomb(folder):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    text = f'<mujoco><asset><texture name="t" type="2d" file="bomb.png"/></asset><worldbody>{BODY}</worldbody></mujoco>'
    assert "4096" in refusal(written(folder, text))


@calm
@given(st.binary(max_size=300), st.sampled_from([".obj", ".stl", ".msh", ".png"]), st.booleans())
def test_broken_meshes_and_pictures(tmp_path_factory, content, suffix, headed):
    folder = tmp_path_factory.mktemp("asset")
    heads = {
        ".png": b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 4, 4),
        ".stl": b" " * 80 + struct.pack("<I", 4),
    }
    (folder / f"x{suffix}").write_bytes((heads.get(suffix, b"v 0 0 0\n") if headed else b"") + content)
    asset = '<texture name="m" type="2d" file="x.png"/>' if suffix == ".png" else f'<mesh name="m" file="x{suffix}"/>'
    outcome(written(folder, f"<mujoco><asset>{asset}</asset><worldbody>{BODY}</worldbody></mujoco>"))


# ---- properties ----

SHIPPED = {name: (resources.files("physics") / "scenes" / f"{name}.xml").read_text() for name in shipped_scenes()}
INFINITE = ["nan", "inf", "-inf", "NaN", "1e999", "-nan(0x1)", "Infinity"]
NASTY = [
    *INFINITE,
    "1e308",
    "1e150 1e150 1e150",
    "-1",
    "0",
    "1e-308",
    "",
    "a",
    "2147483648",
    "0 0 0 0",
    "0x1p3",
    "9" * 300,
]


@calm
@given(st.text(max_size=200))
@example("<")
@example("<mujoco")
def test_any_text(text):
    assert isinstance(outcome(text), str) or text.strip() in shipped_scenes()


@calm
@given(st.sampled_from(sorted(SHIPPED)), st.integers(0, 2**32), st.sampled_from(INFINITE))
def test_a_number_that_is_none_is_refused(name, seed, number):
    rng, root = random.Random(seed), ET.fromstring(SHIPPED[name])
    numeric = [(e, k) for e in root.iter() for k, v in e.items() if re.fullmatch(r"[-.\d ]+", v)]
    element, key = rng.choice(numeric)
    words = element.attrib[key].split()
    words[rng.randrange(len(words))] = number
    element.set(key, " ".join(words))
    assert "finite" in refusal(ET.tostring(root, encoding="unicode"))


def mutated(text, rng):
    """A scene with a few elements or attributes taken, doubled, renamed or filled with something nasty."""
    root = ET.fromstring(text)
    for _ in range(rng.randint(1, 5)):
        elements = list(root.iter())
        one, other, what = rng.choice(elements), rng.choice(elements), rng.randrange(6)
        if what == 0 and len(one):
            one.remove(rng.choice(list(one)))
        elif what == 1 and other is not root:
            one.append(copy.deepcopy(other))
        elif what == 2 and one is not root:
            one.tag = other.tag
        elif one.attrib:
            key = rng.choice(sorted(one.attrib))
            one.set(key, rng.choice([*NASTY, *other.attrib.values()]))
    return ET.tostring(root, encoding="unicode")


@settings(calm, max_examples=300)
@given(st.sampled_from(sorted(SHIPPED)), st.integers(0, 2**32))
def test_mutated_scenes(name, seed):
    found = outcome(mutated(SHIPPED[name], random.Random(seed)))
    assert isinstance(found, str | Scene)


@calm
@given(st.sampled_from(sorted(SHIPPED)), st.integers(0, 2**32))
def test_damaged_text(name, seed):
    rng, text = random.Random(seed), SHIPPED[name]
    for _ in range(rng.randint(1, 6)):
        at, size = rng.randrange(len(text)), rng.randint(1, 20)
        text = (
            text[:at]
            + rng.choice(["", "<", '"', "&", "\0", text[at : at + size] * 2, "nan"])
            + text[at + rng.randint(0, size) :]
        )
    assert isinstance(outcome(text), str | Scene)


# ---- what engines are given ----


@cache
def engine_of(name):
    return brax_engine(load_scene(name))


@settings(calm, max_examples=200, deadline=None)
@given(st.sampled_from(["pushed_box", "glass"]), st.integers(0, 2**32), st.booleans())
def test_one_bad_number_among_the_inputs(name, seed, horizon):
    """A NaN or infinity anywhere in state, θ, control, force or wrench, or an axis too few: one sentence, at once."""
    engine, rng = engine_of(name), np.random.default_rng(seed)
    m, worlds = engine.scene.model, int(rng.integers(1, 4))
    theta = nominal(engine.scene)
    start = engine.init(theta, *(np.repeat(x[:, None], worlds, 1) for x in engine.scene.home()))
    given = {
        **{f"theta.{k}": x for k, x in theta._asdict().items() if k != "bond_strength"},
        **{f"state.{k}": np.array(getattr(start, k)) for k in ("qpos", "qvel", "act", "intact")},
        "ctrl": np.zeros((3, m.nu, worlds) if horizon else (m.nu, worlds)),
        "force": np.zeros((m.nv, worlds)),
        "wrench": np.zeros((m.nbody, 6, worlds)),
    }
    chosen = str(rng.choice([k for k, x in given.items() if x.size]))
    spoiled = np.array(given[chosen], float)
    if rng.random() < 0.2 and (chosen, horizon) != ("ctrl", True):
        spoiled = spoiled[:-1]
    else:
        spoiled.flat[rng.integers(spoiled.size)] = rng.choice([np.nan, np.inf, -np.inf])
    given[chosen] = spoiled
    part = lambda kind: {k.removeprefix(kind): x for k, x in given.items() if k.startswith(kind)}  # noqa: E731
    run = engine.rollout if horizon else engine.step
    with pytest.raises(ValueError, match=chosen.split(".")[-1]) as caught:
        run(
            theta._replace(**part("theta.")),
            start._replace(**part("state.")),
            given["ctrl"],
            force=given["force"],
            wrench=given["wrench"],
        )
    assert "\n" not in str(caught.value)
