"""Realities on their way, and what a model makes of the look at one: the world's poses, the model's own memory of loads.

    velocities    as the engine means them, (q − q of the step before) / h
    the neck      while it holds, its stretch is kept as foretold: a pose read from the world is off by far less than a glass,
                  but by more than a weld gives way, and its load would be noise
    the rest      filtered loads, damage, hazard: as the model foretold them

Legend: B episodes, T controls.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.glass.models import EVERY, luck
from experiments.glass.reality import reality
from experiments.glass.tasks import Wish
from physics import Episode, Reality

NECK = 0.085
"""m from the body's centre to the neck's."""
STEP_S = 0.01


class Look(NamedTuple):
    """What is seen of B worlds at one instant."""

    qpos: np.ndarray  # [B, nq]
    qvel: np.ndarray  # [B, nv]
    intact: np.ndarray  # [B, nb]


class Walk:
    """One reality on its way."""

    def __init__(self, wish: Wish, total: int, seed: int, make: Callable[[], Reality] = reality) -> None:
        self.world, self.episode = make(), None
        self._walk = self.world.walk(total * EVERY, seed=seed, qpos=wish.start.qpos, qvel=wish.start.qvel)
        self.seen, self.before = next(self._walk), None

    def go(self, ctrls: np.ndarray) -> None:
        """Each control for EVERY steps; nothing once the episode is over."""
        for ctrl in np.repeat(ctrls, EVERY, 0):
            if self.episode is None:
                try:
                    self.before, self.seen = self.seen, self._walk.send(ctrl)
                except StopIteration as over:
                    self.episode = over.value

    def end(self) -> Episode:
        """The episode, also where it ends early."""
        assert self.episode is not None
        return self.episode

    @property
    def look(self) -> Look:
        """One world's, without an axis for worlds."""
        qpos = self.seen.qpos
        qvel = self.seen.qvel if self.before is None else (qpos - self.before.qpos) / STEP_S
        return Look(qpos.copy(), qvel.copy(), self.world.reference.intact.copy())


def looks(walks: Sequence[Walk]) -> Look:
    """What is seen of all of them."""
    return Look(*(np.stack(part) for part in zip(*(walk.look for walk in walks), strict=True)))


def believed(state: Any, apart: Any, seen: Look, lagged: np.ndarray | None) -> Any:
    """What the model foretold, corrected by what the world shows."""
    qpos, qvel, intact = (x.copy() for x in seen)
    before = np.asarray(state.qpos), np.asarray(state.qvel)
    holds = (intact > 0.5) & (np.asarray(state.intact) > 0.5)
    for here, there, one, other in zip((qpos, qvel), before, rigid(qpos, qvel), rigid(*before), strict=True):
        stretch = np.where(holds, there[:, 3:6] - other, 0.0)
        here[:, 3:6] = np.where(intact > 0.5, one + stretch, here[:, 3:6])
    cast = lambda x: jnp.asarray(x, state.qpos.dtype)  # noqa: E731
    memory = state.events._replace(luck=jnp.full_like(state.events.luck, luck()), happened=cast(1 - intact))
    found: dict[str, Any] = {"qpos": cast(qpos), "qvel": cast(qvel), "intact": cast(intact)}
    found["apart"] = jnp.where(cast(intact) > 0.5, apart, state.apart) if hasattr(state, "apart") else None
    found["lagged"] = None if lagged is None else cast(lagged)
    return state._replace(events=memory, **{name: value for name, value in found.items() if value is not None})


def rigid(qpos: np.ndarray, qvel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the neck would be, and how fast, were it one with the body: [B, 3] each."""
    (x, z, tilt), (vx, vz, turn) = qpos[:, :3].T, qvel[:, :3].T
    sin, cos = np.sin(tilt), np.cos(tilt)
    pose = np.stack([x + NECK * sin, z + NECK * (cos - 1), tilt], 1)
    return pose, np.stack([vx + NECK * cos * turn, vz - NECK * sin * turn, turn], 1)


def followed(lag_s: Any, lagged: np.ndarray, ctrls: np.ndarray) -> np.ndarray:
    """Where motors that lag are after ctrls [B, T, nu]."""
    stay = np.exp(-STEP_S * EVERY / np.maximum(np.asarray(lag_s), 1e-6))
    for ctrl in np.moveaxis(ctrls, 1, 0):
        lagged = ctrl + (lagged - ctrl) * stay
    return lagged
