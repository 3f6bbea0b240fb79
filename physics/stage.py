"""Lane arithmetic evaluated in few loops over the worlds, in the value, the derivative and its transpose.

XLA's CPU backend makes one loop per result and computes shared parts again in each; with a hundred results that is most of the
work, and where results are stacked the loop does not vectorise. One reduction with many operands, however, is one loop. So a
stage lays its inputs out twice, [2, W], and takes the larger of each result's two equal copies: the copies cost nothing, for
what does not depend on them is hoisted. What is not finite stays not finite, but a NaN may come out as −∞.

A loop of thousands of operations outgrows the registers and compiles for minutes, so it is cut into pieces (pieces.py).

    y = f(x)        ẏ = ∂f ẋ         x̄ = ∂fᵀ ȳ        each a stage of its own; ∂fᵀ computes f's intermediates anew
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from physics.pieces import Constant, cut

Array = jax.Array
Lanes = Sequence[Array]
PIECE = 150  # operations in one loop


def fused(fun: Callable[..., Any], *args: Any) -> Any:
    """fun(*args) for elementwise fun over trailing worlds; static floats in its result stay static."""
    leaves, tree = jax.tree.flatten(args)
    traced = [i for i, x in enumerate(leaves) if isinstance(x, jax.Array)]
    out_tree: Any = None
    statics: dict[int, Any] = {}

    def flat(*xs: Array) -> list[Array]:
        nonlocal out_tree
        full = list(leaves)
        for i, x in zip(traced, xs, strict=True):
            full[i] = x
        out, out_tree = jax.tree.flatten(fun(*jax.tree.unflatten(tree, full)))
        statics.update({i: y for i, y in enumerate(out) if not isinstance(y, jax.Array)})
        return [jnp.broadcast_to(y, xs[0].shape) for y in out if isinstance(y, jax.Array)]

    worlds = jnp.broadcast_shapes(*(leaves[i].shape for i in traced))
    ys = list(_run(flat, *[jnp.broadcast_to(leaves[i], worlds) for i in traced]))
    out = [statics[i] if i in statics else ys.pop(0) for i in range(out_tree.num_leaves)]
    return jax.tree.unflatten(out_tree, out)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _run(flat: Callable[..., list[Array]], *xs: Array) -> list[Array]:
    return _in_loops(flat, xs)


def _differentiate(flat: Callable[..., list[Array]], primals: Lanes, tangents: Any) -> Any:
    """Only inputs that move are linear inputs of the derivative: θ costs nothing while it stands still."""
    moving = tuple(i for i, t in enumerate(tangents) if not isinstance(t, SymbolicZero))
    out = _run(flat, *primals)
    along = _Along(flat, len(primals), moving, tuple(range(len(out))), back=False)
    moved = [tangents[i] for i in moving]
    return out, _linear.bind(*primals, *moved, along=along, dtypes=tuple(y.dtype for y in out))


_run.defjvp(_differentiate, symbolic_zeros=True)


def _in_loops(flat: Callable[..., list[Array]], xs: Lanes) -> list[Array]:
    """The results of flat(*xs), piece by piece."""
    shape = (2, *xs[0].shape)
    twice = [jax.ShapeDtypeStruct(shape, x.dtype) for x in xs]
    program = jax.make_jaxpr(lambda *x: [jnp.broadcast_to(y, shape) for y in flat(*x)])(*twice)
    pieces, results = cut(program, PIECE)
    known = dict(enumerate(xs))
    for piece in pieces:
        given = {i: jnp.broadcast_to(known[i][None], shape) for i in piece.takes}
        known |= zip(piece.gives, _larger(piece.run(given)), strict=True)
    return [_always(x, xs[0].shape) if isinstance(x, Constant) else known[x] for x in results]


def _always(one: Constant, shape: tuple[int, ...]) -> Array:
    """A result that depends on nothing, which no loop has to work out."""
    value = jnp.asarray(one.value)
    return jnp.broadcast_to(value[0] if value.ndim > len(shape) else value, shape)


def _larger(ys: list[Array]) -> list[Array]:
    """The larger of the two copies of each result, in one reduction."""
    lowest = [jnp.array(_lowest(y.dtype), y.dtype) for y in ys]
    return list(lax.reduce(ys, lowest, lambda a, b: [lax.max(x, y) for x, y in zip(a, b, strict=True)], (0,)))


def _lowest(dtype: Any) -> Any:
    if jnp.issubdtype(dtype, jnp.bool_):
        return False
    return -jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min


class _Along(NamedTuple):
    """The linear map ∂f between the inputs that move and the results that are asked for, or its transpose."""

    flat: Callable[..., list[Array]]
    held: int  # inputs of f
    moving: tuple[int, ...]  # those that move
    asked: tuple[int, ...]  # results
    back: bool

    def __call__(self, *args: Array) -> list[Array]:
        fixed, linear = list(args[: self.held]), list(args[self.held :])

        def of(*moved: Array) -> list[Array]:
            full = list(fixed)
            for i, x in zip(self.moving, moved, strict=True):
                full[i] = x
            out = self.flat(*full)
            return [out[i] for i in self.asked]

        at = [fixed[i] for i in self.moving]
        return list(jax.vjp(of, *at)[1](linear)) if self.back else jax.jvp(of, at, linear)[1]

    def transposed(self, live: list[int]) -> "_Along":
        """∂fᵀ for the results `live` of this map."""
        kept = tuple((self.moving if self.back else self.asked)[i] for i in live)
        return self._replace(back=not self.back, **{"moving" if self.back else "asked": kept})


# A linear stage: along(residuals, x), closed under jvp, transpose and vmap.
_linear = Primitive("lane_stage")
_linear.multiple_results = True


def _apply(*args: Array, along: _Along, dtypes: Any) -> list[Array]:
    return _in_loops(along, args)


def _jvp(primals: Any, tangents: Any, *, along: _Along, dtypes: Any) -> Any:
    bind = partial(_linear.bind, along=along, dtypes=dtypes)
    out = bind(*primals)
    moved = [ad.instantiate_zeros(t) for t in tangents]
    if all(type(t) is ad.Zero for t in tangents[: along.held]):
        return out, bind(*primals[: along.held], *moved[along.held :])
    return out, jax.jvp(along, tuple(primals), tuple(moved))[1]


def _transpose(cotangents: Any, *args: Any, along: _Along, dtypes: Any) -> Any:
    """Results nobody asks for drop out."""
    held, linear = args[: along.held], args[along.held :]
    live = [i for i, c in enumerate(cotangents) if not isinstance(c, ad.Zero)]
    if not live:
        return [None] * len(held) + [ad.Zero(x.aval) for x in linear]
    given = (*held, *[cotangents[i] for i in live])
    kinds = tuple(x.aval.dtype for x in linear)
    return [None] * len(held) + _linear.bind(*given, along=along.transposed(live), dtypes=kinds)


def _batch(args: Any, dims: Any, *, along: _Along, dtypes: Any) -> Any:
    size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
    # elementwise: any axes will do
    wide = [batching.bdim_at_front(x, d, size) for x, d in zip(args, dims, strict=True)]
    out = _linear.bind(*wide, along=along, dtypes=dtypes)
    return out, [0] * len(out)


_linear.def_impl(_apply)
_linear.def_abstract_eval(lambda *avals, dtypes, **_: [ShapedArray(avals[0].shape, dtype) for dtype in dtypes])
ad.primitive_jvps[_linear] = _jvp
ad.primitive_transposes[_linear] = _transpose
batching.primitive_batchers[_linear] = _batch
mlir.register_lowering(_linear, mlir.lower_fun(_apply, multiple_results=True))
