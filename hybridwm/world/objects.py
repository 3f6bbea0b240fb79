"""Which parts of a scene are objects by themselves, and which are alike: what is learned of one then holds for all of its kind.

    object    trees of bodies joined by bonds; it has the features of its own joints and motors, and those that belong to nothing
    alike     the same joints, shapes, masses, motors and features, in the same order
    y_o       = N_k(z_o)          one network N_k for each kind k, asked once for each of its objects o

Legend: n objects of a kind, F features and O outputs of each.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hybridwm.world.features import Features


class Kind(NamedTuple):
    """Alike objects: which features each sees, which dofs and which corrections of θ are its own."""

    features: np.ndarray  # [n, F]
    dofs: np.ndarray  # [n, D]
    targets: np.ndarray  # [n, C]


def kinds(features: Features, targets: Sequence[tuple[str, tuple[int, ...]]], *, apart: bool) -> tuple[Kind, ...]:
    """The kinds of a scene, in the order of their first objects; one that is the whole scene where nothing stands `apart`.

    targets: (leaf of θ, index) of every correction, see residual.py.
    """
    model = features.scene.model
    count = len(features.names)
    if not apart:
        return (Kind(*(np.arange(n)[None] for n in (count, model.nv, len(targets)))),)
    group = _objects(features)
    owner = np.array([group.get(root, -1) for root in features.owners], int)
    dofs = np.array([group[features.tree.root[int(b)]] for b in model.dof_bodyid], int)
    target = np.array([_owner(features, group, *one) for one in targets], int)
    alike: dict[Any, list[tuple[np.ndarray, ...]]] = {}
    for number in dict.fromkeys(dofs.tolist()):
        own = (
            np.flatnonzero((owner == number) | (owner == -1)),
            np.flatnonzero(dofs == number),
            np.flatnonzero(target == number),
        )
        alike.setdefault((_looks(features, group, number), *map(len, own)), []).append(own)
    return tuple(Kind(*(np.stack(x) for x in zip(*each, strict=True))) for each in alike.values())


def pooled(kinds: Sequence[Kind], values: np.ndarray, part: str = "features") -> np.ndarray:
    """Numbers, one for each feature (or dof), in whose place alike objects have their mean."""
    out = values.copy()
    for kind in kinds:
        index = getattr(kind, part)
        out[index] = values[index].mean(0)
    return out


def _objects(features: Features) -> dict[int, int]:
    """The object of each tree, by the roots of both; of several joined by bonds it is the least root."""
    tree, scene = features.tree, features.scene
    group = {tree.root[int(b)]: tree.root[int(b)] for b in scene.model.jnt_bodyid}
    for bond in scene.bonds:
        ends = [group.get(tree.root[b]) for b in (bond.body1, bond.body2)]
        if None not in ends:
            first, last = sorted(x for x in ends if x is not None)
            group = {root: first if to == last else to for root, to in group.items()}
    return group


def _owner(features: Features, group: dict[int, int], leaf: str, index: tuple[int, ...]) -> int:
    """The object of an entry of θ."""
    model = features.scene.model
    dof = index[0] if leaf == "dof_damping" else int(model.jnt_dofadr[model.actuator_trnid[index[0], 0]])
    return group[features.tree.root[int(model.dof_bodyid[dof])]]


def _looks(features: Features, group: dict[int, int], number: int) -> tuple[Any, ...]:
    """What alike objects have in common, as something to compare."""
    model, tree = features.scene.model, features.tree
    bodies = [b for b in range(1, model.nbody) if group.get(tree.root[b]) == number]
    place = {b: i for i, b in enumerate(bodies)}
    joints = [j for j in range(model.njnt) if int(model.jnt_bodyid[j]) in place]
    geoms = [g for g in range(model.ngeom) if int(model.geom_bodyid[g]) in place]
    return (
        *((place.get(tree.parent[b], -1), float(model.body_mass[b]), *model.body_inertia[b].tolist()) for b in bodies),
        *((place[int(model.jnt_bodyid[j])], int(model.jnt_type[j]), *model.jnt_axis[j].tolist()) for j in joints),
        *((place[int(model.geom_bodyid[g])], int(model.geom_type[g]), *model.geom_size[g].tolist()) for g in geoms),
    )
