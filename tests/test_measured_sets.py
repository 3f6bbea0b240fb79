"""The measured sets of screws, bars and double pendulums: what is read, what is refused, on small made-up files."""

import numpy as np
import pytest

from experiments.measured import bar_set, calibration, screw_rivals, screw_set, splits, strength, thread
from experiments.measured.pendulum_set import STEP, read_runs


def screws(workpieces=6, uses=5, seed=0):
    """Runs whose torque rises at a seat within one turn of a thread that wears."""
    rng, parts, meta = np.random.default_rng(seed), [], []
    for piece in range(workpieces):
        for use in range(uses):
            for side in range(2):
                seat = 1500 + 360 * rng.random() - 40 * use
                angle = np.arange(0.0, min(seat + 30, 1650), 4.0)
                torque = 0.1 + 0.2 * np.exp(-use) * angle / 1500 + np.where(angle > seat, (angle - seat) * 0.05, 0)
                parts.append((angle * 4, torque * 1000))
                meta.append((100 + piece, use, side, int(seat < 1480), 1 if seat < 1480 else 0))
    piece, use, side, nok, last = np.array(meta).T
    return {
        "angle_q": np.concatenate([a for a, _ in parts]).astype(np.int16),
        "torque_q": np.concatenate([t for _, t in parts]).astype(np.int16),
        "offsets": np.cumsum([0, *(len(a) for a, _ in parts)]),
        **{"workpiece": piece, "usage": use, "side": side, "nok": nok, "last_cmd": last},
    }


def pendulums(runs=4, seconds=3.0, seed=0):
    """Arms that swing as sines, logged at uneven times; the first run has no measured torque."""
    rng, columns = np.random.default_rng(seed), {key: [] for key in ("t", "q", "qd", "tau_con", "tau_meas")}
    for i in range(runs):
        t = np.cumsum(rng.uniform(0.0015, 0.0025, int(seconds / 0.002)))
        rate = np.array([2.0, 3.0])
        columns["t"].append(t)
        columns["q"].append(np.sin(t[:, None] * rate))
        columns["qd"].append(rate * np.cos(t[:, None] * rate) + 0.05 * rng.standard_normal((len(t), 2)))
        columns["tau_con"].append(np.cos(t[:, None] * rate))
        columns["tau_meas"].append(np.full((len(t), 2), np.nan) if i == 0 else np.cos(t[:, None] * rate))
    kinds = ["sysid", *(f"controller{i}" for i in range(1, runs))]
    return {
        **{key: np.concatenate(value).astype(np.float32) for key, value in columns.items()},
        "offsets": np.cumsum([0, *map(len, columns["t"])]),
        **{"design": np.array(["C.1"] * runs), "kind": np.array(kinds)},
    }


def bars(seed=0):
    """Two trials of each of three materials in both directions; one record that was let go by hand."""
    rng, force, meta = np.random.default_rng(seed), [], []
    for m, material in enumerate(("PLA", "ABS-CF", "PETG")):
        for axis in ("xy", "z"):
            for trial in (1, 2):
                peak = (800 + 100 * m) * rng.uniform(0.9, 1.1) * (1.0 if axis == "xy" else 0.5)
                fall = np.linspace(peak, 0, 40) if (m, axis, trial) == (2, "z", 2) else np.zeros(20)
                force.append(np.concatenate([np.linspace(0, peak, 200), fall]))
                meta.append((material, axis, trial, peak))
    return {
        "force": np.concatenate(force).astype(np.float32),
        "offsets": np.cumsum([0, *map(len, force)]),
        "material": np.array([m[0] for m in meta]),
        "axis": np.array([m[1] for m in meta]),
        "trial": np.array([m[2] for m in meta]),
        "break_force": np.array([m[3] for m in meta]),
        "area_mm2": np.full(len(meta), 25.0),
        "suspect": np.zeros(len(meta), np.int8),
    }


SETS = {
    "screw_s01": (screws, screw_set.read_screws),
    "doublepend": (pendulums, read_runs),
    "tensile_break": (bars, bar_set.read_bars),
}


def saved(folder, name, arrays, part="a"):
    np.savez(folder / f"{name}_{part}.npz", **arrays)
    return folder


@pytest.mark.parametrize("name", SETS)
def test_folders_without_the_set_and_half_downloads(tmp_path, name):
    make, read = SETS[name]
    with pytest.raises(ValueError, match="is not a folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=f"lacks the set {name}"):
        read(saved(tmp_path, "other", make()))
    whole = (tmp_path / "other_a.npz").read_bytes()
    (tmp_path / f"{name}_a.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{name}_a.npz cannot be read.*half a download"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "key", "change", "words"),
    [
        ("screw_s01", "torque_q", None, "lacks torque_q"),
        ("screw_s01", "torque_q", lambda x: x / 1000, "torque_q of a run goes up to .*other units"),
        ("screw_s01", "angle_q", lambda x: x // 50, "angle_q of a run goes up to .*other units"),
        ("screw_s01", "usage", lambda x: np.where(x == 2, 9, x), "lacks a use between others"),
        ("screw_s01", "usage", lambda x: 0 * x, "there twice"),
        ("doublepend", "q", lambda x: np.degrees(3 * x), "other units"),
        ("doublepend", "t", lambda x: 1000 * x, "other units"),
        ("doublepend", "t", lambda x: x[::-1], "time that falls"),
        ("doublepend", "qd", lambda x: x[:, :1], "two columns"),
        ("doublepend", "qd", lambda x: np.where(np.arange(len(x))[:, None] == 7, np.nan, x), "not finite at row 7"),
        ("doublepend", "design", lambda x: np.array(["B.7"] * len(x)), "design B.7 is unknown"),
        ("tensile_break", "force", lambda x: x[:-3], "entries, .* are expected"),
        ("tensile_break", "break_force", lambda x: x / 1000, "other units"),
        ("tensile_break", "axis", lambda x: np.array(["w"] * len(x)), "axis w is unknown"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path, name, key, change, words):
    make, read = SETS[name]
    arrays = make()
    if change is None:
        del arrays[key]
    else:
        arrays[key] = change(arrays[key])
    with pytest.raises(ValueError, match=f"{name}_a.npz.*{words}"):
        read(saved(tmp_path, name, arrays))


def test_screws_become_a_table_of_holes_and_uses(tmp_path):
    found, files = screw_set.read_screws(saved(tmp_path, "screw_s01", screws()))
    assert [path.name for path in files] == ["screw_s01_a.npz"]
    assert found.used.shape == (12, 5)
    assert found.used.all()
    early = found.seat * 360 + 1500 < 1480 + 14  # the torque passes 0.7 N m 14 degrees after the head meets the part
    assert np.mean(early == found.failed) > 0.95
    assert np.isfinite(found.curve[:, :, :100]).all()


def test_friction_model_is_found_again():
    k, theta = np.arange(6)[:, None], np.arange(screw_set.BINS) * screw_set.BIN / 360
    truth = 0.1 + 0.03 * theta + (0.1 + 0.07 * theta) * np.exp(-k / 1.2)
    curves = np.repeat(truth[None], 3, 0)
    curves[1, :, 100:] = np.nan
    np.testing.assert_allclose(thread.friction(curves), truth, atol=1e-6)


def test_nothing_of_a_use_is_known_before_it(tmp_path):
    arrays = screws()
    found, _ = screw_set.read_screws(saved(tmp_path, "screw_s01", arrays))
    later = found._replace(failed=found.failed.copy(), seat=found.seat.copy(), curve=found.curve.copy())
    later.failed[:, 3:] ^= True
    later.seat[:, 3:] += 0.3
    later.curve[:, 3:] *= 2
    for name in ("plain", "recent", "curves"):
        np.testing.assert_array_equal(screw_rivals.inputs(found, name)[:, :4], screw_rivals.inputs(later, name)[:, :4])


def test_pendulum_runs_lie_on_an_even_grid(tmp_path):
    runs, found = read_runs(saved(tmp_path, "doublepend", pendulums()))
    assert found.name == "doublepend"
    assert [run.measured for run in runs] == [False, True, True, True]
    run, start = runs[1], found.record(1, "t")[0]
    time = start + STEP * np.arange(len(run.q))
    inner = slice(50, -50)
    np.testing.assert_allclose(run.q[inner, 1], np.sin(3 * time)[inner], atol=2e-3)
    np.testing.assert_allclose(run.v[inner, 1], 3 * np.cos(3 * time)[inner], atol=0.05)
    held = np.cos(3 * (time[:-1] + STEP / 2 + 0.001))  # a row's current flowed since the row before
    np.testing.assert_allclose(run.u[inner, 1], held[inner], atol=0.01)


def test_a_bar_let_go_by_hand_is_no_break(tmp_path):
    found, _ = bar_set.read_bars(saved(tmp_path, "tensile_break", bars()))
    held = [
        (found.materials[m], bar_set.AXES[a], found.trial[m, a, k])
        for m, a, k in np.argwhere(found.used & ~found.broke)
    ]
    assert held == [("PETG", "z", 2)]
    assert found.fibre[found.materials.index("ABS-CF")] == 1
    assert found.fibre.sum() == 1


def test_a_part_kept_aside_is_marked(tmp_path):
    for name in ("own", "aside"):
        (tmp_path / name).mkdir()
    other = screws(2)
    own = saved(tmp_path / "own", "screw_s01", screws(4))
    aside = saved(tmp_path / "aside", "screw_s01", other | {"workpiece": other["workpiece"] + 50}, "h")
    found, _ = screw_set.read_screws(own, aside)
    assert found.kept_aside.sum() == 4
    assert set(found.workpiece[found.kept_aside]) == {150, 151}


def test_finished_parts_are_used_again_only_for_the_same_question(tmp_path):
    asked = []

    def compute():
        asked.append(1)
        return {"x": np.arange(3)}

    path = tmp_path / "parts" / "one.npz"
    for digest in ("a", "a", "b"):
        np.testing.assert_array_equal(splits.finished(path, digest, compute)["x"], [0, 1, 2])
    path.write_bytes(path.read_bytes()[:40])  # stopped while it was written
    splits.finished(path, "b", compute)
    assert len(asked) == 3
    assert [p.name for p in path.parent.iterdir()] == ["one.npz"]


def test_folds_keep_groups_together_and_intervals_draw_them():
    groups = np.repeat(np.arange(10), 7)
    folds = splits.group_folds(groups, 5, seed=1)
    assert all(len(set(folds[groups == g])) == 1 for g in range(10))
    with pytest.raises(ValueError, match="3 groups cannot be cut into 5"):
        splits.group_folds([1, 2, 3], 5, 0)
    values = groups - 4.5
    low, high = splits.bootstrap(values, groups)
    assert low < 0 < high
    assert high - low == pytest.approx(2 * 1.96 * np.std(np.arange(10)) / np.sqrt(10), rel=0.1)


def test_uniform_numbers_pass_and_others_do_not():
    even = (np.arange(200) + 0.5) / 200
    assert calibration.uniform_test(even).p_value > 0.99
    assert calibration.uniform_test(even**2).p_value < 1e-6
    assert calibration.uniform_test(np.random.default_rng(0).random(80)).p_value > 0.01
    assert calibration.log_loss(np.array([0.5, 0.9]), np.array([True, False])) == pytest.approx(
        [np.log(2), -np.log(0.1)]
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Some PETG Blue", "PETG"), ("X PET-CF", "PET"), ("Y PA6-GF25 Gray", "nylon"), ("Bridge Clear", "other")],
)
def test_a_name_tells_its_base_polymer(name, expected):
    assert list(bar_set.FAMILIES)[bar_set.family(name)] == expected


def test_a_material_never_seen_may_be_any_material(tmp_path):
    np.savez(tmp_path / "tensile_break_dev.npz", **bars())
    found, _ = bar_set.read_bars(tmp_path)
    shown = found.used & (np.arange(3) > 0)[:, None, None]
    fitted = strength.fit(found, shown, steps=3, draws=2)
    loads = np.broadcast_to(np.log([100.0, 300.0, 900.0, 3000.0]), (3, 2, 4))
    density, chance = strength.predict(fitted, loads, found.log_area)
    usual, below = fitted.any_bar[0](loads[0, 0] - found.log_area[0, 0])
    assert np.all(density[0, 0] >= usual - np.log(2) - 1e-6)
    assert np.all((chance[0, 0] >= below / 2 - 1e-6) & (chance[0, 0] <= (1 + below) / 2 + 1e-6))
    assert np.all(np.diff(chance) >= 0)
