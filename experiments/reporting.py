"""The last step of a study: results.json, a document of tables, and the claims on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from hybridwm import claims, results
from hybridwm.report import Table
from hybridwm.results import Claim, Results
from hybridwm.study import Study, command

Row = tuple[str, ...]


def publish(
    study: str,
    options: Study,
    numbers: Mapping[str, Any],
    found: Sequence[Claim],
    tables: Mapping[str, Sequence[Row]],
    *,
    seeds: Sequence[int],
    figure: str | None = None,
) -> Results:
    """Write results.json and table.md into `options.out` and print the claims; `figure`: the picture there that shows them."""
    from rich.console import Console

    written = results.write(
        options.out,
        study=study,
        config=options,
        numbers=numbers,
        claims=found,
        seeds=seeds,
        command=command(study, options),
        figure=figure,
    )
    claims.publish(written, options.out / "table.md", sections(tables), Console())
    print(f"results, tables and figures: {options.out}")
    return written


def sections(tables: Mapping[str, Sequence[Row]]) -> str:
    """Markdown tables, each under its title."""
    return "".join(f"\n## {title}\n\n{markdown(rows)}" for title, rows in tables.items())


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table; the first row is its head."""
    body = [rows[0], ("---",) * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in body) + "\n"


def of_page(tables: Sequence[Table]) -> dict[str, list[Row]]:
    """The tables of a page, as `sections` takes them."""
    return {table.title: [tuple(table.columns), *map(tuple, table.rows)] for table in tables}
