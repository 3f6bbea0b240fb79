"""A rack of bolts in closed loop with a controller, in virtual time: reality waits while the next command is computed."""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bolt.lab import STEPS, Logs, logged
from experiments.bolt.rack import FORCES, Bolts, drawn, rack


class Driven(NamedTuple):
    """What became of W bolts."""

    logs: Logs
    target: np.ndarray  # [W] N
    force: np.ndarray  # [W] N at the end
    stripped: np.ndarray  # [W] bool
    settled_s: np.ndarray  # [W] s after which the clamp force stayed within 1 % of where it ended
    told: dict[str, np.ndarray]  # [H, W] each: what the controller thought
    took_s: np.ndarray  # [H] of the whole rack


def asked(count: int, seed: int) -> np.ndarray:
    """Clamp forces asked for, N."""
    return np.random.default_rng([seed, 41]).uniform(*FORCES, count)


def drive(
    controller: Any,
    params: Any,
    *,
    known: Any,
    count: int,
    seed: int,
    sensors: bool,
    act: Any = None,
    take: int | None = None,
) -> Driven:
    """Turn the first `take` bolts of an unseen rack of `count`; `act` is the compiled one if there is one already."""
    bolts, targets = Bolts(*(x[:take] for x in drawn(count, seed))), asked(count, seed)[:take]
    real, held = rack(bolts, sensors=sensors)
    act = jax.jit(controller.act) if act is None else act
    want = jnp.asarray(targets, jnp.float32)
    memory, told, took = controller.begin(params, want, jax.random.key(seed), known), [], []

    def policy(h: int, seen: Any) -> np.ndarray:
        nonlocal memory
        if sensors:
            reading = np.stack([seen.qpos[0::2], seen.effort])
        else:
            force = held.clamp_force(seen.qpos[1::2], np.zeros(len(targets), bool))
            reading = np.stack([seen.qpos[0::2], seen.qpos[1::2], seen.qvel[0::2], seen.qvel[1::2], seen.effort, force])
        begin = time.perf_counter()
        memory, ctrl, said = act(params, memory, jnp.asarray(reading, jnp.float32), want)
        ctrl = np.asarray(ctrl, float)
        took.append(time.perf_counter() - begin)
        told.append(jax.tree.map(np.asarray, said._asdict()))
        return ctrl

    episode = real.episode(policy, seed=seed, horizon=STEPS)
    if episode.failure:
        raise RuntimeError(f"reality failed: {episode.failure}")
    logs = logged(episode, bolts)
    final = logs.force[-1]
    off = np.abs(logs.force / np.maximum(final, 1.0) - 1) > 0.01
    last = len(off) - np.argmax(off[::-1], 0)
    settled = np.where(off.any(0), last, 0) * 0.01
    table = {name: np.array([t[name] for t in told]) for name in told[0]}
    return Driven(logs, targets, final, logs.stripped <= STEPS, settled, table, np.array(took))
