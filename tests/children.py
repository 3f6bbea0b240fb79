"""Child processes of the tests, and what they may say."""

from pathlib import Path
from subprocess import CompletedProcess

ROOT = Path(__file__).resolve().parent.parent


def one_sentence(child: "CompletedProcess[str]") -> bool:
    """Whether a child ended with exit code 2, one line on standard error, and no traceback."""
    return child.returncode == 2 and len(child.stderr.splitlines()) == 1 and child.stderr.startswith("hybridwm: ")
