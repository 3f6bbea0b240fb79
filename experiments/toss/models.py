"""How a throw is continued from its first state: three models with one signature.

    physics     s⁺ = Φ(s; θ)
    hybrid      s⁺ = Φ(s, w; θ'):   log θ'/θ = B tanh(y/B) for μ, k, b;   w = Σ_c (force at corner c, its moment)
    network     v⁺ = v + y: a force at each low corner and a pull, no engine inside; q⁺ = q ⊕ h v⁺

    trust g scales both: earned on throws that the weights had not seen (fits.trusted)
    force at corner c    f_c = near_c · F tanh(y_c · (ẑ, v_c along the board, r_c along the board))

The three are asked by the same loop, batched as M groups of throws side by side, each with its own φ and weights: folds and
draws are fitted together. y: the mean of a few perceptrons on `corners.features`, each trained by itself and zero before
training, so the hybrid begins as the physics.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.measured.tosses import DT
from experiments.toss import corners as cn
from experiments.toss.things import Thing, params_of, size_of
from experiments.toss.tilt import entered, left, tilt_of
from experiments.toss.turning import product
from hybridwm.world import network
from physics.types import Params

Array = jax.Array
LARGEST = 0.7  # of a log factor on μ, k, b
NEAR = 0.004  # m above the board at which a correction is half on


class Fitted(NamedTuple):
    """What is known of M groups."""

    phi: Array  # [P, M]
    weights: Any  # of every member of the ensemble, every leaf [M, ...]; None for physics
    trust: Any = 1.0  # in the hybrid's corrections, or [M] of them; at 0 it is the physics


class Model(NamedTuple):
    """One way to continue a throw."""

    name: str
    fresh: Callable[[Array, int], Any]  # key, groups -> weights of one member
    rollout: Callable[..., Any]  # Fitted, Start, horizon -> qpos [H, nq, W], what was corrected


class Start(NamedTuple):
    """Where W throws begin."""

    qpos: Any  # [nq, W]
    qvel: Any  # [nv, W]
    heading: Any  # [2, W]


def _answer(graph: Any, fitted: Fitted, features: Array) -> Array:
    """y [outputs, W]: the mean of the members."""
    return jnp.mean(jnp.stack([network.evaluate_own(graph, one, features) for one in fitted.weights]), 0)


def _grouped(phi: Array, worlds: int) -> Array:
    return jnp.repeat(phi, worlds // phi.shape[1], axis=1)


def _each(fitted: Fitted, worlds: int) -> Array:
    groups = fitted.phi.shape[1]
    return jnp.repeat(jnp.broadcast_to(jnp.asarray(fitted.trust, fitted.phi.dtype), groups), worlds // groups)


@jax.custom_vjp
def calmed(x: Array) -> Array:
    """x; its cotangent, world by world, is kept from growing without bound through the impacts."""
    return x


def _calm(_: None, g: Array) -> tuple[Array]:
    size = jnp.sqrt(jnp.sum(g * g, 0) + 1e-30)
    g = jnp.where(jnp.isfinite(size), g * jnp.minimum(1.0, CALM / size), 0.0)
    return (g,)


calmed.defvjp(lambda x: (x, None), _calm)
CALM = 100.0


class _Outputs(NamedTuple):
    """What a perceptron says, unpacked."""

    factor: Array  # [3, W] log factors on μ, k, b
    forces: Array  # [K, 3, W] along ẑ, the corner's slide, the corner's arm
    drag: Array  # [2, W] on the velocity along the board and on the spin


def _outputs(y: Array) -> _Outputs:
    k = 3 * cn.KEPT
    return _Outputs(y[:3], y[3 : 3 + k].reshape(cn.KEPT, 3, *y.shape[1:]), y[3 + k :])


OUTPUTS = 3 + 3 * cn.KEPT + 2


def _pushes(thing: Thing, qpos: Array, qvel: Array, size: Array, low: cn.Corners, amount: Array) -> Array:
    """Generalized force [nv, W] of forces at the low corners: their moments follow from how the corners move with q̇."""
    flat = jnp.array([1.0, 1.0, 0.0])[:, None]
    slide = flat * low.vel / jnp.sqrt(jnp.sum((flat * low.vel) ** 2, 1, keepdims=True) + 0.05**2)
    force = amount[:, :1] * (1 - flat) + amount[:, 1:2] * slide + amount[:, 2:] * flat * low.arm / thing.width
    order = jnp.argsort(jax.lax.stop_gradient(cn.all_corners(thing, qpos, qvel, size).height), 0)[: cn.KEPT]

    def speeds(v: Array) -> Array:
        vel = cn.all_corners(thing, qpos, v, size).vel
        return jnp.take_along_axis(vel, order[:, None], 0)

    return jax.vjp(speeds, qvel)[1](force)[0]


def physics(thing: Thing) -> Model:
    """The engine alone."""
    return Model("physics", lambda key, groups: None, lambda *a: _engine(thing, None, *a))


def hybrid(thing: Thing, hidden: tuple[int, ...] = (32, 32)) -> Model:
    """The engine with bounded corrections before its contact solve."""
    graph = network.structure(_inputs(thing), hidden, OUTPUTS)

    def fresh(key: Array, groups: int) -> Any:
        return network.ensemble(key, groups, _inputs(thing), hidden, OUTPUTS)

    return Model("hybrid", fresh, lambda *a: _engine(thing, graph, *a))


def _inputs(thing: Thing) -> int:
    nq, nv = thing.engine.scene.model.nq, thing.engine.scene.model.nv
    shape = jax.eval_shape(lambda q, v: cn.features(thing, q, v, cn.lowest(cn.all_corners(thing, q, v))),
                           jnp.zeros((nq, 1)), jnp.zeros((nv, 1)))  # fmt: skip
    return shape.shape[0]


def _engine(thing: Thing, graph: Any, fitted: Fitted, start: Start, horizon: int) -> Any:
    engine, worlds = thing.engine, start.qpos.shape[-1]
    phi = _grouped(fitted.phi, worlds)
    tilt, trust = tilt_of(thing, phi, start.heading), _each(fitted, worlds)
    constants, size = engine.prepare(params_of(thing, phi, tilt.gravity)), size_of(thing, phi)
    ctrl = jnp.zeros((0, worlds))

    def frame(state: Any, _: None) -> Any:
        state = state._replace(qpos=calmed(state.qpos), qvel=calmed(state.qvel))
        if graph is None:
            state, _info = engine.step(constants, state, ctrl)
            return state, (state.qpos, jnp.zeros((0, worlds)))
        low = cn.lowest(cn.all_corners(thing, state.qpos, state.qvel, size))
        y = _answer(graph, fitted, cn.features(thing, state.qpos, state.qvel, low))
        said = _outputs(y)
        near = trust * jax.nn.sigmoid((NEAR - low.height) / 0.001)
        params: Params = _corrected(constants.params, near[0] * LARGEST * jnp.tanh(said.factor / LARGEST))
        amount = near[:, None] * PUSH * jnp.tanh(said.forces)
        force = _pushes(thing, state.qpos, state.qvel, size, low, amount)
        state, _info = engine.step(constants._replace(params=params), state, ctrl, force=force)
        return state, (state.qpos, near[0] * y)

    begin = engine.init(constants, *entered(tilt, start.qpos, start.qvel))
    qpos, said = jax.lax.scan(frame, begin, None, length=horizon)[1]
    return left(tilt, qpos), said


PUSH = 5.0  # N, the bound of each coefficient: the cube weighs 3.6 N


def _corrected(params: Params, factor: Array) -> Params:
    mu, k, b = jnp.exp(factor)
    return params._replace(
        geom_friction=params.geom_friction.at[:, 0].multiply(mu),
        geom_solref=params.geom_solref * jnp.stack([k, b]),
    )


def alone(thing: Thing, hidden: tuple[int, ...] = (64, 64)) -> Model:
    """A network in the place of the engine: it knows free flight, the board and where the corners are, nothing of contact."""
    graph = network.structure(_inputs(thing), hidden, OUTPUTS)

    def fresh(key: Array, groups: int) -> Any:
        return network.ensemble(key, groups, _inputs(thing), hidden, OUTPUTS)

    return Model("network", fresh, lambda *a: _network(thing, graph, *a))


LARGEST_KICK = 1.0  # m/s in a row


def _network(thing: Thing, graph: Any, fitted: Fitted, start: Start, horizon: int) -> Any:
    phi = _grouped(fitted.phi, start.qpos.shape[-1])
    tilt, size, nv = tilt_of(thing, phi, start.heading), size_of(thing, phi), start.qvel.shape[0]
    fastest = jnp.array([6.0] * 3 + [60.0] * (nv - 3))[:, None]  # of these throws: 3 m/s and 25 rad/s
    light = jnp.array([1.0] * 3 + [1 / (0.4 * thing.width) ** 2] * (nv - 3))[:, None]

    def frame(state: Any, _: None) -> Any:
        qpos, qvel = calmed(state[0]), calmed(state[1])
        low = cn.lowest(cn.all_corners(thing, qpos, qvel, size))
        said = _outputs(_answer(graph, fitted, cn.features(thing, qpos, qvel, low)))
        pull = light * _pushes(thing, qpos, qvel, size, low, LARGEST_KICK * jnp.tanh(0.1 * said.forces))
        drag = jnp.concatenate([said.drag[:1]] * 2 + [0 * said.drag[:1]] + [said.drag[1:]] * (nv - 3))
        qvel = qvel + pull - 0.5 * jnp.tanh(0.1 * drag) * qvel
        qvel = jnp.clip(qvel.at[:3].add(tilt.gravity * DT), -fastest, fastest)
        turn = qvel[3:6] * DT
        angle = jnp.sqrt(jnp.sum(turn**2, 0) + 1e-12)
        step = jnp.concatenate([jnp.cos(angle / 2)[None], turn * jnp.sin(angle / 2) / angle])
        quat = product(qpos[3:7], step)
        quat = quat / jnp.sqrt(jnp.sum(quat**2, 0))
        qpos = jnp.concatenate([qpos[:3] + DT * qvel[:3], quat, qpos[7:] + DT * qvel[6:]])
        return (qpos, qvel), (qpos, said.forces[0])

    qpos, said = jax.lax.scan(frame, entered(tilt, start.qpos, start.qvel), None, length=horizon)[1]
    return left(tilt, qpos), said
