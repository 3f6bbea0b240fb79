"""What the drives and the models are worth.

    prediction   RMS over 1 s of (F̂ − F)/F_end, from rows along the closed loop, each model from what its own filter, told the
                 truth so far, believes of this bolt
    events       of windows of 1 s on the rig that begin whole: does the thread strip in it, and was that foretold
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bolt.control import Ways, tracker
from experiments.bolt.drive import Driven
from experiments.bolt.lab import Logs
from experiments.bolt.model import Bolted, Turning

Array = jax.Array
ROWS, AHEAD = (25, 40, 55, 70, 85), 100


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


def followed(bolted: Bolted, params: Any, belong: Any, logs: Logs) -> Turning:
    """What a filter that is told the truth believes at each row: leaves [H, ..., W]."""
    filter_, late = tracker(bolted, sensors=False, ways=Ways())
    worlds = logs.ctrl.shape[1]
    state = bolted.start(params, worlds)
    state = state._replace(snug=state.snug + belong.snug, grip=state.grip + belong.grip)
    begin = late.init(state, [1e-3, 0.01, 1e-2, 1e-2, 1e-3, belong.snug_std, belong.grip_std])
    readings = np.concatenate([logs.qpos, logs.qvel, logs.motor[:, None], logs.force[:, None]], 1)

    def advance(tracking: Any, given: Any) -> Any:
        reading, ctrl = given
        tracking, now, _ = late.see(params, tracking, reading)
        mean = now.mean._replace(force=bolted.force(params, now.mean))
        return late.act(params, tracking, ctrl[None]), mean

    ctrl = jnp.asarray(logs.ctrl, jnp.float32)
    return jax.jit(lambda t, y, u: jax.lax.scan(advance, t, (y, u))[1])(begin, jnp.asarray(readings[:-1], jnp.float32), ctrl)


def foretell(bolted: Bolted, params: Any) -> Any:
    """(state, commands [H, W]) -> clamp force and whole or not, each [H, W]."""

    def advance(state: Turning, ctrl: Array) -> Any:
        state, _ = bolted.step(params, state, ctrl[None])
        return state, (state.force, state.intact)

    return lambda state, ctrls: jax.lax.scan(advance, state, ctrls)[1]


def predictions(which: dict[str, Any], belong: dict[str, Any], logs: Logs) -> dict[str, Any]:
    """Error of each window per model, and against horizon."""
    found: dict[str, Any] = {}
    for name, (bolted, params) in which.items():
        believed = followed(bolted, params, belong[name], logs)
        run = jax.jit(foretell(bolted, params))
        errors = []
        for row in ROWS:
            start = jax.tree.map(lambda x, row=row: x[row], believed)
            start = start._replace(pending=jnp.asarray(logs.ctrl[row - 1], jnp.float32))
            told = np.asarray(run(start, jnp.asarray(logs.ctrl[row : row + AHEAD], jnp.float32))[0])
            errors.append((told - logs.force[row + 1 : row + AHEAD + 1]) / np.maximum(logs.force[-1], 1.0))
        apart = np.nan_to_num(np.concatenate(errors, 1), nan=1e3)
        found[name] = {
            "rms": np.sqrt(np.mean(np.square(apart), 0)),
            "against_horizon": np.median(np.abs(apart), 1)[[0, 1, 2, 4, 9, 19, 29, 49, 69, 99]],
        }
    return found


def events(bolted: Bolted, params: Any, belong: Any, logs: Logs) -> dict[str, int]:
    """Strips foretold over 1 s on the rig: true and false positives and negatives."""
    believed = followed(bolted, params, belong, logs)
    tally = {"hit": 0, "false": 0, "missed": 0, "right": 0}
    run = jax.jit(foretell(bolted, params))
    for row in range(30, len(logs.ctrl) - AHEAD, 10):
        start = jax.tree.map(lambda x, row=row: x[row], believed)
        start = start._replace(pending=jnp.asarray(logs.ctrl[row - 1], jnp.float32), intact=jnp.ones_like(start.motor))
        told = np.asarray(run(start, jnp.asarray(logs.ctrl[row : row + AHEAD], jnp.float32))[1][-1]) < 0.5
        sound = logs.stripped > row + 1
        real = logs.stripped <= row + AHEAD
        for word, which in (("hit", told & real), ("false", told & ~real), ("missed", ~told & real), ("right", ~told & ~real)):
            tally[word] += int((which & sound).sum())
    return tally


def traces(driven: dict[Any, Driven], bolt: int = 0) -> dict[str, Any]:
    """The first bolt's course under every controller."""
    out: dict[str, Any] = {}
    for (name, sensors), found in driven.items():
        out[f"{name}-{'sensors' if sensors else 'truth'}"] = {
            "force": found.logs.force[:, bolt], "target": found.target[bolt],
            "told": found.told["force"][:, bolt], "ctrl": found.logs.ctrl[:, bolt],
        }  # fmt: skip
    return out
