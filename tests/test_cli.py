"""The command: help without JAX, one sentence for every mistake, exit codes 0, 2 and 1, studies of other packages."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
from children import one_sentence

from hybridwm import cache, cli, runtime, versions

STUDY = """
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from hybridwm.study import Study

@dataclass(frozen=True, kw_only=True)
class Own(Study):
    "A user's own study."
    function: ClassVar[str] = "own_study:run"
    out: Path = Path("own")
    mishap: str = ""

def run(options):
    import jax
    import jax.numpy as jnp
    if options.mishap == "refuse":
        raise ValueError("mass is -1 kg; it must be positive")
    if options.mishap == "library":
        jnp.zeros(3) + jnp.zeros(2)
    if options.mishap == "bug":
        raise KeyError("oh")
    from hybridwm import results
    claim = results.Claim(id="two", statement="two is two", value=2.0, target=2.0, better="lower")
    numbers = {"dtype": str(jnp.zeros(1).dtype), "devices": len(jax.devices())}
    results.write(options.out, study="own", config=options, numbers=numbers, claims=[claim])
"""


@pytest.fixture
def own_study(tmp_path):
    """A folder that, on PYTHONPATH, is an installed package with one study and one that cannot be loaded."""
    site = tmp_path / "site"
    info = site / "own-1.dist-info"
    info.mkdir(parents=True)
    (site / "own_study.py").write_text(STUDY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[hybridwm.experiments]\nown = own_study:Own\nlost = nowhere_study:Lost\n")
    return str(site)


@pytest.mark.parametrize("args", [[], ["doctor"], ["claims"], ["run", "own"]], ids=" ".join)
def test_help_answers_without_jax(args, own_study):
    code = f"import sys; from hybridwm.cli import main; print(main({[*args, '--help']!r}), 'jax' in sys.modules)"
    env = os.environ | {"PYTHONPATH": own_study}
    child = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, env=env)
    assert "usage: hybridwm" in child.stdout
    assert child.stdout.splitlines()[-1] == "0 False"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["docter"], "'docter' is no command; did you mean doctor?"),
        (["doctor", "--deadlok-s", "3"], "did you mean --deadlock-s?"),
        (["doctor", "--x64=maybe"], "'maybe' is no option of hybridwm doctor"),
        (["doctor", "--deadlock-s", "soon"], "--deadlock-s"),
        (["run", "nonsense"], "is no study"),
        (["claims"], "at least one results.json"),
        (["claims", "nowhere.json"], "nowhere.json cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_sentence(args, said, hybridwm):
    child = hybridwm(*args)
    assert one_sentence(child), child.stderr
    assert said in child.stderr


def test_a_study_of_another_package_runs(hybridwm, own_study, tmp_path):
    child = hybridwm("run", "own", "--seeds", 1, PYTHONPATH=own_study)
    assert child.returncode == 0, child.stderr
    body = json.loads((tmp_path / "own/results.json").read_text())
    assert body["numbers"] == {"dtype": "float32", "devices": runtime.core_count()}
    assert body["config"]["seeds"] == 1
    assert hybridwm("claims", "own").returncode == 0


@pytest.mark.parametrize(("args", "environ"), [(["--x64"], {}), ([], {"HYBRIDWM_X64": "1"})])
def test_float64_on_request(args, environ, hybridwm, own_study, tmp_path):
    assert hybridwm("run", "own", *args, PYTHONPATH=own_study, **environ).returncode == 0
    assert json.loads((tmp_path / "own/results.json").read_text())["numbers"]["dtype"] == "float64"


def test_all_goes_on_after_a_failure_and_does_nothing_twice(hybridwm, own_study, tmp_path):
    args = ("run", "all", "--only", "own", "lost", "--seeds", 2)
    child = hybridwm(*args, PYTHONPATH=own_study)
    assert child.returncode == 1, child.stderr
    assert "own: done" in child.stdout
    assert "nowhere_study" in child.stdout
    assert "FAILED: lost" in child.stdout
    made = tmp_path / "runs/all/own/results.json"
    assert json.loads(made.read_text())["config"]["seeds"] == 2
    assert "two is two" in (tmp_path / "runs/all/claims.md").read_text()
    before = made.stat().st_mtime_ns
    child = hybridwm("run", "all", "--only", "own", "--seeds", 2, PYTHONPATH=own_study)
    assert child.returncode == 0, child.stdout
    assert "own: was there" in child.stdout
    assert made.stat().st_mtime_ns == before


def test_all_leaves_out_what_needs_data_and_stops_what_takes_too_long(hybridwm, own_study):
    child = hybridwm("run", "all", "--only", "screws")
    assert one_sentence(child), child.stderr
    assert "need nothing of yours" in child.stderr
    child = hybridwm("run", "all", "--only", "own", "--minutes", "0.002", PYTHONPATH=own_study)
    assert child.returncode == 1
    assert "took too long" in child.stdout


def test_bad_input_to_a_study(hybridwm, own_study):
    for args in (["--sedes", "3"], ["--mishap", "refuse"]):
        child = hybridwm("run", "own", *args, PYTHONPATH=own_study)
        assert one_sentence(child), child.stderr
    assert "mass is -1 kg" in child.stderr
    child = hybridwm("run", "lost", PYTHONPATH=own_study)
    assert one_sentence(child)
    assert "nowhere_study" in child.stderr


def test_inspect(hybridwm, tmp_path):
    child = hybridwm("inspect", "pendulum", "--no-timing")
    assert child.returncode == 0, child.stderr
    assert "scene pendulum" in child.stdout
    (tmp_path / "tendon.xml").write_text(
        "<mujoco><worldbody><body><joint name='j'/><geom size='.1'/></body></worldbody>"
        "<tendon><fixed><joint joint='j' coef='1'/></fixed></tendon></mujoco>"
    )
    child = hybridwm("inspect", "tendon.xml", "--no-timing")
    assert child.returncode == 2
    assert "tendon" in child.stdout
    assert one_sentence(hybridwm("inspect", "nowhere.xml"))


@pytest.mark.parametrize("mishap", ["bug", "library"])
def test_our_fault_is_one_sentence_and_a_log(mishap, hybridwm, own_study, tmp_path):
    child = hybridwm("run", "own", "--mishap", mishap, PYTHONPATH=own_study, TMPDIR=str(tmp_path))
    assert child.returncode == 1
    assert len(child.stderr.splitlines()) == 1
    assert "our fault" in child.stderr
    (log,) = tmp_path.glob("hybridwm-*.log")
    assert str(log) in child.stderr
    assert "Traceback" in log.read_text()


def test_a_wrong_engine_version_is_refused(hybridwm, own_study, tmp_path):
    info = tmp_path / "site/brax-0.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brax\nVersion: 0.9\n")
    child = hybridwm("run", "own", PYTHONPATH=own_study)
    assert one_sentence(child)
    assert "brax 0.9 is installed, hybridwm needs 0.14.2" in child.stderr
    child = hybridwm("doctor", PYTHONPATH=own_study)
    assert child.returncode == 2
    assert "broken  brax" in child.stdout


def test_the_tested_set_names_all_that_doctor_shows():
    assert {version.name for version in versions.compare()} == set(versions.SHOWN)
    assert versions.tested()["jax"] == ("0.10.2" if sys.version_info < (3, 12) else "0.12.0.1")


def test_python_m_says_what_hides_our_packages(tmp_path):
    (tmp_path / "physics.py").write_text("gravity = 9.81")
    command = [sys.executable, "-m", "hybridwm", "doctor", "--deadlock-s", "0"]
    child = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert one_sentence(child), child.stderr
    assert str(tmp_path / "physics.py") in child.stderr


def test_import_says_what_hides_our_packages(tmp_path):
    (tmp_path / "physics.py").write_text("gravity = 9.81")
    command = [sys.executable, "-c", "import hybridwm as hw; hw.load_scene"]
    child = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    last = child.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: {tmp_path / 'physics.py'} is found where hybridwm looks")


def test_the_cache_is_a_private_folder(tmp_path, hybridwm):
    compiled = cache.open_folder(tmp_path / "new")
    assert [path.stat().st_mode & 0o777 for path in (compiled, compiled.parent)] == [0o700, 0o700]
    assert cache.chosen_folder({"HYBRIDWM_CACHE": "off"}) is None
    assert cache.chosen_folder({"XDG_CACHE_HOME": "/somewhere"}) == cache.Path("/somewhere/hybridwm")


@pytest.mark.parametrize("kind", ["file", "shared", "link"])
def test_an_unsafe_cache_is_refused(kind, tmp_path, hybridwm):
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("")
    elif kind == "shared":
        place.mkdir()
        place.chmod(0o777)
    else:
        place.symlink_to(tmp_path)
    with pytest.raises(ValueError, match="HYBRIDWM_CACHE"):
        cache.open_folder(place)


@pytest.mark.parametrize("variable", ["HYBRIDWM_CACHE", "HYBRIDWM_X64"])
def test_a_bad_environment_is_one_sentence(variable, hybridwm, own_study):
    child = hybridwm("run", "own", PYTHONPATH=own_study, **{variable: "/dev/null/x"})
    assert one_sentence(child), child.stderr
    assert variable in child.stderr


def test_the_cache_keeps_programs_between_processes(tmp_path):
    code = textwrap.dedent("""
        from hybridwm import runtime
        runtime.prepare()
        import jax
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.jit(lambda x: x * 3)(1.0)
    """)
    env = os.environ | {"HYBRIDWM_CACHE": str(tmp_path / "kept")}
    subprocess.run([sys.executable, "-P", "-c", code], env=env, check=True, timeout=60)
    assert list((tmp_path / "kept/compiled").iterdir())


def test_doctor_names_a_cache_that_cannot_be_written(hybridwm):
    child = hybridwm("doctor", HYBRIDWM_CACHE="/dev/null/x")
    assert child.returncode == 2
    assert child.stdout.count("broken") == 2, "its line, and the last one"
    assert "broken  compilation cache" in child.stdout
    assert child.stderr == ""


def test_suggestions():
    with pytest.raises(ValueError, match=r"no command; allowed: run, claims"):
        cli._known("zzz", ["run", "claims"], "command")
