"""A scene: MJCF through one gate, jointless bodies fused, breakable bonds and a contact budget declared.

    <equality><weld name="stem" body1="a" body2="b"/></equality>   a named weld or connect is a bond that may break
    <custom><numeric name="bond:stem" data="40 0.6"/></custom>     its nominal strength: force in N, torque in N m
    <custom><numeric name="contact_budget" data="12"/></custom>    keep the 12 deepest contacts of each pair list
    <custom><numeric name="joint_friction" data="1"/></custom>     hinges and slides may rub, though their frictionloss is 0

What the engine cannot honour is refused by name, with the reason; nothing is dropped silently.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import mujoco
import numpy as np

from physics import gate, refusals
from physics.fuse import Place, fuse
from physics.pairs import GeomPair, geom_pairs

_VISUAL = ("_rgba", "_matid", "_group", "_user", "bvh", "_aabb")
_PHYSICAL = (
    "body_",
    "jnt_",
    "dof_",
    "geom_",
    "site_",
    "eq_",
    "pair_",
    "exclude_",
    "actuator_",
    "sensor_",
    "key_",
    "qpos",
)
_NAMED = ("body", "joint", "geom", "site", "equality", "actuator", "sensor", "key")


@dataclass(frozen=True, kw_only=True)
class Bond:
    """A weld or connect that may break; `strength` is (force in N, torque in N m) or None where none was given."""

    name: str
    kind: str  # "weld" or "connect"
    eq_id: int
    body1: int
    body2: int
    strength: tuple[float, float] | None
    intact: bool = True  # whether it holds at the start


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A scene ready for the engines. Two scenes are equal when their physics is (the same `digest`)."""

    digest: str
    name: str = field(compare=False)
    xml: str = field(compare=False, repr=False)  # the fused scene as MJCF, six digits: to read, not to step
    spec: mujoco.MjSpec = field(compare=False, repr=False)  # the fused scene, to copy and compile anew
    model: mujoco.MjModel = field(compare=False, repr=False)  # compiled from it; read-only
    bonds: tuple[Bond, ...] = field(compare=False)
    sensors: tuple[str, ...] = field(compare=False)
    contact_budget: int | None = field(compare=False)
    rubbing: tuple[int, ...] = field(compare=False)  # dofs that may have dry friction
    pairs: tuple[GeomPair, ...] = field(compare=False, repr=False)
    places: dict[str, Place] = field(compare=False, repr=False)

    def body(self, name: str) -> Place:
        """Where a body of the MJCF is: the moving body that carries it (0: the world), and its pose in that body."""
        if name not in self.places:
            raise ValueError(f"body {name!r}: not in scene {self.name!r}{_nearest(name, self.places)}")
        return self.places[name]

    def bond(self, name: str) -> Bond:
        """The bond with this name."""
        found = {bond.name: bond for bond in self.bonds}
        if name not in found:
            raise ValueError(f"bond {name!r}: not in scene {self.name!r}{_nearest(name, found)}")
        return found[name]

    def home(self) -> tuple[np.ndarray, np.ndarray]:
        """Start: the first keyframe, or the reference pose at rest. (qpos [nq], qvel [nv])."""
        if self.model.nkey:
            return self.model.key_qpos[0].copy(), self.model.key_qvel[0].copy()
        return self.model.qpos0.copy(), np.zeros(self.model.nv)


def load_scene(source: str | Path, *, contact_budget: int | None = None) -> Scene:
    """Load a scene: the path of a MJCF file, MJCF as a string, or the name of a shipped scene.

    `contact_budget` keeps only the deepest so many contacts of each list of pairs; None: what the MJCF says, or all.
    Equal content gives the same object. Raises ValueError, in one sentence, for what is no scene or cannot be honoured.
    """
    if contact_budget is not None and (not isinstance(contact_budget, int) or contact_budget < 1):
        raise ValueError(
            f"contact_budget={contact_budget!r}: give a whole number of at least 1, or None for all contacts"
        )
    return _build(gate.admit(source), contact_budget)


def shipped_scenes() -> tuple[str, ...]:
    """Names of the scenes that come with the package."""
    return gate.shipped()


@functools.lru_cache(maxsize=64)
def _build(admitted: gate.Admitted, contact_budget: int | None) -> Scene:
    spec, model, reasons = examine(admitted)
    if model is None or reasons:
        more = f" (and {len(reasons) - 1} more: hybridwm inspect lists them)" if len(reasons) > 1 else ""
        raise ValueError(reasons[0] + more)
    names = fuse(spec, model)
    model = compiled(spec)
    places = {name: Place(model.body(carrier).id, pos, quat) for name, (carrier, pos, quat) in names.items()}
    numerics = {model.numeric(i).name: model.numeric(i).data.copy() for i in range(model.nnumeric)}
    bonds = _bonds(model, numerics)
    budget = contact_budget if contact_budget is not None else _declared_budget(numerics)
    rubbing = _rubbing(model, numerics)
    return Scene(
        digest=_digest(model, bonds, budget, rubbing),
        name=admitted.name,
        xml=spec.to_xml(),
        spec=spec,
        model=model,
        bonds=bonds,
        sensors=tuple(model.sensor(i).name or f"sensor{i}" for i in range(model.nsensor)),
        contact_budget=budget,
        rubbing=rubbing,
        pairs=geom_pairs(model),
        places=places,
    )


def examine(admitted: gate.Admitted) -> tuple[mujoco.MjSpec, mujoco.MjModel | None, list[str]]:
    """Parse and compile, and list every reason to refuse; no model where compiling would be pointless."""
    spec = parsed(admitted)
    reasons = refusals.of_spec(spec)
    if reasons:
        return spec, None, reasons
    model = compiled(spec)
    return spec, model, refusals.of_model(model)


def parsed(admitted: gate.Admitted) -> mujoco.MjSpec:
    """MuJoCo's own reading of an admitted scene."""
    try:
        spec = mujoco.MjSpec.from_string(admitted.text, assets=dict(admitted.files))
    except Exception as error:  # MuJoCo raises whatever its parser or compiler threw
        raise ValueError(_one_line(error)) from None
    spec.compiler.fusestatic = False  # we do it, and remember where every body went
    return spec


def compiled(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """Compile, with MuJoCo's complaint as one sentence."""
    try:
        return spec.compile()
    except Exception as error:  # MuJoCo raises whatever its parser or compiler threw
        raise ValueError(_one_line(error)) from None


def _one_line(error: Exception) -> str:
    return "scene: MuJoCo says " + " ".join(str(error).split())[:300]


def _bonds(model: mujoco.MjModel, numerics: dict[str, np.ndarray]) -> tuple[Bond, ...]:
    named = [i for i in range(model.neq) if model.equality(i).name]
    strengths = {name.removeprefix("bond:"): data for name, data in numerics.items() if name.startswith("bond:")}
    known = [model.equality(i).name for i in named]
    for name, data in strengths.items():
        if name not in known:
            raise ValueError(f"numeric 'bond:{name}': no weld or connect has this name{_nearest(name, known)}")
        if len(data) != 2 or not (data > 0).all():
            raise ValueError(f"numeric 'bond:{name}': give two positive numbers, force in N and torque in N m")
    return tuple(_bond(model, i, strengths.get(model.equality(i).name)) for i in named)


def _bond(model: mujoco.MjModel, eq: int, strength: np.ndarray | None) -> Bond:
    ends = int(model.eq_obj1id[eq]), int(model.eq_obj2id[eq])
    if model.eq_objtype[eq] == mujoco.mjtObj.mjOBJ_SITE:
        ends = int(model.site_bodyid[ends[0]]), int(model.site_bodyid[ends[1]])
    name = model.equality(eq).name
    if ends[0] == ends[1]:
        raise ValueError(
            f"bond {name!r}: its two ends are on one body ({model.body(ends[0]).name!r}); join two moving bodies"
        )
    return Bond(
        name=name,
        kind="weld" if model.eq_type[eq] == mujoco.mjtEq.mjEQ_WELD else "connect",
        eq_id=eq,
        body1=ends[0],
        body2=ends[1],
        strength=None if strength is None else (float(strength[0]), float(strength[1])),
        intact=bool(model.eq_active0[eq]),
    )


def _declared_budget(numerics: dict[str, np.ndarray]) -> int | None:
    if "contact_budget" not in numerics:
        return None
    data = numerics["contact_budget"]
    if len(data) != 1 or data[0] < 1 or data[0] % 1:
        raise ValueError("numeric 'contact_budget': give one whole number of at least 1")
    return int(data[0])


def _rubbing(model: mujoco.MjModel, numerics: dict[str, np.ndarray]) -> tuple[int, ...]:
    """Dofs with a frictionloss, and those of all hinges and slides where the MJCF says so."""
    data = numerics.get("joint_friction", np.zeros(1))
    if len(data) != 1 or data[0] not in (0, 1):
        raise ValueError("numeric 'joint_friction': give 1 where hinges and slides may have dry friction, or 0")
    scalar = np.isin(model.jnt_type[model.dof_jntid], (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE))
    return tuple(np.flatnonzero((model.dof_frictionloss > 0) | (scalar & bool(data[0]))).tolist())


def _digest(model: mujoco.MjModel, bonds: tuple[Bond, ...], budget: int | None, rubbing: tuple[int, ...]) -> str:
    """SHA-256 of everything that the motion depends on, and of the names by which it is addressed."""
    digest = hashlib.sha256(repr((bonds, budget, rubbing)).encode())
    for kind in _NAMED:
        count = getattr(model, {"joint": "njnt", "equality": "neq", "actuator": "nu"}.get(kind, f"n{kind}"))
        digest.update(repr([getattr(model, kind)(i).name for i in range(count)]).encode())
    for owner, prefixes in ((model, _PHYSICAL), (model.opt, ("",))):
        for name in sorted(dir(owner)):
            value = getattr(owner, name, None) if name.startswith(prefixes) and not name.startswith("_") else None
            if isinstance(value, np.ndarray | float | int) and not name.endswith(_VISUAL):
                digest.update(name.encode() + np.asarray(value).tobytes())
    return digest.hexdigest()


def _nearest(word: str, known: object) -> str:
    names = [str(name) for name in known]  # type: ignore[attr-defined]
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.0)
    return f"; did you mean {near[0]!r}?" if near else "; it has none"
