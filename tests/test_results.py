"""`holds` has one definition, a miss is printed, and a damaged file is one sentence."""

import json
import math

import numpy as np
import pytest
from children import one_sentence

from hybridwm import claims, results
from hybridwm.results import Claim


def claim(value, target, better="lower", **more):
    return Claim(id=f"c{value}", statement=f"value | {value}", value=value, target=target, better=better, **more)


def written(out, *found, numbers=None, figure=None):
    return results.write(
        out, study="demo", config={"steps": 3}, numbers=numbers or {}, claims=found, seeds=(1, 2), figure=figure,
        command="hybridwm run demo",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "target", "better", "expected"),
    [
        (1.0, 2.0, "lower", True),
        (2.0, 2.0, "lower", True),
        (3.0, 2.0, "lower", False),
        (1.0, 2.0, "higher", False),
        (2.0, 2.0, "higher", True),
        (math.nan, 2.0, "higher", False),
        (math.inf, 2.0, "higher", False),
        (None, 2.0, "lower", False),
    ],
)
def test_holds(value, target, better, expected):
    assert results.holds(value, target, better) is expected


def test_a_file_says_again_what_was_written(tmp_path):
    numbers = {"a": np.float32(0.5), "b": np.arange(3), "bad": [np.nan], "nested": {"x": (1, 2)}}
    found = written(tmp_path, claim(1.0, 2.0, interval=(0.5, 1.5)), claim(math.nan, 2.0), numbers=numbers)
    assert found == results.read(tmp_path / "results.json")
    assert [c.holds for c in found.claims] == [True, False]
    assert found.claims[0].interval == (0.5, 1.5)
    assert found.body["numbers"] == {"a": 0.5, "b": [0, 1, 2], "bad": [None], "nested": {"x": [1, 2]}}
    wanted = {"study", "command", "config", "versions", "machine", "date", "seeds", "figure", "numbers", "claims"}
    assert set(found.body) == wanted
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_claim_must_be_decidable():
    with pytest.raises(ValueError, match="allowed are lower and higher"):
        claim(1.0, 2.0, better="bigger")
    with pytest.raises(ValueError, match="finite"):
        claim(1.0, math.nan)


def test_misses_are_printed(tmp_path, hybridwm):
    written(tmp_path / "a", claim(1.0, 2.0), claim(3.0, 2.0))
    written(tmp_path / "b", claim(None, 2.0))
    child = hybridwm("claims", "a", "b/results.json")
    assert child.returncode == 0
    assert child.stdout.count("MISSED") == 2
    assert "1 of 3 claims hold, 2 missed" in child.stdout
    assert "not measured" in child.stdout


def edited(tmp_path, change):
    written(tmp_path, claim(3.0, 2.0))
    body = json.loads((tmp_path / "results.json").read_text())
    change(body)
    (tmp_path / "results.json").write_text(json.dumps(body))


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body["claims"][0].update(holds=True),
        lambda body: body["claims"][0].update(value="three"),
        lambda body: body["claims"][0].pop("target"),
        lambda body: body["claims"][0].update(colour="red"),
        lambda body: body["claims"][0].update(interval=3),
        lambda body: body.update(claims=[7]),
        lambda body: body.pop("claims"),
        lambda body: body.pop("study"),
    ],
    ids=["holds", "value", "target", "unknown", "interval", "entry", "claims", "study"],
)
def test_a_file_that_was_edited_is_refused(change, tmp_path):
    edited(tmp_path, change)
    with pytest.raises(ValueError, match=r"results\.json is not a results file"):
        results.read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b'{"study": "x"}'])
def test_a_file_that_is_no_results_file_is_one_sentence(content, tmp_path, hybridwm):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(ValueError, match="not a results file"):
        results.read(tmp_path)


def test_the_command_refuses_in_one_sentence(tmp_path, hybridwm):
    (tmp_path / "bad.json").write_text("{")
    child = hybridwm("claims", "bad.json")
    assert one_sentence(child), child.stderr


def test_the_table_replaces_only_what_is_between_its_markers(tmp_path):
    found = [written(tmp_path / "a", claim(1.0, 2.0, interval=(0.5, 1.5)), claim(3.0, 2.0))]
    page = tmp_path / "claims.md"
    claims.write_table(found, page)
    page.write_text("before\n" + page.read_text() + "after\n")
    claims.write_table(found, page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert text.count("| holds | value \\| 1.0 | demo | none | 1 [0.5, 1.5] | ≤ 2 | `hybridwm run demo` |") == 1
    assert text.count("MISSED") == 1
    assert found[0].body["date"] in text


def test_a_document_without_markers_is_left_alone(tmp_path):
    page = tmp_path / "notes.md"
    page.write_text("mine")
    with pytest.raises(ValueError, match="add the two lines"):
        claims.write_table([], page)
    assert page.read_text() == "mine"


def test_the_table_leads_to_the_figure_that_the_study_names(tmp_path):
    found = written(tmp_path / "runs" / "a", claim(1.0, 2.0), figure="b.png")
    page = tmp_path / "docs" / "claims.md"
    assert results.figure_of(found) is None, "named, but not there"
    for name in ("a.png", "b.png"):
        (found.path.parent / name).touch()
    claims.write_table([found], page)
    assert "| demo | [b.png](../runs/a/b.png) |" in page.read_text()
    silent = written(tmp_path / "runs" / "a", claim(1.0, 2.0))
    assert results.figure_of(silent) == found.path.parent / "a.png", "none named: the first beside it"
