"""The programs of the planning page run as printed, one after the other; the first plan reaches its goal."""

import re
from pathlib import Path
from typing import Any

import pytest


def test_the_programs_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "planning.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for program in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(program, "docs/planning.md", "exec"), names)
    assert capsys.readouterr().out.startswith("OK: ")
    assert len(names["records"]) == 30
    assert abs(names["records"][-1].ctrl[0]) <= 2
    assert names["background"].failure is None
