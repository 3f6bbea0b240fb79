"""What flows through a step: the state of the worlds, the parameters θ, and what a step reports.

Structure first, worlds last: `qpos` is [nq] for one world and [nq, W] for W worlds; every function broadcasts over W.
Legend: nq, nv coordinates and dofs, na activations, nu controls, nb bonds, nc contact slots, B bodies, G geoms.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array


class Params(NamedTuple):
    """θ: the physical quantities that may vary. Values may be traced; a numpy leaf is folded into the program."""

    body_mass: Any  # [B] kg
    body_inertia: Any  # [B, 3] kg m², principal moments in the inertial frame
    body_ipos: Any  # [B, 3] m, centre of mass in the body frame
    dof_damping: Any  # [nv] N s/m or N m s/rad
    dof_armature: Any  # [nv] kg or kg m²
    dof_frictionloss: Any  # [nv] N or N m, the most that dry friction holds or brakes with
    geom_friction: Any  # [G, 3] sliding, torsional, rolling
    geom_solref: Any  # [G, 2] time constant and damping ratio, or −stiffness and −damping
    geom_size: Any  # [G, 3] m, used for contacts only: masses do not follow
    actuator_gain: Any  # [nu] factor on each actuator's force, 1 as modelled
    gravity: Any  # [3] m/s²
    bond_strength: Any  # [nb, 2] N and N m at which a bond is said to break (read by event models, not by the engine)


PARAMS_NDIM = Params(
    1, 2, 2, 1, 1, 1, 2, 2, 2, 1, 1, 2
)  # axes of structure of each leaf; one more means a value per world


class State(NamedTuple):
    """One instant of W worlds."""

    qpos: Array  # [nq, W]
    qvel: Array  # [nv, W]
    act: Array  # [na, W] actuator activation
    intact: Array  # [nb, W] 1 while a bond holds, 0 for ever after
    apart: Array  # [nb, W] m, how much further apart than they are its two bodies look to the contacts (see bonds.py)
    warmstart: Array  # [nv, W] last acceleration, where the solver begins
    time: Array  # [W] s


class Info(NamedTuple):
    """What a step reports beside the next state. Contacts fill fixed slots; an idle slot has zero impulse."""

    qacc: Array  # [nv, W] acceleration of the step
    contact_distance: Array  # [nc, W] m, negative inside
    contact_position: Array  # [nc, 3, W] m
    contact_frame: Array  # [nc, 3, 3, W] rows: normal (from the first body to the second), two tangents
    contact_impulse: Array  # [nc, 3, W] N s along the rows of the frame, as felt by the second body
    bond_load: Array  # [nb, 6, W] force (N) and torque (N m) that the bond exerts on its second body, world frame, at its anchor
    iterations: Array  # [W] Newton iterations of the batch
    residual: Array  # [W] norm of the solver's gradient over the norm of the forces


class Engine(NamedTuple):
    """A physics engine: pure functions over trailing worlds."""

    init: Callable[..., State]  # (params, qpos, qvel) -> State
    step: Callable[..., tuple[State, Info]]
    """(params, state, ctrl, force=, wrench=) -> (State, Info). Our own engine also takes grip=: a function from positions of
    contacts with what cannot move [k, 3, W] to factors on their friction [k, W]."""
    rollout: Callable[..., tuple[State, Any]]  # (params, state, ctrl[H, nu, W], ...) -> (last State, trajectory)
    prepare: Callable[
        ..., Any
    ]  # params -> constants: everything derived from θ, computed once and accepted as `params`
    contact_bodies: tuple[tuple[int, int], ...]  # [nc] the two bodies of each contact slot
    scene: Any
