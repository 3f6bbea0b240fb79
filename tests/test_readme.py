"""The README's example runs and does what it says; the files that it names are there."""

import os
import re
import subprocess
import sys

from children import ROOT

from hybridwm import cache

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_pushes_the_box(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    lines = [line for line in example.splitlines() if line.strip()]
    assert len(lines) <= 22, "the promise is about twenty lines"
    folder = cache.chosen_folder()
    env = dict(os.environ) | ({"JAX_COMPILATION_CACHE_DIR": str(cache.open_folder(folder))} if folder else {})
    child = subprocess.run(
        [sys.executable, "-P", "-c", example], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.startswith("OK: ")
    here, in_c = map(float, re.findall(r"(-?\d\.\d+) m", child.stdout))
    assert 0.15 < here < 0.25, "the goal is 0.2 m, from 0"
    assert abs(here - in_c) < 1e-3, "float32 against MuJoCo C, printed to a millimetre"


def test_the_files_that_it_names_exist():
    named = set(re.findall(r"`([\w./]+(?:\.py|/))`", TEXT)) | set(re.findall(r"\]\(([\w./]+)\)", TEXT))
    assert len(named) > 10
    assert not {name for name in named if not (ROOT / name).exists()} - {"runs/"}
