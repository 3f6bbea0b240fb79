"""Float64 holds for a whole process, so the tests in `tests/float64/` run in a child."""

import os
import subprocess
import sys

from children import ROOT


def test_float64():
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", "tests/float64"]
    env = os.environ | {"HYBRIDWM_X64": "1"}
    child = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert child.returncode == 0, child.stdout[-8000:] + child.stderr[-2000:]
