"""How the studies of the argument end: results.json, a table and the claims; and one colour for each contender, the same in all."""

from collections.abc import Callable
from typing import Any

from experiments.argument.learned_options import Learned
from experiments.keeping import kept, place
from hybridwm.judging.figures import COLOURS

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
