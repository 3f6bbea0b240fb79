"""MuJoCo C stepping a scene: the independent checker of every engine, and the body of `Reality`.

    x⁺ = Φ_C(x, u, w; θ)      solved to convergence, `substeps` times with dt / substeps, u and w held

Nothing resets by itself: a state that goes bad raises `Unstable` with MuJoCo's own words, or ends that one
world of a `rollout`. Bonds are released through `data.eq_active`. Contacts between their bodies follow the rule
of `physics.bonds`: while a bond holds, its two bodies stand in the model's sorted list of excluded pairs, which
MuJoCo reads anew at each step; while broken pieces still overlap, a step is cut in two and the distances are
shifted between the narrow phase and the constraint rows.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import ArrayLike

from physics.bonds import FAR, between, depth, forgive, pieces, quat_product, shift, weld_torque
from physics.recompile import Edit, recompile
from physics.scene import Scene
from physics.trajectories import Trajectories, Unstable, run
from physics.types import Params, State

_NO_PAIR = np.iinfo(np.int32).max  # sorts last in the list of excluded pairs, and names no bodies

ContactHook = Callable[[mujoco.MjModel, mujoco.MjData], None]  # edits `data.contact` before its rows are made


class Contacts(NamedTuple):
    """The nc contacts of one fine step."""

    bodies: np.ndarray  # [nc 2]
    geoms: np.ndarray  # [nc 2]
    position: np.ndarray  # [nc 3] m
    frame: np.ndarray  # [nc 3 3] rows: normal (from the first body to the second), two tangents
    impulse: np.ndarray  # [nc 3] N s along the rows of the frame, as felt by the second body


class Reference:
    """One world of a scene in MuJoCo C; `rollout` runs many on all cores."""

    def __init__(
        self, scene: Scene, *, params: Params | None = None, substeps: int = 1, edits: Sequence[Edit] = ()
    ) -> None:
        if substeps < 1:
            raise ValueError(f"substeps={substeps!r}: give a whole number of at least 1")
        self.scene, self.substeps = scene, substeps
        self.joined = pieces(scene.model, [bond.eq_id for bond in scene.bonds])
        self.model = recompile(scene, params, edits=(*edits, converge, self._exclude))
        self.dt = float(self.model.opt.timestep)  # s, one control step
        self.model.opt.timestep = self.dt / substeps
        self.data = mujoco.MjData(self.model)
        self._listed = self._listed_pairs()
        self.reset(*scene.home())

    def reset(
        self,
        qpos: ArrayLike,
        qvel: ArrayLike,
        intact: ArrayLike | None = None,
        *,
        act: ArrayLike | None = None,
        apart: ArrayLike | None = None,
    ) -> None:
        """Stand at qpos [nq], qvel [nv], time 0; bonds are as the scene has them unless intact [nb] is given."""
        model, data = self.model, self.data
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = checked(qpos, "qpos", model.nq), checked(qvel, "qvel", model.nv)
        if act is not None:
            data.act[:] = checked(act, "act", model.na)
        nb = len(self.scene.bonds)
        self.apart = np.full(nb, FAR) if apart is None else np.array(checked(apart, "apart", nb))
        default = np.array([float(bond.intact) for bond in self.scene.bonds])
        self._hold(default if intact is None else np.array(checked(intact, "intact", nb)))

    def release(self, bond: int) -> None:
        """Break one bond, for good (until the next reset)."""
        self._hold(np.where(np.arange(len(self.intact)) == bond, 0.0, self.intact))

    def step(self, ctrl: ArrayLike, *, force: ArrayLike | None = None, wrench: ArrayLike | None = None) -> State:
        """One control step: ctrl [nu], a generalized force [nv], a wrench [B 6] on the centres of mass are held."""
        model, data = self.model, self.data
        data.ctrl[:] = checked(ctrl, "ctrl", model.nu)
        data.qfrc_applied[:] = 0.0 if force is None else checked(force, "force", model.nv)
        data.xfrc_applied[:] = (
            0.0 if wrench is None else checked(np.reshape(wrench, -1), "wrench", 6 * model.nbody).reshape(-1, 6)
        )
        with quiet():
            for _ in range(self.substeps):
                self.fine_step()
        return self.state()

    def rollout(
        self,
        qpos: ArrayLike,
        qvel: ArrayLike,
        ctrl: ArrayLike,
        intact: ArrayLike | None = None,
        *,
        force: ArrayLike | None = None,
    ) -> Trajectories:
        """Open loop from qpos [nq W], qvel [nv W] under ctrl [H nu W] and generalized force [H nv W].

        No bond breaks on the way. W may be missing where all worlds agree. A world that goes bad stands still from
        there (`Trajectories.steps`). The state of this object is lost.
        """
        given = {"qpos": qpos, "qvel": qvel, "ctrl": ctrl, "intact": self.intact if intact is None else intact}
        arrays = _aligned(given | {"force": np.zeros((0, self.model.nv)) if force is None else force}, self)
        with quiet():
            return run(self, *arrays)

    def measure(self) -> bool:
        """Measure how deep the pieces of broken bonds overlap now; whether any do."""
        if self._measuring:
            mujoco.mj_fwdPosition(self.model, self.data)
            self._forgive_overlap()
        return self._measuring

    def fine_step(self, hook: ContactHook | None = None) -> None:
        """dt / substeps with the control and force that stand in `data`."""
        if hook is None and not self._measuring:
            mujoco.mj_step(self.model, self.data)
        else:
            self._cut_step(hook)
        if self.data.warning.number.any():
            self._raise_warning()

    def state(self) -> State:
        """The state as numpy, in the engines' words."""
        d = self.data
        fields = (d.qpos, d.qvel, d.act, self.intact, self.apart, d.qacc_warmstart, np.array(d.time))
        return State(*(field.copy() for field in fields))  # type: ignore[arg-type]

    def bond_load(self) -> np.ndarray:
        """[nb 6] force (N), torque (N m) of each bond in the last fine step: on its second body, at its anchor."""
        if self._rows is None:
            ids = self.data.efc_id[: self.data.ne].tolist()
            self._rows = [ids.index(eq) if eq in ids else None for eq in self.joined.eq]
        load = [[0.0] * 6 if row is None else self._load(bond, row) for bond, row in enumerate(self._rows)]
        return np.array(load).reshape(-1, 6)

    def contacts(self) -> Contacts:
        """The contacts of the last fine step."""
        found, force = self.data.contact, np.zeros((self.data.ncon, 6))
        for i in range(self.data.ncon):
            mujoco.mj_contactForce(self.model, self.data, i, force[i])
        geoms = found.geom.reshape(-1, 2).copy()
        frame = found.frame.reshape(-1, 3, 3).copy()
        impulse = force[:, :3] * self.model.opt.timestep
        return Contacts(self.model.geom_bodyid[geoms], geoms, found.pos.reshape(-1, 3).copy(), frame, impulse)

    def _cut_step(self, hook: ContactHook | None) -> None:
        model, data = self.model, self.data
        mujoco.mj_step1(model, data)
        if self._measuring:
            self._forgive_overlap()
        if hook is not None:
            hook(model, data)
        mujoco.mj_makeConstraint(model, data)
        if not model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_ISLAND:
            mujoco.mj_island(model, data)
        mujoco.mj_projectConstraint(model, data)
        mujoco.mj_referenceConstraint(model, data)
        mujoco.mj_step2(model, data)

    def _forgive_overlap(self) -> None:
        found = self.data.contact
        bodies = self.model.geom_bodyid[found.geom.reshape(-1, 2)]
        mine = between(self.joined.bodies, bodies[:, 0], bodies[:, 1])
        r = found.dist - found.includemargin
        self.apart = forgive(self.intact, self.apart, depth(mine, r, xp=np), xp=np)
        found.dist[:] += shift(mine, self.apart, xp=np)
        gone = mine.any(0) & (found.dist >= found.includemargin)
        found.exclude[gone], found.efc_address[gone] = 1, -1  # or its force is read from rows that are not its own
        self._measuring = self._unsettled()

    def _unsettled(self) -> bool:
        """Whether some contacts must be shifted: pieces may still overlap, or a listed <pair> escapes the exclusion."""
        return self._listed or bool(((self.intact == 0) & (self.apart > 0)).any())

    def _load(self, bond: int, row: int) -> list[float]:
        model, data, eq = self.model, self.data, self.joined.eq[bond]
        if not self.joined.weld[bond]:
            return [*(-data.efc_force[row : row + 3]), 0.0, 0.0, 0.0]
        f = data.efc_force[row : row + 6].tolist()
        q1, q2 = (data.xquat[body].tolist() for body in self.joined.bodies[bond])
        if self.joined.by_site[bond]:
            q1 = quat_product(q1, model.site_quat[model.eq_obj1id[eq]].tolist())
            q2 = quat_product(q2, model.site_quat[model.eq_obj2id[eq]].tolist())
        else:
            q1 = quat_product(q1, model.eq_data[eq, 6:10].tolist())
        return [-f[0], -f[1], -f[2], *weld_torque(f[3:], q1, q2, float(model.eq_data[eq, 10]))]

    def _hold(self, intact: np.ndarray) -> None:
        """Let exactly these bonds hold, and keep their pairs of bodies out of the narrow phase."""
        self.intact = intact
        self.apart = np.where(intact > 0.5, FAR, self.apart)
        self.data.eq_active[self.joined.eq] = intact > 0.5
        self.model.exclude_signature[:] = self.excluded(intact)
        self._rows: list[int | None] | None = None
        self._measuring = self._unsettled()

    def excluded(self, intact: np.ndarray) -> np.ndarray:
        """[nexclude] MuJoCo's sorted list of excluded pairs of bodies while these bonds hold."""
        held = {_signature(*pair) for pair, hold in zip(self.joined.bodies.tolist(), intact, strict=True) if hold}
        out = sorted(held | set(self.scene.model.exclude_signature.tolist()))
        return np.array(out + [_NO_PAIR] * (self.model.nexclude - len(out)), np.int32)

    def _listed_pairs(self) -> bool:
        """Whether a <pair> joins geoms of two bonded bodies: MuJoCo's exclusion does not reach those."""
        bodies = self.model.geom_bodyid
        both = bodies[self.model.pair_geom1], bodies[self.model.pair_geom2]
        return bool(between(self.joined.bodies, *both).any())

    def _exclude(self, spec: mujoco.MjSpec) -> None:
        """Make room in the list of excluded pairs for every bond's bodies."""
        bodies = list(spec.bodies)
        known = set(self.scene.model.exclude_signature.tolist())
        for signature, (one, two) in {_signature(*pair): pair for pair in self.joined.bodies.tolist()}.items():
            if signature not in known:
                for body in (bodies[one], bodies[two]):
                    body.name = body.name or f"body{body.id}"
                spec.add_exclude(bodyname1=bodies[one].name, bodyname2=bodies[two].name)

    def _raise_warning(self) -> None:
        kinds = [kind for kind in range(mujoco.mjtWarning.mjNWARNING) if self.data.warning[kind].number]
        said = "; ".join(mujoco.mju_warningText(kind, self.data.warning[kind].lastinfo) for kind in kinds)
        raise Unstable(f"scene {self.scene.name!r} at t = {self.data.time:.4f} s: {said}")


def converge(spec: mujoco.MjSpec) -> None:
    """Solve to convergence, and never reset by itself."""
    spec.option.iterations, spec.option.tolerance = 100, 1e-12
    spec.option.ls_iterations, spec.option.ls_tolerance = 50, 1e-6
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET


@contextmanager
def quiet() -> Iterator[None]:
    """Keep MuJoCo's warnings off the terminal and out of its log file; they are read from `data.warning`."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def checked(values: ArrayLike, name: str, size: int) -> np.ndarray:
    """`values` as float64 [size], or one sentence about what is wrong."""
    array = np.asarray(values, float)
    if array.shape != (size,):
        raise ValueError(f"{name} has shape {array.shape}; this scene needs ({size},)")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}[{int(np.flatnonzero(~np.isfinite(array))[0])}] is not finite")
    return array


def _aligned(given: dict[str, ArrayLike], reference: Reference) -> list[np.ndarray]:
    """Every input with its worlds axis, checked."""
    model, nb = reference.model, len(reference.intact)
    needs = {"qpos": (model.nq,), "qvel": (model.nv,), "ctrl": (-1, model.nu), "intact": (nb,), "force": (-1, model.nv)}
    arrays = {name: np.asarray(value, float) for name, value in given.items()}
    arrays = {name: a[..., None] if a.ndim == len(needs[name]) else a for name, a in arrays.items()}
    worlds = max(a.shape[-1] for a in arrays.values())
    for name, a in arrays.items():
        need = tuple(have if want < 0 else want for want, have in zip(needs[name], a.shape, strict=False))
        if a.shape not in {(*need, 1), (*need, worlds)}:
            raise ValueError(f"{name} has shape {a.shape}; this scene needs {need} or {(*need, worlds)}")
        if not np.isfinite(a).all():
            raise ValueError(f"{name} holds a number that is not finite")
    if len(arrays["force"]) not in (0, len(arrays["ctrl"])):
        raise ValueError(f"force has {len(arrays['force'])} steps, ctrl has {len(arrays['ctrl'])}")
    return [np.broadcast_to(a, (*a.shape[:-1], worlds)) for a in arrays.values()]


def _signature(body1: int, body2: int) -> int:
    """How MuJoCo names a pair of bodies in its list of excluded ones."""
    return (min(body1, body2) << 16) + max(body1, body2)
