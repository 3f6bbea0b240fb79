"""Table, figure and terminal lines of `benchmarks/engine.py`, all made from its results."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hybridwm.results import Results
from race.targets import NAMES, ratio

COLOURS = {"mujoco": "#9aa0a6", "hybridwm": "#d9783d", "mjx": "#3a6ea0", "mjx_exact": "#8fb3d4", "brax": "#72a05c"}
_HEAD = (
    "engine",
    "µs per world-step (min–max)",
    "× mujoco.rollout",
    "× hybridwm",
    "error, m or rad",
    "trace + lower + compile, s",
    "first call, cold, s",
    "cached, s",
    "gradient, × rollout",
    "its trace + lower + compile, s",
    "cores busy",
    "memory, MiB (with its gradient)",
)


def lines(scene: str, worlds: int, found: Mapping[str, Any]) -> str:
    """What a person watching the run sees."""
    out = [f"{scene}, {worlds} worlds"]
    for rival, cell in found.items():
        if "not" in cell:
            out.append(f"  {NAMES[rival]:<18} {cell['not']}")
            continue
        out.append(f"  {NAMES[rival]:<18} " + "  ".join(cell_text for cell_text in _row(rival, found)[1:]))
    return "\n".join(out)


def table(written: Results, path: Path) -> None:
    """All cells as Markdown, a table for each scene and number of worlds."""
    body = written.body
    text = ["# What a world-step costs\n\n", _origin(body)]
    for scene, worlds, found in _races(body):
        rows = [_HEAD, ("---",) * len(_HEAD), *(_row(rival, found) for rival in found)]
        text.append(f"\n## {scene}, {worlds} worlds × {body['config']['steps']} steps\n\n")
        text += ["| " + " | ".join(row) + " |\n" for row in rows]
        text += [f"\n- {sentence}" for sentence in _remarks(found)]
        text.append("\n")
    path.write_text("".join(text), encoding="utf-8")


def show(written: Results) -> None:
    """The claims on the terminal."""
    from rich.console import Console

    from hybridwm import claims

    if written.claims:
        claims.show([written], Console())
    print(f"{written.body['numbers']['seconds']:.0f} s; results, table and figure: {written.path.parent}")


def draw(written: Results, path: Path) -> None:
    """A panel for each scene: cost on a log axis, a group of bars for each number of worlds, × mujoco.rollout above."""
    from matplotlib.figure import Figure

    cells = written.body["numbers"]["cells"]
    columns = min(3, len(cells))
    rows = -(-len(cells) // columns)
    figure = Figure(figsize=(max(0.6 + 3.9 * columns, 6.5), 1.2 + 2.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axis, (scene, by_worlds) in zip(axes, cells.items(), strict=False):
        _panel(axis, scene, by_worlds)
    for axis in axes[len(cells) :]:
        axis.remove()
    for axis in axes[::columns]:
        axis.set_ylabel("µs per world-step")
    named = {
        label: bar for axis in axes[: len(cells)] for bar, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(named.values()), list(named), loc="outside upper center", ncols=len(named), frameon=False)
    figure.text(0.995, 0.005, _origin(written.body, short=True), ha="right", va="bottom", fontsize=6, color="0.4")
    figure.get_layout_engine().set(rect=(0, 0.03, 1, 0.97))  # type: ignore[union-attr]
    figure.savefig(path, dpi=160)


def _panel(axis: Any, scene: str, by_worlds: Mapping[str, Any]) -> None:
    rivals = list(dict.fromkeys(rival for found in by_worlds.values() for rival in found))
    width = 0.84 / len(rivals)
    for place, found in enumerate(by_worlds.values()):
        for i, rival in enumerate(rivals):
            x = place + (i - (len(rivals) - 1) / 2) * width
            _bar(axis, x, width, rival, found, label=NAMES[rival] if place == 0 else None)
    axis.set_yscale("log")
    axis.set_title(scene.replace("_", " "), fontsize="medium", loc="left")
    axis.set_xticks(range(len(by_worlds)), [f"{worlds} worlds" for worlds in by_worlds], fontsize="small")
    axis.set_xlim(-0.5, len(by_worlds) - 0.5)
    axis.margins(y=0.18)
    axis.grid(axis="y", color="0.9")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="x", length=0)


def _bar(axis: Any, x: float, width: float, rival: str, found: Mapping[str, Any], *, label: str | None) -> None:
    cell = found.get(rival, {})
    if "us" not in cell:
        axis.bar(x, float("nan"), width, color=COLOURS[rival], label=label)
        axis.annotate("–", (x, 0.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", color="0.5")
        return
    axis.bar(x, cell["us"], width * 0.94, color=COLOURS[rival], label=label)
    value, _ = ratio(cell, found["mujoco"]) if "mujoco" in found and rival != "mujoco" else (None, None)
    axis.plot([x, x], [min(cell["rounds_us"]), max(cell["rounds_us"])], color="0.25", linewidth=0.8)
    if value is not None:
        high = max(cell["rounds_us"])
        text = f"{value:.2g}×" if value < 10 else f"{value:.0f}×"
        axis.annotate(text, (x, high), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=6.5)


def _row(rival: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    cell = found[rival]
    if "us" not in cell:
        return (NAMES[rival], "not measured", *("–" for _ in _HEAD[2:]))
    spread = f"{cell['us']:.2f} ({min(cell['rounds_us']):.2f}–{max(cell['rounds_us']):.2f})"
    cold, cached = cell["cold"], cell.get("cached", {})
    gradient = cell.get("gradient", {})
    return (
        NAMES[rival],
        spread,
        _times(cell, found.get("mujoco", {})),
        _times(cell, found.get("hybridwm", {})),
        _error(cell),
        _compiled(cold),
        f"{cold['first_call']:.1f}",
        f"{cached['first_call']:.1f}" if cached else "–",
        f"{gradient['ratio']:.2f}" if "ratio" in gradient else "–",
        _compiled(gradient.get("cold", {})),
        f"{cell['cores']:.1f}",
        f"{cell['memory_mib']:.0f}" + (f" ({gradient['memory_mib']:.0f})" if "memory_mib" in gradient else ""),
    )


def _compiled(seconds: Mapping[str, float]) -> str:
    parts = ("trace", "lower", "compile")
    return " + ".join(f"{seconds[part]:.1f}" for part in parts) if "trace" in seconds else "–"


def _error(cell: Mapping[str, Any]) -> str:
    if "error" not in cell:
        return "–"
    return "not finite" if cell["error"] is None or cell["error"] != cell["error"] else f"{cell['error']:.1e}"


def _times(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    value, _ = ratio(one, other)
    return "–" if value is None else f"{value:.2f}"


def _remarks(found: Mapping[str, Any]) -> Iterator[str]:
    if apart := found.get("mujoco", {}).get("rounded"):
        yield f"MuJoCo C itself, from starts that float32 cannot tell apart, ends up to {apart:.1e} from there"
    for rival, cell in found.items():
        if "not" in cell:
            yield f"{NAMES[rival]}: {cell['not']}"
        elif "not" in cell.get("gradient", {}):
            yield f"{NAMES[rival]}, gradient: {cell['gradient']['not']}"


def _races(body: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for scene, by_worlds in body["numbers"]["cells"].items():
        for worlds, found in by_worlds.items():
            yield scene, worlds, found


def devices(cells: Mapping[str, Any]) -> set[str]:
    """Names of the devices that JAX's rivals used."""
    every = (cell.get("devices", []) for by in cells.values() for found in by.values() for cell in found.values())
    return {name for names in every for name in names if name != "threads"}


def _origin(body: Mapping[str, Any], *, short: bool = False) -> str:
    machine, versions = body["machine"], body["versions"]
    kind = next(iter(sorted(devices(body["numbers"]["cells"]))), "")
    where = f"{machine['cores']} cores, {machine['memory_gib']} GiB, {machine['accelerator'] or 'no accelerator'}"
    packages = ", ".join(f"{name} {versions.get(name)}" for name in ("jax", "brax", "mujoco", "mujoco-mjx"))
    by_clock = {cell.get("clock", "wall") for _, _, found in _races(body) for cell in found.values() if "us" in cell}
    clocks = "costs are wall time"
    if "processor" in by_clock:
        clocks = "where they kept more than 0.2 busy, a cost is processor time over the number of cores"
    if short:
        return f"{where}; {packages}; {body['date']}. Above the bars: times mujoco.rollout"
    return (
        f"`{body['command']}`, {body['date']}, {where} (first device: {kind or 'none'}); {packages}.\n"
        f"During the races other programs kept at most {body['numbers']['cores_taken'] or 0:.2f} cores busy: {clocks}.\n\n"
        "The error is the largest distance from converged MuJoCo C (float64) after the last step, over all worlds;\n"
        "JAX's engines compute in float32. First calls and gradients are measured at 512 worlds. Whatever runs JAX\n"
        "splits its worlds over the devices of the process; mujoco.rollout has one thread per core.\n"
    )
