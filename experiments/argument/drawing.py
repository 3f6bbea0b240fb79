"""One look for the figures of the six studies: a colour for each contender, the same in all."""

from pathlib import Path
from typing import Any

COLOURS = {
    "reality": "#222222",
    "engine": "#3f8f5b",
    "hybrid": "#d9783c",
    "identified": "#3a6ea5",
    "physics": "#3a6ea5",
    "given": "#9a9a9a",
    "network": "#8a5aa8",
    "untrusted": "#b8a13a",
}
_STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 9,
    "legend.frameon": False,
}


def canvas(columns: int, rows: int = 1, *, width: float = 4.0, height: float = 3.3) -> tuple[Any, Any]:
    """(figure, axes [rows, columns])."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(width * columns, height * rows), dpi=130, layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, squeeze=False)


def save(figure: Any, path: Path) -> None:
    """As a picture, into a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
