"""Planes, spheres, capsules: contacts and their frames as MuJoCo C finds them, to rounding."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from narrowphase import Pair, after, gap, turn

from physics import collision
from physics.collision import Geom

PLANE = "type='plane' size='1 1 1' pos='.1 .2 -.1' euler='20 -30 40'"
GEOMS = {
    "plane": (PLANE, (1.0, 1.0, 1.0)),
    "ball": ("type='sphere' size='.1'", (0.1,)),
    "pill": ("type='capsule' size='.05 .1'", (0.05, 0.1)),
    "rod": ("type='capsule' size='.03 .3'", (0.03, 0.3)),
    "brick": ("type='box' size='.1 .2 .3'", (0.1, 0.2, 0.3)),
    "cube": ("type='box' size='.1 .1 .1'", (0.1, 0.1, 0.1)),
}
KINDS = {"plane": "plane", "ball": "sphere", "pill": "capsule", "rod": "capsule", "brick": "box", "cube": "box"}


def worst_gap(one, two, places, margin=0.0):
    """Largest gap to MuJoCo C over places of geom 2 against geom 1, and its number of contacts in each."""
    pair = Pair(GEOMS[one][0], GEOMS[two][0], margin)
    seen = [pair.collide(q[7:] if one == "plane" else q, axes=2) for q in places]
    pos, rot = (np.stack([pose[k] for pose in seen], -1) for k in (0, 1))
    collide = getattr(collision, f"{KINDS[one]}_{KINDS[two]}")

    @jax.jit
    def found(pos, rot):
        geoms = (
            Geom(tuple(p), (tuple(r[0]), tuple(r[1]), tuple(r[2])), GEOMS[name][1])
            for p, r, name in zip(pos, rot, (one, two), strict=True)
        )
        rows = [(c.distance, *c.position, *c.frame[0], *c.frame[1]) for c in collide(*geoms, margin)]
        return jnp.stack([jnp.stack([x + 0 * pos[0, 0] for x in row]) for row in rows])

    ours = np.asarray(found(pos, rot))
    assert np.isfinite(ours).all()
    gaps = [gap([row for row in ours[:, :, w] if row[0] <= margin], theirs) for w, (_, _, theirs) in enumerate(seen)]
    return max(gaps), np.array([len(theirs) for _, _, theirs in seen])


def anyhow(count, reach, seed):
    """Two random orientations, the second geom anywhere within reach of the first."""
    rng = np.random.default_rng(seed)
    quat, at = rng.normal(size=(count, 2, 4)), rng.normal(size=(count, 3))
    at *= rng.uniform(0, reach, (count, 1)) / np.linalg.norm(at, axis=1, keepdims=True)
    return [np.r_[0, 0, 0, q[0], x, q[1]] for q, x in zip(quat, at, strict=True)]


PAIRS = [("plane", "ball"), ("plane", "pill"), ("plane", "brick"), ("ball", "ball"), ("ball", "rod"), ("ball", "brick")]
PAIRS += [("pill", "rod"), ("rod", "rod")]


@pytest.mark.parametrize("margin", [0.0, 0.05])
@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_random_poses_have_the_same_contacts(one, two, margin):
    worst, counts = worst_gap(one, two, anyhow(400, 0.45, 3), margin)
    assert 0 < (counts > 0).sum() < len(counts)
    assert worst < 1e-11


@pytest.mark.parametrize(("low", "high", "most"), [(-12, -4.01, 2), (-3.99, -2, 1)])
@pytest.mark.parametrize(("one", "two"), [("pill", "rod"), ("rod", "pill"), ("rod", "rod")])
def test_capsules_side_by_side(one, two, low, high, most):
    """Up to an angle of 1e-4 they count as parallel and touch at two points, wherever along each other they lie."""
    rng, places = np.random.default_rng(4), []
    for _ in range(300):
        first = rng.normal(size=4) / 2
        second = after(first / np.linalg.norm(first), turn([*rng.normal(size=2), 0], 10 ** rng.uniform(low, high)))
        second = after(second, turn([1, 0, 0], rng.choice([0, np.pi])))
        rot = Pair(GEOMS["ball"][0], GEOMS["ball"][0]).collide(np.r_[0, 0, 0, first, 1, 0, 0, second])[1][0]
        places.append(np.r_[0, 0, 0, first, rot @ [*rng.normal(size=2) * 0.03, rng.uniform(-0.6, 0.6)], second])
    worst, counts = worst_gap(one, two, places)
    assert set(counts) == {0, most}
    assert worst < 1e-11


def test_a_ball_inside_a_box_leaves_as_in_mujoco():
    """Ties of faces, edges and corners, and the very centre."""
    steps = (-0.12, -0.1, -0.05, -1e-12, 0.0, 1e-12, 0.05, 0.1, 0.1 + 1e-12)
    places = [np.r_[x, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0] for x in product(steps, repeat=3)]
    worst, counts = worst_gap("ball", "cube", places)
    assert set(counts) == {1}
    assert worst < 1e-14
