"""The first program of the planning page runs as printed and reaches its goal."""

import re
from pathlib import Path

import pytest


def test_the_first_plan_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "planning.md").read_text(encoding="utf-8")
    program = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    exec(compile(program, "docs/planning.md", "exec"), {})
    assert capsys.readouterr().out.startswith("OK: ")
