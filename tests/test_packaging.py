"""The built wheel, in a fresh environment that borrows the dependencies of this one. Nothing is downloaded."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from children import ROOT, one_sentence


def run(*command, **options):
    child = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=280, **options)
    return child


def build(folder):
    child = run(
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"),
        *("--no-build-isolation", "--wheel-dir", folder, ROOT),
    )
    assert child.returncode == 0, child.stderr
    (wheel,) = folder.glob("hybridwm-*.whl")
    return wheel


def fresh_environment(folder, *arguments):
    assert run(sys.executable, "-m", "venv", "--without-pip", folder).returncode == 0
    python = folder / "bin" / "python"
    child = run(sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", *arguments)
    assert child.returncode == 0, child.stderr
    return python


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def python(wheel, tmp_path_factory):
    """The interpreter of an environment that holds the wheel, and this environment's packages behind it."""
    python = fresh_environment(tmp_path_factory.mktemp("fresh") / "env", "--no-deps", "--no-index", wheel)
    (site,) = python.parent.parent.glob("lib/python*/site-packages")
    # A path file inside a folder that was added by a path file is not read: the editable checkout stays out of sight.
    (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture
def clean_env():
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | {"COLUMNS": "120"}


def test_the_wheel_holds_the_packages_and_their_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = ("hybridwm", "physics", "planners", "experiments")
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(packages)
    data = [
        path for package in packages for path in (ROOT / package).rglob("*") if path.suffix in (".py", ".xml", ".txt")
    ]
    assert not {str(path.relative_to(ROOT)) for path in data} - names


def test_doctor_from_an_empty_folder(python, clean_env, tmp_path):
    child = run(python.parent / "hybridwm", "doctor", "--deadlock-s", "0", cwd=tmp_path, env=clean_env)
    assert child.returncode == 0, child.stdout + child.stderr
    assert "All is well" in child.stdout
    assert child.stderr == ""
    assert not list(tmp_path.iterdir()), "doctor leaves nothing behind"


def test_the_fresh_environment_does_not_see_the_checkout(python, clean_env, tmp_path):
    code = "import hybridwm, physics; print(hybridwm.__file__, physics.__file__)"
    child = run(python, "-c", code, cwd=tmp_path, env=clean_env)
    assert all(Path(place).is_relative_to(python.parent.parent) for place in child.stdout.split())


@pytest.fixture
def crowded(tmp_path):
    """A folder with a user's own files of the same names as our packages."""
    (tmp_path / "physics.py").write_text("gravity = 9.81\n")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/__init__.py").write_text("")
    (tmp_path / "experiments/monday.py").write_text("")
    return tmp_path


def test_the_command_works_beside_a_users_own_physics(python, clean_env, crowded):
    child = run(python.parent / "hybridwm", "doctor", "--deadlock-s", "0", cwd=crowded, env=clean_env)
    assert child.returncode == 0, child.stdout + child.stderr


@pytest.mark.parametrize("how", ["python -m", "PYTHONPATH"])
def test_what_shadows_us_is_named(how, python, clean_env, crowded):
    if how == "python -m":
        child = run(python, "-m", "hybridwm", "doctor", cwd=crowded, env=clean_env)
    else:
        child = run(python.parent / "hybridwm", "doctor", cwd=crowded, env=clean_env | {"PYTHONPATH": str(crowded)})
    assert one_sentence(child), child.stderr
    assert str(crowded / "physics.py") in child.stderr


@pytest.mark.slow
def test_full_install(wheel, clean_env, tmp_path):
    python = fresh_environment(tmp_path / "env", "--quiet", "--constraint", ROOT / "hybridwm/constraints.txt", wheel)
    child = run(python.parent / "hybridwm", "doctor", "--deadlock-s", "0", cwd=tmp_path, env=clean_env)
    assert child.returncode == 0, child.stdout + child.stderr


BROKEN = "#!/bin/sh\nexit 127\n"
FITS_BUT_HAS_NO_VENV = '#!/bin/sh\ncase "$2" in *version_info*) exit 0 ;; *) exit 1 ;; esac\n'


@pytest.mark.parametrize(
    ("pythons", "said"),
    [
        ({"python3.12": BROKEN}, "no Python 3.11, 3.12 or 3.13 that runs was found"),
        ({"python3.12": BROKEN, "python3.11": FITS_BUT_HAS_NO_VENV}, "python3.11 has no venv module"),
    ],
    ids=["none", "no venv"],
)
def test_a_machine_without_a_fitting_python_is_one_sentence(pythons, said, tmp_path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/venv", tmp_path / ".ci")
    for tool in ("dirname", "sh"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    for name, script in pythons.items():
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    child = run("sh", ".ci/venv", cwd=tmp_path, env={"PATH": str(tmp_path / "bin")})
    assert one_sentence(child), child.stderr
    assert said in child.stderr
    assert not (tmp_path / ".venv").exists()
