"""The quantities of θ that logs are asked about, by name, and the coordinate in which each is sought.

    log       z = ln(value / nominal)      for what is positive: masses, friction, gains; the unknown is a factor
    linear    z = value − nominal          for what may be zero or negative: damping of an ideal joint, a centre of mass

Several names share one z: a common factor (or offset). The prior is z ~ N(0, prior_std²).
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

_BODY, _JOINT, _GEOM, _ACTUATOR = "body", "joint", "geom", "actuator"
_KIND = {
    "body_mass": (_BODY, "mass"),
    "body_inertia": (_BODY, "inertia"),
    "body_ipos": (_BODY, "centre of mass"),
    "dof_damping": (_JOINT, "damping"),
    "dof_armature": (_JOINT, "armature"),
    "dof_frictionloss": (_JOINT, "dry friction"),
    "geom_friction": (_GEOM, "friction"),
    "geom_solref": (_GEOM, "contact reference"),
    "geom_size": (_GEOM, "size"),
    "actuator_gain": (_ACTUATOR, "gain"),
    "lag_s": (_ACTUATOR, "time constant"),
    "gravity": ("", "gravity"),
}


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """One number to be found. `leaf` is a field of θ, or of the model's parameters around it (`lag_s`)."""

    leaf: str
    names: tuple[str, ...] = ()
    """Bodies, joints, geoms or actuators, as the leaf wants; none: all of them that the leaf is not zero for."""
    component: int | None = 0
    """Of leaves with several numbers to a name; None: all of them."""
    scale: Literal["log", "linear"] = "log"
    prior_std: float = 1.0
    """Of z: relative for log, in the leaf's units for linear."""
    low: float | None = None
    high: float | None = None
    """Bounds, in the units of `Place.value`."""
    inertia: bool = True
    """Whether the inertia of a body follows its mass."""
    label: str | None = None
    """What reports call it."""

    def __post_init__(self) -> None:
        if self.scale not in ("log", "linear"):
            raise ValueError(f"unknown {self.leaf!r}: scale is {self.scale!r}; allowed are log and linear")
        if not self.prior_std > 0:
            raise ValueError(f"unknown {self.leaf!r}: prior_std is {self.prior_std}; give a number above 0")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"unknown {self.leaf!r}: bounds {self.low} and {self.high}; give the lower one first")


@dataclass(frozen=True)
class Place:
    """Where an unknown lives in the parameters of a scene."""

    unknown: Unknown
    label: str
    mask: np.ndarray
    """1 for the entries of the leaf that move, 0 elsewhere."""
    nominal: float | None
    """The value that all of these entries have; None where they differ, or where it is their common factor that is told."""
    bounds: tuple[float, float]
    """Of z."""

    @property
    def log(self) -> bool:
        """Whether z is a logarithm."""
        return self.unknown.scale == "log"

    def value(self, z: Any) -> Any:
        """What reports tell: the value; a factor or an offset where several entries with different values share z."""
        if self.log:
            return (1.0 if self.nominal is None else self.nominal) * np.exp(z)
        return (0.0 if self.nominal is None else self.nominal) + z

    def value_std(self, z: float, z_std: float) -> float:
        """Standard deviation of the value, to first order."""
        return float(abs(self.value(z)) * z_std) if self.log else z_std


def locate(scene: Any, params: Any, unknown: Unknown) -> Place:
    """Find an unknown in a scene; a name that is not there, or a leaf, is refused with what is."""
    leaf = np.asarray(read(params, unknown.leaf), float)
    kind, word = _KIND.get(unknown.leaf, ("", unknown.leaf))
    mask = _mask(scene.model, unknown, kind, leaf)
    values = np.unique(leaf[mask > 0])
    label = unknown.label or f"{word} of {', '.join(unknown.names)}" if unknown.names else unknown.label or word
    if unknown.scale == "log" and (values == 0).any():
        raise ValueError(f"{label}: the scene says 0, which no factor changes; give scale='linear'")
    place = Place(unknown, label, mask, float(values[0]) if len(values) == 1 else None, (-np.inf, np.inf))
    return Place(unknown, label, mask, place.nominal, _bounds(place))


def read(params: Any, leaf: str) -> Any:
    """A leaf of θ, or of the parameters that hold θ."""
    for holder in (params, getattr(params, "theta", None)):
        if leaf in getattr(holder, "_fields", ()) and getattr(holder, leaf) is not None:
            return getattr(holder, leaf)
    known = getattr(params, "theta", params)._fields
    raise ValueError(f"leaf {leaf!r}: not among the parameters; allowed are {', '.join(known)}")


def replaced(params: Any, places: Sequence[Place], z: Any) -> Any:
    """Parameters with the unknowns at z, [p] or with a value per world [p, W]."""
    for place, zi in zip(places, z, strict=True):
        leaf, mask = place.unknown.leaf, place.mask.reshape(place.mask.shape + (1,) * jnp.ndim(zi))
        old = _wide(read(params, leaf), place.mask.ndim, zi)
        new = old * jnp.exp(mask * zi) if place.log else old + mask * zi
        if leaf == "body_mass" and place.unknown.inertia:
            factor = jnp.where(mask > 0, new / jnp.where(mask > 0, old, 1), 1)
            params = _with(params, "body_inertia", _wide(read(params, "body_inertia"), 2, zi) * factor[:, None])
        params = _with(params, leaf, new)
    return params


def _wide(leaf: Any, structure: int, zi: Any) -> Any:
    """A leaf with room for worlds where z has them and it has not yet."""
    return jnp.asarray(leaf)[..., None] if jnp.ndim(zi) and jnp.ndim(leaf) == structure else jnp.asarray(leaf)


def _with(params: Any, leaf: str, value: Any) -> Any:
    if leaf in params._fields:
        return params._replace(**{leaf: value})
    return params._replace(theta=params.theta._replace(**{leaf: value}))


def _mask(model: Any, unknown: Unknown, kind: str, leaf: np.ndarray) -> np.ndarray:
    mask = np.zeros(leaf.shape)
    rows = [row for name in unknown.names for row in _rows(model, kind, unknown, name)]
    if not kind:
        mask[... if unknown.component is None or leaf.ndim > 1 else unknown.component] = 1.0
    elif not unknown.names:
        mask[...] = leaf != 0
    else:
        mask[rows] = 1.0
    if kind and leaf.ndim > 1 and unknown.component is not None:
        mask[:, np.arange(leaf.shape[1]) != unknown.component] = 0.0
    if not mask.any():
        raise ValueError(
            f"unknown {unknown.leaf!r}: the scene has nothing of the kind that is not zero; name what you mean"
        )
    return mask


def _rows(model: Any, kind: str, unknown: Unknown, name: str) -> list[int]:
    count = {_BODY: model.nbody, _JOINT: model.njnt, _GEOM: model.ngeom, _ACTUATOR: model.nu}[kind]
    known = {getattr(model, kind)(i).name: i for i in range(count)}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"allowed are {', '.join(n for n in known if n) or 'none'}"
        raise ValueError(f"unknown {unknown.leaf!r}: no {kind} {name!r} in the scene; {hint}")
    if kind != _JOINT:
        return [known[name]]
    return np.flatnonzero(model.dof_jntid == known[name]).tolist()


def _bounds(place: Place) -> tuple[float, float]:
    """Of z, from those of the value; a negative nominal value turns them round."""
    low, high = place.unknown.low, place.unknown.high
    if place.log and (place.nominal or 1.0) < 0:
        low, high = high, low
    return _bound(place, low, -np.inf), _bound(place, high, np.inf)


def _bound(place: Place, bound: float | None, none: float) -> float:
    if bound is None:
        return none
    if not place.log:
        return bound - (place.nominal or 0.0)
    share = bound / (1.0 if place.nominal is None else place.nominal)
    if share > 0:
        return float(np.log(share))
    if none > 0:
        raise ValueError(f"{place.label}: bound {bound} leaves nothing; the scene's value is {place.nominal}")
    return none
