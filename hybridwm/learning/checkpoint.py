"""Fitted models and half-finished trainings on disk, sealed (see `hybridwm.learning.sealing`).

    MODEL/000000000001/params/      arrays of the parameters, by Orbax
                       scene.xml    the scene, to read
                       manifest     versions, scene, options, report, structure of the parameters, SHA-256 of every file
    LOG/000000000123/state.npz      one state of a training; Orbax would take 60 to 190 ms for each, this takes 5

What is damaged, was fitted on another scene, or by another version of these types, is refused by name.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import physics
from hybridwm import versions
from hybridwm.learning.encoding import decoded, encoded
from hybridwm.learning.fitting import FitOptions, Fitted
from hybridwm.learning.sealing import seal, unseal, version_path
from hybridwm.learning.sealing import versions as sealed_versions
from hybridwm.world.model import WorldModel, WorldParams, world_model

MODEL, LOG = "hybridwm model 1", "hybridwm training 1"


class Saved(NamedTuple):
    """What a folder of a fitted model holds."""

    model: WorldModel
    params: WorldParams
    identified: WorldParams | None  # the rival: physics with identified θ, nothing learned
    options: FitOptions
    report: Mapping[str, Any]  # how the fit came out
    versions: Mapping[str, Any]  # of the packages it was fitted with


def save_model(folder: str | Path, fitted: Fitted, options: FitOptions) -> Path:
    """Save a fitted model as the newest version in a folder; the version before it is kept."""
    import orbax.checkpoint as ocp

    scene, folder = fitted.model.engine.scene, Path(folder)
    plain = fitted.identified.params if fitted.identified else None
    tree, arrays = encoded({"params": fitted.params, "identified": plain})
    settings, none = encoded(options)
    assert not none
    about = {
        "format": MODEL,
        "scene": {"name": scene.name, "digest": scene.digest},
        "declared": [event.name for event in fitted.model.spec.declared],
        "structure": tree,
        "options": settings,
        "report": _report(fitted),
        "versions": {found.name: found.installed for found in versions.compare()},
    }

    def write(part: Path) -> None:
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save((part / "params").absolute(), arrays)
        (part / "scene.xml").write_text(scene.xml, encoding="utf-8")

    return seal(folder, max(sealed_versions(folder), default=0) + 1, write, about)


def load_model(
    folder: str | Path, scene: physics.Scene | None = None, *, declared: tuple[Any, ...] = ()
) -> tuple[WorldModel, WorldParams]:
    """The newest model in a folder; see `load_saved`."""
    return load_saved(folder, scene, declared=declared)[:2]


def load_saved(folder: str | Path, scene: physics.Scene | None = None, *, declared: tuple[Any, ...] = ()) -> Saved:
    """Everything of the newest model in a folder.

    scene: the scene it must have been fitted on; None only where that is a shipped one. declared: the events that were declared
    for the fit, since functions are not saved.
    """
    place, about = _newest(Path(folder), MODEL, "a fitted model")
    found = _scene(place, about["scene"], scene)
    if [event.name for event in declared] != about["declared"]:
        wanted = ", ".join(about["declared"]) or "none"
        raise ValueError(f"{place}: fitted with declared events: {wanted}; give the same in `declared`")
    arrays = _arrays(place)
    try:
        tree, options = decoded(about["structure"], arrays), decoded(about["options"], {})
        params, plain = tree["params"], tree["identified"]
    except KeyError as error:
        raise ValueError(f"{place}: saved by another version: {error} is missing") from None
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    model = world_model(physics.brax_engine(found), options.model, declared=declared)
    _fits(place, model, params)
    return Saved(model, params, plain, options, about["report"], about["versions"])


class TrainingLog:
    """States of a training, so that one that was killed goes on where it was; `about`, what it is, must then agree."""

    def __init__(self, folder: str | Path, about: Mapping[str, Any] | None = None) -> None:
        self.folder, self.about = Path(folder), dict(about or {})

    def save(self, number: int, state: Any) -> None:
        """Save a state under a number larger than all before."""
        leaves = _named_leaves(state)

        def write(part: Path) -> None:
            with (part / "state.npz").open("wb") as file:
                np.savez(file, **leaves)  # pyright: ignore[reportArgumentType]

        seal(self.folder, number, write, {"format": LOG, "training": self.about})

    def latest(self, like: Any) -> tuple[int, Any] | None:
        """(number, state) of the last one saved, with the structure, shapes and types of `like`; None if there is none."""
        if not (found := sealed_versions(self.folder)):
            return None
        place, about = _newest(self.folder, LOG, "a training")
        if about["training"] != self.about:
            changed = sorted(
                k for k in {*about["training"], *self.about} if about["training"].get(k) != self.about.get(k)
            )
            raise ValueError(
                f"{place}: of another training ({', '.join(changed)} differ); give a new folder, or remove it"
            )
        with np.load(place / "state.npz", allow_pickle=False) as arrays:
            return found[-1], _restored(place, like, dict(arrays))


def _report(fitted: Fitted) -> dict[str, Any]:
    said = {"kept": bool(fitted.kept), **fitted.report}
    if fitted.worth:
        said["worth"] = {"ratio": float(fitted.worth.ratio), "interval": [float(x) for x in fitted.worth.interval]}
    if fitted.identified:
        said["identified"] = list(fitted.identified.report)
    return json.loads(json.dumps(said, default=lambda x: x.tolist()), parse_constant=lambda _: None)


def _newest(folder: Path, form: str, what: str) -> tuple[Path, dict[str, Any]]:
    found = sealed_versions(folder)
    if not found:
        raise ValueError(f"{folder}: {'no such folder' if not folder.is_dir() else f'{what} is not in it'}")
    place = version_path(folder, found[-1])
    about = unseal(place)
    if about.get("format") != form:
        raise ValueError(f"{place}: is {about.get('format')!r}; expected {form!r}")
    return place, about


def _scene(place: Path, said: Mapping[str, str], given: physics.Scene | None) -> physics.Scene:
    """The scene that was fitted on: the given one, a shipped one, or the one in the folder where six digits say it all."""
    if given is not None:
        if given.digest != said["digest"]:
            raise ValueError(
                f"{place}: fitted on scene {said['name']!r} ({said['digest'][:12]}), not on {given.name!r} ({given.digest[:12]})"
            )
        return given
    shipped = physics.load_scene(said["name"]) if said["name"] in physics.shipped_scenes() else None
    if shipped is not None and shipped.digest == said["digest"]:
        return shipped
    read = physics.load_scene((place / "scene.xml").read_text(encoding="utf-8"))
    if read.digest != said["digest"]:
        raise ValueError(
            f"{place}: fitted on scene {said['name']!r}, which does not come with hybridwm; give the scene too"
        )
    return read


def _arrays(place: Path) -> dict[str, np.ndarray]:
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore((place / "params").absolute())


def _fits(place: Path, model: WorldModel, params: WorldParams) -> None:
    """Refuse weights of other sizes than this version makes for the scene and the options."""
    if params.residual is None:
        return
    wanted = jax.eval_shape(model.residual.fresh, jax.random.key(0))
    parts = len(params.residual.weights), len(wanted.weights)
    if parts[0] != parts[1]:
        raise ValueError(
            f"{place}: networks for {parts[0]} kinds of objects; this version of hybridwm needs {parts[1]}"
        )
    for (path, want), (_, have) in zip(
        *(jax.tree.flatten_with_path(x)[0] for x in (wanted, params.residual)), strict=True
    ):
        if want.shape != have.shape:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(
                f"{place}: residual.{name} is {list(have.shape)}; this version of hybridwm needs {list(want.shape)}"
            )


def _named_leaves(state: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(_bare(leaf)) for name, leaf in _leaves(state)}


def _leaves(state: Any) -> list[tuple[str, Any]]:
    flat, _ = jax.tree.flatten_with_path(state)
    return [
        (f"{i:04d} {jax.tree_util.keystr(path, simple=True, separator='.')}", x) for i, (path, x) in enumerate(flat)
    ]


def _bare(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _restored(place: Path, like: Any, arrays: dict[str, np.ndarray]) -> Any:
    named = _leaves(like)
    if [name for name, _ in named] != sorted(arrays):
        strange = sorted({name for name, _ in named} ^ set(arrays))[:3]
        raise ValueError(f"{place}: of another training; parts that differ: {', '.join(strange)}")
    return jax.tree.unflatten(jax.tree.structure(like), [_leaf(place, name, x, arrays[name]) for name, x in named])


def _leaf(place: Path, name: str, like: Any, found: np.ndarray) -> Any:
    want = np.asarray(_bare(like))
    if found.shape != want.shape or found.dtype != want.dtype:
        raise ValueError(
            f"{place}: {name.partition(' ')[2]} is {found.dtype}{list(found.shape)}; expected {want.dtype}{list(want.shape)}"
        )
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(found), impl=jax.random.key_impl(like))
    if isinstance(like, jax.Array):
        return jnp.asarray(found)
    return found if isinstance(like, np.ndarray) else type(like)(found[()])
