"""Events: hazards that rise with the load, luck that is spent once, bonds that stay broken, and declared jumps of θ."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import physics
from hybridwm.world import events, hazard
from hybridwm.world.events import Event, EventMemory, event_spec
from hybridwm.world.model import WorldParams, world_model

DT, W, H = 0.002, 3, 220
MEDIAN = float(np.log(2))


def learned(key, count=2, **changes):
    """Hazards as they may come out of a fit: every number moved from where it begins."""
    params = hazard.nominal_hazard(np.ones((count, 5)), 3)
    params = params._replace(weights=hazard.severity_weights(jax.random.key(key), count, 3, 3), **changes)
    params = params._replace(life=np.full(count, 1.0), slope=np.full(count, 2.0))
    leaves, tree = jax.tree.flatten(params)
    moved = [x + 0.3 * np.random.default_rng([key, i]).normal(size=np.shape(x)) for i, x in enumerate(leaves)]
    return jax.tree.unflatten(tree, [jnp.asarray(x, float) for x in moved])._replace(reference=np.ones((count, 5)))


@pytest.mark.parametrize("key", range(3))
def test_hazard_rises_with_every_load_and_with_damage(key):
    """By difference, at random parameters and places: a channel, the worst so far and the damage only add to Λ."""
    rng, params, n = np.random.default_rng(key), learned(key), 500
    draw = lambda low, high, *shape: jnp.asarray(rng.uniform(low, high, (2, *shape, n)))  # noqa: E731
    filtered, context, worst, damage, more = draw(0, 2, 3), draw(-2, 2, 3), draw(-2, 2), draw(0, 2), draw(0.01, 1)

    def rises(value, less):
        slack = 1e-5 * (1 + jnp.abs(less))  # rounding
        return bool((value >= less - slack).all()) and float(jnp.mean(value > less)) > 0.5

    judge = jax.jit(lambda x: hazard.judge(params, x, x, context, DT))
    assert all(rises(judge(filtered.at[:, k].add(more)), judge(filtered)) for k in range(3))
    score = jax.jit(lambda worst, damage: hazard.score(params, worst, damage))
    assert rises(score(worst + more, damage), score(worst, damage))
    assert bool((score(worst, damage + more) >= score(worst, damage) - 1e-5).all())
    assert rises(score(worst - 9, damage + more), score(worst - 9, damage))
    shares = jax.jit(lambda felt: hazard.shares(params, felt))
    felt = draw(0, 2, 5)
    assert all(rises(shares(felt.at[:, i].add(more)), shares(felt)) for i in range(5))


def test_filters_are_exact_and_impulse_is_kept():
    """A constant load is reached as 1 − e^{−t/τ}, however it is cut into steps; a blow leaves its impulse / τ."""
    params = learned(3, count=1)
    tau = hazard.SHORTEST_S + np.exp(np.asarray(params.delay, float))[0]
    load = np.asarray(hazard.shares(params, jnp.ones((1, 5))))[0]
    begin, push = hazard.untouched(1, 3, (), jnp.float32), jax.jit(hazard.advance, static_argnames="dt")
    for dt, steps in ((0.002, 30), (0.02, 3)):
        wear = begin
        for _ in range(steps):
            wear, _ = push(params, wear, jnp.ones((1, 5)), dt=dt)
        np.testing.assert_allclose(wear.filtered[0], load * (1 - np.exp(-0.06 / tau)), rtol=1e-5)
    blow, _ = push(params, begin, jnp.full((1, 5), 1e4), dt=1e-5)
    np.testing.assert_allclose(blow.filtered[0], load * 1e4 * 1e-5 / tau, rtol=2e-3)


def test_the_hazard_can_be_as_sharp_as_needed():
    """β = 400: at 5 % from the strength the chance is below 0.02 or above 0.98."""
    params = hazard.nominal_hazard(np.ones((1, 5)), 3)._replace(slope=np.log([400.0]))
    worst = jnp.log(jnp.array([[0.95, 0.99, 1.01, 1.05]]))
    chance = jax.nn.sigmoid(hazard.score(params, worst, jnp.zeros((1, 4))))[0]
    assert chance[0] < 1e-6
    assert 0.01 < chance[1] < 0.05
    assert 0.95 < chance[2] < 0.99
    assert chance[3] > 1 - 1e-6


GRIP = Event(
    name="slips",
    features=lambda theta, state, info, ctrl: jnp.stack([jnp.abs(state.qvel[0]), ctrl[0]]),
    rising=(True, False),
    effect=lambda theta, happened: theta._replace(
        actuator_gain=jnp.asarray(theta.actuator_gain)[:, None] * (1 - happened)
    ),
    limits=(4.0,),
)


@pytest.fixture(scope="module")
def rod():
    """The snapping rod, weak and strong motors: one compiled rollout for all of these tests."""
    scene = physics.load_scene("snapping_rod")
    model = world_model(physics.brax_engine(scene), declared=(GRIP,))
    qpos, qvel = (np.repeat(x[:, None], W, 1) for x in scene.home())
    ctrl = np.broadcast_to(np.array([0.5, 4.0, 5.0]), (H, 1, W))

    def read(state, info):
        return {"intact": state.intact, "p": info.event_probability, "fired": info.fired, "luck": state.events.luck,
                "load": info.engine.bond_load, "used": state.events.used, "qvel": state.qvel}  # fmt: skip

    @jax.jit
    def run(params, forced, luck):
        state = model.init(params, qpos, qvel)
        assert state.events is not None
        state = state._replace(events=state.events._replace(luck=luck))
        return model.rollout(params, state, ctrl, forced=forced, output=read)[1]

    theta = jax.tree.map(jnp.asarray, physics.nominal(scene))

    def go(forced=-1, luck=MEDIAN, theta=theta):
        plan = jnp.broadcast_to(jnp.asarray(forced, jnp.int8), (H, 2, W))
        return jax.tree.map(np.asarray, run(WorldParams(theta), plan, jnp.full((2, W), luck, jnp.float32)))

    return go, theta, model


def test_a_bond_breaks_once_at_its_strength_and_stays_broken(rod):
    go, theta, _ = rod
    said = go(forced=np.array([-1, 0])[:, None])
    assert (said["fired"][:, 0].sum(0) == [0, 1, 1]).all()
    assert set(np.unique(said["intact"])) == {0.0, 1.0}
    assert (np.diff(said["intact"], axis=0) <= 0).all()
    for world in (1, 2):
        step = int(said["fired"][:, 0, world].argmax())
        assert said["intact"][step, 0, world] == 0
        assert said["intact"][step - 1, 0, world] == 1
        assert not said["load"][step + 1 :, 0, :, world].any()
        assert not said["p"][step + 1 :, 0, world].any()
        share = np.linalg.norm(
            np.linalg.norm(said["load"][:, 0, :, world].reshape(H, 2, 3), axis=2) / [40, 1.5], axis=1
        )
        filtered, keep = 0.0, np.exp(-DT / hazard.CHANNELS_S[0])
        history = [filtered := x + (filtered - x) * keep for x in share[: step + 1]]
        assert history[-1] >= 0.999
        assert max(history[:-1]) < 1.001
    stronger = theta._replace(bond_strength=theta.bond_strength * 1.3)
    assert go(forced=np.array([-1, 0])[:, None], theta=stronger)["fired"][:, 0].argmax(0)[2] > step


def test_forcing_holds_and_breaks_and_a_hold_spends_no_luck(rod):
    go, _, _ = rod
    free, held = go(forced=np.array([-1, 0])[:, None]), go(forced=0)
    assert (held["intact"] == 1).all()
    assert not held["fired"].any()
    assert (held["luck"] == np.float32(np.log(2))).all()
    chance = 1 - np.prod(1 - held["p"][:, 0], 0)
    np.testing.assert_allclose(chance, 1 - np.exp(-held["used"][-1, 0]), atol=1e-5)
    assert chance[0] < 1e-6
    assert (chance[1:] > 0.999).all()
    step = int(free["fired"][:, 0, 2].argmax())
    schedule = np.full((H, 2, 1), -1)
    schedule[:, 1], schedule[: step + 1, 0] = 0, 0
    late = go(forced=schedule)["fired"][:, 0, 2]
    assert late.sum() == 1  # the load still grows, and so does the hazard
    assert late.argmax() > step
    schedule[:, 0] = 0
    schedule[40:60, 0] = 1
    early = go(forced=schedule)
    assert (early["fired"][:, 0].sum(0) == 1).all()
    assert (early["fired"][:, 0].argmax(0) == 40).all()


def test_luck_decides_when(rod):
    go, _, _ = rod
    only = np.array([-1, 0])[:, None]
    steps = [int(go(forced=only, luck=luck)["fired"][:, 0, 2].argmax()) for luck in (0.01, np.log(2), 3.0)]
    assert steps[0] <= steps[1] <= steps[2]
    assert steps[0] < steps[2]
    assert not go(forced=only, luck=1e9)["fired"].any()


def test_drawn_luck_is_exponential_and_given_by_its_key(rod):
    model = rod[2]
    draw = lambda key: events.start(model.spec, (2000,), jnp.float32, key=jax.random.key(key)).luck  # noqa: E731
    assert (draw(1) == draw(1)).all()
    assert (draw(1) != draw(2)).any()
    np.testing.assert_allclose(np.mean(np.asarray(draw(1)) > 1), np.exp(-1), atol=0.03)
    assert (events.start(model.spec, (), jnp.float32).luck == np.float32(np.log(2))).all()


def test_a_declared_event_happens_at_its_limit_and_changes_theta(rod):
    go, _, model = rod
    assert model.spec.names == ("weld", "slips")
    said = go(forced=np.array([0, -1])[:, None])
    happened = said["fired"][:, 1].sum(0)
    assert (happened == [0, 1, 1]).all()
    for world in (1, 2):
        step = int(said["fired"][:, 1, world].argmax())
        speed = np.abs(said["qvel"][:, 0, world])
        assert speed[step] > 4.0
        assert speed[step + 10] < speed[step] + 0.02 * speed[step]  # the motor is off: it only coasts
    assert np.abs(go(forced=0)["qvel"][-1, 0, 2]) > speed[step]


def test_untrained_events_without_a_strength_never_happen():
    scene = physics.load_scene(re.sub('<numeric name="bond:weld"[^>]*>', "", physics.load_scene("snapping_rod").xml))
    assert scene.bonds[0].strength is None
    params = events.nominal_bonds(event_spec(scene))
    limits = jnp.asarray(physics.nominal(scene).bond_strength)[:, jnp.array([0, 0, 0, 1, 1])]
    wear = hazard.untouched(1, 3, (1,), jnp.float32)
    for _ in range(10):
        wear, used = hazard.advance(params, wear, jnp.full((1, 5, 1), 1e6), DT, limits=limits)
        assert not used.any()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"name": "weld"}, "twice"), ({"rising": (False, False)}, "at least one"), ({"limits": (1.0, 2.0)}, "1 positive")],
)
def test_bad_declarations_are_refused(change, said):
    wrong = Event(**({k: getattr(GRIP, k) for k in ("name", "features", "rising", "effect", "limits")} | change))
    with pytest.raises(ValueError, match=said):
        event_spec(physics.load_scene("snapping_rod"), (wrong,))


def test_felt_loads_are_those_of_the_bond_frame():
    """A rod hanging still: pure tension of its own weight; turned with its frame the felt load does not change."""
    scene = physics.load_scene("snapping_rod")
    spec = event_spec(scene)
    np.testing.assert_allclose(spec.axis, [[0, 0, -1]], atol=1e-9)
    state = physics.brax_engine(scene).init(physics.nominal(scene), *scene.home())
    load = jnp.array([[0.0, 2.0, 3.0, 0.5, 0.0, 0.25]])  # 3 N up on the outer link, whose axis points down
    expected = [3.0, 0.0, 2.0, 0.25, 0.5]
    np.testing.assert_allclose(events.felt(spec, state, load)[0], expected, atol=1e-6)
    half = state._replace(qpos=state.qpos.at[4:8].set(jnp.array([0.0, 1.0, 0.0, 0.0])))  # half a turn about x
    turned = load * jnp.array([[1, -1, -1, 1, -1, -1]])
    np.testing.assert_allclose(events.felt(spec, half, turned)[0], expected, atol=1e-6)


def test_memory_is_a_pytree_of_arrays(rod):
    memory = events.start(rod[2].spec, (W,), jnp.float32)
    assert isinstance(memory, EventMemory)
    assert all(leaf.shape[-1] == W for leaf in jax.tree.leaves(memory))
