"""Vector algebra on lanes: each scalar is a Python float, known while the program is built, or an array over worlds.

Structure (vectors, matrices, trees) lives in Python tuples, so a zero of the scene (an axis, an offset) removes its arithmetic
from the program, and what is left is elementwise over the worlds: XLA fuses it into loops that fill the vector units.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
Lane = Any  # float or Array[W]
Vec = tuple[Lane, Lane, Lane]
Quat = tuple[Lane, Lane, Lane, Lane]
Mat = tuple[Vec, Vec, Vec]  # rows

ZERO: Vec = (0.0, 0.0, 0.0)
EYE: Mat = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def mul(a: Lane, b: Lane) -> Lane:
    """a b; 0 and ±1 fold away."""
    if isinstance(a, float) and isinstance(b, float):
        return a * b
    if isinstance(b, float):
        a, b = b, a
    if isinstance(a, float):
        if a == 0.0:
            return 0.0
        if a == 1.0:
            return b
        if a == -1.0:
            return -b
    return a * b


def add(a: Lane, b: Lane) -> Lane:
    """a + b; 0 folds away."""
    if isinstance(a, float) and a == 0.0:
        return b
    if isinstance(b, float) and b == 0.0:
        return a
    return a + b


def sub(a: Lane, b: Lane) -> Lane:
    """a − b; 0 folds away."""
    if isinstance(b, float) and b == 0.0:
        return a
    if isinstance(a, float) and a == 0.0:
        return -b
    return a - b


def total(terms: Sequence[Lane]) -> Lane:
    """Σ terms."""
    out: Lane = 0.0
    for term in terms:
        out = add(out, term)
    return out


def dot(a: Sequence[Lane], b: Sequence[Lane]) -> Lane:
    """a · b."""
    return total([mul(x, y) for x, y in zip(a, b, strict=True)])


def vadd(a: Sequence[Lane], b: Sequence[Lane]) -> Any:
    """a + b."""
    return tuple(add(x, y) for x, y in zip(a, b, strict=True))


def vsub(a: Sequence[Lane], b: Sequence[Lane]) -> Any:
    """a − b."""
    return tuple(sub(x, y) for x, y in zip(a, b, strict=True))


def scale(s: Lane, a: Sequence[Lane]) -> Any:
    """s a."""
    return tuple(mul(s, x) for x in a)


def cross(a: Vec, b: Vec) -> Vec:
    """a × b."""
    return (
        sub(mul(a[1], b[2]), mul(a[2], b[1])),
        sub(mul(a[2], b[0]), mul(a[0], b[2])),
        sub(mul(a[0], b[1]), mul(a[1], b[0])),
    )


def matvec(m: Sequence[Sequence[Lane]], v: Sequence[Lane]) -> Any:
    """m v, m given by its rows."""
    return tuple(dot(row, v) for row in m)


def transpose(m: Sequence[Sequence[Lane]]) -> Any:
    """mᵀ."""
    return tuple(zip(*m, strict=True))


def matmul(a: Sequence[Sequence[Lane]], b: Sequence[Sequence[Lane]]) -> Any:
    """a b."""
    columns = transpose(b)
    return tuple(tuple(dot(row, column) for column in columns) for row in a)


def column(m: Mat, j: int) -> Vec:
    """Column j of m."""
    return (m[0][j], m[1][j], m[2][j])


def quat_mul(p: Quat, q: Quat) -> Quat:
    """p ⊗ q."""
    a, b, c, d = p
    w, x, y, z = q
    return (
        dot((a, mul(-1.0, b), mul(-1.0, c), mul(-1.0, d)), (w, x, y, z)),
        dot((a, b, c, mul(-1.0, d)), (x, w, z, y)),
        dot((a, mul(-1.0, b), c, d), (y, z, w, x)),
        dot((a, b, mul(-1.0, c), d), (z, y, x, w)),
    )


def quat_conj(q: Quat) -> Quat:
    """The inverse of a unit quaternion."""
    return (q[0], mul(-1.0, q[1]), mul(-1.0, q[2]), mul(-1.0, q[3]))


def quat_mat(q: Quat) -> Mat:
    """Rotation matrix of a unit quaternion."""
    w, x, y, z = q
    xx, yy, zz = mul(x, x), mul(y, y), mul(z, z)
    xy, xz, yz, wx, wy, wz = mul(x, y), mul(x, z), mul(y, z), mul(w, x), mul(w, y), mul(w, z)
    two = 2.0
    return (
        (sub(1.0, mul(two, add(yy, zz))), mul(two, sub(xy, wz)), mul(two, add(xz, wy))),
        (mul(two, add(xy, wz)), sub(1.0, mul(two, add(xx, zz))), mul(two, sub(yz, wx))),
        (mul(two, sub(xz, wy)), mul(two, add(yz, wx)), sub(1.0, mul(two, add(xx, yy)))),
    )


def safe_sqrt(x: Lane) -> Lane:
    """√x with value 0 and slope 0 at and below 0, so that no gradient is ever NaN or infinite there."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def norm(v: Sequence[Lane]) -> Lane:
    """|v|, with slope 0 at 0."""
    return safe_sqrt(dot(v, v))


def unit(v: Sequence[Lane], fallback: Sequence[Lane]) -> tuple[Any, Lane]:
    """v/|v| and |v|; the fallback where |v| is 0, or so small (1e-13 in float32) that the slope, with |v|⁻³ in it, overflows."""
    squared = dot(v, v)
    positive = squared > jnp.finfo(squared.dtype).tiny ** (2 / 3)
    inverse = jax.lax.rsqrt(jnp.where(positive, squared, 1.0))
    return tuple(jnp.where(positive, x * inverse, f) for x, f in zip(v, fallback, strict=True)), safe_sqrt(squared)


def quat_unit(q: Quat) -> Quat:
    """q/|q|."""
    squared = dot(q, q)
    inverse = squared**-0.5 if isinstance(squared, float) else jax.lax.rsqrt(squared)
    return scale(inverse, q)


def cos_sin(angle: Lane) -> tuple[Lane, Lane]:
    """cos and sin of an angle in rad."""
    if isinstance(angle, float):
        return math.cos(angle), math.sin(angle)
    return jnp.cos(angle), jnp.sin(angle)


def static(x: Any) -> Any:
    """numpy row(s) -> tuples of Python floats, so that zeros and ones fold away."""
    return tuple(static(row) if getattr(row, "ndim", 0) else float(row) for row in x)


def lanes(x: Any) -> Any:
    """Array whose leading axis is structure -> tuple of lanes (numpy arrays become floats); lanes stay as they are."""
    if isinstance(x, tuple | list):
        return tuple(x)
    if isinstance(x, jax.Array):
        return tuple(jax.lax.index_in_dim(x, i, 0, keepdims=False) for i in range(x.shape[0]))
    return static(x)


def rows(x: Any) -> list[Any]:
    """The rows of an array whose leading axis is structure."""
    return [x[i] for i in range(len(x))]


def table(x: Any) -> Any:
    """Array with two axes of structure -> tuple of rows of lanes; None stays None."""
    return None if x is None else tuple(lanes(row) for row in rows(x))


def stack(rows: Sequence[Lane], like: Array | None = None) -> Array:
    """Lanes -> array [n, W]; `like` gives the world shape and dtype that static lanes take."""
    shape = jnp.broadcast_shapes(*[jnp.shape(r) for r in rows], jnp.shape(like) if like is not None else ())
    dtype = jnp.result_type(*rows, *([like] if like is not None else []))
    return jnp.stack([jnp.broadcast_to(jnp.asarray(r, dtype), shape) for r in rows])
