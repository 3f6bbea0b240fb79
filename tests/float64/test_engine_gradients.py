"""Gradients of rollouts in contact against central differences in float64, and never a NaN.

    f(θ, q, q̇, u) = Σ a·q + b·q̇ + ½ |q̇|² at the end of ten steps, a and b random

Differences are taken along random directions of each input with two widths. Where the two disagree a contact switched
on the way and nothing is compared; that may befall one direction in five.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import side_by_side as side
from test_engine_exact import STARTING, TOUCH_NOTHING, scene_of

from physics.engine import brax_engine
from physics.params import nominal
from physics.scene import load_scene, shipped_scenes
from physics.types import PARAMS_NDIM, Params

STEPS, STARTS, DIRECTIONS, STATES = 10, 3, 2, 1000
BEFORE, LONGER = 60, {"falling_box": 100, "thrown_cube": 170}  # steps until something touches something
WIDTHS = (1e-6, 4e-6)
RELATIVE = 1e-3
THETA = [name for name in Params._fields if name != "bond_strength"]
BLOCKS = ("qpos", "qvel", "ctrl", *THETA)

# The least that has everything: a ball on the floor, a pusher with limits, damping and a motor.
BALL = """<mujoco model="ball"><option timestep="0.004" CONE/>
<worldbody><geom type="plane" size="3 3 1"/>
<body pos="0 0 .05"><freejoint/><geom type="sphere" size=".05" mass="1" contype="3" conaffinity="3"/></body>
<body pos="-.099 .01 .06"><joint name="x" type="slide" axis="1 0 0" limited="true" range="-1 .01" damping="1" frictionloss=".6"/>
<geom type="sphere" size=".05" mass=".5" contype="2" conaffinity="2"/></body></worldbody>
<actuator><motor joint="x" gear="5" ctrllimited="true" ctrlrange="-3 3"/></actuator></mujoco>"""


def scene_named(name, cone):
    return load_scene(BALL.replace("CONE", f'cone="{cone}"')) if name == "ball" else scene_of(name, cone)


def theta_of(scene):
    """Near nominal, with no ties: of two equal frictions the larger is not differentiable, nor solref at its floor."""
    theta = nominal(scene)
    apart = 1 + 0.1 * np.arange(scene.model.ngeom)[:, None]
    return theta._replace(geom_friction=theta.geom_friction * apart, geom_solref=theta.geom_solref * 1.3)


class Inputs:
    """∂f of a scene both ways, each compiled once; inputs is a dict with the names of BLOCKS, worlds last."""

    def __init__(self, scene):
        self.scene, engine = scene, brax_engine(scene)
        rng = np.random.default_rng(3)
        a, b = (rng.normal(size=(n, 1)) for n in (scene.model.nq, scene.model.nv))
        strength = nominal(scene).bond_strength

        def value(inputs, intact):
            theta = Params(**{name: inputs[name] for name in THETA}, bond_strength=strength)
            state = engine.init(theta, inputs["qpos"], inputs["qvel"], intact=intact)
            last, _ = engine.rollout(theta, state, inputs["ctrl"])
            return jnp.sum(a * last.qpos, 0) + jnp.sum(b * last.qvel, 0) + 0.5 * jnp.sum(last.qvel**2, 0)

        self.reverse = jax.jit(jax.grad(lambda x, intact: jnp.sum(value(x, intact))))
        self.forward = jax.jit(lambda x, dx, intact: jax.jvp(lambda x: value(x, intact), (x,), (dx,)))


@functools.cache
def inputs_of(name, cone):
    return Inputs(scene_named(name, cone))


def starts(scene, name):
    """[STARTS] moving states in contact, with controls: where MuJoCo C is a little later."""
    options, before = STARTING.get(name, {"spread": 0.01, "speed": 0.5}), LONGER.get(name, BEFORE)
    given = side.worlds(scene, STARTS, horizon=before + STEPS, seed=4, effort=0.6, **options)
    given.intact[:, -1] = 0.0
    path, _ = side.mujoco_path(scene, given._replace(ctrl=given.ctrl[:before]))
    state = {"qpos": path.qpos[-1], "qvel": path.qvel[-1], "ctrl": given.ctrl[before:]}
    return state | worlds_of(theta_of(scene), STARTS), given.intact


def worlds_of(theta, count):
    return {name: np.repeat(np.asarray(getattr(theta, name))[..., None], count, -1) for name in THETA}


def directions(inputs, rng):
    """One random direction per block and repetition: changes of a natural size."""
    for block in BLOCKS:
        for _ in range(DIRECTIONS):
            x = inputs[block]
            size = 0.1 * np.abs(x) if block in THETA else np.full(x.shape, 0.1)
            if block in ("body_ipos", "dof_damping", "dof_armature"):
                size = np.full(x.shape, 0.01)
            yield block, size * rng.normal(size=x.shape)


CASES = [("ball", "elliptic"), ("ball", "pyramidal")]
CASES += [(name, "pyramidal") for name in (*shipped_scenes(), "zoo")]
CASES += [(name, "elliptic") for name in (*shipped_scenes(), "zoo") if name not in TOUCH_NOTHING]
CASES = [pytest.param(*case, id="-".join(case), marks=pytest.mark.slow if i else ()) for i, case in enumerate(CASES)]


class Compared:
    """The slopes of f along random directions of every input at the starts, by central differences."""

    def __init__(self, name, cone):
        made = self.made = inputs_of(name, cone)
        self.at, self.intact = starts(made.scene, name)
        self.ways = list(directions(self.at, np.random.default_rng(5)))
        self.differences, other = map(self.along, WIDTHS)
        self.scale = np.maximum(np.abs(self.differences), 1e-2 * np.abs(self.differences).max(1, keepdims=True))
        self.smooth = np.abs(self.differences - other) <= 0.1 * RELATIVE * self.scale + 1e-8
        assert self.smooth.mean() > 0.8
        rows = zip(self.ways, self.differences, strict=True)
        assert {"qpos", "qvel", "body_mass"} <= {block for (block, _), row in rows if np.abs(row).max() > 1e-6}

    def along(self, width):
        """[ways STARTS] central differences, all evaluated as worlds."""
        signed = [(block, s * width * way) for block, way in self.ways for s in (1, -1)]
        values, _ = self.forward(signed, [(None, None)] * len(signed))
        return (values[0::2] - values[1::2]) / (2 * width)

    def forward(self, moved, ways):
        """f at the starts `moved` one way after the other, and its slopes along `ways`: each [moved STARTS]."""
        more = 2 * len(self.ways) - len(moved)  # as many worlds in every call
        moved, ways = ([*x, *[(None, None)] * more] for x in (moved, ways))
        intact = np.tile(self.intact, len(moved))
        found = self.made.forward(self.moved(moved), self.moved(ways, zero=True), intact)
        return [np.asarray(x).reshape(len(moved), STARTS)[: len(moved) - more] for x in found]

    def moved(self, ways, *, zero=False):
        """Inputs whose worlds are the starts, moved along one way after the other; or the ways alone."""
        base = {b: 0 * x if zero else x for b, x in self.at.items()}
        return {b: np.concatenate([x + way if b == block else x for block, way in ways], -1) for b, x in base.items()}

    def check(self, found):
        """All of `found` [ways STARTS] within the tolerance of the differences."""
        worst = np.where(self.smooth, np.abs(found - self.differences) / (RELATIVE * self.scale + 1e-7), 0)
        blame = {block: float(row.max().round(3)) for (block, _), row in zip(self.ways, worst, strict=True)}
        assert worst.max() < 1, f"differences in units of the tolerance, by input: {blame}"


compared = functools.cache(Compared)


def padded(x):
    """Worlds repeated up to STATES, so that one compiled gradient serves all tests."""
    return np.concatenate([x, np.repeat(x[..., -1:], STATES - x.shape[-1], -1)], -1)


@pytest.mark.parametrize(("name", "cone"), CASES)
def test_reverse_mode_agrees_with_differences(name, cone):
    case = compared(name, cone)
    slope = case.made.reverse({b: padded(x) for b, x in case.at.items()}, padded(case.intact))
    slope = {b: np.asarray(x)[..., :STARTS] for b, x in slope.items()}
    case.check(np.array([np.sum(slope[b] * way, axis=tuple(range(way.ndim - 1))) for b, way in case.ways]))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cone"), CASES)
def test_forward_mode_agrees_with_differences(name, cone):
    case = compared(name, cone)
    _, slope = case.forward([(None, None)] * len(case.ways), case.ways)
    case.check(slope)


def states(scene, count):
    """Random states of eight kinds: at rest, touching, sunk in, aligned, without slip, all at one point, flying."""
    model, rng = scene.model, np.random.default_rng(6)
    home, rest = scene.home()
    given = side.worlds(scene, count, horizon=STEPS, seed=7, spread=0.5, speed=2.0)
    qpos, qvel, kinds = given.qpos, given.qvel, np.arange(count) % 8
    free = [int(a) for a, kind in zip(model.jnt_qposadr, model.jnt_type, strict=True) if kind == 0]
    qpos[:, kinds == 0], qvel[:, kinds == 0] = home[:, None], 0.0
    qvel[:, kinds == 1] = 0.0
    for adr in free:
        body = int(model.jnt_bodyid[np.flatnonzero(model.jnt_qposadr == adr)[0]])
        geom = int(model.body_geomadr[body])
        size = model.geom_size[geom, [2, 0][int(model.geom_type[geom] == 2)]]
        aligned = (kinds >= 2) & (kinds <= 6)
        qpos[adr : adr + 3, aligned] = home[adr : adr + 3, None]
        qpos[adr + 3 : adr + 7, aligned] = np.eye(4)[:, :1]
        qpos[adr + 2, kinds == 2] = qpos[adr + 2, kinds == 3] = size  # exactly touching
        qpos[adr + 2, kinds == 4] = 0.5 * size  # half under the floor
        qpos[adr : adr + 3, kinds == 5] = 0.0  # all at one point
        qpos[adr + 2, kinds == 6] = size + rng.uniform(-1e-7, 1e-7)
    qvel[:, (kinds == 2) | (kinds == 5) | (kinds == 6)] = 0.0
    qvel[:, kinds == 3] = rest[:, None]
    return {"qpos": qpos, "qvel": qvel, "ctrl": given.ctrl} | worlds_of(nominal(scene), count), given.intact


@pytest.mark.parametrize(("name", "cone"), CASES)
def test_no_nan_in_a_thousand_states(name, cone):
    made = inputs_of(name, cone)
    at, intact = states(made.scene, STATES)
    intact[:, ::3] = 0.0
    for block, x in made.reverse(at, intact).items():
        bad = np.unique(np.nonzero(~np.isfinite(np.asarray(x)))[-1])
        assert not bad.size, f"d/d{block} in {bad.size} worlds of kinds {sorted(set((bad % 8).tolist()))}"


@pytest.mark.slow
def test_worlds_have_their_own_gradients():
    """The gradient of a batch is that of a loop, and vmap over starts in front is the worlds axis."""
    made = inputs_of("ball", "elliptic")
    at, intact = starts(made.scene, "ball")
    batch = made.reverse(at, intact)
    one_by_one = jax.jit(lambda x, intact: jax.vmap(lambda x: made.reverse(x, intact[..., :1]))(x))
    front = one_by_one({b: np.moveaxis(x, -1, 0)[..., None] for b, x in at.items()}, np.ones_like(intact))
    for block in BLOCKS:
        scale = 1e-9 * max(1.0, np.abs(batch[block]).max())
        np.testing.assert_allclose(np.moveaxis(front[block][..., 0], 0, -1), batch[block], atol=scale, err_msg=block)


@pytest.mark.slow
def test_theta_shared_by_all_worlds_gathers_their_gradients():
    made = inputs_of("ball", "pyramidal")
    at, intact = starts(made.scene, "ball")
    shared = at | {name: at[name][..., 0] for name in THETA}
    total, each = made.reverse(shared, intact), made.reverse(at, intact)
    for name, ndim in zip(Params._fields, PARAMS_NDIM, strict=True):
        if name in THETA:
            assert total[name].ndim == ndim
            np.testing.assert_allclose(total[name], each[name].sum(-1), rtol=1e-8, atol=1e-9, err_msg=name)
