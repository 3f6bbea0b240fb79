"""r_φ and s_φ: what the engine gets wrong, as a bounded force before the constraint solve and as factors on θ.

    z = (features − centre) / width,   and of every joint's speed v also tanh(10 v / width), tanh(100 v / width)
    y = N_φ(z) of each member                                           zero before training
    w = b tanh(y σ / b),   b = 3 σ       force per dof; of a free body: force and torque in its own frame
    log factor = log 3 · tanh y          for each corrected entry of θ (gain of a motor, damping or dry friction of a joint)

σ is the spread of the force that the training data asks for, so b holds nearly all of it, and no input can ask for more.
Objects that stand `apart` have a network for each kind of them (objects.py), which sees that object alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hybridwm.world import network
from hybridwm.world.features import Features
from hybridwm.world.objects import Kind, kinds
from physics import lanes as ln
from physics.types import Params

Array = jax.Array
BOUND = 3.0  # in σ
LARGEST_FACTOR = 3.0
CORRECTIONS = ("gain", "damping", "friction")


class ResidualParams(NamedTuple):
    """What training finds."""

    centre: Array  # [F]
    width: Array  # [F]
    scale: Array  # [nv] σ in N, N m
    weights: tuple[Any, ...]  # of each kind of objects: an ensemble of networks, every leaf [M, ...]


class Correction(NamedTuple):
    """What the residual adds in one step, before trust."""

    force: Array  # [M, nv, W] bounded, own frame
    factor: Array  # [M, C, W] log factors on θ


class _Part(NamedTuple):
    """One kind's network: what each of its n objects gives it and takes from it."""

    inputs: np.ndarray  # [n, I]
    outputs: np.ndarray  # [n, O]
    graph: Any


class Residual:
    """Static structure of a residual: where its outputs go."""

    def __init__(
        self,
        features: Features,
        hidden: tuple[int, ...],
        members: int,
        corrections: tuple[str, ...] = (),
        *,
        force: bool = True,
        apart: bool = False,
    ) -> None:
        if unknown := set(corrections) - set(CORRECTIONS):
            raise ValueError(f"corrections {sorted(unknown)}: allowed are {', '.join(CORRECTIONS)}")
        model = features.scene.model
        self.features, self.hidden, self.members = features, hidden, members
        self.nv, self.forced = model.nv, model.nv if force else 0
        self.targets = _targets(features.scene, corrections)
        self.sharp = np.array([i for i, name in enumerate(features.names) if _is_joint_speed(name)], int)
        found = kinds(features, self.targets, apart=apart)
        self.kinds = tuple(kind for kind in found if self.forced or kind.targets.size)
        self._parts = tuple(self._part(kind) for kind in self.kinds)

    def _part(self, kind: Kind) -> _Part:
        """Which inputs and outputs a kind has, and the form of its network."""
        sharp = [np.flatnonzero(np.isin(self.sharp, one)) for one in kind.features]
        first = len(self.features.names)
        inputs = np.stack([
            np.concatenate([one, first + s, first + len(self.sharp) + s])
            for one, s in zip(kind.features, sharp, strict=True)
        ])  # fmt: skip
        forces = kind.dofs if self.forced else kind.dofs[:, :0]
        outputs = np.concatenate([forces, self.forced + kind.targets], 1)
        return _Part(inputs, outputs, network.structure(inputs.shape[1], self.hidden, outputs.shape[1]))

    def fresh(self, key: Array) -> ResidualParams:
        """Untrained: centre 0, width 1, σ 1, networks that say zero."""
        keys = jax.random.split(key, len(self._parts)) if len(self._parts) > 1 else [key]
        weights = tuple(
            network.ensemble(k, self.members, part.inputs.shape[1], self.hidden, part.outputs.shape[1])
            for k, part in zip(keys, self._parts, strict=True)
        )
        n = len(self.features.names)
        return ResidualParams(jnp.zeros(n), jnp.ones(n), jnp.ones(self.nv), weights)

    def __call__(self, params: ResidualParams, raw: Array) -> Correction:
        """raw [F, W] -> every member's correction, leaves [M, ...]."""
        y = self._asked(network.evaluate, params, raw, 1)
        return self._bounded(params, jnp.moveaxis(y, 0, 1), lambda x: jnp.moveaxis(x, 1, 0))

    def own(self, params: ResidualParams, raw: Array) -> Correction:
        """The worlds in M groups, each asking its own member: leaves [...]."""
        return self._bounded(params, self._asked(network.evaluate_own, params, raw, 0), lambda x: x)

    def _asked(self, evaluate: Callable[..., Array], params: ResidualParams, raw: Array, axis: int) -> Array:
        """y of all outputs, which stand along `axis`; each kind's network is asked once for all of its objects."""
        z, found = self._inputs(params, raw), list[Array]()
        for part, weights in zip(self._parts, params.weights, strict=True):
            count = len(part.inputs)
            y = evaluate(part.graph, weights, z[part.inputs.T] if count > 1 else z[part.inputs[0]])
            if count > 1:  # outputs of one object after those of another
                y = jnp.swapaxes(y, axis, axis + 1)
                y = y.reshape(*y.shape[:axis], -1, *y.shape[axis + 2 :])
            found.append(y)
        if len(found) == 1 and len(self._parts[0].inputs) == 1:
            return found[0]
        order = np.argsort(np.concatenate([part.outputs.ravel() for part in self._parts]))
        return jnp.take(jnp.concatenate(found, axis), order, axis)

    def _inputs(self, params: ResidualParams, raw: Array) -> Array:
        speed = raw[self.sharp] / _column(params.width[self.sharp], raw)
        return jnp.concatenate([normalised(params, raw), jnp.tanh(10 * speed), jnp.tanh(100 * speed)])

    def _bounded(self, params: ResidualParams, y: Array, back: Any) -> Correction:
        bound = BOUND * _column(params.scale, y)
        force = bound * jnp.tanh(y[: self.forced] / BOUND) if self.forced else 0 * y[:1] * bound
        return Correction(back(force), back(np.log(LARGEST_FACTOR) * jnp.tanh(y[self.forced :])))

    def corrected(self, theta: Params, factor: Array) -> Params:
        """θ · exp(factor [C, W])."""
        for leaf in {name for name, _ in self.targets}:
            rows = [(c, index) for c, (name, index) in enumerate(self.targets) if name == leaf]
            theta = theta._replace(**{leaf: _scaled(getattr(theta, leaf), factor, rows)})
        return theta


def normalised(params: ResidualParams, raw: Array) -> Array:
    """z [F, W]."""
    return (raw - _column(params.centre, raw)) / _column(params.width, raw)


def disagreement(params: ResidualParams, given: Correction) -> Array:
    """Spread of the members' forces in σ, root mean square over the dofs: [W]."""
    apart = given.force - jnp.mean(given.force, 0)
    return jnp.sqrt(jnp.mean(jnp.square(apart / _column(params.scale, given.force[0])), (0, 1)) + 1e-20)


def into_world(features: Features, qpos: Array, force: Array) -> Array:
    """The force of free bodies' translation, turned from their own frame into the world's: [nv, W]."""
    model, out = features.scene.model, list(ln.lanes(force))
    for j in range(model.njnt):
        if int(model.jnt_type[j]) == 0:
            at, dof = int(model.jnt_qposadr[j]), int(model.jnt_dofadr[j])
            turn = ln.quat_mat(ln.quat_unit(tuple(qpos[at + 3 + i] for i in range(4))))  # type: ignore
            out[dof : dof + 3] = ln.matvec(turn, out[dof : dof + 3])
    return jnp.stack(out) if out else force


def _is_joint_speed(name: str) -> bool:
    return name.endswith(".speed")


def _targets(scene: Any, corrections: tuple[str, ...]) -> list[tuple[str, tuple[int, ...]]]:
    """(leaf of θ, index) of every corrected entry."""
    out: list[tuple[str, tuple[int, ...]]] = []
    model = scene.model
    if "gain" in corrections:
        out += [("actuator_gain", (i,)) for i in range(model.nu)]
    if "damping" in corrections:
        out += [("dof_damping", (d,)) for d in range(model.nv) if model.dof_damping[d] > 0]
    if "friction" in corrections:
        out += [("dof_frictionloss", (d,)) for d in scene.rubbing]
    return out


def _scaled(leaf: Any, factor: Array, rows: list[tuple[int, tuple[int, ...]]]) -> Array:
    leaf = jnp.asarray(leaf, factor.dtype)
    wide = jnp.broadcast_to(leaf.reshape(leaf.shape + (1,) * (factor.ndim - 1)), (*leaf.shape, *factor.shape[1:]))
    for c, index in rows:
        wide = wide.at[index].multiply(jnp.exp(factor[c]))
    return wide


def _column(x: Array, like: Array) -> Array:
    return x.reshape(-1, *[1] * (like.ndim - 1))
