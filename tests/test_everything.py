"""hybridwm run all: several studies at a time, but what measures times runs alone; an interruption stops what runs."""

import sys
from threading import Barrier, Event, Lock

import pytest

from hybridwm import everything
from hybridwm.everything import Outcome, Wish


@pytest.fixture
def seen(monkeypatch):
    """Names of what ran together, at the start of each of three studies of which `timed` measures times."""
    running, together, lock, both = set[str](), list[set[str]](), Lock(), Barrier(2)

    def one(name, wish, stop):
        with lock:
            running.add(name)
        if name != "timed":
            both.wait(10)  # a second one is there, or this fails
        with lock:
            together.append(set(running))
        if name != "timed":
            both.wait(10)
        with lock:
            running.discard(name)
        return Outcome(name, "done")

    monkeypatch.setattr(everything, "chosen", lambda only: ["first", "timed", "third"])
    monkeypatch.setattr(everything, "_says", lambda name, what: name == "timed" and what == "clocked")
    monkeypatch.setattr(everything, "one", one)
    return together


def test_what_measures_times_runs_alone_and_the_rest_together(seen, tmp_path):
    assert everything.run(Wish(out=tmp_path, only=("all",), jobs=2)) == 0
    assert seen == [{"timed"}, {"first", "third"}, {"first", "third"}]


def test_a_child_is_stopped_when_we_are(tmp_path):
    stop = Event()
    stop.set()
    code, cpu = everything.child([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log", 60.0, stop)
    assert code is None
    assert 0 <= cpu < 10


def test_a_child_tells_its_code_and_its_time(tmp_path):
    asked = [sys.executable, "-c", "sum(range(10**7)); raise SystemExit(7)"]
    code, cpu = everything.child(asked, tmp_path / "log", 60.0, Event())
    assert code == 7
    assert cpu > 0.02
