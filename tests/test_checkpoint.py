"""Fitted models and trainings on disk: the same bits again; what is damaged or foreign is refused; kill -9 at any moment."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import physics
from hybridwm.learning import checkpoint, sealing
from hybridwm.learning.checkpoint import TrainingLog, load_model, load_saved, save_model
from hybridwm.learning.encoding import decoded, encoded
from hybridwm.learning.fitting import FitOptions, Fitted
from hybridwm.world.model import ModelOptions, WorldParams, world_model

OPTIONS = FitOptions(model=ModelOptions(hidden=(5,), members=2, corrections=("damping",), delay=1), seed=3)
OWN = """<mujoco><option timestep="0.005"/><worldbody><body name="arm"><joint name="hinge" axis="0 1 0" damping="0.1"/>
<geom size=".1" mass="0.123456789"/></body></worldbody><actuator><motor joint="hinge"/></actuator></mujoco>"""


def fitted(scene, seed=0):
    model = world_model(physics.brax_engine(scene), OPTIONS.model)
    keys = jax.random.split(jax.random.key(seed), 2)
    residual = model.residual.fresh(keys[0])
    residual = residual._replace(scale=jax.random.normal(keys[1], residual.scale.shape))
    theta = jax.tree.map(jnp.asarray, physics.nominal(scene))
    params = WorldParams(theta=theta, lag_s=jnp.full(scene.model.nu, 0.01), residual=residual)
    return Fitted(model, params, None, None, True, {"error": np.float32(0.5), "lost": float("nan")})


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert type(a) is type(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        assert np.asarray(a).dtype == np.asarray(b).dtype


@pytest.fixture(scope="module")
def own():
    return physics.load_scene(OWN)


@pytest.fixture
def folder(tmp_path, own):
    save_model(tmp_path / "model", fitted(own), OPTIONS)
    return tmp_path / "model"


def test_a_model_comes_back_bit_for_bit(folder, own):
    found = load_saved(folder, own)
    same(found.params, fitted(own).params)
    assert found.options == OPTIONS
    assert found.model.options == OPTIONS.model
    assert found.report == {"kept": True, "error": 0.5, "lost": None}
    assert found.versions["jax"] == jax.__version__


def test_the_last_two_are_kept(folder, own):
    for seed in (1, 2):
        save_model(folder, fitted(own, seed), OPTIONS)
    assert sealing.versions(folder) == [2, 3]
    assert sorted(p.name for p in folder.iterdir()) == ["000000000002", "000000000003"]
    same(load_model(folder, own)[1], fitted(own, 2).params)


def test_shipped_scenes_need_not_be_given(tmp_path):
    scene = physics.load_scene("double_pendulum")
    save_model(tmp_path, fitted(scene), OPTIONS)
    assert load_model(tmp_path)[0].engine.scene is scene


def test_another_scene_is_refused_by_name(folder):
    with pytest.raises(ValueError, match=r"fitted on scene 'scene' \(\w{12}\), not on 'pendulum' \(\w{12}\)"):
        load_model(folder, physics.load_scene("pendulum"))
    with pytest.raises(ValueError, match="does not come with hybridwm; give the scene too"):
        load_model(folder)


def files(folder):
    place = sealing.version_path(folder, sealing.versions(folder)[-1])
    return sorted(path for path in place.rglob("*") if path.is_file())


def test_every_flipped_byte_is_noticed(folder, own):
    for path in files(folder):
        content = path.read_bytes()
        for at in {0, len(content) // 2, len(content) - 1} if content else ():
            path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
            with pytest.raises(ValueError, match=f"{path.parent.parent.name}.*damaged|damaged.*{path.name}"):
                load_model(folder, own)
        path.write_bytes(content)
    load_model(folder, own)


@pytest.mark.parametrize("mishap", ["lost", "longer", "more", "link"])
def test_files_that_come_go_or_grow_are_noticed(folder, own, mishap, tmp_path):
    path = next(path for path in files(folder) if path.name == "scene.xml")
    if mishap == "lost":
        path.unlink()
    elif mishap == "longer":
        path.write_text(path.read_text() + " ")
    elif mishap == "more":
        path.with_name("extra").write_text("")
    else:
        path.rename(tmp_path / "scene.xml")
        path.symlink_to(tmp_path / "scene.xml")
    with pytest.raises(ValueError, match=r"damaged: (scene\.xml|extra) (is missing|was not there|is not as it was)"):
        load_model(folder, own)


def resealed(folder, change):
    """Someone who knows the format edits a model."""
    path = sealing.version_path(folder, 1) / "manifest.json"
    body = json.loads(path.read_text())
    del body["seal"]
    change(body["about"])
    path.write_text(json.dumps({**body, "seal": sealing._digest(body)}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda about: about.update(format="hybridwm model 0"), "is 'hybridwm model 0'; expected 'hybridwm model 1'"),
        (lambda about: about["options"].update(type="os:system"), "os:system is no type of this version"),
        (
            lambda about: about["options"].update(type="hybridwm.learning.fitting:fit"),
            "hybridwm.learning.fitting:fit is no type",
        ),
        (lambda about: about["options"].update(type="hybridwm.lost:Lost"), "another version"),
        (
            lambda about: about["options"]["fields"].update(colour=1),
            "FitOptions was saved by another version: with model",
        ),
        (lambda about: about["structure"]["dict"].pop("identified"), "another version: 'identified' is missing"),
        (
            lambda about: about["options"]["fields"]["model"]["fields"].update(hidden={"tuple": [6]}),
            r"residual\.weights\.\S+ is \[2, 2, 5\]; this version of hybridwm needs \[2, 2, 6\]",
        ),
        (
            lambda about: about["options"]["fields"]["model"]["fields"].update(members=3),
            r"is \[2, 2\]; .* needs \[3, 2\]",
        ),
        (lambda about: about.update(declared=["ice"]), "fitted with declared events: ice"),
    ],
)
def test_a_model_of_another_version_is_refused(folder, own, change, said):
    resealed(folder, change)
    with pytest.raises(ValueError, match=rf"000000000001.*({said})"):
        load_model(folder, own)


def test_a_folder_without_a_model_is_named(tmp_path, own):
    with pytest.raises(ValueError, match="no such folder"):
        load_model(tmp_path / "nowhere", own)
    with pytest.raises(ValueError, match="a fitted model is not in it"):
        load_model(tmp_path, own)
    TrainingLog(tmp_path).save(1, {"a": np.zeros(2)})
    with pytest.raises(ValueError, match="is 'hybridwm training 1'; expected 'hybridwm model 1'"):
        load_model(tmp_path, own)


class State(NamedTuple):
    weights: dict
    key: jax.Array
    best: np.ndarray
    epoch: int
    rate: float
    none: None


def state(seed=0):
    weights = {"a": jnp.arange(3.0) * (seed + 0.1), "b": (jnp.int32(7), jnp.zeros((0, 2)))}
    return State(weights, jax.random.key(seed), np.arange(4) / (seed + 3), seed, 0.1 * seed, None)


def test_a_training_goes_on_where_it_was(tmp_path):
    log = TrainingLog(tmp_path, {"seed": 3})
    assert log.latest(state()) is None
    for number in (1, 2, 5):
        log.save(number, state(number))
    last = log.latest(state())
    assert last is not None
    number, found = last
    assert number == 5
    assert jnp.issubdtype(found.key.dtype, jax.dtypes.prng_key)
    np.testing.assert_array_equal(jax.random.key_data(found.key), jax.random.key_data(state(5).key))
    same(found._replace(key=None), state(5)._replace(key=None))
    assert sealing.versions(tmp_path) == [2, 5]
    with pytest.raises(ValueError, match=r"of another training \(seed differ\)"):
        TrainingLog(tmp_path, {"seed": 4}).latest(state())
    with pytest.raises(ValueError, match="exists already"):
        log.save(5, state())


@pytest.mark.parametrize(
    ("like", "said"),
    [
        (state()._replace(best=np.zeros(5)), r"best is float64\[4\]; expected float64\[5\]"),
        (state()._replace(best=np.zeros(4, np.float32)), r"best is float64\[4\]; expected float32\[4\]"),
        (state()._replace(weights={"a": jnp.zeros(3)}), "another training; parts that differ"),
    ],
)
def test_a_training_of_other_shapes_is_refused(tmp_path, like, said):
    log = TrainingLog(tmp_path)
    log.save(1, state())
    with pytest.raises(ValueError, match=said):
        log.latest(like)


def test_what_could_not_be_made_again_is_refused():
    for strange in (object(), len, {1: 2}, np.float32):
        with pytest.raises(ValueError, match="can be saved"):
            encoded({"x": strange})
    tree = {"a": [1, 2.5, float("inf"), None, "word", True], "b": (np.arange(3), jnp.ones(2)), "key": jax.random.key(1)}
    found = decoded(*encoded(tree))
    assert found["a"] == tree["a"]
    np.testing.assert_array_equal(jax.random.key_data(found["key"]), jax.random.key_data(tree["key"]))
    same(found["b"], tree["b"])


KILLED = """
import os, random, signal, sys, time
import numpy as np
from hybridwm.learning.checkpoint import TrainingLog

folder, rounds = sys.argv[1], int(sys.argv[2])
log, like, last = TrainingLog(folder), {"w": np.zeros(50_000), "n": np.zeros(1)}, 0
random.seed(0)
for _ in range(rounds):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        for number in range(last + 1, 10**6):
            log.save(number, {"w": np.full(50_000, float(number)), "n": np.array([number * 1.0])})
            os.write(write, b"%d\\n" % number)
    time.sleep(random.uniform(0.0, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(write)
    told = [last, *map(int, os.read(read, 10**6).split())][-1]
    os.close(read)
    found = log.latest(like)
    number = found[0] if found else 0
    assert told <= number <= told + 1, (told, number)
    assert not found or (found[1]["w"] == number).all() and found[1]["n"][0] == number
    last = number
assert last > rounds / 2, last
log.save(last + 1, like)
print(sorted(os.listdir(folder)) == [f"{last:012d}", f"{last + 1:012d}"])
"""


def test_killed_at_any_moment_nothing_is_lost_but_the_running_epoch(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "log"), "50"]
    path = os.pathsep.join([str(checkpoint.Path(__file__).parent.parent), *sys.path])
    child = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": path})
    assert child.returncode == 0, child.stderr
    assert child.stdout.split() == ["True"]
