"""A controller of many bolts, a hundred commands a second: estimate, plan, command; all of it one compiled step.

    see    readings -> what is thought of each bolt now: poses, motor, q_snug, friction (tracking.py)
    plan   the commands of the next 160 ms (search.py); the first one is given, the rest is where the next search begins
    stop   at rest within `near` of F*: the motor is shut off; the thread holds by itself
    again  at rest too far, or a hair short (breaking loose turns a bolt by some mrad): back by some per cent, and once more
    trust  a filter that is surprised believes its residual less (hybridwm.estimate.watch)

Legend: W bolts, last.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.bolt.model import Bolted, Params, Turning
from experiments.bolt.rack import CONTROL_S
from experiments.bolt.search import PACE, PLANS, Goal, Pace, Plans, left_to_turn, search
from experiments.bolt.tracking import SENSED, USUAL, Belonging, Ways, first, force_std, snug_std, tracker
from hybridwm.estimate import Alternatives, Tracking, fresh_mismatch, watch

Array = jax.Array
FIRST, TURNING = 0.1, 0.1
"""Share of the torque that turns a loose bolt; rad/s from which on a bolt is said to turn."""
NEAR_SENSED, NEAR = 3e-3, 8.5e-4
"""Shares of F* that are near enough, by sensors and by one who sees everything."""


class Ends(NamedTuple):
    """When a bolt is left alone."""

    near: float  # share of F*
    hair: float = 8e-3  # rad: less than this cannot be turned by breaking loose
    back: float = 0.06  # share of F* that is given up for another approach
    rest: float = 0.02  # rad/s
    again_s: float = 0.45  # what another approach takes
    limit_s: float = 2.0  # the time there is


class Memory(NamedTuple):
    """What a controller remembers."""

    tracking: Tracking
    mismatch: Any
    trust: Array  # [W]
    plan: Array  # [H, W] commands that the last plan held, moved on by one
    going: Array  # [W] torque of the motor when the bolt last turned, as a share
    back: Array  # [W] 1 while it is turned back
    done: Array  # [W] 1 when it is left alone
    given: Array  # [] commands so far
    key: Array


class Told(NamedTuple):
    """What a controller thinks, for the record."""

    force: Array  # [W] N
    force_std: Array  # [W] N
    grip: Array  # [W]
    snug: Array  # [W]
    trust: Array  # [W]
    squared: Array  # [W]
    risk: Array  # [W] P(strip) of the plan in use
    work: Array  # [W]


class Parts(NamedTuple):
    """What a command consists of, for those who plan beside the clock."""

    see: Callable[..., tuple[Memory, Any]]
    """see(params, memory, reading, targets) -> (memory, what is thought now)."""
    plan: Callable[..., tuple[Array, Array]]
    """plan(params, memory, seen, targets, decided [D, W]) -> (commands [H, W] from D steps on, P(strip) [W])."""
    act: Callable[..., Memory]
    """act(params, memory, seen, ctrl [W]) -> memory."""


class Controller(NamedTuple):
    """Pure functions; `act` is compiled by whoever runs it."""

    begin: Callable[..., Any]
    """begin(params, targets [W], key, known: Belonging) -> memory."""
    act: Callable[..., tuple[Any, Array, Told]]
    """act(params, memory, reading [m, W], targets [W]) -> (memory, ctrl [W], told)."""
    parts: Parts | None = None


class Seen(NamedTuple):
    """What is thought of each bolt now."""

    state: Turning
    goal: Goal
    cov: Array
    squared: Array  # [W]


def mpc(
    bolted: Bolted, *, sensors: bool, ways: Ways | None = None, plans: Plans = PLANS, pace: Pace = PACE, events: bool = True,
    ends: Ends | None = None,
) -> Controller:  # fmt: skip
    """The receding horizon over the filter's mean."""
    ways = ways or (SENSED if sensors else USUAL)
    late, find = tracker(bolted, sensors=sensors, ways=ways), search(bolted, plans, pace, events=events)
    rule = ends or Ends(NEAR_SENSED if sensors else NEAR)

    def begin(params: Params, targets: Array, key: Array, known: Belonging) -> Memory:
        worlds = targets.shape[0]
        zero, plan, going = jnp.zeros(worlds), jnp.zeros((plans.horizon, worlds)), jnp.full(worlds, FIRST, float)
        start = late.init(*first(bolted, params, known, worlds))
        return Memory(start, fresh_mismatch(worlds), zero + 1, plan, going, zero, zero, jnp.zeros(()), key)

    def see(params: Params, memory: Memory, reading: Array, targets: Array) -> tuple[Memory, Seen]:
        tracking, now, innovation = late.see(params, memory.tracking, reading)
        mismatch, trust = watch(memory.mismatch, innovation._replace(squared=innovation.squared / ways.usual))
        state = now.mean._replace(trust=trust)
        state = state._replace(force=bolted.force(params, state))
        believed = trusting(tracking.belief, trust)
        going = jnp.where(jnp.abs(state.qvel[1]) > TURNING, jnp.abs(state.motor), memory.going)
        back, done = judged(rule, params, memory, state, targets)
        memory = memory._replace(tracking=tracking._replace(belief=believed), mismatch=mismatch, trust=trust, going=going,
                                 back=back, done=done)  # fmt: skip
        goal = Goal(targets * (1 - rule.back * back), 2 * snug_std(now.cov))
        return memory, Seen(state, goal, now.cov, innovation.squared)

    def plan(params: Params, memory: Memory, seen: Seen, targets: Array, decided: Array) -> tuple[Array, Array]:
        state, start = seen.state, memory.plan
        for ctrl in decided:
            state, start = bolted.step(params, state, ctrl[None])[0], onward(start)
        return find(params, jax.random.fold_in(memory.key, memory.given), state, seen.goal, memory.going, start)

    def settle(params: Params, memory: Memory, seen: Seen, ctrl: Array) -> Memory:
        return memory._replace(tracking=late.act(params, memory.tracking, ctrl[None]), given=memory.given + 1)

    def act(params: Params, memory: Memory, reading: Array, targets: Array) -> tuple[Memory, Array, Told]:
        memory, seen = see(params, memory, reading, targets)
        planned, risk = plan(params, memory, seen, targets, jnp.zeros((0, *targets.shape)))
        ctrl = planned[0] * (1 - memory.done)
        memory = settle(params, memory._replace(plan=onward(planned)), seen, ctrl)
        state = seen.state
        told = Told(
            state.force,
            force_std(params, seen.cov),
            state.grip,
            state.snug,
            memory.trust,
            seen.squared,
            risk,
            state.work,
        )
        return memory, ctrl, told

    return Controller(begin, act, Parts(see, plan, settle))


def trusting(belief: Any, trust: Array) -> Any:
    """The belief, its residual believed so far [W]; every one of `Alternatives`."""
    if isinstance(belief, Alternatives):
        return belief._replace(belief=trusting(belief.belief, jnp.tile(trust, len(belief.log_weight))))
    return belief._replace(mean=belief.mean._replace(trust=trust))


def onward(plan: Array) -> Array:
    """The plan a command later."""
    return jnp.concatenate([plan[1:], plan[-1:]])


def judged(rule: Ends, params: Params, memory: Memory, state: Turning, targets: Array) -> tuple[Array, Array]:
    """(turn back, left alone), each 1 or 0 [W]."""
    d = left_to_turn(params, state, Goal(targets, jnp.zeros_like(targets)))
    unit = targets * jnp.exp(-params.law.clamp)
    rest, near = jnp.abs(state.qvel[1]) < rule.rest, jnp.abs(d) < rule.near * unit
    done = (memory.done > 0) | (rest & near)
    time = memory.given * CONTROL_S < rule.limit_s - rule.again_s
    miss = rest & ~near & (d < rule.hair) & time
    back = (miss | (memory.back > 0)) & ~done & (d < 0.6 * rule.back * unit)
    return back.astype(d.dtype), done.astype(d.dtype)
