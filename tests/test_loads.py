"""Loads read along a log are those that the engine felt when the log was made, noise or not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import physics
from hybridwm.learning import loads
from hybridwm.logs import tangent
from hybridwm.logs.recordings import Dataset, Recording
from hybridwm.world import events
from hybridwm.world.model import WorldParams, body_of, world_model

H, W, BREAK = 120, 2, 90


@pytest.fixture(scope="module")
def logged():
    """Two episodes of the model itself, the bond of the second broken in step BREAK; the loads it felt; the same with noise."""
    scene = physics.load_scene("snapping_rod")
    model = world_model(physics.brax_engine(scene))
    params = WorldParams(theta=jax.tree.map(jnp.asarray, physics.nominal(scene)))
    qpos, qvel = (np.repeat(x[:, None], W, 1) for x in scene.home())
    ctrl = np.stack([np.sin(np.arange(H) / s)[:, None] for s in (15, 25)], -1)
    forced = np.zeros((H, 1, W), np.int8)
    forced[BREAK, 0, 1] = 1

    @jax.jit
    def run(params):
        def step(state, given):
            after, info = model.step(params, state, given[0], forced=given[1])
            felt = events.felt(model.spec, body_of(state), info.engine.bond_load)
            return after, (after.qpos, after.qvel, after.intact, felt)

        return jax.lax.scan(step, model.init(params, qpos, qvel), (jnp.asarray(ctrl), jnp.asarray(forced)))[1]

    q, v, intact, felt = (np.asarray(x, float) for x in run(params))
    whole = [np.concatenate([x[None], y]) for x, y in ((qpos, q), (qvel, v), (np.ones((1, W)), intact))]
    rng = np.random.default_rng(0)

    def dataset(noise):
        out = []
        for w in range(W):
            poses = np.stack(
                [tangent.advance(scene.model, x, rng.normal(0, noise, scene.model.nv)) for x in whole[0][..., w]]
            )
            speeds = whole[1][..., w] + rng.normal(0, noise * 10, (H + 1, scene.model.nv))
            out.append(Recording(f"e{w}", poses, speeds, ctrl[..., w], whole[2][..., w]))
        return Dataset(scene, 0.002, tuple(out), {})

    return model, params, felt, dataset


def test_loads_are_found_again(logged):
    model, params, felt, dataset = logged
    found = loads.replay(model, params, dataset(0.0), every=30)
    assert found.broke.tolist() == [[H, BREAK]]
    assert found.bonds.shape == (H, 1, 5, W)
    size = np.abs(felt).max((0, 1, 3))[None, None, :, None] + 1e-3
    assert (np.abs(found.bonds - felt)[:BREAK] / size).max() < 0.03
    assert found.bonds[BREAK + 1, 0, :, 1].any()  # held for one more step
    assert not found.bonds[BREAK + 2 :, 0, :, 1].any()


def test_no_load_vanishes_within_a_row_of_several_steps(logged):
    """A hazard that saw the load drop where the replay itself lets go would foretell breaks by that."""
    model, params, felt, dataset = logged
    whole = dataset(0.0)
    thin = [Recording(r.name, r.qpos[::2], r.qvel[::2], r.ctrl[::2], r.intact[::2]) for r in whole.recordings]
    found = loads.replay(model, params, whole._replace(dt=0.004, recordings=tuple(thin)), every=15)
    assert found.substeps == 2
    assert found.bonds.shape == felt.shape
    assert found.broke.tolist() == [[H, BREAK]]
    size = np.linalg.norm(found.bonds[BREAK - 10 :, 0, :3, 1], axis=1)
    held = size[:10].min()
    assert (size[: 10 + 4] > 0.5 * held).all()  # the row of the break and one more, both steps of each
    assert not size[10 + 4 :].any()


def test_noise_on_welded_poses_does_not_become_load(logged):
    """0.2 mm and mrad of noise: a spring as stiff as the weld would read some 10 N out of that alone."""
    model, params, felt, dataset = logged
    found = loads.replay(model, params, dataset(2e-4), every=30)
    force = lambda x: np.linalg.norm(x[:BREAK, 0, :3], axis=1)  # noqa: E731
    assert np.median(np.abs(force(found.bonds) - force(felt))) < 0.2


def test_bad_cuts_are_refused(logged):
    model, params, _, dataset = logged
    with pytest.raises(ValueError, match="every=0"):
        loads.replay(model, params, dataset(0.0), every=0)
