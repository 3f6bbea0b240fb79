"""What the drives and the models are worth.

prediction   RMS over 1 s of (F̂ − F)/F_end, from rows along the closed loop, each model from what its own filter, told the
             truth so far, believes of this bolt
events       of windows of 1 s on the rig that begin whole: does the thread strip in it, and was that foretold
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bolt.drive import Driven
from experiments.bolt.lab import Logs
from experiments.bolt.model import Bolted, Turning
from experiments.bolt.tracking import following

Array = jax.Array
ROWS, AHEAD = (25, 40, 55, 70, 85), 100
HORIZONS = np.array([1, 2, 3, 5, 10, 20, 30, 50, 70, 100]) - 1


def rack_numbers(driven: Driven) -> dict[str, Any]:
    """Every bolt's number."""
    told = driven.told["force"][-1]
    return {
        "off": driven.force / driven.target - 1,
        "stripped": driven.stripped,
        "settled_s": driven.settled_s,
        "told_off": (told - driven.force) / driven.target,
        "told_std": driven.told["force_std"][-1] / driven.target,
        "most": driven.logs.force.max(0) / driven.target,
        "trust": driven.told["trust"][-1],
        "took_ms": 1e3 * np.median(driven.took_s),
    }


class Lens(NamedTuple):
    """A model to be judged, compiled: for any parameters of its kind."""

    follow: Any
    foretell: Any
    """foretell(params, state, commands [H, W]) -> poses [H, 2, W], clamp force [H, W], whole or not [H, W]."""


class Subject(NamedTuple):
    """A model as one seed fitted it."""

    lens: Lens
    params: Any
    known: Any


def lens(bolted: Bolted) -> Lens:
    """The model behind its filter."""

    def foretell(params: Any, state: Turning, ctrls: Array) -> Any:
        def advance(state: Turning, ctrl: Array) -> Any:
            state, _ = bolted.step(params, state, ctrl[None])
            return state, (state.qpos, state.force, state.intact)

        return jax.lax.scan(advance, state, ctrls)[1]

    return Lens(jax.jit(following(bolted, sensors=False)), jax.jit(foretell))


def starts(subject: Subject, logs: Logs, rows: Sequence[int]) -> list[Turning]:
    """What a filter that is told the truth believes at these rows."""
    told = np.concatenate([logs.qpos, logs.qvel, logs.motor[:, None], logs.force[:, None]], 1)[:-1]
    given = jnp.asarray(told, jnp.float32), jnp.asarray(logs.ctrl, jnp.float32)
    believed, _ = subject.lens.follow(subject.params, subject.known, *given)
    found = [jax.tree.map(lambda x, row=row: x[row], believed) for row in rows]
    return [
        x._replace(pending=jnp.asarray(logs.ctrl[row - 1], jnp.float32)) for x, row in zip(found, rows, strict=True)
    ]


def ahead(logs: Logs, row: int) -> Array:
    """Commands of the second that follows a row [H, W]; after the last one the motor is off."""
    given = logs.ctrl[row : row + AHEAD]
    return jnp.asarray(np.concatenate([given, np.zeros((AHEAD - len(given), given.shape[1]))]), jnp.float32)


def predictions(subjects: dict[str, Subject], logs: Logs) -> dict[str, Any]:
    """RMS of each window [windows] and the median against horizon, per model."""
    found: dict[str, Any] = {}
    for name, subject in subjects.items():
        errors = []
        for row, start in zip(ROWS, starts(subject, logs, ROWS), strict=True):
            told = np.asarray(subject.lens.foretell(subject.params, start, ahead(logs, row))[1])
            errors.append((told - logs.force[row + 1 : row + AHEAD + 1]) / np.maximum(logs.force[-1], 1.0))
        apart = np.nan_to_num(np.stack(errors), nan=1e3)  # [rows, AHEAD, W]
        rms = np.sqrt(np.mean(np.square(apart), 1))
        found[name] = {"rms": rms, "against_horizon": np.median(np.abs(apart), (0, 2))[HORIZONS]}
    return found


def events(subject: Subject, logs: Logs) -> dict[str, int]:
    """Strips foretold over 1 s on the rig: true and false positives and negatives."""
    rows, found = window_rows(logs), []
    for row, start in zip(rows, starts(subject, logs, rows), strict=True):
        start = start._replace(intact=jnp.ones_like(start.motor))
        told = np.asarray(subject.lens.foretell(subject.params, start, ahead(logs, row))[2][-1]) < 0.5
        found.append(told)
    return tally(logs, found)


def most_known(logs: Logs, middling: Logs) -> dict[str, int]:
    """The same of reality itself, which knows all but how strong each thread is: what any model may reach."""
    return tally(logs, [middling.stripped <= row + AHEAD for row in window_rows(logs)])


def window_rows(logs: Logs) -> range:
    """Rows at which a window of 1 s begins."""
    return range(30, len(logs.ctrl) - AHEAD, 10)


def tally(logs: Logs, told: Sequence[np.ndarray]) -> dict[str, int]:
    """How the strips told of each window [W] came out, of threads that hold when it begins."""
    found = {"hit": 0, "false": 0, "missed": 0, "right": 0}
    for row, told_now in zip(window_rows(logs), told, strict=True):
        real, sound = logs.stripped <= row + AHEAD, logs.stripped > row + 1
        cases = {
            "hit": told_now & real,
            "false": told_now & ~real,
            "missed": ~told_now & real,
            "right": ~told_now & ~real,
        }
        for word, which in cases.items():
            found[word] += int((which & sound).sum())
    return found


def traces(driven: dict[Any, Driven], bolt: int = 0) -> dict[str, Any]:
    """The first bolt's course under every controller."""
    out: dict[str, Any] = {}
    for (name, sensors), found in driven.items():
        course = {
            "force": found.logs.force[:, bolt],
            "told": found.told["force"][:, bolt],
            "ctrl": found.logs.ctrl[:, bolt],
        }
        out[f"{name}-{'sensors' if sensors else 'truth'}"] = {"target": found.target[bolt], **course}
    return out


def replay_of(subject: Subject, logs: Logs, bolt: int = 0, row: int = 40) -> dict[str, Any]:
    """How the first bolt turned, and what the model promised at one instant, given the commands that followed."""
    start = starts(subject, logs, [row])[0]
    qpos, force, _ = subject.lens.foretell(subject.params, start, ahead(logs, row))
    return {"row": row, "real": logs.qpos[:, :, bolt], "promised": qpos[:, :, bolt], "force": logs.force[:, bolt],
            "promised_force": force[:, bolt]}  # fmt: skip
