"""Which parts of a scene are objects by themselves, and which are alike: what is learned of one then holds for all of its kind.

    object    trees of bodies joined by bonds or other equalities; it sees its own joints and motors, and nothing of its neighbours
    alike     the same bodies, joints, shapes, motors, equalities, features and corrections, in the same order (_looks)
    y_o       = N_k(z_o)          one network N_k for each kind k, asked once for each of its objects o

Where place counts (patches, rails with ends), objects that are mounted at different places are not alike.
Legend: n objects of a kind; F features, D dofs, C corrections of each.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hybridwm.world.features import Features

Target = tuple[str, tuple[int, ...]]
"""(leaf of θ, index) of a correction, see residual.py."""

_SITE = 6  # mjOBJ_SITE: what an equality is between, where it is not bodies
_BODY = ("body_mass", "body_inertia", "body_ipos", "body_iquat", "body_quat")
_JOINT = ("jnt_type", "jnt_axis", "jnt_pos", "jnt_limited", "jnt_range", "jnt_stiffness", "jnt_solref", "jnt_solimp")
_DOF = ("dof_damping", "dof_armature", "dof_frictionloss")
_GEOM = ("geom_type", "geom_size", "geom_pos", "geom_quat", "geom_friction", "geom_condim", "geom_solref")
_MOTOR = (
    "actuator_gear",
    "actuator_gainprm",
    "actuator_biasprm",
    "actuator_dyntype",
    "actuator_dynprm",
    "actuator_ctrlrange",
)
_EQUALITY = ("eq_type", "eq_data")


class Kind(NamedTuple):
    """Alike objects: which features each sees, which dofs and which corrections of θ are its own."""

    features: np.ndarray  # [n, F]
    dofs: np.ndarray  # [n, D]
    targets: np.ndarray  # [n, C]


def kinds(features: Features, targets: Sequence[Target], *, apart: bool) -> tuple[Kind, ...]:
    """The kinds of a scene, in the order of their first objects; one that is the whole scene where nothing stands `apart`."""
    if not apart:
        counts = len(features.names), features.scene.model.nv, len(targets)
        return (Kind(*(np.arange(n)[None] for n in counts)),)
    alike: dict[Any, list[tuple[list[int], ...]]] = {}
    for one in _objects(features):
        own, looks = one.parts(features, targets)
        alike.setdefault(looks, []).append(own)
    return tuple(Kind(*(np.array(x, int) for x in zip(*each, strict=True))) for each in alike.values())


def pooled(groups: Sequence[np.ndarray], values: np.ndarray) -> np.ndarray:
    """Numbers in whose place alike objects have their mean; each group [n, F]: where those of n alike objects stand."""
    out = values.copy()
    for index in groups:
        out[index] = values[index].mean(0)
    return out


def described(features: Features, found: Sequence[Kind]) -> str:
    """The kinds in a sentence, objects by the names of their first bodies."""
    model = features.scene.model
    name = lambda dof: model.body(int(model.dof_bodyid[dof])).name or f"body {int(model.dof_bodyid[dof])}"  # noqa: E731
    each = "; ".join(", ".join(name(dofs[0]) for dofs in kind.dofs) for kind in found)
    return f"{len(found)} {'kinds' if len(found) > 1 else 'kind'} of objects: {each}"


class _Object(NamedTuple):
    """What belongs to one object, by number."""

    bodies: list[int]
    joints: list[int]
    dofs: list[int]
    motors: list[int]

    def parts(self, features: Features, targets: Sequence[Target]) -> tuple[tuple[list[int], ...], Any]:
        """Its features, dofs and corrections; and its looks: what alike objects have in common."""
        mine = {"joint": self.joints, "ctrl": self.motors, "motor": self.motors, "act": self.motors}
        seen = [
            (i, (what, mine[what].index(number), word))
            for i, (what, number, word) in enumerate(features.origins)
            if number in mine.get(what, ())
        ]
        place = {"dof_damping": self.dofs, "actuator_gain": self.motors}
        corrected = [
            (i, (leaf, place[leaf].index(index[0])))
            for i, (leaf, index) in enumerate(targets)
            if index[0] in place[leaf]
        ]
        mounted = features.place or any(word == ".position" for _, (_, _, word) in seen)
        labels = tuple(label for _, label in seen), tuple(label for _, label in corrected)
        own = [i for i, _ in seen], self.dofs, [i for i, _ in corrected]
        return own, (*labels, *self._looks(features.scene.model, mounted=mounted))

    def _looks(self, model: Any, *, mounted: bool) -> tuple[Any, ...]:
        at = self.bodies.index
        parents = [int(model.body_parentid[b]) for b in self.bodies]
        geoms = [g for g in range(model.ngeom) if model.geom_bodyid[g] in self.bodies]
        equalities = [e for e in range(model.neq) if set(_ends(model, e)) & set(self.bodies)]
        places = [
            model.body_pos[b].tolist() if mounted or p in self.bodies else None
            for b, p in zip(self.bodies, parents, strict=True)
        ]
        local = lambda bodies: tuple(at(b) if b in self.bodies else -1 for b in bodies)  # noqa: E731
        return (
            local(parents),
            str(places),
            local(int(model.jnt_bodyid[j]) for j in self.joints),
            local(int(model.geom_bodyid[g]) for g in geoms),
            tuple(self.joints.index(int(model.actuator_trnid[i, 0])) for i in self.motors),
            tuple(local(_ends(model, e)) for e in equalities),
            _numbers(model, _BODY, self.bodies),
            _numbers(model, _JOINT, self.joints),
            _numbers(model, _DOF, self.dofs),
            _numbers(model, _GEOM, geoms),
            _numbers(model, _MOTOR, self.motors),
            _numbers(model, _EQUALITY, equalities),
        )


def _objects(features: Features) -> list[_Object]:
    """The objects of a scene, in the order of their first joints."""
    model, root = features.scene.model, features.tree.root
    group = {root[int(b)]: root[int(b)] for b in model.jnt_bodyid}
    for equality in range(model.neq):
        ends = {group[root[b]] for b in _ends(model, equality) if root[b] in group}
        group = {tree: min(ends) if to in ends else to for tree, to in group.items()}
    of = lambda body: group.get(root[int(body)])  # noqa: E731
    return [
        _Object(
            [b for b in range(1, model.nbody) if of(b) == number],
            [j for j in range(model.njnt) if of(model.jnt_bodyid[j]) == number],
            [d for d in range(model.nv) if of(model.dof_bodyid[d]) == number],
            [i for i in range(model.nu) if of(model.jnt_bodyid[model.actuator_trnid[i, 0]]) == number],
        )
        for number in dict.fromkeys(group.values())
    ]


def _ends(model: Any, equality: int) -> tuple[int, int]:
    """The two bodies of an equality."""
    ends = int(model.eq_obj1id[equality]), int(model.eq_obj2id[equality])
    return tuple(int(model.site_bodyid[i]) for i in ends) if model.eq_objtype[equality] == _SITE else ends  # type: ignore


def _numbers(model: Any, names: tuple[str, ...], rows: list[int]) -> tuple[Any, ...]:
    return tuple(tuple(np.ravel(getattr(model, name)[i]).tolist()) for name in names for i in rows)
