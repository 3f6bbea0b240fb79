"""How the studies of the argument end: results.json, a table and the claims; and one colour for each contender, the same in all."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.argument.learned_options import Learned
from experiments.keeping import kept, place
from experiments.measured.reporting import Row, sections
from hybridwm import claims, results
from hybridwm.judging.figures import COLOURS
from hybridwm.results import Claim

_NAMES = ("given", "identified", "hybrid", "real", "network", "untrusted")
COLOUR = dict[str, str](zip(_NAMES, COLOURS, strict=True)) | {"physics": COLOURS[1]}


def part(options: Learned, name: str, work: Callable[[], Any]) -> Any:
    """What `work` finds, told while it goes on; read where an earlier run found it."""
    from rich.console import Console

    console, path = Console(highlight=False), place(options) / f"{name}.json"
    with console.status(name):
        found = kept(path, work)
    console.print(f"{name}: {path}")
    return found


def publish(
    study: str,
    options: Learned,
    numbers: Mapping[str, Any],
    found: Sequence[Claim],
    tables: Mapping[str, Sequence[Row]],
) -> None:
    """Write results.json and table.md into `options.out` and print the claims; the figure is STUDY.png there."""
    from rich.console import Console

    written = results.write(
        options.out,
        study=study,
        config=options,
        numbers=numbers,
        claims=found,
        seeds=options.each,
        figure=f"{study}.png",
    )
    claims.publish(written, options.out / "table.md", sections(tables), Console())
    print(f"results, table and figure: {options.out}")
