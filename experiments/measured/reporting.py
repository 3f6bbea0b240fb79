"""The last step of a study on measured data: results.json, a table, and the claims on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.measured.options import Measured
from hybridwm import claims, results
from hybridwm.results import Claim

Row = tuple[str, ...]


def publish(
    study: str,
    options: Measured,
    numbers: Mapping[str, Any],
    found: Sequence[Claim],
    tables: Mapping[str, Sequence[Row]],
) -> None:
    """Write `options.out` and print the claims. The folders of the data stay out of it: they are the user's."""
    from rich.console import Console

    config = {"seeds": options.seeds, "quick": options.quick, "holdout": options.holdout is not None}
    command = f"hybridwm run {study} --data DATA --seeds {options.seeds}" + (" --quick" if options.quick else "")
    command += " --holdout HOLDOUT" if options.holdout else ""
    command += " --no-elbow" if getattr(options, "no_elbow", False) else ""
    written = results.write(
        options.out,
        study=study,
        config=config,
        numbers=numbers,
        claims=found,
        seeds=range(options.seeds),
        command=command,
    )
    claims.publish(written, options.out / "table.md", sections(tables), Console())
    print(f"results, table and figures: {options.out}")


def sections(tables: Mapping[str, Sequence[Row]]) -> str:
    """Markdown tables, each under its title."""
    return "".join(f"\n## {title}\n\n{markdown(rows)}" for title, rows in tables.items())


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table; the first row is its head."""
    body = [rows[0], ("---",) * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in body) + "\n"
