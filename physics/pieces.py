"""Cuts elementwise arithmetic into pieces of a bounded number of operations, each of which becomes one loop.

A block of ten thousand operations in one loop keeps thousands of numbers alive at once, and compilers take time that grows
faster than its length. In pieces both are bounded; what one piece hands to a later one passes through memory.

    x ──▶ [ piece 1 ] ──▶ y₁ ──▶ [ piece 2 ] ──▶ y₂ …         gives: what a later piece or the result needs
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.extend import core

Array = jax.Array
_CALLS = ("jit", "pjit", "closed_call")


class Operation(NamedTuple):
    """One equation; an operand is the number of a value, or a constant."""

    primitive: Any
    params: dict[str, Any]
    operands: tuple[Any, ...]
    results: tuple[int, ...]


class Constant(NamedTuple):
    """A number that is the same in all worlds."""

    value: Any


class Piece(NamedTuple):
    """Operations that run together."""

    operations: list[Operation]
    takes: list[int]
    gives: list[int]

    def run(self, given: Mapping[int, Array]) -> list[Array]:
        """What the piece gives, from what it takes."""
        known = dict(given)

        def value(x: Any) -> Any:
            return x.value if isinstance(x, Constant) else known[x]

        for op in self.operations:
            out = op.primitive.bind(*map(value, op.operands), **op.params)
            known |= zip(op.results, out if op.primitive.multiple_results else [out], strict=True)
        return [known[i] for i in self.gives]


def cut(closed: core.ClosedJaxpr, most: int) -> tuple[list[Piece], list[int | Constant]]:
    """Pieces of at most `most` operations, and the numbers of the results, or what they always are; inputs count from 0."""
    listing = _Listing(closed)
    asked = [x for x in listing.results if not isinstance(x, Constant)]
    live, operations = set(asked), []
    for op in reversed(listing.operations):
        if live.intersection(op.results):
            operations.append(op)
            live.update(x for x in op.operands if not isinstance(x, Constant))
    operations.reverse()
    count = -(-len(operations) // most)
    size = -(-len(operations) // max(count, 1))
    return _pieces([operations[i * size : (i + 1) * size] for i in range(count)], asked), listing.results


def _pieces(parts: list[list[Operation]], results: list[int]) -> list[Piece]:
    needed, out = set(results), []
    for part in reversed(parts):
        made = {i for op in part for i in op.results}
        used = {x for op in part for x in op.operands if not isinstance(x, Constant)}
        out.append(Piece(part, sorted(used - made), sorted(made & needed)))
        needed |= used - made
    return out[::-1]


class _Listing:
    """The equations of a program, calls spelled out, constants kept apart from what varies over the worlds."""

    def __init__(self, closed: core.ClosedJaxpr) -> None:
        self.operations: list[Operation] = []
        self._count = len(closed.jaxpr.invars)
        self.results: list[int | Constant] = self._walk(closed, list(range(self._count)))

    def _new(self) -> int:
        self._count += 1
        return self._count - 1

    def _walk(self, closed: core.ClosedJaxpr, given: list[Any]) -> list[Any]:
        jaxpr = closed.jaxpr
        known = dict(zip(jaxpr.invars, given, strict=True))
        known |= zip(jaxpr.constvars, map(Constant, closed.consts), strict=True)

        def atom(v: Any) -> Any:
            return Constant(v.val) if isinstance(v, core.Literal) else known[v]

        for eqn in jaxpr.eqns:
            operands = [atom(v) for v in eqn.invars]
            if eqn.primitive.name in _CALLS:
                known |= zip(eqn.outvars, self._walk(eqn.params["jaxpr"], operands), strict=True)
                continue
            if all(isinstance(x, Constant) for x in operands):
                out = eqn.primitive.bind(*[x.value for x in operands], **eqn.params)
                out = out if eqn.primitive.multiple_results else [out]
                known |= zip(eqn.outvars, map(Constant, out), strict=True)
                continue
            numbers = tuple(self._new() for _ in eqn.outvars)
            self.operations.append(Operation(eqn.primitive, eqn.params, tuple(operands), numbers))
            known |= zip(eqn.outvars, numbers, strict=True)
        return [atom(v) for v in jaxpr.outvars]
