"""What is inside a traced program."""

from collections.abc import Iterator

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

# Batched, each is a call into LAPACK per world, and two of them at once can hang jaxlib 0.10.2 for ever.
LAPACK = {
    *("cholesky", "cholesky_update", "triangular_solve", "lu", "qr", "geqrf", "geqp3", "householder_product"),
    *("eigh", "eig", "svd", "schur", "hessenberg", "tridiagonal", "tridiagonal_solve"),
}


def equations(jaxpr: Jaxpr | ClosedJaxpr) -> Iterator[JaxprEqn]:
    """All equations, also those inside loops, branches, calls and derivatives."""
    inner = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    for equation in inner.eqns:
        yield equation
        for leaf in jax.tree.leaves(equation.params, is_leaf=lambda x: isinstance(x, Jaxpr | ClosedJaxpr)):
            if isinstance(leaf, Jaxpr | ClosedJaxpr):
                yield from equations(leaf)


def primitives(jaxpr: Jaxpr | ClosedJaxpr) -> Iterator[str]:
    """Names of all primitives."""
    return (equation.primitive.name for equation in equations(jaxpr))


def lapack_primitives(jaxpr: Jaxpr | ClosedJaxpr) -> set[str]:
    """The LAPACK-backed primitives of a program."""
    return LAPACK & set(primitives(jaxpr))
