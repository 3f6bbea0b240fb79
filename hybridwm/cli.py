"""The command `hybridwm`. Exit codes: 0 done, 2 bad input (one sentence), 1 our fault (and where the full story is).

`--help` and mistakes in options never import JAX: they are answered from dataclasses in modules free of it.
"""

import contextlib
import difflib
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import tyro

from hybridwm import shadows, study, versions
from hybridwm.commands import COMMANDS, RunAll
from hybridwm.runtime import prepare

_OURS = {"hybridwm", "physics", "planners", "experiments"}


def entry() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def main(args: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        return _run(list(args))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        return _say("interrupted", code=130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _say(f"{error.strerror}: {error.filename}") if error.filename else _our_fault(error)
    except ValueError as error:
        return _say(str(error)) if _is_refusal(error) else _our_fault(error)
    except Exception as error:
        return _our_fault(error)


def _run(args: list[str]) -> int:
    if hidden := shadows.shadow():
        raise ValueError(hidden)
    if not args or args[0] in ("-h", "--help"):
        print(_overview())
        return 0 if args else 2
    if args[0] == "--version":
        print(f"hybridwm {metadata.version('hybridwm')}")
        return 0
    name = _known(args[0], ["run", *COMMANDS], "command")
    if name != "run":
        return parse(COMMANDS[name], args[1:], f"hybridwm {name}").run() or 0
    return _run_study(args[1:])


def _run_study(args: list[str]) -> int:
    names = study.study_names()
    if not args or args[0] in ("-h", "--help"):
        print(f"usage: hybridwm run NAME [options]\n\nstudies: {', '.join(names) or 'none is installed'}; or all")
        return 0 if args else 2
    if args[0] == "all":
        return parse(RunAll, args[1:], "hybridwm run all").run()
    name = _known(args[0], [*names, "all"], "study")
    options = parse(study.load_study(name), args[1:], f"hybridwm run {name}")
    versions.require_engines()
    prepare(x64=options.x64)
    return options.run() or 0


def parse(options: Any, args: list[str], prog: str) -> Any:
    """Options from the command line; a mistake becomes one sentence with a suggestion."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed, unknown = tyro.cli(
                options, prog=prog, args=args, return_unknown_args=True, config=(tyro.conf.FlagCreatePairsOff,)
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_sentence(said.getvalue())) from None
    if unknown:
        fields = ["--" + name.replace("_", "-") for name in options.__dataclass_fields__]
        raise _unknown(unknown[0], ["--help", *fields], f"option of {prog}")
    return parsed


def _known(word: str, allowed: list[str], kind: str) -> str:
    if word not in allowed:
        raise _unknown(word, allowed, kind)
    return word


def _unknown(word: str, allowed: list[str], kind: str) -> ValueError:
    close = difflib.get_close_matches(word, allowed, n=1)
    hint = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(allowed) or 'none'}"
    return ValueError(f"{word!r} is no {kind}; {hint}")


def _sentence(box: str) -> str:
    """The message inside one of tyro's frames: the lines under the title, up to the rule."""
    lines = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    message = lines[: next((i for i, line in enumerate(lines) if line.startswith("──")), len(lines))]
    return " ".join(message) or box.strip()


def _overview() -> str:
    purposes = {name: str(options.__doc__).splitlines()[0] for name, options in COMMANDS.items()}
    purposes["run NAME"] = f"Run a study: {', '.join(study.study_names()) or 'none is installed yet'}."
    lines = [f"  {name:<10} {purpose}" for name, purpose in sorted(purposes.items())]
    return "\n".join(
        ["usage: hybridwm COMMAND [options]", "", *lines, "", "hybridwm COMMAND --help shows the options."]
    )


def _is_refusal(error: Exception) -> bool:
    """Whether the error was raised by our code, or by a study's, rather than by a library that we called wrongly."""
    frames = [
        frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    studies = {point.module.partition(".")[0] for point in metadata.entry_points(group=study.GROUP)}
    return frames[-1] in _OURS | studies


def _say(sentence: str, *, code: int = 2) -> int:
    print(f"hybridwm: {sentence}", file=sys.stderr)
    return code


def _our_fault(error: Exception) -> int:
    with tempfile.NamedTemporaryFile("w", prefix="hybridwm-", suffix=".log", delete=False, encoding="utf-8") as log:
        log.write(f"hybridwm {' '.join(sys.argv[1:])}\n\n" + "".join(traceback.format_exception(error)))
    first = str(error).partition("\n")[0]
    return _say(f"this is our fault, not yours: {type(error).__name__}: {first}; the full log is {log.name}", code=1)
