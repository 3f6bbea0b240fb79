"""The study `toss`: measured throws of a cube, and of two hinged boxes, on a board.

Every throw is continued from its first row to its last and scored as everybody scores this set (`measured.tosses`). Models
are fitted to the throws of all other folds, or to 4, 8, 16 … 256 of them:

    identified     our engine, elliptic cone, with friction, stiffness, damping, scale and inertia found from the throws
    pyramidal      the same with MuJoCo's default cone
    hybrid         the identified engine with a learned correction before its contact solve, trusted as far as it has
                   earned on throws that came after those that it learned from (fits.trusted)
    network        a network in the engine's place: the same throws, twice the updates

Finished fits are kept in `--out`/parts: an interrupted run goes on where it was.
"""

import functools
from typing import NamedTuple

import numpy as np

from experiments.measured.splits import fingerprint, finished
from experiments.reporting import publish
from experiments.toss import fits, models, pictures, sets, things, verdicts
from experiments.toss.fitting import Effort
from experiments.toss.models import Model
from experiments.toss.options import Toss
from experiments.toss.things import Thing

SIZES = (4, 8, 16, 32, 64, 128, 256)
QUICK_SIZES = (16, 32)
ELBOW_SIZES = (64, None)
QUICK = Effort(descent=10, search=4, alone=1)
VERSION = 4  # of the method: finished parts of another one are not used


class Job(NamedTuple):
    """One set of fits to do: `size` None is all that a group knows."""

    thing: str
    model: str
    size: int | None
    seed: int

    @property
    def name(self) -> str:
        """File name of its part."""
        return f"{self.thing}-{self.model}-{self.size or 'all'}-{self.seed}"


def sizes_of(options: Toss, most: int) -> tuple[int | None, ...]:
    """The sizes of the learning curve that a fold can give, then all of it."""
    return (*(s for s in (QUICK_SIZES if options.quick else SIZES) if s < most), None)


def run(options: Toss) -> None:
    """Fit and score everything, write results.json, figures and tables, and print the claims."""
    effort = QUICK if options.quick else Effort()
    reading = {"cube": sets.read_cubes} | ({} if options.no_elbow or options.quick else {"elbow": sets.read_elbows})
    data = {
        name: (read(options.data), read(options.holdout) if options.holdout else None) for name, read in reading.items()
    }
    found = {name: _thing(options, name, *both, effort) for name, both in data.items()}
    numbers, claims, tables = verdicts.of(found)
    pictures.draw(numbers["cube"], options.out)
    pictures.replays(found, {name: aside or own for name, (own, aside) in data.items()}, options.out)
    publish("toss", options.told, numbers, claims, tables, seeds=range(options.seeds))


def _thing(options: Toss, name: str, data: sets.Set, aside: sets.Set | None, effort: Effort) -> "Parts":
    """Parts of one thing by model and size ("hybrid-32"), one per seed."""
    print(f"{name}: {data.throws.number} throws" + (f", {aside.throws.number} kept aside" if aside else ""))
    out: Parts = {}
    for seed in range(options.seed, options.seed + options.seeds):
        groups, fewer, known = fits.groups_of(data, aside, options.folds, seed), dict[str, Part](), 0
        for size in sizes_of(options, groups.most) if name == "cube" else ELBOW_SIZES:
            for kind in KINDS if size is None else KINDS[:1] + LEARNED:
                job = Job(name, kind, size, seed)
                about = (data.digest, aside.digest if aside else "", options.folds, list(effort), VERSION, job)
                about += (fits.MEMBERS,) if kind in LEARNED else ()
                path = options.out / "parts" / f"{job.name}.npz"
                work = functools.partial(_fit, job, groups, effort, fewer.get(kind), fewer.get("identified"))
                part, before = finished(path, fingerprint(*about, options.quick), work), fewer.get(kind)
                fewer[kind] = part
                if kind == "hybrid":
                    number = size or groups.most
                    work = functools.partial(
                        fits.trusted, *model_of(name, kind), groups, part, effort, before, known, number
                    )
                    about = (*about, fits.TRUSTS, fits.HANDICAP, fits.LEAST_TRUSTED, known)
                    out.setdefault(f"untested-{size or 'all'}", []).append(part)
                    part = finished(path.with_name(f"trust-{path.name}"), fingerprint(*about, options.quick), work)
                    known = number
                out.setdefault(f"{kind}-{size or 'all'}", []).append(part)
                print(f"{job.name:<28} {verdicts.line(part)}", flush=True)
    return out


KINDS = ("identified", "pyramidal", "hybrid", "network")
LEARNED = KINDS[2:]
Part = dict[str, np.ndarray]
Parts = dict[str, list[Part]]


@functools.cache
def model_of(name: str, kind: str) -> tuple[Thing, Model]:
    """The thing and the model of a job."""
    cone = "pyramidal" if kind == "pyramidal" else "elliptic"
    thing = things.cube(cone) if name == "cube" else things.elbow(cone)
    made = {"hybrid": models.hybrid, "network": models.alone}.get(kind, models.physics)
    return thing, made(thing)


def _fit(job: Job, groups: fits.Groups, effort: Effort, fewer: Part | None, physics: Part | None) -> Part:
    """`fewer`: the same model from fewer throws; `physics`: the identified physics of these throws."""
    thing, model = model_of(job.thing, job.model)
    if job.model in ("identified", "pyramidal"):
        return fits.fit_physics(thing, model, groups, job.size, effort, job.seed, fewer)
    assert physics is not None
    return fits.fit_network(thing, model, groups, job.size, effort, job.seed, fewer, physics["phi"])
