"""Show claims, on the terminal and in a document: claim → study → figure → number → command. A miss is as loud as a hit."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hybridwm.results import Claim, Results, figure_of

_BEGIN, _END = "<!-- claims: written by `hybridwm claims --write`, not by hand -->", "<!-- /claims -->"
_HEAD = ("", "claim", "value", "target", "from")
_PAGE = ("", "claim", "study", "figure", "number", "target", "command")


def show(results: Sequence[Results], console: Console) -> None:
    """Print every claim, then how many hold."""
    table = Table(*_HEAD)
    for result in results:
        for claim in result.claims:
            table.add_row(*row(claim), result.study, style="green" if claim.holds else "bold red")
    missed = sum(not claim.holds for result in results for claim in result.claims)
    total = sum(len(result.claims) for result in results)
    console.print(table)
    console.print(f"{total - missed} of {total} claims hold, {missed} missed", style="bold red" if missed else "green")


def write_table(results: Sequence[Results], path: Path) -> None:
    """Put the table of claims between the two markers of the document `path`; a missing document is created."""
    text = path.read_text(encoding="utf-8") if path.exists() else f"# Claims\n\n{_BEGIN}\n{_END}\n"
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{path} has no place for claims; add the two lines {_BEGIN} and {_END}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before}{_BEGIN}\n{markdown(results, path.parent)}{_END}{after}", encoding="utf-8")


def publish(result: Results, path: Path, body: str, console: Console) -> None:
    """A study's last step: the claims and, below them, `body` as the document `path`; the claims on the terminal."""
    path.unlink(missing_ok=True)
    write_table([result], path)
    with path.open("a", encoding="utf-8") as file:
        file.write(body)
    show([result], console)


def markdown(results: Sequence[Results], folder: Path) -> str:
    """The claims as a Markdown table for a document in `folder`; below it the date and machine of each file."""
    rows = [_PAGE, ("---",) * len(_PAGE)]
    for result in results:
        command = f"`{result.body.get('command')}`"
        for claim in result.claims:
            word, statement, value, target = row(claim)
            rows.append((word, statement, result.study, _link(result, folder), value, target, command))
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    return f"{table}\n\n" + "".join(f"- {_origin(result)}\n" for result in results)


def _link(result: Results, folder: Path) -> str:
    """The study's figure, as seen from a document in `folder`."""
    figure = figure_of(result)
    return "none" if figure is None else f"[{figure.name}]({Path(os.path.relpath(figure, folder)).as_posix()})"


def row(claim: Claim) -> tuple[str, str, str, str]:
    """Whether it holds, what it says, its value with the interval, and its target."""
    sign = "≤" if claim.better == "lower" else "≥"
    value = "not measured" if claim.value is None else f"{claim.value:.3g}"
    spread = f" [{claim.interval[0]:.3g}, {claim.interval[1]:.3g}]" if claim.interval else ""
    word = "holds" if claim.holds else "MISSED"
    return word, claim.statement, value + spread, f"{sign} {claim.target:g}"


def _origin(result: Results) -> str:
    machine, versions = result.body.get("machine", {}), result.body.get("versions", {})
    where = f"{machine.get('cores', '?')} cores, {machine.get('accelerator') or 'no accelerator'}"
    return f"{result.study}: {result.body.get('date')}, {where}, jax {versions.get('jax')}"
