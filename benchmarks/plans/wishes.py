"""The two problems of the peers, written once for every array library and free of all but numpy.

    J = Σ_t dt ℓ(x_{t+1}, u_t) + ℓ_H(x_H)

push-T      ℓ = |p|² + 0.0005² + θ² + 0.01 |p − s − (0, 0.1)|²      p, θ the block's place and turn, s the pusher
cart-pole   ℓ = d + x² + 0.01 (ẋ² + φ̇²) + 0.01 u²,  d = (cos(φ+π) − 1)² + sin(φ+π)²      ℓ_H = 10 d + …

These are the costs that hydrax ships with its examples `pusht` and `cart_pole`; sizes and noise are the examples' too.
Coordinates stand first: qpos [nq …], qvel [nv …], ctrl [nu …].
"""

from typing import Any, NamedTuple


class Wish(NamedTuple):
    """One problem of the peers."""

    folder: str
    """Of the scene, in hydrax's models."""
    samples: int
    steps: int
    knots: int
    curve: str
    """hydrax's word: zero, linear, cubic."""
    noise: float
    """Standard deviation as a share of half the control range."""
    start: tuple[float, ...]
    """qpos."""
    nv: int
    dt: float
    rounds: int
    """Of the search whose cost is followed in time."""


WISHES = {
    "push_t": Wish("pusht", 128, 50, 6, "zero", 0.4, (0.1, 0.1, 1.3, 0.0, 0.0), 5, 0.01, 40),
    "cart_pole": Wish("cart_pole", 128, 100, 4, "cubic", 0.3, (0.0, 0.0), 2, 0.01, 40),
}


def running(name: str, xp: Any, qpos: Any, qvel: Any, ctrl: Any) -> Any:
    """ℓ, without dt."""
    if name == "push_t":
        place, turn, pusher = qpos[:2], xp.arctan2(xp.sin(qpos[2]), xp.cos(qpos[2])), qpos[3:5]
        apart = (place[0] - pusher[0]) ** 2 + (place[1] - pusher[1] - 0.1) ** 2
        return place[0] ** 2 + place[1] ** 2 + 0.0005**2 + turn**2 + 0.01 * apart
    effort = 0.01 * ctrl[0] ** 2
    return _upright(xp, qpos) + qpos[0] ** 2 + 0.01 * (qvel[0] ** 2 + qvel[1] ** 2) + effort


def terminal(name: str, xp: Any, qpos: Any, qvel: Any) -> Any:
    """ℓ_H."""
    if name == "push_t":
        return running(name, xp, qpos, qvel, None)
    return 10 * _upright(xp, qpos) + qpos[0] ** 2 + 0.01 * (qvel[0] ** 2 + qvel[1] ** 2)


def _upright(xp: Any, qpos: Any) -> Any:
    return (xp.cos(qpos[1] + xp.pi) - 1) ** 2 + xp.sin(qpos[1] + xp.pi) ** 2


def total(name: str, xp: Any, qpos: Any, qvel: Any, ctrl: Any) -> Any:
    """J of paths: qpos [nq … H], qvel [nv … H] after each step, ctrl [nu … H]; the sum runs over the last axis."""
    along = running(name, xp, qpos, qvel, ctrl)
    return WISHES[name].dt * along.sum(-1) + terminal(name, xp, qpos[..., -1], qvel[..., -1])
