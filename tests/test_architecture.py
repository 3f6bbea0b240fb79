"""The arrows between packages, and the habits that keep imports harmless. All of it is read from the files as they are,
so a new file is covered when it appears."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jaxprs import lapack_primitives

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("hybridwm", "physics", "planners", "experiments")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

FORBIDDEN = {
    "physics": {"planners", "hybridwm", "experiments"},
    "planners": {"physics", "hybridwm", "experiments", "brax", "flax", "mujoco"},
    "hybridwm": {"experiments", "brax", "mujoco"},
    "experiments": {"brax", "mujoco"},
}
NEVER = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "brax.training", "brax.io.model", "jaxopt"}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree, module, *, is_package, at_runtime=False):
    """Every module that a file imports, wherever in the file; `from a import b` names `a` and `a.b`."""
    for node in ast.walk(tree) if at_runtime else ():
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if is_package else module.split(".")[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (
                arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            )


def imports_of(path, **options):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return set(imports(tree, module_name(path), is_package=path.name == "__init__.py", **options))


def names_any(imported, forbidden):
    return {name for name in imported for word in forbidden if name == word or name.startswith(word + ".")}


def unsafe_calls(tree):
    """eval and exec; yaml's loaders other than the safe one; numpy's with pickles allowed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            yaml_load = called.startswith("yaml.") and "load" in called and not called.startswith("yaml.safe_load")
            pickles = any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords)
            if called in ("eval", "exec") or yaml_load or pickles:
                yield ast.unparse(node)


LAPACK_CALL = re.compile(
    r"(jnp\.linalg|jax\.numpy\.linalg|jax\.scipy\.linalg|jsp\.linalg|lax\.linalg|jsl)\."
    r"(cholesky|cho_|solve|inv|pinv|lstsq|qr|eig|svd|lu|det|slogdet|matrix_rank|cond|expm|triangular_solve)"
)
HANGS_ON_PURPOSE = {"hybridwm.deadlock"}


def lapack_calls(tree):
    """Calls that XLA would hand to LAPACK; imports of such functions by name count too."""
    lines = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    lines += [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    return {line for line in lines if LAPACK_CALL.match(line)}


def circle(graph):
    """A list of modules that import each other in turn, or None."""
    done = set()

    def visit(name, trail):
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return None
        found = next((c for c in (visit(n, [*trail, name]) for n in sorted(graph.get(name, ()))) if c), None)
        done.add(name)
        return found

    return next((c for c in (visit(name, []) for name in sorted(graph)) if c), None)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_arrows_and_habits(path):
    package = path.relative_to(ROOT).parts[0]
    imported = imports_of(path)
    assert not names_any(imported, FORBIDDEN[package]), f"{package} must not know these"
    assert not names_any(imported, NEVER), "never imported here"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not list(unsafe_calls(tree)), "runs code from data"
    assert module_name(path) in HANGS_ON_PURPOSE or not lapack_calls(tree), "can hang jaxlib 0.10.2"


def test_no_circles():
    graph = {module_name(path): imports_of(path, at_runtime=True) for path in FILES}
    ours = {name: {found for found in graph[name] if found in graph and found != name} for name in graph}
    assert circle(ours) is None


def test_the_checks_see_what_they_forbid():
    tree = ast.parse("from ..physics import scene\ndef f():\n    import brax.io.mjcf\n    import_module('flax.nnx')")
    found = set(imports(tree, "planners.search", is_package=False))
    assert names_any(found, FORBIDDEN["planners"]) == {"physics", "physics.scene", "brax.io.mjcf", "flax.nnx"}
    assert "physics.scene" in set(imports(ast.parse("from . import scene"), "physics.engine", is_package=False))
    unsafe = "eval(x); yaml.load(f); yaml.unsafe_load(f); np.load(f, allow_pickle=True); yaml.safe_load(f); m.eval()"
    assert len(list(unsafe_calls(ast.parse(unsafe)))) == 4
    calls = "jnp.linalg.inv(a); from jax.scipy.linalg import cho_solve; jnp.linalg.norm(a); np.linalg.inv(a)"
    assert lapack_calls(ast.parse(calls)) == {"jnp.linalg.inv", "jax.scipy.linalg.cho_solve"}
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


_IMPORT_ALL = """
import importlib, json, sys
import jax
before = dict(jax.config.values)
for name in sys.argv[1:]:
    importlib.import_module(name)
from jax._src import xla_bridge
print(json.dumps({"backends": sorted(xla_bridge._backends), "changed": before != dict(jax.config.values)}))
"""


def python(code, *args):
    child = subprocess.run([sys.executable, "-P", "-c", code, *args], capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    return child


def test_importing_every_module_starts_nothing_and_says_nothing():
    modules = [module_name(path) for path in FILES if path.stem != "__main__"]
    child = python(_IMPORT_ALL, *modules)
    assert json.loads(child.stdout) == {"backends": [], "changed": False}, "a module works at import"
    assert child.stderr == ""


def test_import_hybridwm_loads_no_jax():
    child = python("import sys, hybridwm, physics, planners; print('jax' in sys.modules, 'numpy' in sys.modules)")
    assert child.stdout.split() == ["False", "False"]


def test_a_started_backend_would_be_seen():
    child = python("import jax.numpy as jnp; jnp.zeros(1)\n" + _IMPORT_ALL)
    assert json.loads(child.stdout)["backends"] == ["cpu"]


def type_checking_names(package):
    """What a package's `if TYPE_CHECKING:` hands on: {module: names}."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    found = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    assert all(alias.asname == alias.name for node in found for alias in node.names), (
        "write `x as x`: it is a re-export"
    )
    names = [(node.module, alias.name) for node in found for alias in node.names]
    return {module: sorted(name for home, name in names if home == module) for module, _ in names}


@pytest.mark.parametrize("package", ["hybridwm", "physics", "planners"])
def test_public_names(package):
    module = __import__(package)
    assert {home: sorted(names) for home, names in module._HOMES.items()} == type_checking_names(package)
    siblings = {path.stem for path in (ROOT / package).glob("*.py")}
    assert not siblings & set(dir(module)), "importing a submodule of this name would hide the public one"
    assert all(getattr(module, name) is not None for name in dir(module))
    with pytest.raises(AttributeError, match="nonsense"):
        module.nonsense  # noqa: B018


def test_hybridwm_hands_on_all_public_names_of_the_ground_floor():
    import hybridwm
    import physics
    import planners

    assert set(dir(physics)) == set(hybridwm._HOMES.get("physics", ()))
    assert set(dir(planners)) == set(hybridwm._HOMES.get("planners", ()))


LINEAR_ALGEBRA = {
    "cholesky": jnp.linalg.cholesky,
    "lu": lambda a: jnp.linalg.solve(a, a[0]),
    "triangular_solve": lambda a: jax.scipy.linalg.solve_triangular(a, a[0]),
    "inv": jnp.linalg.inv,
    "qr": jnp.linalg.qr,
    "eigh": jnp.linalg.eigh,
    "svd": jnp.linalg.svd,
    "cho_solve": lambda a: jax.scipy.linalg.cho_solve((a, True), a[0]),
}


@pytest.mark.parametrize("name", LINEAR_ALGEBRA)
def test_lapack_is_found_however_deep(name):
    def deep(a):
        def body(carry, _):
            return carry + jax.lax.cond(True, lambda x: jnp.sum(LINEAR_ALGEBRA[name](x)[0]), lambda x: 0.0, a), None

        return jax.lax.scan(body, 0.0, None, length=2)[0]

    assert lapack_primitives(jax.make_jaxpr(jax.jit(jax.vmap(deep)))(jnp.ones((4, 3, 3))))


def test_plain_products_are_not_lapack():
    assert not lapack_primitives(jax.make_jaxpr(jax.vmap(lambda a: a @ a))(jnp.ones((4, 3, 3))))


BIG = [pytest.param(name, marks=pytest.mark.slow) for name in ("arm", "glass")]


@pytest.mark.parametrize("name", ["pushed_box", "snapping_rod", *BIG])  # contacts; bonds; both and more dofs
def test_no_lapack_in_a_batched_rollout(name):
    import physics

    scene, worlds = physics.load_scene(name), 4
    engine, params = physics.brax_engine(scene), jax.tree.map(jnp.asarray, physics.nominal(scene))
    qpos, qvel = (jnp.repeat(jnp.asarray(x)[:, None], worlds, axis=1) for x in scene.home())
    ctrls = jnp.zeros((3, scene.model.nu, worlds))

    def effort(params, qpos, qvel, ctrls):
        last, _ = engine.rollout(params, engine.init(params, qpos, qvel), ctrls)
        return jnp.sum(last.qpos**2)

    gradient = jax.grad(effort, argnums=(0, 1, 2, 3))
    assert not lapack_primitives(jax.make_jaxpr(gradient)(params, qpos, qvel, ctrls))
