"""Results of studies and benchmarks: one folder each, with `results.json`, figures and tables.

    study, command, config, versions, machine, date, seeds     where the numbers come from
    figure                                                     the picture beside the file that shows them, or null
    numbers                                                    everything measured, nested as the study likes
    claims                                                     value against target, and whether it holds

`holds` has one definition, here, and is computed again on reading: a file that says otherwise is refused.
"""

import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from hybridwm import study as studies
from hybridwm import versions
from hybridwm.runtime import core_count

_BETTER = ("lower", "higher")


def holds(value: float | None, target: float, better: str) -> bool:
    """Whether a measured value reaches its target; a missing or non-finite value never does."""
    if value is None or not math.isfinite(value):
        return False
    return value <= target if better == "lower" else value >= target


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement with a number behind it; `better` is lower or higher, `interval` the uncertainty of `value`."""

    id: str
    statement: str
    value: float | None
    target: float
    better: str
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.better not in _BETTER:
            raise ValueError(f"claim {self.id!r}: better is {self.better!r}; allowed are lower and higher")
        if not math.isfinite(self.target):
            raise ValueError(f"claim {self.id!r}: the target is {self.target}; it must be finite")

    @property
    def holds(self) -> bool:
        """Whether `value` reaches `target`."""
        return holds(self.value, self.target, self.better)


class Results(NamedTuple):
    """What one `results.json` says; `body` is the whole file."""

    path: Path
    study: str
    claims: tuple[Claim, ...]
    body: dict[str, Any]


def write(
    out: Path,
    *,
    study: str,
    config: Any,
    numbers: Mapping[str, Any],
    claims: Sequence[Claim],
    seeds: Sequence[int] = (),
    command: str | None = None,
    figure: str | None = None,
) -> Results:
    """Write `out`/results.json, whole or not at all, and return what it says. `config` is a mapping or a dataclass."""
    body = {
        "study": study,
        "command": command or _command(study, config),
        "config": _settings(config),
        "versions": {"python": platform.python_version(), **{v.name: v.installed for v in versions.compare()}},
        "machine": machine(),
        "date": date.today().isoformat(),
        "seeds": list(seeds),
        "figure": figure,
        "numbers": numbers,
        "claims": [asdict(claim) | {"holds": claim.holds} for claim in claims],
    }
    out.mkdir(parents=True, exist_ok=True)
    path, part = out / "results.json", out / f".results.{os.getpid()}"
    part.write_text(json.dumps(plain(body), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)
    return read(path)


def _command(name: str, config: Any) -> str:
    """What asks a study for these options; of anything else what was typed."""
    if isinstance(config, studies.Study):
        return studies.command(name, config)
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _settings(config: Any) -> Any:
    """A mapping as it is; of options all but the folder that the results go to."""
    if not is_dataclass(config) or isinstance(config, type):
        return config
    return {name: value for name, value in asdict(config).items() if name != "out"}


def read(path: Path) -> Results:
    """Read a `results.json`, or the one in a folder."""
    path = path / "results.json" if path.is_dir() else path
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        claims = tuple(_claim(entry) for entry in body["claims"])
        return Results(path, str(body["study"]), claims, body)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise ValueError(f"{path} is not a results file: {error.args[0]!r} is missing") from error
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not a results file: {error}") from error


def figure_of(result: Results) -> Path | None:
    """The figure that a results file names; of a file that names none, the first picture beside it. None: there is none."""
    folder, named = result.path.parent, result.body.get("figure")
    found = [folder / named] if isinstance(named, str) else sorted(folder.glob("*.png"))
    return next((path for path in found if path.is_file()), None)


def _claim(entry: dict[str, Any]) -> Claim:
    fields: dict[str, Any] = dict(entry)
    said = fields.pop("holds")
    if fields.get("interval") is not None:
        fields["interval"] = tuple(fields["interval"])
    claim = Claim(**fields)
    if said is not claim.holds:
        raise ValueError(f"claim {claim.id!r} says holds={said}, its value and target say {claim.holds}")
    return claim


def machine() -> dict[str, Any]:
    """Cores, memory and accelerator of this machine. Starts JAX's backend only if JAX is already loaded."""
    jax = sys.modules.get("jax")
    kinds = sorted({device.device_kind for device in jax.devices()}) if jax else []
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    accelerator = None if not jax or jax.default_backend() == "cpu" else ", ".join(kinds)
    return {"cores": core_count(), "memory_gib": round(pages / 2**30, 1), "accelerator": accelerator}


def plain(value: Any) -> Any:
    """JSON's own types; arrays become lists, non-finite numbers null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
