"""Brax and MJX talk while they load: of an optional package, of a dependency's age, of Brax's own engines being frozen.

All of it is known here, since the versions are pinned, so it is kept from users; anything else still comes through.

    with quietly():
        from brax.io import mjcf
"""

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

_KNOWN_WARNINGS = ("JAXopt is no longer maintained", "Brax System, piplines and environments")
_KNOWN_LINES = ("Failed to import warp", "Failed to import mujoco_warp")


@contextmanager
def quietly() -> Iterator[None]:
    """Hide the known load-time messages of brax and mjx, and only those."""
    said = io.StringIO()
    with warnings.catch_warnings():
        for message in _KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        try:
            with redirect_stdout(said):
                yield
        finally:
            unknown = [line for line in said.getvalue().splitlines(keepends=True) if not line.startswith(_KNOWN_LINES)]
            sys.stdout.writelines(unknown)
