"""Tables, figures and terminal lines of `benchmarks/planning.py`, all made from its results."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hybridwm.results import Results
from plans.targets import NAMES, ratio

TITLES = {
    "pushed_box": "pushed box, 128 × 50", "cartpole": "cart-pole, 128 × 100",
    "push_t": "hydrax's push-T, 128 × 50", "cart_pole": "hydrax's cart-pole, 128 × 100",
}  # fmt: skip
BASE = {"pushed_box": "mujoco", "cartpole": "mujoco", "push_t": "hybridwm", "cart_pole": "hybridwm"}
COLOURS = {
    "mujoco": "#9aa0a6", "hybridwm": "#d9783d", "hybrid": "#d9783d", "physics": "#f0b48c", "hydrax": "#3a6ea0",
    "judo": "#72a05c", "mjx": "#3a6ea0", "brax": "#72a05c",
}  # fmt: skip
LINES = ("#d9783d", "#3a6ea0", "#72a05c", "#8d5fa8", "#b5473c", "#7b6b4e", "#4aa3a1", "#222222")


def quantiles(cell: Mapping[str, Any]) -> dict[str, float]:
    """Of single plans, ms."""
    single = 1e3 * np.concatenate([np.asarray(turn) for turn in cell["turns_s"]])
    return {name: float(np.quantile(single, share)) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}


def race_lines(race: str, found: Mapping[str, Any]) -> str:
    """What a person watching the run sees."""
    return "\n".join([TITLES[race], *("  " + "  ".join(row) for row in _race_rows(race, found))])


def deadline_lines(scene: str, found: Mapping[str, Any]) -> str:
    """The deadline in sentences."""
    took, own = found["took_ms"], found["without_waiting_ms"]
    rounds = ", ".join(f"{n} × {count}" for count, n in found["rounds"].items())
    return (
        f"deadline, {TITLES[scene]}: {found['calls']} calls, budget {found['budget_ms']:g} ms: median {took['p50']:.2f} ms, "
        f"99.9 % {took['p99.9']:.2f} ms, longest {took['max']:.2f} ms\n"
        f"  without the time in which nothing of ours ran: 99.9 % {own['p99.9']:.2f} ms, longest {own['max']:.2f} ms\n"
        f"  late {found['late']} ({found['late_by_waiting']} only by waiting), over twice {found['over_twice']} "
        f"({found['over_twice_by_waiting']} only by waiting), compiled {found['compiled']}\n"
        f"  calls × rounds: {rounds}"
    )


def shipped_lines(task: str, planner: str, cells: Mapping[str, Any]) -> str:
    """One planner on one task."""
    return "\n".join(f"{task:<17} {planner:<20} " + "  ".join(_shipped_row(e, cell)) for e, cell in cells.items())


def table(written: Results, path: Path) -> None:
    """Everything as Markdown."""
    numbers = written.body["numbers"]
    text = ["# What a plan costs\n\n", _origin(written.body), "\n"]
    for race, found in numbers["races"].items():
        text.append(f"\n## {TITLES[race]}\n\n")
        text += _rows(
            ("planner", "ms, p50", "p95", "p99", f"× {NAMES[BASE[race]]} (turns)", "first plan, s", "cost reached"),
            _race_rows(race, found),
        )
    if numbers["deadlines"]:
        text.append("\n## Deadlines\n")
    for scene, found in numbers["deadlines"].items():
        text.append("\n" + deadline_lines(scene, found).replace("\n  ", "\n- ") + "\n")
    for task, planners in numbers["shipped"].items():
        rows = [(p, *_shipped_row(e, cell)) for p, cells in planners.items() for e, cell in cells.items()]
        text.append(f"\n## {task}\n\n")
        head = (
            "planner",
            "engine",
            "ms, p50",
            "p95",
            "p99",
            "samples × steps / s",
            "first plan, s",
            "cost at the end of the search",
        )
        text += _rows(head, rows)
    path.write_text("".join(text), encoding="utf-8")


def _rows(head: tuple[str, ...], rows: Any) -> list[str]:
    filled = [(*row, *("–",) * (len(head) - len(row))) for row in rows]
    return ["| " + " | ".join(row) + " |\n" for row in (head, ("---",) * len(head), *filled)]


def _race_rows(race: str, found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    base = found.get(BASE[race], {})
    for rival, cell in found.items():
        if "not" in cell or not cell.get("turns_s"):
            yield (NAMES[rival], cell.get("not", "not measured"))
            continue
        value, spread = ratio(cell, base)
        times = f"{value:.2f} ({spread[0]:.2f}–{spread[1]:.2f})" if value and spread else "–"
        cost = f"{cell['search']['costs'][-1]:.3g}" if "search" in cell else "–"
        quick = quantiles(cell)
        yield (
            NAMES[rival],
            *(f"{quick[name]:.2f}" for name in quick),
            times,
            f"{cell['prepared']['seconds']:.1f}",
            cost,
        )


def _shipped_row(engine: str, cell: Mapping[str, Any]) -> tuple[str, ...]:
    if "not" in cell or not cell.get("turns_s"):
        return (NAMES[engine], cell.get("not", "not measured"))
    quick, search = quantiles(cell), cell.get("search", {})
    rate = cell["samples"] * cell["steps"] / (quick["p50"] / 1e3)
    cost = f"{search['costs'][-1]:.4g} ({search['status']}, {sum(search['seconds']):.2f} s)" if search else "–"
    return (NAMES[engine], *(f"{value:.1f}" for value in quick.values()), f"{rate:.2e}", f"{cell['seconds']:.1f}", cost)


def draw_races(written: Results, path: Path) -> None:
    """A panel for each race: median plan time of every rival, the spread of single plans, and the ratio."""
    from matplotlib.figure import Figure

    races = written.body["numbers"]["races"]
    if not races:
        return
    figure = Figure(figsize=(3.1 * len(races) + 0.6, 3.4), layout="constrained")
    for axis, (race, found) in zip(figure.subplots(1, len(races), squeeze=False)[0], races.items(), strict=True):
        there = {rival: cell for rival, cell in found.items() if cell.get("turns_s")}
        for place, (rival, cell) in enumerate(there.items()):
            quick = quantiles(cell)
            axis.bar(place, quick["p50"], 0.7, color=COLOURS[rival])
            axis.plot([place, place], [quick["p50"], quick["p99"]], color="0.25", linewidth=0.9)
            value, _ = ratio(cell, found.get(BASE[race], {}))
            label = f"{quick['p50']:.1f} ms" + (f"\n{value:.2g}×" if value and rival != BASE[race] else "")
            axis.annotate(
                label, (place, quick["p99"]), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7
            )
        axis.set_xticks(range(len(there)), [NAMES[rival].replace(", ", ",\n") for rival in there], fontsize=7)
        axis.set_title(TITLES[race], fontsize="medium", loc="left")
        axis.set_ylim(0, 1.25 * axis.get_ylim()[1])
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("one plan, ms (bar: median, line: to p99)")
    _signed(figure, written)
    figure.savefig(path, dpi=160)


def draw_search(written: Results, path: Path) -> None:
    """Cost reached against time: the peers' problems first, then a panel for each shipped task."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    numbers = written.body["numbers"]
    panels = {TITLES[race]: {NAMES[r]: cell["search"] for r, cell in found.items() if "search" in cell}
              for race, found in numbers["races"].items()}  # fmt: skip
    for task, planners in numbers["shipped"].items():
        panels[task] = {
            p: cells["hybridwm"]["search"] for p, cells in planners.items() if "search" in cells.get("hybridwm", {})
        }
    panels = {title: curves for title, curves in panels.items() if curves}
    if not panels:
        return
    columns = min(3, len(panels))
    figure = Figure(figsize=(4.2 * columns, 3 * -(-len(panels) // columns) + 0.4), layout="constrained")
    axes = figure.subplots(-(-len(panels) // columns), columns, squeeze=False).ravel()
    planners = dict.fromkeys(name for cells in numbers["shipped"].values() for name in cells)
    colours = dict(zip(NAMES.values(), LINES, strict=False)) | dict(zip(planners, LINES, strict=False))
    for axis, (title, curves) in zip(axes, panels.items(), strict=False):
        for name, search in curves.items():
            costs = np.array([np.nan if cost is None else cost for cost in search["costs"]])
            axis.plot(
                1e3 * np.cumsum(search["seconds"]),
                costs,
                color=colours[name],
                label=name,
                linewidth=1.4,
                marker=".",
                markersize=3,
            )
        axis.set(xscale="log", yscale="log" if _wide(curves) else "linear")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_title(title, fontsize="medium", loc="left")
        axis.legend(fontsize=6.5, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(panels) :]:
        axis.remove()
    figure.supxlabel("time spent planning, ms", fontsize="small")
    figure.supylabel("cost of the plan", fontsize="small")
    _signed(figure, written)
    figure.savefig(path, dpi=150)


def _wide(curves: Mapping[str, Any]) -> bool:
    costs = np.array([cost for search in curves.values() for cost in search["costs"] if cost is not None], float)
    return bool(len(costs) and costs.min() > 0 and costs.max() > 20 * costs.min())


def _signed(figure: Any, written: Results) -> None:
    figure.text(0.995, 0.002, _origin(written.body, short=True), ha="right", va="bottom", fontsize=5.5, color="0.4")
    figure.get_layout_engine().set(rect=(0, 0.03, 1, 0.97))


def show(written: Results) -> None:
    """The claims on the terminal."""
    from rich.console import Console

    from hybridwm import claims

    if written.claims:
        claims.show([written], Console())
    print(f"results, table and figures: {written.path.parent}")


def _origin(body: Mapping[str, Any], *, short: bool = False) -> str:
    machine, versions, races = body["machine"], body["versions"], body["numbers"]["races"]
    where = f"{machine['cores']} cores, {machine['memory_gib']} GiB, {machine['accelerator'] or 'no accelerator'}"
    packages = ", ".join(f"{name} {versions.get(name)}" for name in ("jax", "brax", "mujoco", "mujoco-mjx"))
    if short:
        return f"{where}; {packages}; {body['command']}, {body['date']}"
    peers = {name: found[name]["prepared"]["versions"] for found in races.values() for name in ("hydrax", "judo")
             if "prepared" in found.get(name, {})}  # fmt: skip
    beside = "".join(
        f" {name} with " + ", ".join(f"{k} {v}" for k, v in own.items()) + "." for name, own in peers.items()
    )
    return (
        f"{', then '.join(f'`{command}`' for command in body['numbers']['commands'])}, {body['date']}, {where}; {packages}."
        f"{beside}\nBefore each race other programs kept at most {body['numbers']['cores_taken'] or 0:.2f} cores busy.\n\n"
        "Quantiles are of single plans, from the state to controls on the host; ratios are of medians, in brackets the least\n"
        "and greatest of a turn. Costs of the peers' problems are those of their controls in converged MuJoCo C; those of the\n"
        "shipped tasks are the planners' own, after the search that the figure shows.\n"
    )
