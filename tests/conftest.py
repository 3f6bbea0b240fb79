"""Shared by all tests: shapes and types are checked as the code runs, and compiled programs are kept between runs.

Tests that need float64 live in `tests/float64/`. It holds for a whole process, so `test_float64.py` runs that folder in
a child process; by hand: `HYBRIDWM_X64=1 pytest tests/float64`.
"""

import os
import subprocess
import sys

import jaxtyping
import pytest
from hypothesis import settings

# Before the first import of the packages, since it works on modules as they load.
jaxtyping.install_import_hook(["hybridwm", "physics", "planners"], "beartype.beartype")

from hybridwm import runtime  # noqa: E402

collect_ignore = [] if runtime.wants_x64() else ["float64"]


def pytest_configure(config):
    runtime.prepare()
    settings.register_profile("hybridwm", deadline=None, derandomize=True)
    settings.load_profile("hybridwm")


def pytest_collection_modifyitems(items):
    for item in items:
        if "float64" in item.path.parts and not runtime.wants_x64():
            item.add_marker(pytest.mark.skip(reason="named by hand, but needs HYBRIDWM_X64=1"))


@pytest.fixture
def hybridwm(tmp_path):
    """Run the command `hybridwm ARGS` in an empty folder; further keywords are environment variables."""

    def run(*args, cwd=tmp_path, **environ):
        command = [sys.executable, "-P", "-m", "hybridwm", *map(str, args)]
        env = os.environ | {"COLUMNS": "120"} | environ
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240)

    return run
