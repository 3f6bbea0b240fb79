"""Small networks over many worlds, and ensembles of them.

    y = A z + V_L a(V_{L-1} … a(V_1 z + b_1) …) + b_L          a = tanh; z [in, W], y [out, W]

Worlds stand last, so that each layer is one product [out, in] [in, W]. The straight path A carries what is linear in the
features without asking the layers for it. A and the last layer begin at zero: so does y.
"""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

Array = jax.Array
Weights = Any  # nnx.State of one network, or of an ensemble: every leaf [M, ...]


class Layer(nnx.Module):
    """V x + b."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs, zero: bool = False) -> None:
        init = nnx.initializers.zeros if zero else nnx.initializers.variance_scaling(1.0, "fan_out", "truncated_normal")
        self.kernel = nnx.Param(init(rngs.params(), (outputs, inputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Array) -> Array:
        """[inputs, W] -> [outputs, W]."""
        bias = self.bias[...].reshape(-1, *[1] * (x.ndim - 1))
        return jnp.tensordot(self.kernel[...], x, 1) + bias


class Network(nnx.Module):
    """A perceptron with a straight path beside it, zero at the start."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], outputs: int, *, rngs: nnx.Rngs) -> None:
        sizes = (inputs, *hidden)
        self.layers = nnx.List([Layer(a, b, rngs=rngs) for a, b in pairwise(sizes)])
        self.last = Layer(sizes[-1], outputs, rngs=rngs, zero=True)
        self.straight = nnx.Param(jnp.zeros((outputs, inputs)))

    def __call__(self, z: Array) -> Array:
        """[inputs, W] -> [outputs, W]."""
        x = z
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return self.last(x) + jnp.tensordot(self.straight[...], z, 1)


def structure(inputs: int, hidden: tuple[int, ...], outputs: int) -> Any:
    """The static part of such a network."""
    return nnx.split(nnx.eval_shape(lambda: Network(inputs, hidden, outputs, rngs=nnx.Rngs(0))))[0]


def ensemble(key: Array, members: int, inputs: int, hidden: tuple[int, ...], outputs: int) -> Weights:
    """Weights of `members` networks, each leaf [M, ...]."""

    def one(key: Array) -> Weights:
        return nnx.split(Network(inputs, hidden, outputs, rngs=nnx.Rngs(key)))[1]

    return jax.vmap(one)(jax.random.split(key, members))


def evaluate(graph: Any, weights: Weights, z: Array) -> Array:
    """All members on the same features z [in, W]: [M, out, W]. One product per layer and member: a batched product is slower."""
    members = len(jax.tree.leaves(weights)[0])
    return jnp.stack([nnx.merge(graph, jax.tree.map(lambda x: x[m], weights))(z) for m in range(members)])  # noqa: B023


def evaluate_own(graph: Any, weights: Weights, z: Array) -> Array:
    """W worlds in M equal groups side by side, each asking its own member: [out, W]."""
    members = len(jax.tree.leaves(weights)[0])
    groups = jnp.split(z, members, axis=-1)
    nets = (nnx.merge(graph, jax.tree.map(lambda x: x[m], weights)) for m in range(members))  # noqa: B023
    return jnp.concatenate([net(group) for net, group in zip(nets, groups, strict=True)], axis=-1)
