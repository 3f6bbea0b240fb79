"""A study's report: one HTML page that opens from disk without a network, and a short table in the terminal.

    page(out, title=…, lead=…, results=…, replays=[…], tables=[…], figures=[…]) -> out/report.html
    show(tables, path)                                                              the terminal

Everything is inside the one file: figures as data, each 3D replay (`hybridwm.replay`) as a frame that starts when asked,
because a browser draws only a few of them at a time. What a study says is escaped; nothing in it runs as code.
"""

import base64
import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table as Terminal

from hybridwm.claims import row
from hybridwm.results import Claim, Results


class Table(NamedTuple):
    """Rows of words under a title; `loud` names the rows (by their first cell) that stand out."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    loud: Sequence[str] = ()


class Figure(NamedTuple):
    """A picture on disk and what it shows."""

    path: Path
    caption: str


class Replay(NamedTuple):
    """A stand-alone replay (`hybridwm.replay.replay`) and what it shows."""

    html: str
    caption: str


def page(
    out: Path,
    *,
    title: str,
    lead: str,
    results: Results | None = None,
    replays: Sequence[Replay] = (),
    tables: Sequence[Table] = (),
    figures: Sequence[Figure] = (),
    notes: Sequence[str] = (),
) -> Path:
    """Write `out`/report.html, whole or not at all: lead, replays, tables, claims, figures, notes, where it comes from."""
    parts = [f"<h1>{_said(title)}</h1><p class=lead>{_said(lead)}</p>"]
    parts += [_replay(number, found) for number, found in enumerate(replays)]
    parts += [_table(table) for table in tables]
    if results and results.claims:
        parts.append(_table(claims_table(results.claims)))
    if figures:
        parts.append("<h2>Figures</h2><div class=figures>" + "".join(map(_figure, figures)) + "</div>")
    parts += [f"<p>{_said(note)}</p>" for note in notes]
    parts.append(_origin(results) if results else "")
    path, part = out / "report.html", out / f".report.{os.getpid()}"
    out.mkdir(parents=True, exist_ok=True)
    part.write_text(_FRAME.format(title=_said(title), body="\n".join(parts)), encoding="utf-8")
    part.replace(path)
    return path


def show(tables: Sequence[Table], path: Path, console: Console | None = None) -> None:
    """The tables in the terminal, and where the page is."""
    console = console or Console()
    for table in tables:
        shown = Terminal(*table.columns, title=table.title, title_justify="left", caption=table.note or None)
        shown.caption_justify = "left"
        for cells in table.rows:
            shown.add_row(*map(str, cells), style="bold" if cells[0] in table.loud else None)
        console.print(shown)
    console.print(f"open in a browser: {path.resolve().as_uri()}", soft_wrap=True)


def claims_table(claims: Sequence[Claim]) -> Table:
    """The claims, misses as loud as hits."""
    return Table("Claims", ("", "claim", "value [95 %]", "target"), [row(claim) for claim in claims], loud=("MISSED",))


def _said(text: str) -> str:
    return html.escape(str(text))


def _table(table: Table) -> str:
    head = "".join(f"<th>{_said(cell)}</th>" for cell in table.columns)
    body = "".join(
        f"<tr{' class=loud' if row[0] in table.loud else ''}>{''.join(f'<td>{_said(cell)}</td>' for cell in row)}</tr>"
        for row in table.rows
    )
    note = f"<p class=note>{_said(table.note)}</p>" if table.note else ""
    return f"<h2>{_said(table.title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def _figure(figure: Figure) -> str:
    data = base64.b64encode(figure.path.read_bytes()).decode("ascii")
    caption = _said(figure.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )


def _replay(number: int, found: Replay) -> str:
    """The first replay starts by itself, the others when they are asked for."""
    data, caption = base64.b64encode(found.html.encode()).decode("ascii"), _said(found.caption)
    return (
        f'<figure class=replay><div class=stage data-auto="{int(number == 0)}"><button>Play in 3D</button></div>'
        f'<script type="text/plain">{data}</script><figcaption>{caption}</figcaption></figure>'
    )


def _origin(results: Results) -> str:
    body = results.body
    machine, versions = body.get("machine", {}), body.get("versions", {})
    told = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    where = f"{machine.get('cores', '?')} cores, {machine.get('accelerator') or 'no accelerator'}"
    return f"<p class=note><code>{_said(body.get('command', ''))}</code>, {_said(body.get('date', ''))}, {where}; {_said(told)}</p>"


_FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1c2126; background: #fbfbf9;
  max-width: 1080px; margin: 2.5rem auto; padding: 0 1.2rem }}
h1 {{ font-size: 1.9rem; margin: 0 0 .3rem }} h2 {{ font-size: 1.2rem; margin: 2.2rem 0 .6rem }}
.lead {{ color: #4a545e; max-width: 50rem }} .note {{ color: #6b757e; font-size: .85rem }}
table {{ border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums }}
th, td {{ text-align: left; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid #e4e4df; vertical-align: top }}
th {{ color: #6b757e; font-weight: 600 }} tr.loud td {{ font-weight: 600 }} tr.loud td:first-child {{ color: #b3261e }}
figure {{ margin: 0 0 1.2rem }} figcaption {{ color: #6b757e; font-size: .85rem; margin-top: .3rem }}
.figures {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 1.2rem }}
.figures img {{ width: 100% }}
.stage {{ height: 460px; border: 1px solid #dcdcd6; border-radius: 8px; overflow: hidden; background: #f1f1ec; display: grid }}
.stage button {{ place-self: center; font: inherit; padding: .6rem 1.4rem; border: 0; border-radius: 6px;
  background: #2f5d8a; color: #fff; cursor: pointer }}
.stage iframe {{ border: 0; width: 100%; height: 100% }}
</style></head><body>
{body}
<script>
for (const stage of document.querySelectorAll(".stage")) {{
  const play = () => {{
    const bytes = Uint8Array.from(atob(stage.nextElementSibling.textContent), c => c.charCodeAt(0));
    const frame = document.createElement("iframe");
    frame.srcdoc = new TextDecoder().decode(bytes);
    stage.replaceChildren(frame);
  }};
  stage.querySelector("button").onclick = play;
  if (stage.dataset.auto === "1") play();
}}
</script>
</body></html>
"""
