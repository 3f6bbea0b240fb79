"""How windows of logs answer to unknowns: what a model misses along each of them, and how that changes with z and with its start.

    e_wt(z, y)  = x̂_wt(z; x₀ ⊕ y_w) ⊖ x_wt                      y_w: where window w really began, in units of `size`
    ∂e ≈ (e(+h) − e(−h)) / 2h                                    central differences, one rollout after the other; or forward mode
    smooth_wt   = 1 while |e(+h) − 2 e(0) + e(−h)| ≤ β |e(+h) − e(−h)|, along every direction and up to row t; 0 from then on

Where a contact makes and breaks, e jumps with z: past such a row neither a derivative nor a difference foretells a finite change,
and rows there are not looked at. Forward mode cannot tell; it takes all rows for smooth.
Legend: H rows, W windows, p unknowns, n = 2 nv numbers to a row (pose, velocity), D = p + n directions (p where starts are given).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hybridwm.learning.unknowns import Place, replaced
from hybridwm.logs import tangent
from hybridwm.logs.recordings import Windows

Array = jax.Array
BEND = 0.3  # β


class Look(NamedTuple):
    """What the windows say at one (z, y)."""

    z: np.ndarray  # [p]
    y: np.ndarray  # [n, W] in units of `size`
    errors: np.ndarray  # [H+1, n, W]
    change: np.ndarray  # [D, H+1, n, W]
    smooth: np.ndarray  # [H+1, 1, W]


class Sensitivity:
    """The windows, and what is computed on them."""

    def __init__(
        self, model: Any, params: Any, places: list[Place], windows: Windows, every: int, free: bool, chunk: int
    ) -> None:
        self.model, self.params, self.places, self.every, self.free = model, params, places, every, free
        self.scene = getattr(model, "engine", model).scene
        self.differences = False
        self.dtype = jnp.result_type(float)
        self.count, self.episode = windows.qpos.shape[-1], np.asarray(windows.episode)
        self.numbers = 2 * self.scene.model.nv
        self.size = _sizes(self.scene.model, windows)
        single = self.dtype == jnp.float32
        self.rounding = 1e-4 if single else 1e-7  # of `size`
        share = 1e-2 if single else 3e-4
        self.steps = np.array([share * min(place.unknown.prior_std, 1.0) for place in places])
        self.start_step = 3e-3 if single else 1e-4
        self._chunks = self._cut(windows, min(chunk, self.count))
        self._run, self._forward = jax.jit(self._errors), jax.jit(self._by_jvp)

    def errors(self, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        """[H+1, n, W] at (z, y)."""
        return np.concatenate([self._one(z, y, part) for part in self._chunks], -1)

    def look(self, z: np.ndarray, y: np.ndarray) -> Look:
        """Errors and derivatives at (z, y)."""
        way = self._by_differences if self.differences else self._by_forward
        parts = [way(z, y, part) for part in self._chunks]
        return Look(z, y, *(np.concatenate(x, -1) for x in zip(*parts, strict=True)))

    @property
    def prior_std(self) -> np.ndarray:
        """s [p]."""
        return np.array([place.unknown.prior_std for place in self.places])

    @property
    def prior(self) -> np.ndarray:
        """s⁻² [p, p]."""
        return np.diag(self.prior_std**-2.0)

    def _cut(self, windows: Windows, width: int) -> list[tuple[np.ndarray, Any]]:
        """(window numbers, arrays): equally wide, the last one filled up with its own windows again."""
        arrays = (windows.qpos, windows.qvel, windows.ctrl, windows.intact[0], windows.past)
        if not all(np.isfinite(x).all() for x in arrays):
            raise ValueError("the windows hold values that are not finite: clean the logs first")
        ids = [np.arange(i, min(i + width, self.count)) for i in range(0, self.count, width)]
        take = lambda x, i: jnp.asarray(np.take(x, np.resize(i, width), -1), self.dtype)  # noqa: E731
        size = jnp.asarray(self.size, self.dtype)  # an argument like the windows: one program for all data sets
        return [(i, (*(take(x, i) for x in arrays), size)) for i in ids]

    def _errors(self, z: Array, y: Array, data: Any) -> Array:
        """e [H+1, n, W]; z [p], y [n, W] in units of `size`."""
        qpos, qvel, ctrl, intact, past, size = data
        model, nv = self.scene.model, self.numbers // 2
        params = replaced(self.params, self.places, z)
        plain = self.model is getattr(self.model, "engine", self.model)
        more = {} if plain else {"past": jnp.repeat(past, self.every, 0)}
        y = y * size[:, None]
        q, v = tangent.advance(model, qpos[0], y[:nv], xp=jnp), qvel[0] + y[nv:]
        state = self.model.init(params, q, v, intact=intact, **more)
        read = lambda state, info: (state.qpos, state.qvel)  # noqa: E731
        _, (q, v) = self.model.rollout(params, state, jnp.repeat(ctrl, self.every, 0), output=read)
        q, v = q[self.every - 1 :: self.every], v[self.every - 1 :: self.every]
        apart = jax.vmap(partial(tangent.difference, model, xp=jnp))(qpos[1:], q)
        return jnp.concatenate([y[None], jnp.concatenate([apart, v - qvel[1:]], 1)])

    def _one(self, z: np.ndarray, y: np.ndarray, part: tuple[np.ndarray, Any]) -> np.ndarray:
        index, data = part
        found = self._run(*self._given(z, y, part), data)
        return np.asarray(found, float)[..., : len(index)]

    def _given(self, z: np.ndarray, y: np.ndarray, part: tuple[np.ndarray, Any]) -> tuple[Array, Array]:
        index, data = part
        width = data[0].shape[-1]
        return jnp.asarray(z, self.dtype), jnp.asarray(y[:, np.resize(index, width)], self.dtype)

    def _by_forward(self, z: np.ndarray, y: np.ndarray, part: tuple[np.ndarray, Any]) -> tuple[np.ndarray, ...]:
        index, data = part
        errors, change = self._forward(*self._given(z, y, part), data)
        errors, change = np.asarray(errors, float)[..., : len(index)], np.asarray(change)[..., : len(index)]
        return errors, change, np.ones((len(errors), 1, len(index)))

    def _by_jvp(self, z: Array, y: Array, data: Any) -> tuple[Array, Array]:
        """Errors, and their derivatives [D, H+1, n, W], all directions at once."""
        p, n = len(self.places), self.numbers if self.free else 0
        each = jnp.eye(p + n, dtype=self.dtype)
        starts = jnp.pad(each[:, p:], ((0, 0), (0, self.numbers - n)))
        wide = jnp.broadcast_to(starts[..., None], (p + n, self.numbers, y.shape[-1]))
        push = lambda tz, ty: jax.jvp(lambda z, y: self._errors(z, y, data), (z, y), (tz, ty))  # noqa: E731
        return jax.vmap(push, out_axes=(None, 0))(each[:, :p], wide)

    def _by_differences(self, z: np.ndarray, y: np.ndarray, part: tuple[np.ndarray, Any]) -> tuple[np.ndarray, ...]:
        """Errors, their central differences, and which rows are smooth; one compiled rollout serves all directions."""
        middle, size = self._one(z, y, part), self.size[:, None]
        change, smooth = [], np.ones((len(middle), 1, middle.shape[-1]))
        for dz, dy, step in self._moves():
            up, down = (self._one(z + s * dz, y + s * dy[:, None], part) for s in (1, -1))
            bend, turn = (np.sqrt(np.mean(np.square(x / size), 1)) for x in (up - 2 * middle + down, up - down))
            fine = bend <= BEND * turn + self.rounding
            smooth[:, 0] *= np.cumprod(fine, 0)
            change.append(((up - down) / (2 * step)).astype(self.dtype))
        return middle, np.stack(change), smooth

    def _moves(self) -> list[tuple[np.ndarray, np.ndarray, float]]:
        """(change of z [p], of every start [n], length) of each direction."""
        p, n = len(self.places), self.numbers
        unknowns = [(h * e, np.zeros(n), h) for h, e in zip(self.steps, np.eye(p), strict=True)]
        return unknowns + [(np.zeros(p), self.start_step * e, self.start_step) for e in np.eye(n) if self.free]


def _sizes(model: Any, windows: Windows) -> np.ndarray:
    """[n] how far each number of a row typically moves within a window; what never moves counts a little."""
    apart = [tangent.difference(model, windows.qpos[0], q) for q in windows.qpos[1:]]
    size = np.sqrt([np.mean(np.square(x), (0, 2)) for x in (np.stack(apart), windows.qvel)])  # [2, nv]
    return np.maximum(size, 0.1 * size.max(1, keepdims=True) + 1e-9).ravel()
